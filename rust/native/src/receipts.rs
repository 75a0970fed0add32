//! Receipts for Python: what a journal says its writer packed, and what a store holds of each writer.

#![expect(clippy::needless_pass_by_value, reason = "PyO3 hands arguments over by value")]

use std::path::PathBuf;
use std::sync::Mutex;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use runferry_columns::sums;
use runferry_engine::receipt;
use runferry_wire::receipt::{Receipt, Sums, hash_name};

use crate::errors::text_of;
use crate::store::{Faults, PythonAxis, PythonFrame, axis_row, chunk_row, lock};

/// `(name, points, sum of hashes)`; rows under the empty name.
type PythonSums = (String, u64, u64);

/// The receipt of a writer's journal for its frames below `until`, None: all of them.
#[pyfunction]
#[pyo3(signature = (path, until=None))]
pub(crate) fn journal_receipt(py: Python<'_>, path: PathBuf, until: Option<u64>) -> PyResult<Bound<'_, PyDict>> {
    let found = py.detach(|| receipt::of_journal(&path, until));
    let found = found.map_err(|error| PyValueError::new_err(text_of(&error)))?;
    let dict = PyDict::new(py);
    dict.set_item("run", found.run)?;
    dict.set_item("writer_id", found.identity.writer_id)?;
    dict.set_item("covers", found.covers)?;
    dict.set_item("next_seq", found.next_seq)?;
    dict.set_item("unreadable_frames", found.unreadable_frames)?;
    let Receipt { rest, .. } = found.receipt;
    dict.set_item("metrics", found.receipt.metrics().map(python_sums).collect::<Vec<_>>())?;
    dict.set_item("rest", (rest.points, rest.hash))?;
    Ok(dict)
}

fn python_sums((name, sums): (&str, Sums)) -> PythonSums {
    (name.to_owned(), sums.points, sums.hash)
}

/// Metrics that have no sum of their own, as one.
#[pyfunction]
pub(crate) fn sums_together(metrics: Vec<PythonSums>) -> (u64, u64) {
    let mut together = Sums::default();
    for (name, points, hash) in metrics {
        together.merge(Sums { points, hash: hash.wrapping_mul(hash_name(&name)) });
    }
    (together.points, together.hash)
}

/// What a store holds of each writer of a run; used by one thread.
#[pyclass(frozen, module = "runferry._native")]
pub(crate) struct StoredSums {
    sums: Mutex<sums::StoredSums>,
}

#[pymethods]
impl StoredSums {
    /// `(ordinal, step offset)` of every writer.
    #[new]
    fn new(offsets: Vec<(u32, i64)>) -> Self {
        let mut sums = sums::StoredSums::new();
        offsets.into_iter().for_each(|(ordinal, offset)| sums.set_offset(ordinal, offset));
        Self { sums: Mutex::new(sums) }
    }

    /// Sums kept beside the chunks: `(ordinal, name, points, sum of hashes)`.
    fn add(&self, kept: Vec<(u32, String, u64, u64)>) {
        let mut sums = lock(&self.sums);
        kept.into_iter().for_each(|(ordinal, name, points, hash)| sums.add(ordinal, &name, Sums { points, hash }));
    }

    /// Stored chunks: `(name, chunk row, axis row)`.
    fn add_chunks(&self, py: Python<'_>, chunks: Vec<(String, Bound<'_, PyTuple>, PythonAxis)>) -> PyResult<Faults> {
        let chunks = chunks.into_iter().map(|(name, chunk, axis)| Ok((name, chunk_row(&chunk)?, axis_row(axis))));
        let chunks = chunks.collect::<PyResult<Vec<_>>>()?;
        Ok(py.detach(|| {
            let mut sums = lock(&self.sums);
            let faults = chunks.iter().map(|(name, chunk, axis)| sums.add_chunk(name, chunk, axis).err());
            faults.map(|fault| fault.map(|fault| fault.to_string())).collect()
        }))
    }

    /// Frames that no merge has taken.
    fn add_frames(&self, py: Python<'_>, frames: Vec<PythonFrame>) -> Faults {
        py.detach(|| {
            let mut sums = lock(&self.sums);
            let faults = frames.iter().map(|(ordinal, frame)| sums.add_frame(*ordinal, frame).err());
            faults.map(|fault| fault.map(|fault| fault.to_string())).collect()
        })
    }

    /// Ordinal to sums; nothing is left here.
    fn finish<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        for (ordinal, metrics) in std::mem::take(&mut *lock(&self.sums)).finish() {
            let mut metrics: Vec<PythonSums> =
                metrics.iter().map(|(name, sums)| python_sums((name.as_str(), *sums))).collect();
            metrics.sort_unstable();
            dict.set_item(ordinal, metrics)?;
        }
        Ok(dict)
    }
}
