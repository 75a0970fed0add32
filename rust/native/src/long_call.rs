//! One call of `log`, the long way: any mapping, any values, and what becomes of a call that is not taken.

use std::sync::atomic::Ordering;

use pyo3::prelude::*;
use pyo3::types::PyDict;
use runferry_engine::intake::{Taken, Waiting};
use runferry_engine::{LossReason, clock};
use runferry_wire::record::Value;

use crate::errors::{full_error, usage_error};
use crate::fork::{self, Inside};
use crate::memory;
use crate::row::{LongRow, as_dict};
use crate::told::{MANY_NAMES, Topic};
use crate::writer::{Step, Writer};

impl Writer {
    /// Whether an entry found room in time. Others have the GIL while it waits.
    fn push_waiting(&self, py: Python<'_>, kind: u8, payload: &[u8]) -> bool {
        let mut waiting = Waiting::begin(self.engine());
        loop {
            py.detach(|| std::thread::sleep(Waiting::POLL));
            if let Some(is_in) = self.intake(py, |intake| waiting.again(self.engine(), intake, kind, payload)) {
                return is_in;
            }
        }
    }

    /// One call of `log`.
    pub(crate) fn take(&self, data: &Bound<'_, PyAny>, step: Option<Step>, commit: Option<bool>) -> PyResult<()> {
        let dict = match data.cast_exact::<PyDict>() {
            Ok(dict) => dict.clone(),
            Err(_) => as_dict(data)?,
        };
        let step = match step {
            None => None,
            Some(Step::At(step)) => Some(step),
            Some(Step::Beyond) => {
                let _inside = Inside::enter();
                self.refuse_step(&dict);
                return Ok(());
            }
        };
        if self.engine().is_refusing() {
            let _inside = Inside::enter();
            return self.refuse_full(&dict);
        }
        let now_us = clock::wall_us();
        let _inside = Inside::enter();
        memory::keep_reserve();
        let row = LongRow::read(&dict, &self.convert)?;
        if let Some(reason) = &row.drop_reason {
            self.tell(
                data.py(),
                Topic::Value,
                &format!("a logged value was left out: {reason} (more: status().dropped_values)"),
            );
        }
        if row.marked_values > 0 {
            self.engine().marked_values(row.marked_values);
        }
        if self.is_inherited() {
            return Ok(()); // A value of the dict forked, and this is the child: the row is the parent's.
        }
        let names: Vec<&str> = row.items.iter().map(|(name, _)| name.as_str()).collect();
        let values: Vec<Value<'_>> = row.items.iter().map(|(_, value)| value.as_value()).collect();
        let (taken, schema, interned) = self.intake(data.py(), |intake| {
            intake.count_dropped_values(row.dropped_values);
            let (taken, schema) = intake.take_row(&names, &values, step, commit, row.time_us.unwrap_or(now_us));
            if let Taken::Done = taken {
                self.engine().accepted_row(intake);
            }
            self.step.store(intake.step(), Ordering::Relaxed);
            (taken, schema, intake.name_count())
        });
        if interned.max(self.engine().packed_names()).max(names.len()) >= MANY_NAMES {
            self.tell_many_names(data.py(), &names);
        }
        if let (Some(schema), Some(keys)) = (schema, row.keys) {
            let forgotten = self.calls.try_with(data.py(), |calls| calls.remember(keys, schema));
            drop(forgotten); // Out of there: the last reference to a key may run Python code.
        }
        self.settle(data.py(), taken)
    }

    /// A fault of ours must not reach the training loop: it costs the row, counted, and is told once.
    pub(crate) fn count_fault(&self, py: Python<'_>) {
        let _inside = Inside::enter();
        self.engine().dropped_row(LossReason::Refused, 0);
        self.intake(py, |intake| intake.count_full(0, 0));
        self.tell(py, Topic::Fault, "a fault inside Runferry cost a row; training goes on");
    }

    /// A step that no 64-bit number can be costs the call, as one behind the current step does.
    fn refuse_step(&self, dict: &Bound<'_, PyDict>) {
        let points = dict.len() as u64;
        self.engine().dropped_row(LossReason::Refused, points);
        self.intake(dict.py(), |intake| intake.count_beyond(points));
        let text = "log() named a step that is not below 2**63; such calls are dropped (more: status().dropped_rows)";
        self.tell(dict.py(), Topic::Step, text);
    }

    /// The journal is full, and the user wants to hear of it here.
    fn refuse_full(&self, dict: &Bound<'_, PyDict>) -> PyResult<()> {
        let points = dict.len() as u64;
        self.engine().dropped_row(LossReason::JournalFull, points);
        self.intake(dict.py(), |intake| intake.count_full(0, points));
        let status = self.engine().status();
        let text = format!(
            "the row was not taken: the journal in {} has no room, {} bytes are in it and wait for the server ({}); last error: {} (settings: journal_cap_bytes, backpressure)",
            self.journal_dir(),
            status.journal_bytes,
            status.connection,
            status.last_error,
        );
        Err(full_error(dict.py(), text))
    }

    /// Counts what became of a call, and waits for room without the lock and without the GIL where there is none.
    pub(crate) fn settle(&self, py: Python<'_>, taken: Taken) -> PyResult<()> {
        if let Taken::Done = taken {
            if self.has_pressure_to_tell() {
                self.tell_pressure(py);
            }
            return Ok(());
        }
        let _inside = Inside::enter();
        match taken {
            Taken::Refused { points } => {
                self.engine().dropped_row(LossReason::Refused, points);
                self.tell(
                    py,
                    Topic::TooLarge,
                    "a call was dropped, larger than a call may be (more: status().dropped_rows)",
                );
            }
            Taken::Behind => {
                let text =
                    "log() named a step behind the current one; such calls are dropped (more: status().behind_rows)";
                self.tell(py, Topic::Behind, text);
            }
            Taken::Closed if fork::is_ending() => {
                self.ignore_row();
            }
            Taken::Closed if self.is_closed.load(Ordering::Acquire) => {
                let text = format!(
                    "Run ({}) is finished. The call to `log` will be ignored. Please make sure that you are using an active run.",
                    self.run_name
                );
                return Err(usage_error(py, text));
            }
            // Closed without having been finished: the ring of another process (a fork past every hook). Nothing is harmed.
            Taken::Done | Taken::Document | Taken::Closed => {}
            Taken::Full { kind, payload, points } => {
                if !self.push_waiting(py, kind, &payload) {
                    let reason =
                        if self.engine().is_holding() { LossReason::JournalFull } else { LossReason::RingFull };
                    self.engine().dropped_row(reason, points);
                    self.intake(py, |intake| intake.count_full(payload.len(), points));
                    let text = "the journal does not keep up and the ring is full; a row was dropped (more: status().dropped_rows)";
                    self.tell(py, Topic::Full, text);
                }
            }
        }
        Ok(())
    }
}
