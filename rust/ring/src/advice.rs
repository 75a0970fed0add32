//! What is asked of the kernel about a mapping. Linux knows all of it; other systems are not asked, and [`crate::map`] does without.

#![expect(unsafe_code, reason = "madvise has no safe form")]

use std::ffi::c_void;

use rustix::io::Result;

/// See `madvise(2)`, under the names there.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Advice {
    DontFork,
    DontDump,
    PopulateWrite,
    WipeOnFork,
}

/// `INVAL` where the kernel does not know it.
///
/// # Safety
/// The range is a mapping of the caller's alone.
#[cfg(target_os = "linux")]
pub(crate) unsafe fn advise(base: *mut c_void, bytes: usize, advice: Advice) -> Result<()> {
    use rustix::mm::{Advice as Linux, madvise};
    let advice = match advice {
        Advice::DontFork => Linux::LinuxDontFork,
        Advice::DontDump => Linux::LinuxDontDump,
        Advice::PopulateWrite => Linux::LinuxPopulateWrite,
        Advice::WipeOnFork => Linux::LinuxWipeOnFork,
    };
    // SAFETY: none of them changes a byte that the caller does not own.
    unsafe { madvise(base, bytes, advice) }
}

/// # Safety
/// None is needed: nothing is done.
#[cfg(not(target_os = "linux"))]
pub(crate) unsafe fn advise(_base: *mut c_void, _bytes: usize, _advice: Advice) -> Result<()> {
    Err(rustix::io::Errno::INVAL)
}
