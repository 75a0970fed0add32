//! `status()` and the last values of a run, as Python objects.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyFloat, PyString};
use runferry_engine::batch::Last;
use runferry_engine::{LossReason, Status};
use runferry_wire::histogram::Histogram;

use crate::frames::json_to_python;
use crate::writer::Writer;

impl Writer {
    /// The counts of `WriterStatus`.
    pub(crate) fn status_dict<'py>(&self, py: Python<'py>, status: &Status) -> PyResult<Bound<'py, PyDict>> {
        let (behind_rows, dropped_values) = if self.is_inherited() {
            (0, 0)
        } else {
            self.intake(py, |intake| (intake.behind_rows(), intake.dropped_values()))
        };
        let dict = PyDict::new(py);
        dict.set_item("accepted_rows", status.accepted_rows)?;
        dict.set_item("packed_frames", status.packed_frames)?;
        dict.set_item("packed_points", status.packed_points)?;
        dict.set_item("journaled_frames", status.journaled_frames)?;
        dict.set_item("journaled_bytes", status.journaled_bytes)?;
        dict.set_item("durable_frames", status.durable_frames)?;
        dict.set_item("acked_frames", status.acked_frames)?;
        let by_reason = PyDict::new(py);
        let (mut dropped_rows, mut dropped_points) = (0, 0);
        for (reason, rows, points) in &status.losses {
            if *reason == LossReason::Thinned {
                dict.set_item("thinned_rows", rows)?;
                dict.set_item("thinned_points", points)?;
                continue;
            }
            dropped_rows += rows;
            dropped_points += points;
            if *rows > 0 {
                by_reason.set_item(reason.name(), rows)?;
            }
        }
        dict.set_item("dropped_rows", dropped_rows)?;
        dict.set_item("dropped_points", dropped_points)?;
        dict.set_item("dropped_by_reason", by_reason)?;
        dict.set_item("gaps", status.gaps)?;
        dict.set_item("behind_rows", behind_rows)?;
        dict.set_item("dropped_values", dropped_values)?;
        dict.set_item("ignored_rows", self.ignored_rows())?;
        dict.set_item("marked_values", status.marked_values)?;
        dict.set_item("damaged_records", status.damaged_records)?;
        dict.set_item("lag_s", status.lag_s)?;
        dict.set_item("linger_s", status.linger_s)?;
        dict.set_item("backlog_frames", status.backlog_frames)?;
        dict.set_item("backlog_bytes", status.backlog_bytes)?;
        dict.set_item("retries", status.retries)?;
        dict.set_item("rejected_frames", status.rejected_frames)?;
        dict.set_item("kill_safe", status.kill_safe)?;
        dict.set_item("connection", status.connection)?;
        dict.set_item("journal", status.journal)?;
        dict.set_item("journal_bytes", status.journal_bytes)?;
        dict.set_item("run_url", &status.run_url)?;
        dict.set_item("last_error", Some(&status.last_error).filter(|text| !text.is_empty()))?;
        dict.set_item("notices", &status.notices)?;
        dict.set_item("journal_dir", self.journal_dir())?;
        Ok(dict)
    }
}

/// A last value as `log` was given it.
pub(crate) fn last_to_python(py: Python<'_>, last: Last) -> PyResult<Bound<'_, PyAny>> {
    Ok(match last {
        Last::F64(value) => PyFloat::new(py, value).into_any(),
        Last::I64(value) => value.into_pyobject(py)?.into_any(),
        Last::Bool(value) => pyo3::types::PyBool::new(py, value).to_owned().into_any(),
        Last::Str(text) | Last::Marker(text) => PyString::new(py, &text).into_any(),
        Last::Json(value) => json_to_python(py, &value)?,
        Last::Hist(value) => {
            let histogram = Histogram::decode(&value).map_err(|error| PyValueError::new_err(error.to_string()))?;
            let dict = PyDict::new(py);
            dict.set_item("_type", "histogram")?;
            dict.set_item("values", histogram.counts)?;
            dict.set_item("bins", histogram.edges)?;
            dict.into_any()
        }
    })
}
