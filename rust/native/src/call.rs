//! `run.log`: the C function that Python calls, and the row it makes.
//!
//! The forms that loops use, `log(data)`, `log(data, step)` and `log(data, step=step)`, are taken apart here; all others go through
//! [`Writer::log`], which has the signature and its errors. A recognised call is a row in the ring when this returns, without an
//! object made, a reference counted or Python code run.

#![expect(unsafe_code, reason = "a C function for Python; each block says what its caller promises")]

use std::ffi::CStr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::slice;
use std::sync::atomic::Ordering;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use pyo3::{ffi, intern};
use runferry_engine::clock;
use runferry_engine::intake::{Intake, KnownRow};

use crate::fork;
use crate::seen::{Filled, SeenCall};
use crate::writer::{Step, Writer};

/// Python keeps a pointer to it for as long as a run's method lives.
struct Method(ffi::PyMethodDef);

// SAFETY: nobody writes to it.
unsafe impl Sync for Method {}

const DOC: &CStr =
    c"log(data, step=None, commit=None)\n--\n\nRecord values for one step and return at once: see `Run.log`.";

static LOG: Method = Method(ffi::PyMethodDef {
    ml_name: c"log".as_ptr(),
    ml_meth: ffi::PyMethodDefPointer { PyCFunctionFastWithKeywords: log },
    ml_flags: ffi::METH_FASTCALL | ffi::METH_KEYWORDS,
    ml_doc: DOC.as_ptr(),
});

/// The method `log` of a writer, as an object.
pub(crate) fn method(writer: &Bound<'_, Writer>) -> PyResult<Py<PyAny>> {
    // SAFETY: the definition is never changed or freed, though the interface does not say const; the object holds the writer.
    unsafe {
        let definition = (&raw const LOG.0).cast_mut();
        let made = ffi::PyCFunction_NewEx(definition, writer.as_ptr(), ptr::null_mut());
        Bound::from_owned_ptr_or_err(writer.py(), made).map(Bound::unbind)
    }
}

/// A call in one of the forms that loops use.
#[derive(Clone, Copy)]
struct Plain {
    data: *mut ffi::PyObject,
    /// Borrowed from the caller; null: not given.
    step: *mut ffi::PyObject,
}

unsafe extern "C" fn log(
    of: *mut ffi::PyObject,
    arguments: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: Python calls its functions with the GIL held.
    let py = unsafe { Python::assume_attached() };
    // SAFETY: `method` is the only place that makes this function's objects, and it gives them a writer.
    let writer = unsafe { Borrowed::from_ptr(py, of).cast_unchecked::<Writer>() };
    // SAFETY: by Python's calling convention `arguments` has `count` positional ones and one for each keyword.
    let plain = unsafe { plain_form(writer.get(), arguments, count, keywords) };
    let taken = plain.map(|plain| catch_unwind(AssertUnwindSafe(|| take(writer.get(), py, plain))));
    if let Some(Ok(true)) = taken {
        // SAFETY: None is always there.
        return unsafe { ffi::Py_NewRef(ffi::Py_None()) };
    }
    let has_failed = matches!(taken, Some(Err(_)));
    let answered = if !writer.get().is_inherited() && fork::is_ending() {
        None // Python may be going away: nothing more of it is touched.
    } else {
        Python::try_attach(|py| {
            if has_failed {
                // Nobody knows how far it came: the long way might make a second row of it.
                writer.get().count_fault(py);
                return py.None().into_ptr();
            }
            // SAFETY: as above.
            match unsafe { long_way(py, of, plain, arguments, count, keywords) } {
                Ok(()) => py.None().into_ptr(),
                Err(error) => {
                    error.restore(py);
                    ptr::null_mut()
                }
            }
        })
    };
    answered.unwrap_or_else(|| {
        writer.get().ignore_row();
        // SAFETY: None is always there.
        unsafe { ffi::Py_NewRef(ffi::Py_None()) }
    })
}

/// # Safety
/// As Python calls a `METH_FASTCALL` function.
#[inline]
unsafe fn plain_form(
    writer: &Writer,
    arguments: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    keywords: *mut ffi::PyObject,
) -> Option<Plain> {
    // SAFETY: each branch reads arguments that its counts say are there.
    unsafe {
        match (count, keywords.is_null()) {
            (1, true) => Some(Plain { data: *arguments, step: ptr::null_mut() }),
            (2, true) => Some(Plain { data: *arguments, step: *arguments.add(1) }),
            (1, false) if ffi::PyTuple_Size(keywords) == 1 => {
                // The names in a call are interned, as this one is.
                let is_step = ffi::PyTuple_GetItem(keywords, 0) == writer.step_name.as_ptr();
                is_step.then(|| Plain { data: *arguments, step: *arguments.add(1) })
            }
            _ => None,
        }
    }
}

/// A call that may be a row at once.
struct Row {
    /// An exact dict.
    dict: *mut ffi::PyObject,
    values: usize,
    step: Option<i64>,
    time_us: i64,
}

impl Row {
    /// # Safety
    /// The caller holds the call's arguments, and the GIL.
    #[inline]
    unsafe fn of(call: Plain) -> Option<Self> {
        let Plain { data, step } = call;
        // SAFETY: both live; neither the size of a dict nor the value of an exact int can fail.
        unsafe {
            let step = if step.is_null() || step == ffi::Py_None() {
                None
            } else if (*step).ob_type == &raw mut ffi::PyLong_Type {
                let mut overflow = 0;
                let at = ffi::PyLong_AsLongLongAndOverflow(step, &raw mut overflow);
                Some((overflow == 0).then_some(at)?)
            } else {
                return None;
            };
            let is_dict = (*data).ob_type == &raw mut ffi::PyDict_Type;
            is_dict.then(|| Self {
                dict: data,
                values: ffi::PyDict_Size(data) as usize,
                step,
                time_us: clock::wall_us(),
            })
        }
    }
}

/// Whether the call was one that has been seen before, and is a row now. Else nothing has happened.
#[inline]
fn take(writer: &Writer, py: Python<'_>, call: Plain) -> bool {
    if writer.is_inherited() || fork::is_ending() || writer.engine().is_refusing() {
        return false;
    }
    // SAFETY: these are the arguments of the function that Python calls.
    let Some(row) = (unsafe { Row::of(call) }) else { return false };
    let taken = writer.calls.try_with(py, |calls| {
        let known = writer.intake(py, |intake| {
            let mut tried = calls.of_len(row.values).map(|(place, seen)| (place, offer(writer, intake, &row, seen)));
            // The first one whose names these are decides; what it has not taken goes the long way.
            tried.find(|(_, left)| *left != Some(Filled::OtherKeys))
        });
        let Some((place, None)) = known else { return false };
        calls.prefer(place);
        true
    });
    let is_taken = taken.unwrap_or(false);
    if is_taken && writer.has_pressure_to_tell() {
        writer.tell_pressure(py);
    }
    is_taken
}

/// Makes a row of a call if it is as one that was `seen`; else says why not.
#[inline]
fn offer(writer: &Writer, intake: &mut Intake, row: &Row, seen: &mut SeenCall) -> Option<Filled> {
    let mut filled = Filled::Odd;
    let known = KnownRow { schema: seen.schema, values: row.values, has_kinds: seen.has_kinds, time_us: row.time_us };
    let is_taken = intake.take_known(known, row.step, None, writer.engine(), |bits, kinds| {
        // SAFETY: the dict is an argument of the function that Python calls, with the GIL held.
        filled = unsafe { seen.fill(row.dict, bits, kinds) };
        filled == Filled::Whole
    });
    if is_taken {
        writer.step.store(intake.step(), Ordering::Relaxed);
        return None;
    }
    if filled == Filled::WantsKinds {
        seen.has_kinds = true; // so this ends
        return offer(writer, intake, row, seen);
    }
    Some(filled)
}

/// # Safety
/// As Python calls a `METH_FASTCALL` function of a writer.
#[cold]
unsafe fn long_way(
    py: Python<'_>,
    of: *mut ffi::PyObject,
    plain: Option<Plain>,
    arguments: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    keywords: *mut ffi::PyObject,
) -> PyResult<()> {
    // SAFETY: the caller holds the writer and its arguments until this returns.
    unsafe {
        let writer = Borrowed::from_ptr(py, of).cast_unchecked::<Writer>();
        if let Some(Plain { data, step }) = plain {
            let step = if step.is_null() { None } else { Borrowed::from_ptr(py, step).extract::<Option<Step>>()? };
            return writer.get().log(&Borrowed::from_ptr(py, data), step, None);
        }
        let named = if keywords.is_null() { 0 } else { ffi::PyTuple_Size(keywords) };
        let all = slice::from_raw_parts(arguments, (count + named) as usize);
        let mut objects = all.iter().map(|object| Borrowed::from_ptr(py, *object).to_owned());
        let positional = PyTuple::new(py, objects.by_ref().take(count as usize).collect::<Vec<_>>())?;
        let by_name = PyDict::new(py);
        for (place, object) in (0..named).zip(objects) {
            let name = Borrowed::from_ptr(py, ffi::PyTuple_GetItem(keywords, place)).to_owned();
            by_name.set_item(name, object)?;
        }
        writer.getattr(intern!(py, "log"))?.call(positional, Some(&by_name)).map(drop)
    }
}
