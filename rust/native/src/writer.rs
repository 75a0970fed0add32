//! `Writer`: what a run holds of the Rust side. Python work first, then the lock, then the ring; never the other way round.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use pyo3::exceptions::{PyKeyboardInterrupt, PyOverflowError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyFloat, PyString};
use runferry_engine::batch::{Identity, Last};
use runferry_engine::intake::{Intake, Taken, push_waiting};
use runferry_engine::{Flushed, Fsync, LossReason, Options, Policy, Reach, Status, Writer as Engine, clock};
use runferry_wire::block::{Block, Changes};
use runferry_wire::record::{DOCUMENT, Value};
use runferry_wire::{Doc, histogram::Histogram};

use crate::documents::doc_of;
use crate::errors::{full_error, journal_error, usage_error};
use crate::fork::{self, Inside};
use crate::frames::json_to_python;
use crate::journals::{AccessSettings, Follower, access_of};
use crate::memory;
use crate::row::{LongRow, Scratch, SeenCalls, as_dict};

/// Longest a `finish` or `flush` without timeout waits at a time before it looks for Ctrl-C.
const SIGNAL_POLL: Duration = Duration::from_millis(200);

/// A journal that fills and empties all the time is not told about all the time.
const MOST_TURNS_TOLD: u64 = 20;

/// What the fast path remembers.
#[derive(Default)]
struct Calls {
    seen: SeenCalls,
    scratch: Scratch,
}

/// Distinct metric names in one run that are worth a warning.
const MANY_NAMES: usize = 10_000;

/// What is worth one warning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Topic {
    Behind,
    Full,
    TooLarge,
    Value,
    Fault,
    Step,
    Names,
}

/// The step of a call.
#[derive(Debug, Clone, Copy)]
enum Step {
    At(i64),
    /// Beyond what a step can be.
    Beyond,
}

impl FromPyObject<'_, '_> for Step {
    type Error = PyErr;

    fn extract(step: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        match step.extract::<i64>() {
            Ok(step) => Ok(Self::At(step)),
            Err(error) if error.is_instance_of::<PyOverflowError>(step.py()) => {
                // Behind every step there is, or beyond.
                Ok(if step.lt(0)? { Self::At(i64::MIN) } else { Self::Beyond })
            }
            Err(error) => Err(error),
        }
    }
}

/// One start of one process writing to a run: ring, journal, sender, and the three threads behind them.
#[pyclass(frozen, module = "runferry._native")]
pub(crate) struct Writer {
    core: Arc<Core>,
    calls: Mutex<Calls>,
    convert: Py<PyAny>,
    /// Called instead of `log` in a forked child.
    in_child: Option<Py<PyAny>>,
    run_name: String,
    id: u64,
    /// The process that made it, see [`fork::generation`]: a forked child has none of its threads.
    generation: u64,
    /// The intake's, to be read without its lock: a child asks for it too.
    step: AtomicI64,
    /// Calls that came when nothing is taken any more.
    ignored_rows: AtomicU64,
    /// Topics that were warned about.
    told: AtomicU8,
    /// Beginnings and ends of a full journal that were told.
    told_turns: AtomicU64,
}

/// What a forked child must neither lock nor drop.
struct Core {
    engine: Engine,
    intake: Mutex<Intake>,
    /// Packs and sends what dead writers left in the same folder.
    orphans: Mutex<Option<Follower>>,
}

impl Drop for Writer {
    fn drop(&mut self) {
        if self.is_inherited() {
            // Its threads are the parent's, its locks may be held by them, its descriptors are closed.
            std::mem::forget(self.core.clone());
        }
    }
}

#[pymethods]
impl Writer {
    #[new]
    #[pyo3(signature = (*, root, run_id, open, base_url, start_step, convert, ring_bytes=4 << 20, journal_cap_bytes=None, journal_min_free_bytes=256 << 20, backpressure="degrade", backpressure_block_ms=1000, fsync="adaptive", access=None, in_child=None))]
    #[expect(clippy::too_many_arguments, reason = "one keyword each, all named at the call")]
    fn new(
        py: Python<'_>,
        root: PathBuf,
        run_id: [u8; 16],
        open: &Bound<'_, PyDict>,
        base_url: Option<String>,
        start_step: i64,
        convert: Py<PyAny>,
        ring_bytes: usize,
        journal_cap_bytes: Option<u64>,
        journal_min_free_bytes: u64,
        backpressure: &str,
        backpressure_block_ms: u64,
        fsync: &str,
        access: Option<AccessSettings>,
        in_child: Option<Py<PyAny>>,
    ) -> PyResult<Self> {
        let fsync = match fsync {
            "never" => Fsync::Never,
            "adaptive" => Fsync::Adaptive,
            "interval" => Fsync::Interval,
            "always" => Fsync::Always,
            other => {
                let text = format!("fsync is {other:?}, one of never, adaptive, interval, always is allowed");
                return Err(PyValueError::new_err(text));
            }
        };
        let policy = match backpressure {
            "degrade" => Policy::Degrade,
            "drop_oldest" => Policy::DropOldest,
            "drop_newest" => Policy::DropNewest,
            "block" => Policy::Block(Duration::from_millis(backpressure_block_ms)),
            "raise" => Policy::Raise,
            other => {
                let text = format!(
                    "backpressure is {other:?}, one of degrade, drop_oldest, drop_newest, block, raise is allowed"
                );
                return Err(PyValueError::new_err(text));
            }
        };
        let writer_id = Engine::new_writer_id();
        let open = doc_of(open)?;
        let text_of = |name: &str| open.get_str(name).unwrap_or_default().to_owned();
        let (run_name, client) = (text_of("id"), text_of("client"));
        let identity = Identity { run_id, writer_id };
        let is_child = open.get("parent_writer").is_some();
        let access = access_of(access);
        let (orphans_in, orphans_of, orphans_access) = (root.clone(), base_url.clone(), access.clone());
        let options = Options {
            root,
            identity,
            open,
            base_url,
            access,
            client,
            ring_bytes,
            journal_cap_bytes,
            journal_min_free_bytes,
            policy,
            fsync,
        };
        let (engine, producer) = py.detach(|| Engine::start(options)).map_err(|error| journal_error(py, &error))?;
        // Without a thread for them orphans wait for the next init. A child leaves them to its parent.
        let orphans =
            (!is_child).then(|| Follower::of_orphans(orphans_in, orphans_of.as_deref(), orphans_access).ok()).flatten();
        let intake = Mutex::new(Intake::new(producer, engine.dir().to_owned(), start_step));
        Ok(Self {
            core: Arc::new(Core { engine, intake, orphans: Mutex::new(orphans) }),
            calls: Mutex::default(),
            convert,
            in_child,
            run_name,
            id: writer_id,
            generation: fork::generation(),
            step: AtomicI64::new(start_step),
            ignored_rows: AtomicU64::new(0),
            told: AtomicU8::new(0),
            told_turns: AtomicU64::new(0),
        })
    }

    #[pyo3(signature = (data, step=None, commit=None))]
    fn log(&self, data: &Bound<'_, PyAny>, step: Option<Step>, commit: Option<bool>) -> PyResult<()> {
        if self.is_inherited() {
            return self.log_in_child(data, step, commit);
        }
        if fork::is_ending() {
            self.ignored_rows.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        // A fault of ours must not reach the training loop: it costs the row, counted.
        catch_unwind(AssertUnwindSafe(|| self.take(data, step, commit))).unwrap_or_else(|_panic| {
            self.core.engine.dropped_row(LossReason::Refused, 0);
            self.intake().count_full(0, 0);
            self.tell(data.py(), Topic::Fault, "a fault inside Runferry cost a row; training goes on");
            Ok(())
        })
    }

    #[pyo3(signature = (kind, updates, removed))]
    fn document(
        &self,
        py: Python<'_>,
        kind: &str,
        updates: &Bound<'_, PyDict>,
        removed: Vec<String>,
    ) -> PyResult<bool> {
        let _inside = Inside::enter();
        let updates = doc_of(updates)?;
        let block = match kind {
            "config" => Block::Config(Changes { updates, removed }),
            "summary" => Block::Summary(Changes { updates, removed }),
            "meta" => Block::Meta(updates),
            other => {
                let text = format!("document kind is {other:?}, one of config, summary, meta is allowed");
                return Err(PyValueError::new_err(text));
            }
        };
        if self.is_inherited() || fork::is_ending() {
            return Ok(false);
        }
        let taken = self.intake().take_document(&block);
        let is_taken = !matches!(taken, Taken::Refused { .. } | Taken::Closed);
        self.settle(py, taken)?;
        Ok(is_taken)
    }

    #[pyo3(signature = (durable=false, acked=false, timeout=None))]
    fn flush(&self, py: Python<'_>, durable: bool, acked: bool, timeout: Option<f64>) -> PyResult<bool> {
        let reach = match (durable, acked) {
            (_, true) => Reach::Acked,
            (true, false) => Reach::Durable,
            (false, false) => Reach::Journaled,
        };
        if self.is_inherited() {
            return Ok(false);
        }
        let _inside = Inside::enter();
        self.intake().report_drops(true);
        let flushed = wait_in_slices(py, timeout, false, |slice| match self.core.engine.flush(reach, slice) {
            Flushed::Yes => Some(true),
            Flushed::Never => Some(false),
            // Finished by another thread meanwhile: nobody answers any more.
            Flushed::NotYet => self.intake().is_closed().then_some(false),
        })?;
        Ok(flushed.unwrap_or(false))
    }

    #[pyo3(signature = (exit_code, timeout))]
    fn finish<'py>(&self, py: Python<'py>, exit_code: i64, timeout: Option<f64>) -> PyResult<Bound<'py, PyDict>> {
        if self.is_inherited() {
            return self.status_dict(py, &Status::default());
        }
        let _inside = Inside::enter();
        {
            let mut intake = self.intake();
            intake.report_drops(true);
            intake.close();
        }
        let engine = &self.core.engine;
        let state = if exit_code == 0 { "finished" } else { "failed" };
        let map = Doc::Map(vec![
            ("exit_code".to_owned(), Doc::Int(exit_code)),
            ("ended_us".to_owned(), Doc::Int(clock::wall_us())),
            ("state".to_owned(), Doc::from(state)),
        ]);
        py.detach(|| engine.end(map));
        let waited = wait_in_slices(py, timeout, true, |slice| engine.wait_acked(slice).then_some(())).map(drop);
        let orphans = self.core.orphans.lock().unwrap_or_else(PoisonError::into_inner).take();
        let status = py.detach(|| {
            if let Some(orphans) = orphans {
                orphans.end();
            }
            engine.stop()
        });
        let dict = self.status_dict(py, &status)?;
        // One Ctrl-C ends the waiting, not the ending: what is not acked stays in the journal. A second one, and whatever else a signal
        // handler raises, goes on to the caller.
        match waited.and_then(|()| py.check_signals()) {
            Err(error) if error.is_instance_of::<PyKeyboardInterrupt>(py) => dict.set_item("interrupted", true)?,
            waited => waited?,
        }
        if fork::is_hurried() {
            dict.set_item("interrupted", true)?;
        }
        Ok(dict)
    }

    fn status<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        if self.is_inherited() {
            return self.status_dict(py, &Status::default());
        }
        let _inside = Inside::enter();
        self.status_dict(py, &self.core.engine.status())
    }

    fn last_values<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        if self.is_inherited() {
            return Ok(dict);
        }
        let _inside = Inside::enter();
        let values = py.detach(|| self.core.engine.last_values());
        for (name, last) in values {
            dict.set_item(name, last_to_python(py, last)?)?;
        }
        Ok(dict)
    }

    #[getter]
    fn step(&self) -> i64 {
        self.step.load(Ordering::Relaxed)
    }

    #[getter]
    fn ignored_rows(&self) -> u64 {
        self.ignored_rows.load(Ordering::Relaxed)
    }

    #[getter]
    fn writer_id(&self) -> u64 {
        self.id
    }

    #[getter]
    fn journal_dir(&self) -> String {
        self.core.engine.dir().display().to_string()
    }
}

impl Writer {
    /// Whether this is a forked child of the process that made the writer: nothing here answers then, so nothing is asked.
    #[inline]
    fn is_inherited(&self) -> bool {
        self.generation != fork::generation()
    }

    /// `log` where somebody has kept the method over a fork.
    fn log_in_child(&self, data: &Bound<'_, PyAny>, step: Option<Step>, commit: Option<bool>) -> PyResult<()> {
        if let Some(in_child) = &self.in_child {
            // One beyond stays one: the child's writer counts it.
            let step =
                step.map(|step| if let Step::At(step) = step { i128::from(step) } else { i128::from(i64::MAX) + 1 });
            return in_child.bind(data.py()).call1((data, step, commit)).map(drop);
        }
        self.ignored_rows.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// The intake; a panic while it was held has left the ring as it was before the call.
    fn intake(&self) -> MutexGuard<'_, Intake> {
        self.core.intake.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the fast path remembers; `None`: another call is at it. On Python below 3.12 that may be this very thread: making an exception
    /// may collect garbage, and a finalizer may log.
    fn calls(&self) -> Option<MutexGuard<'_, Calls>> {
        match self.calls.try_lock() {
            Ok(calls) => Some(calls),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// One call of `log`.
    fn take(&self, data: &Bound<'_, PyAny>, step: Option<Step>, commit: Option<bool>) -> PyResult<()> {
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
        if self.core.engine.is_refusing() {
            let _inside = Inside::enter();
            return self.refuse_full(&dict);
        }
        let now_us = clock::wall_us();
        if let Some(mut calls) = self.calls() {
            let Calls { seen, scratch } = &mut *calls;
            if let Some(schema) = seen.read(&dict, scratch) {
                let mut intake = self.intake();
                let taken = intake.take_known(schema, &scratch.bits, scratch.kinds(), step, commit, now_us);
                self.step.store(intake.step(), Ordering::Relaxed);
                drop(intake);
                drop(calls);
                return self.settle(data.py(), taken);
            }
        }
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
            self.core.engine.marked_values(row.marked_values);
        }
        if self.is_inherited() {
            return Ok(()); // A value of the dict forked, and this is the child: the row is the parent's.
        }
        let names: Vec<&str> = row.items.iter().map(|(name, _)| name.as_str()).collect();
        let values: Vec<Value<'_>> = row.items.iter().map(|(_, value)| value.as_value()).collect();
        let (taken, schema, interned) = {
            let mut intake = self.intake();
            intake.count_dropped_values(row.dropped_values);
            let (taken, schema) = intake.take_row(&names, &values, step, commit, row.time_us.unwrap_or(now_us));
            self.step.store(intake.step(), Ordering::Relaxed);
            (taken, schema, intake.name_count())
        };
        if interned.max(self.core.engine.packed_names()).max(names.len()) >= MANY_NAMES {
            self.tell_many_names(data.py(), &names);
        }
        if let (Some(schema), Some(keys)) = (schema, row.keys) {
            let forgotten = self.calls().map(|mut calls| calls.seen.remember(keys, schema));
            drop(forgotten); // Without the lock: the last reference to a key may run Python code.
        }
        self.settle(data.py(), taken)
    }

    /// A step that no 64-bit number can be costs the call, as one behind the current step does.
    fn refuse_step(&self, dict: &Bound<'_, PyDict>) {
        let points = dict.len() as u64;
        self.core.engine.dropped_row(LossReason::Refused, points);
        self.intake().count_beyond(points);
        let text = "log() named a step that is not below 2**63; such calls are dropped (more: status().dropped_rows)";
        self.tell(dict.py(), Topic::Step, text);
    }

    /// The journal is full, and the user wants to hear of it here.
    fn refuse_full(&self, dict: &Bound<'_, PyDict>) -> PyResult<()> {
        let points = dict.len() as u64;
        self.core.engine.dropped_row(LossReason::JournalFull, points);
        self.intake().count_full(0, points);
        let status = self.core.engine.status();
        let text = format!(
            "the row was not taken: the journal in {} has no room, {} bytes are in it and wait for the server ({}); last error: {} (settings: journal_cap_bytes, backpressure)",
            self.journal_dir(),
            status.journal_bytes,
            status.connection,
            status.last_error,
        );
        Err(full_error(dict.py(), text))
    }

    /// Says once when rows begin to go because the journal is at its cap, and once when that is over.
    fn tell_pressure(&self, py: Python<'_>, turns: u64) {
        if self.told_turns.swap(turns, Ordering::Relaxed) == turns || turns > MOST_TURNS_TOLD {
            return;
        }
        let status = self.core.engine.status();
        let text = if turns % 2 == 1 {
            format!(
                "the journal nears its cap ({} bytes, server: {}); {} (counts: status(), settings: journal_cap_bytes, backpressure)",
                status.journal_bytes,
                status.connection,
                self.core.engine.policy().in_words(),
            )
        } else {
            let (mut thinned, mut dropped) = (0, 0);
            for (reason, rows, _) in status.losses {
                *(if reason == LossReason::Thinned { &mut thinned } else { &mut dropped }) += rows;
            }
            format!("the journal has room again; {thinned} rows were thinned out and {dropped} dropped so far")
        };
        let module = py.import("runferry._term");
        // A warning that cannot be printed is still counted.
        module.and_then(|module| module.call_method1("termwarn", (text,))).ok();
    }

    /// Says once that names are made up as a run goes: each costs memory here for a while, and on the server for good.
    fn tell_many_names(&self, py: Python<'_>, names: &[&str]) {
        if self.told.load(Ordering::Relaxed) & (1 << Topic::Names as u8) != 0 {
            return;
        }
        let earlier = self.intake().any_name(names.first().copied().unwrap_or_default());
        let examples: Vec<String> =
            names.iter().copied().chain(earlier.as_deref()).take(2).map(|name| format!("{name:?}")).collect();
        let text = format!(
            "run {} has more than {MANY_NAMES} distinct metric names, such as {}: all are stored, but charts and the server pay for each. \
             Is a step, a time or an id part of a name?",
            self.run_name,
            examples.join(" and "),
        );
        self.tell(py, Topic::Names, &text);
    }

    /// Prints a warning, once per topic and writer.
    fn tell(&self, py: Python<'_>, topic: Topic, text: &str) {
        let bit = 1 << topic as u8;
        if fork::is_ending() {
            return;
        }
        if self.told.fetch_or(bit, Ordering::Relaxed) & bit == 0 {
            let module = py.import("runferry._term");
            // A warning that cannot be printed is still counted.
            module.and_then(|module| module.call_method1("termwarn", (text,))).ok();
        }
    }

    /// Counts what became of a call, and waits for room without the lock and without the GIL where there is none.
    fn settle(&self, py: Python<'_>, taken: Taken) -> PyResult<()> {
        if let Taken::Done = taken {
            self.core.engine.accepted_row();
            let turns = self.core.engine.pressure_turns();
            if turns != self.told_turns.load(Ordering::Relaxed) {
                let _inside = Inside::enter();
                self.tell_pressure(py, turns);
            }
            return Ok(());
        }
        let _inside = Inside::enter();
        match taken {
            Taken::Refused { points } => {
                self.core.engine.dropped_row(LossReason::Refused, points);
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
                self.ignored_rows.fetch_add(1, Ordering::Relaxed);
            }
            Taken::Closed if self.intake().is_closed() => {
                let text = format!(
                    "Run ({}) is finished. The call to `log` will be ignored. Please make sure that you are using an active run.",
                    self.run_name
                );
                return Err(usage_error(py, text));
            }
            // Closed without having been finished: the ring of another process (a fork past every hook). Nothing is harmed.
            Taken::Done | Taken::Document | Taken::Closed => {}
            Taken::Full { kind, payload, points } => {
                let is_row = kind != DOCUMENT;
                if py.detach(|| push_waiting(&self.core.engine, &self.core.intake, kind, &payload)) {
                    if is_row {
                        self.core.engine.accepted_row();
                    }
                } else {
                    let reason =
                        if self.core.engine.is_holding() { LossReason::JournalFull } else { LossReason::RingFull };
                    self.core.engine.dropped_row(reason, points);
                    self.intake().count_full(payload.len(), points);
                    let text = "the journal does not keep up and the ring is full; a row was dropped (more: status().dropped_rows)";
                    self.tell(py, Topic::Full, text);
                }
            }
        }
        Ok(())
    }

    fn status_dict<'py>(&self, py: Python<'py>, status: &Status) -> PyResult<Bound<'py, PyDict>> {
        let (behind_rows, dropped_values) = if self.is_inherited() {
            (0, 0)
        } else {
            let intake = self.intake();
            (intake.behind_rows(), intake.dropped_values())
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

/// Waits in slices, so that Ctrl-C is heard; `None`: nothing came within `timeout`.
fn wait_in_slices<T: Send>(
    py: Python<'_>,
    timeout: Option<f64>,
    is_finishing: bool,
    wait: impl Fn(Duration) -> Option<T> + Sync,
) -> PyResult<Option<T>> {
    let timeout = timeout.map(|seconds| Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX));
    let start = clock::mono();
    loop {
        let waited = clock::mono().saturating_sub(start);
        let slice = timeout.map_or(SIGNAL_POLL, |timeout| timeout.saturating_sub(waited).min(SIGNAL_POLL));
        if let Some(result) = py.detach(|| wait(slice)) {
            return Ok(Some(result));
        }
        py.check_signals()?;
        if fork::is_cut(is_finishing) || timeout.is_some_and(|timeout| clock::mono().saturating_sub(start) >= timeout) {
            return Ok(None);
        }
    }
}

fn last_to_python(py: Python<'_>, last: Last) -> PyResult<Bound<'_, PyAny>> {
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
