//! `ask`: one small question to a server's read door.

use std::path::PathBuf;
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use runferry_engine::ask::{Asking, Question, Unanswered};

use crate::errors;

/// How often Python's signals are looked after: Ctrl-C ends the wait.
const LOOK_UP_EVERY: Duration = Duration::from_millis(50);

/// No question waits longer: deadlines are sums.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3600);

/// Status, its name, and the body (64 KiB at most) of `GET base_url + path`.
#[pyfunction]
#[pyo3(signature = (base_url, path, *, api_key, ca_file, timeout_s))]
pub(crate) fn ask(
    py: Python<'_>,
    base_url: String,
    path: String,
    api_key: Option<String>,
    ca_file: Option<PathBuf>,
    timeout_s: f64,
) -> PyResult<(u16, &'static str, Bound<'_, PyBytes>)> {
    let timeout = Duration::try_from_secs_f64(timeout_s).unwrap_or(LONGEST_WAIT).min(LONGEST_WAIT);
    let mut asking = Asking::new(Question { base_url, path, api_key, ca_file, timeout })?;
    let answer = loop {
        if let Some(answer) = py.detach(|| asking.wait(LOOK_UP_EVERY)) {
            break answer;
        }
        py.check_signals()?;
    };
    let reply = answer.map_err(|error| exception(py, &error))?;
    Ok((reply.status, reply.reason, PyBytes::new(py, &reply.body)))
}

fn exception(py: Python<'_>, error: &Unanswered) -> PyErr {
    let name = match error {
        Unanswered::Unreachable(..) => "UnreachableError",
        Unanswered::NotRunferry(..) => "NotRunferryError",
        Unanswered::Untrusted(..) => "UntrustedError",
        Unanswered::BadAddress(..) => "CommError",
    };
    errors::exception(py, name, error.to_string())
}
