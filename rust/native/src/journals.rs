//! Journals for Python: adoption, sync, following, and looking inside.

#![expect(clippy::needless_pass_by_value, reason = "PyO3 hands arguments over by value")]

use std::path::PathBuf;
use std::time::Duration;

use pyo3::IntoPyObjectExt;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use runferry_engine::upload::{Destination, Follower as EngineFollower, Timeouts, Upload, Which, writer_dirs};
use runferry_engine::{Access, adopt, inspect};

use crate::errors::text_of;

const CLIENT: &str = concat!("runferry/", env!("CARGO_PKG_VERSION"));
/// How often the progress callback is called, and Ctrl-C heard.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// `runferry._access.Access`.
#[derive(FromPyObject)]
pub(crate) struct AccessSettings {
    api_key: Option<String>,
    settings_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    sends_plain_key: bool,
}

/// The same for the engine; nothing given: no key, the system's authorities.
pub(crate) fn access_of(settings: Option<AccessSettings>) -> Access {
    settings.map_or_else(Access::default, |AccessSettings { api_key, settings_file, ca_file, sends_plain_key }| {
        Access { api_key, settings_file, ca_file, sends_plain_key }
    })
}

#[pyfunction]
pub(crate) fn local_last_step(py: Python<'_>, root: PathBuf, run_id: [u8; 16]) -> Option<i64> {
    py.detach(|| adopt::last_step(&root, run_id))
}

#[pyfunction]
#[pyo3(signature = (paths, base_url, access, progress, timeout_s=5.0))]
pub(crate) fn sync<'py>(
    py: Python<'py>,
    paths: Vec<PathBuf>,
    base_url: Option<String>,
    access: Option<AccessSettings>,
    progress: &Bound<'py, PyAny>,
    timeout_s: f64,
) -> PyResult<Bound<'py, PyList>> {
    let mut dirs: Vec<PathBuf> = paths.iter().flat_map(|path| writer_dirs(path)).collect();
    dirs.sort();
    dirs.dedup();
    let timeout = Duration::try_from_secs_f64(timeout_s).map_err(|error| PyValueError::new_err(error.to_string()))?;
    let mut upload = Upload::start(dirs, base_url, access_of(access), CLIENT.to_owned(), timeout)?;
    let uploaded = loop {
        let waited = py.detach(|| upload.wait(PROGRESS_EVERY));
        let now = upload.progress();
        let told = PyDict::new(py);
        told.set_item("sent_frames", now.acked_frames)?;
        told.set_item("total_frames", now.total_frames)?;
        told.set_item("sent_bytes", now.sent_bytes)?;
        told.set_item("total_bytes", now.total_bytes)?;
        let heard = progress.call1((told,)).and_then(|_| py.check_signals());
        if let Err(error) = heard {
            py.detach(|| upload.stop());
            return Err(error);
        }
        if let Some(uploaded) = waited {
            break uploaded;
        }
    };
    py.detach(|| upload.stop());
    let list = PyList::empty(py);
    for one in uploaded {
        let dict = PyDict::new(py);
        dict.set_item("path", one.dir.as_os_str())?;
        dict.set_item("run", one.run)?;
        dict.set_item("writer_id", one.writer_id)?;
        dict.set_item("frames", one.frames)?;
        dict.set_item("acked_frames", one.acked_frames)?;
        dict.set_item("rows", one.records)?;
        dict.set_item("base_url", py.None())?;
        dict.set_item("error", one.error)?;
        dict.set_item("unreachable", one.is_unreachable)?;
        list.append(dict)?;
    }
    Ok(list)
}

#[pyfunction]
pub(crate) fn journal_list(py: Python<'_>, root: PathBuf) -> PyResult<Bound<'_, PyList>> {
    let list = PyList::empty(py);
    for state in py.detach(|| inspect::list(&root)) {
        let dict = PyDict::new(py);
        dict.set_item("path", state.path.as_os_str())?;
        dict.set_item("run", state.run)?;
        dict.set_item("writer_id", state.writer_id)?;
        dict.set_item("mode", state.mode)?;
        dict.set_item("base_url", state.base_url)?;
        dict.set_item("alive", state.is_alive)?;
        dict.set_item("pid", state.pid)?;
        dict.set_item("host", state.host)?;
        dict.set_item("finished", state.is_finished)?;
        dict.set_item("frames", state.frames)?;
        dict.set_item("backlog_frames", state.backlog_frames)?;
        dict.set_item("backlog_bytes", state.backlog_bytes)?;
        dict.set_item("last_ack_us", state.last_ack_us)?;
        dict.set_item("error", state.error)?;
        list.append(dict)?;
    }
    Ok(list)
}

#[pyfunction]
pub(crate) fn journal_frames(py: Python<'_>, path: PathBuf) -> PyResult<Bound<'_, PyAny>> {
    let found = py.detach(|| inspect::frames(&path)).map_err(|error| PyValueError::new_err(text_of(&error)))?;
    let list = PyList::empty(py);
    for frame in found {
        let dict = PyDict::new(py);
        dict.set_item("segment", frame.segment.as_os_str())?;
        dict.set_item("offset", frame.offset)?;
        dict.set_item("kind", frame.kind)?;
        dict.set_item("seq", frame.seq)?;
        dict.set_item("records", frame.records)?;
        dict.set_item("stored_bytes", frame.stored_bytes)?;
        dict.set_item("raw_bytes", frame.raw_bytes)?;
        dict.set_item("error", frame.error)?;
        list.append(dict)?;
    }
    list.try_iter()?.into_bound_py_any(py)
}

#[pyfunction]
pub(crate) fn journal_fsck(py: Python<'_>, path: PathBuf) -> PyResult<Bound<'_, PyDict>> {
    let check = py.detach(|| inspect::check(&path));
    let dict = PyDict::new(py);
    dict.set_item("path", check.path.as_os_str())?;
    dict.set_item("segments", check.segments)?;
    dict.set_item("frames", check.frames)?;
    dict.set_item("rows", check.records)?;
    dict.set_item("stored_bytes", check.stored_bytes)?;
    dict.set_item("raw_bytes", check.raw_bytes)?;
    dict.set_item("first_seq", check.first_seq)?;
    dict.set_item("next_seq", check.next_seq)?;
    let gaps = PyList::empty(py);
    for (seq, count, reason) in check.gaps {
        let gap = PyDict::new(py);
        gap.set_item("seq", seq)?;
        gap.set_item("count", count)?;
        gap.set_item("reason", reason)?;
        gaps.append(gap)?;
    }
    dict.set_item("gaps", gaps)?;
    dict.set_item("errors", check.errors)?;
    dict.set_item("torn_bytes", check.torn_bytes)?;
    Ok(dict)
}

/// Sends what lies and what arrives in some folders to one server, until it is stopped.
#[pyclass(frozen, module = "runferry._native")]
pub(crate) struct Follower {
    inner: EngineFollower,
}

impl Follower {
    /// Adopts the orphans below `root`: offline ones are packed, those of `base_url` are sent there.
    pub(crate) fn of_orphans(root: PathBuf, base_url: Option<&str>, access: Access) -> std::io::Result<Self> {
        let destination = Destination {
            base_url: base_url.unwrap_or_default().to_owned(),
            access,
            client: CLIENT.to_owned(),
            timeouts: Timeouts::default(),
        };
        Ok(Self { inner: EngineFollower::start(vec![root], destination, Which::OrphansOf)? })
    }

    pub(crate) fn end(&self) {
        self.inner.stop();
    }
}

#[pymethods]
impl Follower {
    #[new]
    #[pyo3(signature = (paths, base_url, api_key=None))]
    fn new(paths: Vec<PathBuf>, base_url: String, api_key: Option<String>) -> PyResult<Self> {
        let timeouts = Timeouts::default();
        // Its user is the server itself, which asks nobody on the way.
        let access = Access { api_key, sends_plain_key: true, ..Access::default() };
        let destination = Destination { base_url, access, client: CLIENT.to_owned(), timeouts };
        Ok(Self { inner: EngineFollower::start(paths, destination, Which::Offline)? })
    }

    fn status<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        for (path, state) in self.inner.status() {
            dict.set_item(path.display().to_string(), state)?;
        }
        Ok(dict)
    }

    /// Ends it. The wait is for a network thread that answers at once; `timeout_s` is kept for callers that name it.
    #[pyo3(signature = (timeout_s=5.0))]
    fn stop(&self, py: Python<'_>, timeout_s: f64) {
        let _ = timeout_s;
        py.detach(|| self.inner.stop());
    }
}
