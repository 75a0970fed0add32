//! Histograms for Python: binning of raw buffers, and the bytes of docs/format.md; and the key of a run.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use runferry_wire::histogram::{Histogram, HistogramError};

fn value_error(error: HistogramError) -> PyErr {
    PyValueError::new_err(error.to_string())
}

/// Bins `N`-byte little-endian numbers.
fn bin<const N: usize>(
    data: &[u8],
    bins: usize,
    read: impl Fn([u8; N]) -> f64 + Copy,
) -> Result<Vec<u8>, HistogramError> {
    let (numbers, _) = data.as_chunks::<N>();
    Histogram::of(numbers, bins, read)?.encode()
}

#[pyfunction]
pub(crate) fn histogram_from_bytes<'py>(
    py: Python<'py>,
    data: &[u8],
    dtype: &str,
    bins: usize,
) -> PyResult<Bound<'py, PyBytes>> {
    let value = match dtype {
        "f4" => bin(data, bins, |raw| f64::from(f32::from_le_bytes(raw))),
        "f8" => bin(data, bins, f64::from_le_bytes),
        "i1" => bin(data, bins, |raw| f64::from(i8::from_le_bytes(raw))),
        "i2" => bin(data, bins, |raw| f64::from(i16::from_le_bytes(raw))),
        "i4" => bin(data, bins, |raw| f64::from(i32::from_le_bytes(raw))),
        "i8" => bin(data, bins, |raw| i64::from_le_bytes(raw) as f64),
        "u1" | "b1" => bin(data, bins, |raw| f64::from(u8::from_le_bytes(raw))),
        "u2" => bin(data, bins, |raw| f64::from(u16::from_le_bytes(raw))),
        "u4" => bin(data, bins, |raw| f64::from(u32::from_le_bytes(raw))),
        "u8" => bin(data, bins, |raw| u64::from_le_bytes(raw) as f64),
        other => {
            let text = format!("dtype is {other:?}, one of f4 f8 i1 i2 i4 i8 u1 u2 u4 u8 b1 is allowed");
            return Err(PyValueError::new_err(text));
        }
    };
    Ok(PyBytes::new(py, &value.map_err(value_error)?))
}

#[pyfunction]
pub(crate) fn histogram_encode(
    py: Python<'_>,
    edges: Vec<f64>,
    counts: Vec<f64>,
    nan_count: u64,
    inf_count: u64,
) -> PyResult<Bound<'_, PyBytes>> {
    let histogram = Histogram { edges, counts, nan_count, inf_count };
    Ok(PyBytes::new(py, &histogram.encode().map_err(value_error)?))
}

#[pyfunction]
pub(crate) fn histogram_decode(value: &[u8]) -> PyResult<(Vec<f64>, Vec<f64>, u64, u64)> {
    let Histogram { edges, counts, nan_count, inf_count } = Histogram::decode(value).map_err(value_error)?;
    Ok((edges, counts, nan_count, inf_count))
}

/// The 16-byte id of a run: every process that names the same run gets the same, without asking a server.
#[pyfunction]
pub(crate) fn run_key<'py>(py: Python<'py>, entity: &str, project: &str, id: &str) -> Bound<'py, PyBytes> {
    let hash = blake3::hash(format!("{entity}\0{project}\0{id}").as_bytes());
    PyBytes::new(py, hash.as_bytes().first_chunk::<16>().map_or(&[], |key| key.as_slice()))
}
