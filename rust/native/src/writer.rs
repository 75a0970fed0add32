//! `Writer`: what a run holds of the Rust side. Python work first, then the intake and its ring, never the other way round: the intake is
//! held by the GIL, and whoever holds it neither lets go of the GIL nor runs Python code.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pyo3::exceptions::{PyKeyboardInterrupt, PyOverflowError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use runferry_engine::batch::Identity;
use runferry_engine::intake::{Intake, Taken};
use runferry_engine::{Flushed, Fsync, Options, Policy, Reach, Status, Writer as Engine, clock};
use runferry_wire::Doc;
use runferry_wire::block::{Block, Changes};

use crate::documents::doc_of;
use crate::errors::journal_error;
use crate::fork::{self, Inside};
use crate::journals::{AccessSettings, Follower, access_of};
use crate::seen::SeenCalls;
use crate::status::last_to_python;
use crate::told::Told;
use crate::under_gil::UnderGil;
use crate::{call, direct};

/// Longest a `finish` or `flush` without timeout waits at a time before it looks for Ctrl-C.
const SIGNAL_POLL: Duration = Duration::from_millis(200);

/// The step of a call.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step {
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
    /// What `call` remembers.
    pub(crate) calls: UnderGil<SeenCalls>,
    /// "step", as it stands in calls.
    pub(crate) step_name: Py<PyString>,
    pub(crate) convert: Py<PyAny>,
    /// Called instead of `log` in a forked child.
    in_child: Option<Py<PyAny>>,
    pub(crate) run_name: String,
    id: u64,
    /// The process that made it, see [`fork::generation`]: a forked child has none of its threads.
    generation: u64,
    /// The intake's, to be read without its lock: a child asks for it too.
    pub(crate) step: AtomicI64,
    /// Calls that came when nothing is taken any more.
    ignored_rows: AtomicU64,
    /// `finish` was called: the intake's own word, for who is without the GIL.
    pub(crate) is_closed: AtomicBool,
    pub(crate) told: Told,
}

/// What a forked child must neither lock nor drop.
struct Core {
    engine: Engine,
    intake: UnderGil<Intake>,
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
        let intake = UnderGil::new(Intake::new(producer, engine.dir().to_owned(), start_step));
        Ok(Self {
            core: Arc::new(Core { engine, intake, orphans: Mutex::new(orphans) }),
            calls: UnderGil::default(),
            step_name: PyString::intern(py, "step").unbind(),
            convert,
            in_child,
            run_name,
            id: writer_id,
            generation: fork::generation(),
            step: AtomicI64::new(start_step),
            ignored_rows: AtomicU64::new(0),
            is_closed: AtomicBool::new(false),
            told: Told::default(),
        })
    }

    /// `log` for a loop, see [`call`].
    #[getter]
    fn fast_log(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        direct::learn_floats(slf.py());
        call::method(slf)
    }

    #[pyo3(signature = (data, step=None, commit=None))]
    pub(crate) fn log(&self, data: &Bound<'_, PyAny>, step: Option<Step>, commit: Option<bool>) -> PyResult<()> {
        if self.is_inherited() {
            return self.log_in_child(data, step, commit);
        }
        if fork::is_ending() {
            self.ignore_row();
            return Ok(());
        }
        // A fault of ours must not reach the training loop: it costs the row, counted.
        catch_unwind(AssertUnwindSafe(|| self.take(data, step, commit))).unwrap_or_else(|_panic| {
            self.count_fault(data.py());
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
        let taken = self.intake(py, |intake| intake.take_document(&block));
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
        self.intake(py, |intake| intake.report_drops(true));
        let flushed = wait_in_slices(py, timeout, false, |slice| match self.core.engine.flush(reach, slice) {
            Flushed::Yes => Some(true),
            Flushed::Never => Some(false),
            // Finished by another thread meanwhile: nobody answers any more.
            Flushed::NotYet => self.is_closed.load(Ordering::Acquire).then_some(false),
        })?;
        Ok(flushed.unwrap_or(false))
    }

    #[pyo3(signature = (exit_code, timeout))]
    fn finish<'py>(&self, py: Python<'py>, exit_code: i64, timeout: Option<f64>) -> PyResult<Bound<'py, PyDict>> {
        if self.is_inherited() {
            return self.status_dict(py, &Status::default());
        }
        let _inside = Inside::enter();
        self.intake(py, |intake| {
            intake.report_drops(true);
            intake.close();
        });
        self.is_closed.store(true, Ordering::Release);
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
    pub(crate) fn ignored_rows(&self) -> u64 {
        self.ignored_rows.load(Ordering::Relaxed)
    }

    #[getter]
    fn writer_id(&self) -> u64 {
        self.id
    }

    #[getter]
    pub(crate) fn journal_dir(&self) -> String {
        self.core.engine.dir().display().to_string()
    }
}

impl Writer {
    /// The threads behind the run.
    #[inline]
    pub(crate) fn engine(&self) -> &Engine {
        &self.core.engine
    }

    /// Counts a call that came when nothing is taken any more.
    pub(crate) fn ignore_row(&self) {
        self.ignored_rows.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether this is a forked child of the process that made the writer: nothing here answers then, so nothing is asked.
    #[inline]
    pub(crate) fn is_inherited(&self) -> bool {
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

    /// `body` with the intake; a panic in there leaves the ring as it was before the call.
    #[inline]
    pub(crate) fn intake<R>(&self, py: Python<'_>, body: impl FnOnce(&mut Intake) -> R) -> R {
        self.core.intake.with(py, body)
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
