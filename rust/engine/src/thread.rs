//! Named threads that never disturb the trainer: all signals blocked, panics caught and kept for `status()`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

use nix::sys::signal::{SigSet, SigmaskHow};

use crate::shared::Shared;

/// Starts a thread. A panic in `body` is recorded in `shared` and ends only the thread.
///
/// # Errors
/// The operating system refuses another thread.
pub(crate) fn spawn(
    name: &str,
    shared: Arc<Shared>,
    body: impl FnOnce() + Send + 'static,
) -> std::io::Result<JoinHandle<()>> {
    let thread_name = name.to_owned();
    // A new thread inherits the mask: block here, start, restore. Blocking in the thread itself would leave a window.
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK).ok();
    let started = std::thread::Builder::new().name(thread_name.clone()).spawn(move || {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(body)) {
            let text = panic.downcast_ref::<&str>().map(ToString::to_string);
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "panic".to_owned());
            shared.thread_died(&thread_name, &text);
        }
    });
    if let Some(before) = before {
        // Restoring a mask the kernel gave us a moment ago does not fail.
        before.thread_set_mask().ok();
    }
    started
}
