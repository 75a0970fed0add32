//! Errors of the Rust side as the exceptions of `runferry.errors`: one match per error, the causes joined into the message.

use pyo3::prelude::*;
use runferry_engine::StartError;

pub(crate) fn exception(py: Python<'_>, name: &str, text: String) -> PyErr {
    let class = py.import("runferry.errors").and_then(|module| module.getattr(name));
    match class.and_then(|class| class.call1((text,))) {
        Ok(exception) => PyErr::from_value(exception),
        Err(error) => error,
    }
}

pub(crate) fn usage_error(py: Python<'_>, text: String) -> PyErr {
    exception(py, "UsageError", text)
}

pub(crate) fn full_error(py: Python<'_>, text: String) -> PyErr {
    exception(py, "JournalFullError", text)
}

pub(crate) fn journal_error(py: Python<'_>, error: &StartError) -> PyErr {
    exception(py, "JournalError", text_of(error))
}

/// An error with its causes.
pub(crate) fn text_of(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
