//! What a fork and the end of the process mean for the native side.
//!
//! # Fork
//! A child inherits the memory behind every writer and none of the threads. `pthread_atfork` calls [`in_child`] in each child,
//! whoever forked it: Python, a C extension, `subprocess` where it cannot `vfork`. It closes the descriptors of the parent's journals,
//! locks and connections, and starts a new *generation*, by which everything inherited is known as such: not locked (another
//! thread may have held the lock at that instant, and does not exist here), not dropped, only leaked.
//!
//! # The end
//! A thread that wants the GIL back once the interpreter is finalising is ended by `pthread_exit` (Python 3.14: it sleeps for ever). That
//! unwinds its stack, and a stack with frames of Rust or of pyo3 in it cannot be unwound that way: the process aborts. So
//! before that point nobody may be left inside. Calls that may run Python code or let go of the GIL are counted by
//! [`Inside`]; [`leave`], called by the exit hook, turns new ones away and waits for those.

#![expect(unsafe_code, reason = "pthread_atfork and close have no safe form here")]

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pyo3::prelude::*;
use runferry_engine::clock;

/// How often [`leave`] looks.
const LEAVE_POLL: Duration = Duration::from_millis(1);
/// How often it hears Ctrl-C.
const SIGNAL_POLL: Duration = Duration::from_millis(50);
/// How long calls that were told to return get for it.
const CUT_PATIENCE: Duration = Duration::from_secs(2);

static GENERATION: AtomicU64 = AtomicU64::new(1);
static INSIDE: AtomicU64 = AtomicU64::new(0);
static ENDING: AtomicU64 = AtomicU64::new(ALIVE);

const ALIVE: u64 = 0;
/// Calls of `log` are turned away.
const LEAVING: u64 = 1;
/// A `finish` in another thread stops waiting.
const CUT: u64 = 2;
/// So does the exit hook's own.
const HURRIED: u64 = 3;

thread_local! {
    /// Whether this thread runs the exit hook: its waits are those of the exit itself.
    static IS_LEAVING: Cell<bool> = const { Cell::new(false) };
}

/// Number of this process in its line of forks.
#[inline]
pub(crate) fn generation() -> u64 {
    GENERATION.load(Ordering::Relaxed)
}

/// Whether the process ends: nothing is taken any more.
#[inline]
pub(crate) fn is_ending() -> bool {
    ENDING.load(Ordering::SeqCst) != ALIVE
}

/// Whether Ctrl-C was pressed while the process ends.
pub(crate) fn is_hurried() -> bool {
    ENDING.load(Ordering::SeqCst) == HURRIED
}

/// Whether a wait of this thread is to end now: of `finish` when the exit hook has run out of patience, of all else when it begins.
pub(crate) fn is_cut(is_finishing: bool) -> bool {
    is_hurried() || ENDING.load(Ordering::SeqCst) > if is_finishing { LEAVING } else { ALIVE } && !IS_LEAVING.get()
}

/// A call that may run Python code or let go of the GIL.
pub(crate) struct Inside {
    generation: u64,
}

impl Inside {
    pub(crate) fn enter() -> Self {
        INSIDE.fetch_add(1, Ordering::SeqCst);
        Self { generation: generation() }
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        // A call that forked is counted in the parent alone.
        if self.generation == generation() {
            INSIDE.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// Makes every later fork call [`in_child`].
pub(crate) fn watch() {
    clock::mono(); // Its start is fixed here, where no other thread of ours can be in the middle of it at a fork.
    // SAFETY: the handler lives as long as the process: Python never unloads an extension module. A refusal (no memory) leaves the
    // ring's own guard and Python's fork hook.
    unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
}

/// Async-signal-safe: atomics and `close` only.
extern "C" fn in_child() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
    INSIDE.store(0, Ordering::Relaxed);
    for fd in runferry_descriptors::take_inherited() {
        // SAFETY: the descriptor belongs to an object of the parent's that nobody here uses or drops.
        unsafe { libc::close(fd) };
    }
}

/// Ends all waiting, now and later: the process ends, and somebody is in a hurry.
#[pyfunction]
pub(crate) fn hurry() {
    ENDING.store(HURRIED, Ordering::SeqCst);
}

/// Turns calls of `log` away, and waits at most `patience_s` seconds for the calls that are inside; with `cut`, waits of other threads
/// end at once behind that. Says whether nobody is left.
#[pyfunction]
#[pyo3(signature = (patience_s, cut))]
pub(crate) fn leave(py: Python<'_>, patience_s: f64, cut: bool) -> PyResult<bool> {
    IS_LEAVING.set(true);
    ENDING.fetch_max(LEAVING, Ordering::SeqCst);
    let patience = Duration::try_from_secs_f64(patience_s.max(0.0)).unwrap_or(Duration::MAX);
    let waited = wait_outside(py, patience, is_hurried);
    if !cut {
        return waited;
    }
    ENDING.fetch_max(CUT, Ordering::SeqCst);
    match waited {
        Ok(true) => Ok(true),
        Ok(false) => wait_outside(py, CUT_PATIENCE, || false),
        // Ctrl-C ends the patience, not the care.
        Err(interrupt) => wait_outside(py, CUT_PATIENCE, || false).and(Err(interrupt)),
    }
}

fn wait_outside(py: Python<'_>, patience: Duration, is_over: impl Fn() -> bool) -> PyResult<bool> {
    let start = clock::mono();
    loop {
        let slice_start = clock::mono();
        let is_empty = py.detach(|| {
            loop {
                let is_empty = INSIDE.load(Ordering::SeqCst) == 0;
                let now = clock::mono();
                if is_empty || now.saturating_sub(start) >= patience || now.saturating_sub(slice_start) >= SIGNAL_POLL {
                    return is_empty;
                }
                std::thread::sleep(LEAVE_POLL);
            }
        });
        if is_empty {
            return Ok(true);
        }
        py.check_signals()?;
        if clock::mono().saturating_sub(start) >= patience || is_over() {
            return Ok(false);
        }
    }
}
