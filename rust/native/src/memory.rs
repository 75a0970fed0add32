//! Memory that runs out: where the system has none, a thread of ours waits, and the training goes on.
//!
//! Rust ends the process where an allocation fails, and the process is the trainer's, who may have had a MemoryError coming, and an answer
//! to it. So where this allocator, which is else the system's, gets nothing, it first gives up some address space kept for that moment,
//! and then lets the threads behind a run (`rf-...`) try again until there is some. What they have not packed stays in the ring.
//!
//! # Not covered
//! A thread of the trainer's that is inside `log()` cannot wait: it may hold the interpreter, and with it what could be freed. Large texts
//! are asked for beforehand ([`has_room`]); for the last few KiB the process ends as it would anywhere in Rust.

#![expect(unsafe_code, reason = "an allocator and a mapping have no safe form")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// Address space that is given up first: more than the threads ask for while they hold a lock.
const RESERVE_BYTES: usize = 4 << 20;
/// More than this is a mistake, not a want of memory: nobody waits for it.
const LARGEST_WAITED_FOR_BYTES: usize = 256 << 20;
const POLL_US: libc::useconds_t = 20_000;

static RESERVE: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());

#[global_allocator]
static ALLOCATOR: Patient = Patient;

struct Patient;

// SAFETY: each method gives what the system's allocator gives for the same arguments.
unsafe impl GlobalAlloc for Patient {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are passed on.
        let attempt = || unsafe { System.alloc(layout) };
        let found = attempt();
        if found.is_null() { again(layout.size(), attempt) } else { found }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        let attempt = || unsafe { System.alloc_zeroed(layout) };
        let found = attempt();
        if found.is_null() { again(layout.size(), attempt) } else { found }
    }

    #[inline]
    unsafe fn realloc(&self, old: *mut u8, layout: Layout, new_bytes: usize) -> *mut u8 {
        // SAFETY: as above; an attempt that failed has left the old memory as it was.
        let attempt = || unsafe { System.realloc(old, layout, new_bytes) };
        let found = attempt();
        if found.is_null() { again(new_bytes, attempt) } else { found }
    }

    #[inline]
    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(old, layout) }
    }
}

#[cold]
fn again(bytes: usize, attempt: impl Fn() -> *mut u8) -> *mut u8 {
    loop {
        give_up_reserve();
        let found = attempt();
        if !found.is_null() || bytes > LARGEST_WAITED_FOR_BYTES || !is_thread_of_ours() {
            return found;
        }
        // SAFETY: it takes no pointer.
        unsafe { libc::usleep(POLL_US) };
    }
}

/// By its name, which takes no memory to read.
fn is_thread_of_ours() -> bool {
    let mut name = [0_u8; 16];
    // SAFETY: at most so many bytes are written as it is told that there are, and the calling thread is a living one.
    let refusal = unsafe { libc::pthread_getname_np(libc::pthread_self(), name.as_mut_ptr().cast(), name.len()) };
    refusal == 0 && name.starts_with(b"rf-")
}

/// Keeps address space for the moment when there is none; nothing is written to it, so it costs no memory.
pub(crate) fn keep_reserve() {
    if !RESERVE.load(Ordering::Relaxed).is_null() {
        return;
    }
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: the kernel chooses the place, so no memory in use is replaced.
    let place = unsafe { libc::mmap(ptr::null_mut(), RESERVE_BYTES, libc::PROT_NONE, flags, -1, 0) };
    if place == libc::MAP_FAILED {
        return; // none to be had now: the next call tries again
    }
    if RESERVE.compare_exchange(ptr::null_mut(), place, Ordering::AcqRel, Ordering::Relaxed).is_err() {
        // SAFETY: it was mapped a moment ago, and nobody else knows it.
        unsafe { libc::munmap(place, RESERVE_BYTES) };
    }
}

fn give_up_reserve() {
    let place = RESERVE.swap(ptr::null_mut(), Ordering::AcqRel);
    if !place.is_null() {
        // SAFETY: whoever takes it out of `RESERVE` is the only one to have it.
        unsafe { libc::munmap(place, RESERVE_BYTES) };
    }
}

/// Whether so much could be had now. Asked for large things only: it takes the memory and gives it back.
pub(crate) fn has_room(bytes: usize) -> bool {
    Vec::<u8>::new().try_reserve_exact(bytes).is_ok()
}
