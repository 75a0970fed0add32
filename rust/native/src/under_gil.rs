//! What only the holder of the GIL touches: a lock that costs no atomic operation.

#![expect(unsafe_code, reason = "hands out a reference by a flag that the GIL keeps from being raced for")]

use std::cell::{Cell, UnsafeCell};

use pyo3::prelude::*;

/// A value that is used by one call at a time. A call may let go of the GIL, or run Python code that comes back here: the second one
/// is turned away.
#[derive(Debug, Default)]
pub(crate) struct UnderGil<T> {
    is_taken: Cell<bool>,
    value: UnsafeCell<T>,
}

// SAFETY: both fields are reached by `try_with` alone, whose `Python` says that the thread holds the GIL; the GIL orders what its holders
// do one after the other. (A Python without one does not load a module of the stable ABI.)
unsafe impl<T: Send> Sync for UnderGil<T> {}

impl<T> UnderGil<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { is_taken: Cell::new(false), value: UnsafeCell::new(value) }
    }

    /// Calls `body` with the value; `None`: another call is at it.
    #[inline]
    pub(crate) fn try_with<R>(&self, _attached: Python<'_>, body: impl FnOnce(&mut T) -> R) -> Option<R> {
        if self.is_taken.replace(true) {
            return None;
        }
        let _free = Free(&self.is_taken);
        // SAFETY: the flag was free and is taken until `_free` is dropped, so there is no other reference.
        Some(body(unsafe { &mut *self.value.get() }))
    }

    /// As [`UnderGil::try_with`], for bodies that run no Python code and keep the GIL: no other call can be at it then.
    ///
    /// # Panics
    /// If one is all the same.
    #[inline]
    pub(crate) fn with<R>(&self, attached: Python<'_>, body: impl FnOnce(&mut T) -> R) -> R {
        self.try_with(attached, body).expect("nothing in there runs Python code")
    }
}

/// Frees the flag, after a panic too.
struct Free<'a>(&'a Cell<bool>);

impl Drop for Free<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.set(false);
    }
}
