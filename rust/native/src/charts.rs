//! Charts for `runferry.server.store`, and their way out as JSON.
//!
//! A chart stays here from its chunks to the bytes of an answer, with the interpreter released: a thousand buckets would be ten thousand
//! Python objects, made and thrown away while every other thread waits. Python gets lists where it asks for them.

#![expect(clippy::needless_pass_by_value, reason = "PyO3 hands arguments over by value")]

use std::sync::{Mutex, OnceLock};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyTuple};
use runferry_columns::axis::AxisRow;
use runferry_columns::buckets::{self, Bucket, Chart, Head};
use runferry_columns::chunk::ChunkRow;
use runferry_columns::json::{self, Heading};
use runferry_columns::table::Window;

use crate::store::{Faults, PythonAxis, Tail, axis_row, chunk_row, lock};

/// A chunk and its axis, values included.
type Given = (ChunkRow, AxisRow);

/// The stored chunks of a series; good for any number of charts until a merge.
#[pyclass(frozen, module = "runferry._native")]
pub(crate) struct Heads {
    heads: buckets::Heads,
    /// Per chunk, if it came with its values: those are at hand when they are needed.
    given: Vec<Option<Given>>,
}

/// One chart in the making; used by one thread.
#[pyclass(frozen, module = "runferry._native")]
pub(crate) struct SeriesRead {
    label: String,
    name: String,
    heads: Py<Heads>,
    read: Mutex<buckets::SeriesRead>,
}

/// The chunk behind the first 19 columns; behind them `time1_us` and `sub` of its axis, then `n`, `crc32c` and `data` of it, NULL without values.
fn head(row: &Bound<'_, PyTuple>) -> PyResult<(Head, Option<Given>)> {
    const AXIS: usize = 19;
    let chunk = chunk_row(row)?;
    let time1_us: Option<i64> = row.get_item(AXIS)?.extract()?;
    let time1_us = time1_us.ok_or_else(|| PyValueError::new_err("the axis of a chunk is missing"))?;
    let bytes = |index: usize| -> PyResult<Option<Vec<u8>>> {
        Ok(row.get_item(index)?.extract::<Option<PyBackedBytes>>()?.map(|bytes| bytes.to_vec()))
    };
    let axis_sub = bytes(AXIS + 1)?.unwrap_or_default();
    let Some(data) = bytes(AXIS + 4)? else { return Ok((Head { chunk, time1_us, axis_sub }, None)) };
    let axis = AxisRow {
        axis_id: chunk.axis_id,
        step0: chunk.step0,
        time1_us,
        n: row.get_item(AXIS + 2)?.extract()?,
        sub: axis_sub.clone(),
        crc32c: row.get_item(AXIS + 3)?.extract()?,
        data,
    };
    let bare = ChunkRow { data: Vec::new(), ..chunk.clone() };
    Ok((Head { chunk: bare, time1_us, axis_sub }, Some((chunk, axis))))
}

#[pymethods]
impl Heads {
    /// `chunks`: as [`head`] reads them.
    #[new]
    fn new(py: Python<'_>, chunks: Vec<Bound<'_, PyTuple>>) -> PyResult<Self> {
        let rows = chunks.iter().map(head).collect::<PyResult<Vec<_>>>()?;
        let (heads, given): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
        let heads = py.detach(|| buckets::Heads::new(heads));
        let heads = heads.map_err(|(index, fault)| PyValueError::new_err(format!("chunk {index}: {fault}")))?;
        Ok(Self { heads, given })
    }

    #[getter]
    fn points(&self) -> u64 {
        self.heads.points()
    }

    /// About how much memory they take, values left aside.
    #[getter]
    fn weight_bytes(&self) -> usize {
        self.heads.weight_bytes()
    }

    /// The first step of a chunk.
    fn step0(&self, index: usize) -> Option<i64> {
        self.heads.all().get(index).map(|head| head.chunk.step0)
    }
}

#[pymethods]
impl SeriesRead {
    /// `span`: first and last step of all chunks of the series.
    #[new]
    #[expect(clippy::too_many_arguments, reason = "the parts of one question")]
    fn new(
        py: Python<'_>,
        tail: Bound<'_, Tail>,
        label: String,
        name: String,
        heads: Py<Heads>,
        span: Option<(i64, i64)>,
        window: (i64, i64),
        buckets: usize,
    ) -> Self {
        let window = Window { min: window.0, max: window.1 };
        let span = span.map(|(min, max)| Window { min, max });
        let (tail, stored) = (tail.get(), heads.get().heads.clone());
        let read = py.detach(|| {
            tail.read(|table| buckets::SeriesRead::new(table, (&label, &name), stored, span, window, buckets))
        });
        Self { label, name, heads, read: Mutex::new(read) }
    }

    /// The chunks whose values are needed and were not given; none: all is there.
    fn need(&self, py: Python<'_>) -> PyResult<Vec<usize>> {
        let given = &self.heads.get().given;
        py.detach(|| {
            let mut read = lock(&self.read);
            loop {
                let needed = read.need();
                let mut missing = Vec::new();
                for index in &needed {
                    match given.get(*index) {
                        Some(Some((chunk, axis))) => {
                            let fed = read.feed(*index, chunk, axis);
                            fed.map_err(|fault| PyValueError::new_err(fault.to_string()))?;
                        }
                        _ => missing.push(*index),
                    }
                }
                if needed.is_empty() || !missing.is_empty() {
                    return Ok(missing);
                }
            }
        })
    }

    /// Needed chunks: `(number, chunk row, axis row)`.
    fn feed(&self, py: Python<'_>, chunks: Vec<(usize, Bound<'_, PyTuple>, PythonAxis)>) -> PyResult<Faults> {
        let chunks = chunks.into_iter().map(|(index, chunk, axis)| Ok((index, chunk_row(&chunk)?, axis_row(axis))));
        let chunks = chunks.collect::<PyResult<Vec<_>>>()?;
        Ok(py.detach(|| {
            let mut read = lock(&self.read);
            chunks
                .iter()
                .map(|(index, chunk, axis)| read.feed(*index, chunk, axis).err().map(|fault| fault.to_string()))
                .collect()
        }))
    }

    fn finish(&self, py: Python<'_>) -> Buckets {
        let chart = py.detach(|| lock(&self.read).finish());
        Buckets { label: self.label.clone(), name: self.name.clone(), chart, text: OnceLock::new() }
    }
}

/// A series cut into buckets.
#[pyclass(frozen, module = "runferry._native")]
pub(crate) struct Buckets {
    #[pyo3(get)]
    label: String,
    #[pyo3(get)]
    name: String,
    chart: Chart,
    /// As JSON, of a chart that is kept for other readers.
    text: OnceLock<Vec<u8>>,
}

impl Buckets {
    fn push_json(&self, out: &mut Vec<u8>, heading: Heading) {
        match self.text.get().filter(|_| heading == Heading::Whole) {
            Some(text) => out.extend_from_slice(text),
            None => json::push_chart(out, &self.label, &self.name, &self.chart, heading),
        }
    }

    fn list<T>(&self, of: impl Fn(&Bucket) -> T) -> Vec<T> {
        self.chart.buckets.iter().map(of).collect()
    }
}

#[pymethods]
impl Buckets {
    /// Writes the JSON that every reader gets from now on; returns about how much memory all of it takes.
    fn keep(&self, py: Python<'_>) -> usize {
        py.detach(|| {
            let text = self.text.get_or_init(|| {
                let mut text = Vec::new();
                json::push_chart(&mut text, &self.label, &self.name, &self.chart, Heading::Whole);
                text.shrink_to_fit();
                text
            });
            let strings = self.label.len() + self.name.len();
            size_of::<Self>() + strings + text.len() + self.chart.buckets.capacity() * size_of::<Bucket>()
        })
    }

    #[getter]
    fn raw_points(&self) -> u64 {
        self.chart.raw_points
    }

    #[getter]
    fn is_exact(&self) -> bool {
        self.chart.is_exact()
    }

    #[getter]
    fn step_first(&self) -> Vec<i64> {
        self.list(|bucket| bucket.step_first)
    }

    #[getter]
    fn step_last(&self) -> Vec<i64> {
        self.list(|bucket| bucket.step_last)
    }

    #[getter]
    fn time_last_us(&self) -> Vec<i64> {
        self.list(|bucket| bucket.time_last_us)
    }

    #[getter]
    fn count(&self) -> Vec<u32> {
        self.list(|bucket| bucket.stats.numbers())
    }

    #[getter]
    fn min(&self) -> Vec<Option<f64>> {
        self.list(|bucket| bucket.stats.min())
    }

    #[getter]
    fn max(&self) -> Vec<Option<f64>> {
        self.list(|bucket| bucket.stats.max())
    }

    #[getter]
    fn mean(&self) -> Vec<Option<f64>> {
        self.list(|bucket| bucket.stats.mean())
    }

    #[getter]
    fn last(&self) -> Vec<f64> {
        self.list(|bucket| bucket.last)
    }

    #[getter]
    fn nan_count(&self) -> Vec<u32> {
        self.list(|bucket| bucket.stats.nan)
    }

    #[getter]
    fn inf_count(&self) -> Vec<u32> {
        self.list(|bucket| bucket.stats.inf)
    }
}

/// Charts as a JSON list; `added`: they are what came to charts that are drawn already.
#[pyfunction]
#[pyo3(signature = (series, *, added = false))]
pub(crate) fn series_json(py: Python<'_>, series: Vec<Py<Buckets>>, added: bool) -> Bound<'_, PyBytes> {
    let heading = if added { Heading::Added } else { Heading::Whole };
    let text = py.detach(|| {
        let mut out = Vec::new();
        json::push_list(&mut out, series.iter().map(Py::get), |out, one| one.push_json(out, heading));
        out
    });
    PyBytes::new(py, &text)
}
