//! Memory from the kernel: a shared file or anonymous pages, never handed to a forked child.
//!
//! A child that wrote into its parent's ring would corrupt it, so the mapping is `MADV_DONTFORK`: the child does not have it.
//! Then the addresses mean nothing there, or, worse, something else that was mapped since. [`Map::base`] therefore answers
//! only in the process that made the map. It knows by a page of its own that the kernel wipes in every child, however it
//! was forked (`MADV_WIPEONFORK`, one load); where a kernel does not offer that, by the process id.

#![expect(unsafe_code, reason = "mmap, madvise and munmap have no safe form")]

use std::ffi::c_void;
use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU8, Ordering};

use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};
use rustix::process::{Pid, getpid};

use crate::advice::{Advice, advise};

const GUARD_BYTES: usize = 4096;

/// Readable, writable memory of `bytes` bytes, all of it present; unmapped on drop.
#[derive(Debug)]
pub(crate) struct Map {
    base: NonNull<u8>,
    bytes: usize,
    guard: ForkGuard,
}

// SAFETY: a Map is an address range that no thread owns; who may touch which bytes of it is `region.rs`'s business.
unsafe impl Send for Map {}
// SAFETY: as above; the methods only read fields that never change.
unsafe impl Sync for Map {}

impl Map {
    /// Maps the first `bytes` bytes of a file, shared, so that stores outlive the process.
    ///
    /// The file must have that size, fully allocated. A page that still cannot be had is an error here, not a SIGBUS later.
    pub(crate) fn shared(file: BorrowedFd<'_>, bytes: usize) -> io::Result<Self> {
        let guard = ForkGuard::new()?;
        // SAFETY: the kernel chooses the place, so no memory in use is replaced.
        let base = unsafe { mmap(ptr::null_mut(), bytes, read_write(), MapFlags::SHARED, file, 0) }?;
        Self::prepare(base, bytes, guard)
    }

    /// Maps `bytes` bytes of zeros that die with the process.
    pub(crate) fn anonymous(bytes: usize) -> io::Result<Self> {
        let guard = ForkGuard::new()?;
        // SAFETY: the kernel chooses the place, so no memory in use is replaced.
        let base = unsafe { mmap_anonymous(ptr::null_mut(), bytes, read_write(), MapFlags::PRIVATE) }?;
        Self::prepare(base, bytes, guard)
    }

    fn prepare(base: *mut c_void, bytes: usize, guard: ForkGuard) -> io::Result<Self> {
        let map = Self { base: non_null(base)?, bytes, guard };
        // Some sandboxes do not know these two; the guard keeps children off the ring all the same.
        // SAFETY: advice on a mapping that is ours alone changes no byte of it.
        unsafe { advise(base, bytes, Advice::DontFork) }.ok();
        // SAFETY: as above.
        unsafe { advise(base, bytes, Advice::DontDump) }.ok();
        // Page faults now instead of in the first lap of `log()` calls.
        // SAFETY: as above; it touches pages as a store would, without changing them.
        match unsafe { advise(base, bytes, Advice::PopulateWrite) } {
            // Older than Linux 5.14: pages come when they are touched.
            Ok(()) | Err(rustix::io::Errno::INVAL) => Ok(map),
            Err(refused) => Err(refused.into()),
        }
    }

    /// The first byte; `None` in a forked child, which does not have the mapping.
    #[inline]
    pub(crate) fn base(&self) -> Option<NonNull<u8>> {
        self.guard.is_creator().then_some(self.base)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // In a child the range may hold other mappings by now: unmapping it would pull them away.
        if self.guard.is_creator() {
            // SAFETY: the range is ours, and nothing borrows from a Map that is being dropped.
            unsafe { munmap(self.base.as_ptr().cast(), self.bytes) }.ok();
        }
    }
}

/// Knows whether this is the process that made it.
#[derive(Debug)]
enum ForkGuard {
    /// A page holding 1, which reads 0 in every child.
    Wiped(NonNull<AtomicU8>),
    /// For other systems, kernels before Linux 4.14 and sandboxes: a system call a time.
    Pid(Pid),
}

impl ForkGuard {
    fn new() -> io::Result<Self> {
        // SAFETY: the kernel chooses the place, so no memory in use is replaced.
        let page = unsafe { mmap_anonymous(ptr::null_mut(), GUARD_BYTES, read_write(), MapFlags::PRIVATE) }?;
        // SAFETY: advice on a page that is ours alone.
        if unsafe { advise(page, GUARD_BYTES, Advice::WipeOnFork) }.is_err() {
            // SAFETY: as above, and nothing points to it.
            unsafe { munmap(page, GUARD_BYTES) }.ok();
            return Ok(Self::Pid(getpid()));
        }
        let flag = non_null(page)?.cast::<AtomicU8>();
        // SAFETY: the page is mapped, zeroed and large enough for one byte.
        unsafe { flag.as_ref() }.store(1, Ordering::Relaxed);
        Ok(Self::Wiped(flag))
    }

    #[inline]
    fn is_creator(&self) -> bool {
        match self {
            // SAFETY: the page is mapped in the creator and, wiped, in its children, until drop.
            Self::Wiped(flag) => unsafe { flag.as_ref() }.load(Ordering::Relaxed) == 1,
            Self::Pid(creator) => *creator == getpid(),
        }
    }
}

impl Drop for ForkGuard {
    fn drop(&mut self) {
        if let Self::Wiped(flag) = self {
            // SAFETY: the page is this process's own, in a child too, and nothing borrows from a guard being dropped.
            unsafe { munmap(flag.as_ptr().cast(), GUARD_BYTES) }.ok();
        }
    }
}

fn read_write() -> ProtFlags {
    ProtFlags::READ | ProtFlags::WRITE
}

fn non_null<T>(mapped: *mut T) -> io::Result<NonNull<u8>> {
    NonNull::new(mapped.cast()).ok_or_else(|| io::Error::other("mmap gave the null address"))
}
