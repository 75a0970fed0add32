//! Calls seen before, and how one is recognised.
//!
//! A loop's key objects are mostly the same objects in every call, so a call is recognised by comparing pointers, and only else texts; the
//! cache owns its keys, since a freed object's address is used again. What [`crate::direct`] can read is read without running any
//! Python code; whatever else comes up sends the whole call the long way.

#![expect(unsafe_code, reason = "walks a dict without counting references; each block says why that holds")]

use std::ptr;

use pyo3::ffi;
use pyo3::prelude::*;
use runferry_wire::record::value_kind;

use crate::direct;

/// Key sequences remembered: a loop has a few kinds of calls.
const REMEMBERED_CALLS: usize = 8;

/// A call seen before: its key objects and the schema of its names.
#[derive(Debug)]
pub(crate) struct SeenCall {
    keys: Vec<Py<PyAny>>,
    pub(crate) schema: u32,
    /// Whether such a call has had values other than floats.
    pub(crate) has_kinds: bool,
}

/// What came of reading a call as one seen before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Filled {
    Whole,
    /// It has other names.
    OtherKeys,
    /// It has values other than floats, and there is no place for their kinds.
    WantsKinds,
    /// It has a value for the long way.
    Odd,
}

impl SeenCall {
    /// The values of a dict of `keys.len()` items, if its names are the same in the same order. Runs no Python code.
    ///
    /// # Safety
    /// `dict` is an exact dict that lives, and the thread holds the GIL.
    #[inline]
    pub(crate) unsafe fn fill(&self, dict: *mut ffi::PyObject, bits: &mut [[u8; 8]], kinds: &mut [u8]) -> Filled {
        // SAFETY: the caller's promise.
        if kinds.is_empty() && unsafe { self.fill_floats(dict, bits) } {
            return Filled::Whole;
        }
        // SAFETY: as above.
        unsafe { self.fill_any(dict, bits, kinds) }
    }

    /// Whether all keys are the very objects and all values floats, as they mostly are: a loop with nothing else in it.
    ///
    /// # Safety
    /// As for [`Self::fill`].
    #[inline]
    unsafe fn fill_floats(&self, dict: *mut ffi::PyObject, bits: &mut [[u8; 8]]) -> bool {
        if !direct::floats_are_known() {
            return false;
        }
        let (mut at, mut key, mut value) = (0, ptr::null_mut(), ptr::null_mut());
        for (seen, to) in self.keys.iter().zip(bits) {
            // SAFETY: nothing changes the dict meanwhile, and `at` is moved by this call alone; the value lives by the dict.
            unsafe {
                if ffi::PyDict_Next(dict, &raw mut at, &raw mut key, &raw mut value) == 0 || key != seen.as_ptr() {
                    return false;
                }
                let Some(found) = direct::float_bits(value) else { return false };
                *to = found.to_le_bytes();
            }
        }
        true
    }

    /// # Safety
    /// As for [`Self::fill`].
    unsafe fn fill_any(&self, dict: *mut ffi::PyObject, bits: &mut [[u8; 8]], kinds: &mut [u8]) -> Filled {
        let (mut at, mut key, mut value) = (0, ptr::null_mut(), ptr::null_mut());
        let mut kinds = kinds.iter_mut();
        for (seen, to) in self.keys.iter().zip(bits) {
            // SAFETY: as above.
            let has_item = unsafe { ffi::PyDict_Next(dict, &raw mut at, &raw mut key, &raw mut value) } != 0;
            // SAFETY: both keys live: the dict's by the dict, the other one by this.
            if !has_item || key != seen.as_ptr() && !unsafe { is_same_text(key, seen.as_ptr()) } {
                return Filled::OtherKeys;
            }
            // SAFETY: the value lives by the dict.
            let Some((kind, found)) = (unsafe { direct::bits_of(value) }) else { return Filled::Odd };
            *to = found.to_le_bytes();
            match kinds.next() {
                Some(to) => *to = kind,
                None if kind == value_kind::F64 => {}
                None => return Filled::WantsKinds,
            }
        }
        Filled::Whole
    }

    fn is_of(&self, keys: &[Py<PyAny>]) -> bool {
        self.keys.len() == keys.len() && self.keys.iter().zip(keys).all(|(one, other)| one.is(other))
    }
}

/// Whether `key` is a string that reads as the string `seen` does.
///
/// # Safety
/// Both live, and the thread holds the GIL.
unsafe fn is_same_text(key: *mut ffi::PyObject, seen: *mut ffi::PyObject) -> bool {
    // SAFETY: it lives. Exact strings: comparing others may run Python code.
    if unsafe { ffi::PyUnicode_CheckExact(key) } == 0 || unsafe { ffi::PyUnicode_CheckExact(seen) } == 0 {
        return false;
    }
    // SAFETY: both are strings that live.
    match unsafe { ffi::PyUnicode_Compare(key, seen) } {
        0 => true,
        // "Less", or no memory to make an old kind of string comparable.
        -1 => {
            // SAFETY: the thread holds the GIL.
            unsafe { ffi::PyErr_Clear() };
            false
        }
        _ => false,
    }
}

/// The calls seen lately, newest first.
#[derive(Debug, Default)]
pub(crate) struct SeenCalls(Vec<SeenCall>);

impl SeenCalls {
    /// Those of so many values, each with its place.
    #[inline]
    pub(crate) fn of_len(&mut self, len: usize) -> impl Iterator<Item = (usize, &mut SeenCall)> {
        self.0.iter_mut().enumerate().filter(move |(_, seen)| seen.keys.len() == len)
    }

    /// The call at `place` is looked at first from now on.
    #[inline]
    pub(crate) fn prefer(&mut self, place: usize) {
        if place > 0 {
            self.0.swap(0, place);
        }
    }

    /// Remembers a call whose names make up `schema`; returns what it forgets for it, to be dropped where Python code may run.
    pub(crate) fn remember(&mut self, keys: Vec<Py<PyAny>>, schema: u32) -> Vec<SeenCall> {
        let call = SeenCall { keys, schema, has_kinds: false };
        if self.0.iter().any(|seen| seen.is_of(&call.keys)) {
            return vec![call]; // It came the long way for a value of its own.
        }
        let forgotten = self.0.split_off(self.0.len().min(REMEMBERED_CALLS - 1));
        self.0.insert(0, call);
        forgotten
    }
}
