//! Python objects to documents: config, summary, OPEN.

use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};
use runferry_wire::Doc;
use runferry_wire::doc::MAX_DEPTH;

/// The document of a Python object. What has no document form is kept as its text.
pub(crate) fn doc_of(value: &Bound<'_, PyAny>) -> PyResult<Doc> {
    doc_at(value, 0)
}

fn doc_at(value: &Bound<'_, PyAny>, depth: usize) -> PyResult<Doc> {
    if value.is_none() {
        return Ok(Doc::Nil);
    }
    if let Ok(value) = value.cast::<PyBool>() {
        return Ok(Doc::Bool(value.is_true()));
    }
    if value.is_instance_of::<PyInt>() {
        return Ok(match (value.extract::<i64>(), value.extract::<u64>()) {
            (Ok(value), _) => Doc::Int(value),
            (Err(_), Ok(value)) => Doc::Uint(value),
            // As the W&B SDK: an integer beyond 64 bits becomes a float; beyond its range too, text.
            _ => value.extract::<f64>().map_or_else(|_| text(value), Doc::F64),
        });
    }
    if value.is_instance_of::<PyFloat>() {
        return Ok(Doc::F64(value.extract()?));
    }
    if let Ok(value) = value.cast::<PyString>() {
        return Ok(Doc::Str(value.to_string_lossy().into_owned()));
    }
    if let Ok(value) = value.cast::<PyBytes>() {
        return Ok(Doc::Bin(value.as_bytes().to_vec()));
    }
    if depth >= MAX_DEPTH {
        return Ok(text(value));
    }
    if let Ok(dict) = value.cast::<PyDict>() {
        let pair = |(name, value): (Bound<'_, PyAny>, Bound<'_, PyAny>)| {
            Ok((name.str()?.to_string_lossy().into_owned(), doc_at(&value, depth + 1)?))
        };
        return Ok(Doc::Map(dict.iter().map(pair).collect::<PyResult<_>>()?));
    }
    if value.is_instance_of::<PyList>() || value.is_instance_of::<PyTuple>() {
        let items = value.try_iter()?.map(|item| doc_at(&item?, depth + 1));
        return Ok(Doc::Array(items.collect::<PyResult<_>>()?));
    }
    Ok(text(value))
}

fn text(value: &Bound<'_, PyAny>) -> Doc {
    let text = value.str().map(|text| text.to_string_lossy().into_owned());
    Doc::Str(text.unwrap_or_else(|_| "<no text>".to_owned()))
}
