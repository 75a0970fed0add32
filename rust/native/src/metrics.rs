//! Names and last values of metrics for `runferry.server`, as objects or as JSON.

#![expect(clippy::needless_pass_by_value, reason = "PyO3 hands arguments over by value")]

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::{PyBackedBytes, PyBackedStr};
use pyo3::types::{PyBytes, PyTuple};
use runferry_columns::cells::Cell;
use runferry_columns::json;
use runferry_columns::summary::{self, Summary};

use crate::store::{Tail, cell_to_python};

/// What is merged of some metrics of a run, by name and label: good until the next merge.
#[pyclass(frozen, module = "runferry._native")]
pub(crate) struct StoredMetrics {
    stored: Vec<Summary>,
}

/// Some metrics of a run, by name and label.
#[pyclass(frozen, module = "runferry._native")]
pub(crate) struct Metrics {
    found: Vec<Summary>,
}

/// `(name, label, points, step0, step1, last, ordinal of the writer of the last)`.
fn stored_summary(row: &Bound<'_, PyTuple>) -> PyResult<Summary> {
    let last: Option<PyBackedBytes> = row.get_item(5)?.extract()?;
    let last = last.filter(|bytes| !bytes.is_empty());
    let cell = last.map(|bytes| Cell::from_bytes(&bytes).ok_or_else(|| PyValueError::new_err("not a stored value")));
    Ok(Summary {
        name: row.get_item(0)?.extract()?,
        label: row.get_item(1)?.extract()?,
        points: row.get_item(2)?.extract()?,
        step0: row.get_item(3)?.extract()?,
        step1: row.get_item(4)?.extract()?,
        last: cell.transpose()?,
        writer: row.get_item(6)?.extract()?,
    })
}

/// Name, label, kind, points, first and last step, last value.
type PythonMetric<'py> = (&'py str, &'py str, &'static str, u64, i64, i64, Bound<'py, PyAny>);

/// The value with the name of its kind; one that is not known is a text.
fn last_value<'py>(py: Python<'py>, one: &Summary) -> PyResult<(&'static str, Bound<'py, PyAny>)> {
    one.last.as_ref().map_or_else(|| Ok(("string", py.None().into_bound(py))), |cell| cell_to_python(py, cell))
}

/// The kind of a value whose JSON is known here; the others have forms that are decided where documents are.
fn plain_kind(last: Option<&Cell>) -> Option<&'static str> {
    match last {
        Some(Cell::Null) => Some("null"),
        Some(Cell::F64(value)) => value.is_finite().then_some("number"),
        Some(Cell::I64(_)) => Some("number"),
        Some(Cell::Bool(_)) => Some("bool"),
        None | Some(Cell::Str(_)) => Some("string"),
        Some(Cell::Hist(_) | Cell::Json(_) | Cell::Marker(..)) => None,
    }
}

fn push_plain(out: &mut Vec<u8>, last: Option<&Cell>) {
    match last {
        Some(Cell::F64(value)) => json::push_float(out, *value),
        Some(Cell::I64(value)) => json::push_integer(out, *value),
        Some(Cell::Bool(value)) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
        Some(Cell::Str(value)) => json::push_text(out, value),
        None | Some(Cell::Null | Cell::Hist(_) | Cell::Json(_) | Cell::Marker(..)) => out.extend_from_slice(b"null"),
    }
}

/// Kind and JSON of a value that has no plain form.
type Told = (String, PyBackedStr);

fn push_metric(out: &mut Vec<u8>, one: &Summary, told: Option<&Told>) {
    let last = one.last.as_ref();
    out.extend_from_slice(b"{\"name\":");
    json::push_text(out, &one.name);
    out.extend_from_slice(b",\"label\":");
    json::push_text(out, &one.label);
    out.extend_from_slice(b",\"kind\":");
    json::push_text(out, told.map_or_else(|| plain_kind(last).unwrap_or_default(), |(kind, _)| kind));
    out.extend_from_slice(b",\"points\":");
    json::push_integer(out, one.points);
    out.extend_from_slice(b",\"first_step\":");
    json::push_integer(out, one.step0);
    out.extend_from_slice(b",\"last_step\":");
    json::push_integer(out, one.step1);
    out.extend_from_slice(b",\"last\":");
    match told {
        Some((_, text)) => out.extend_from_slice(text.as_bytes()),
        None => push_plain(out, last),
    }
    out.push(b'}');
}

#[pymethods]
impl StoredMetrics {
    /// `rows`: as [`stored_summary`] reads them, in order.
    #[new]
    fn new(rows: Vec<Bound<'_, PyTuple>>) -> PyResult<Self> {
        Ok(Self { stored: rows.iter().map(stored_summary).collect::<PyResult<Vec<_>>>()? })
    }

    fn __len__(&self) -> usize {
        self.stored.len()
    }

    /// About how much memory they take.
    #[getter]
    fn weight_bytes(&self) -> usize {
        self.stored.iter().map(Summary::weight_bytes).sum()
    }
}

#[pymethods]
impl Metrics {
    #[new]
    fn new(
        py: Python<'_>,
        tail: Bound<'_, Tail>,
        stored: Bound<'_, StoredMetrics>,
        after: Option<(String, String)>,
        limit: usize,
    ) -> Self {
        let (tail, stored) = (tail.get(), &stored.get().stored);
        let found = py.detach(|| {
            let after = after.as_ref().map(|(name, label)| (name.as_str(), label.as_str()));
            tail.read(|table| summary::summaries(table, stored, after, limit))
        });
        Self { found }
    }

    fn __len__(&self) -> usize {
        self.found.len()
    }

    /// Name and label of the last one.
    fn last_name(&self) -> Option<(&str, &str)> {
        self.found.last().map(|one| (one.name.as_str(), one.label.as_str()))
    }

    fn rows<'py>(&'py self, py: Python<'py>) -> PyResult<Vec<PythonMetric<'py>>> {
        let row = |one: &'py Summary| {
            let (kind, value) = last_value(py, one)?;
            Ok((&*one.name, &*one.label, kind, one.points, one.step0, one.step1, value))
        };
        self.found.iter().map(row).collect()
    }

    /// A JSON list; `shown` says of a kind and a value that have no plain form what the kind is called and what the JSON is.
    fn json<'py>(&self, py: Python<'py>, shown: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
        let tell = |one: &Summary| -> PyResult<Option<Told>> {
            if plain_kind(one.last.as_ref()).is_some() {
                return Ok(None);
            }
            shown.call1(last_value(py, one)?)?.extract().map(Some)
        };
        let told = self.found.iter().map(tell).collect::<PyResult<Vec<_>>>()?;
        let text = py.detach(|| {
            let mut out = Vec::new();
            json::push_list(&mut out, self.found.iter().zip(&told), |out, (one, told)| {
                push_metric(out, one, told.as_ref());
            });
            out
        });
        Ok(PyBytes::new(py, &text))
    }
}
