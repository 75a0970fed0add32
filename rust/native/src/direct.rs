//! Plain values read straight out of their objects: no reference is counted and no Python code runs.
//!
//! # Layouts
//! Where a float keeps its double is no part of the stable ABI, and neither are numpy's scalars. So at the first use objects of known
//! values are looked at, and a type whose objects do not show them where they are expected is read by the interface as ever.

#![expect(unsafe_code, reason = "reads objects by their addresses; each block says why they are there")]

use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyFloat, PyType};
use runferry_wire::record::value_kind;

/// Where a scalar's value lies: behind the head of its object.
const VALUE_AT: usize = size_of::<ffi::PyObject>();

/// Whether floats lie where they are expected.
static FLOATS_ARE_KNOWN: AtomicBool = AtomicBool::new(false);

/// A type of numpy's whose scalars lie where they are expected.
struct Scalar {
    name: &'static str,
    bytes: usize,
    read: unsafe fn(*const u8) -> (u8, u64),
    /// The type object; null: not known. It is never freed.
    class: AtomicPtr<ffi::PyTypeObject>,
}

macro_rules! scalar {
    ($name:literal, $kind:ident, $raw:ty, $value:expr) => {
        Scalar {
            name: $name,
            bytes: size_of::<$raw>(),
            // SAFETY: the caller passes the address of a value of this type; numpy aligns it, which is not relied upon.
            read: |at| (value_kind::$kind, $value(unsafe { at.cast::<$raw>().read_unaligned() })),
            class: AtomicPtr::new(std::ptr::null_mut()),
        }
    };
}

/// By how often they are logged. float16 and uint64 are not all of a kind that is kept, see `numpy`.
static SCALARS: [Scalar; 10] = [
    scalar!("float32", F64, f32, |value: f32| f64::from(value).to_bits()),
    scalar!("float64", F64, f64, f64::to_bits),
    scalar!("int64", I64, i64, |value: i64| value as u64),
    scalar!("int32", I64, i32, |value: i32| i64::from(value) as u64),
    scalar!("bool_", BOOL, u8, |value: u8| u64::from(value != 0)),
    scalar!("uint8", I64, u8, |value: u8| u64::from(value)),
    scalar!("int8", I64, i8, |value: i8| i64::from(value) as u64),
    scalar!("int16", I64, i16, |value: i16| i64::from(value) as u64),
    scalar!("uint16", I64, u16, |value: u16| u64::from(value)),
    scalar!("uint32", I64, u32, |value: u32| u64::from(value)),
];
/// How many of [`SCALARS`] to look through: none before numpy was met.
static SCALARS_KNOWN: AtomicUsize = AtomicUsize::new(0);

/// Looks where floats keep their values. To be called before the first [`bits_of`].
pub(crate) fn learn_floats(py: Python<'_>) {
    let samples = [1.5, -0.0, 1e300, f64::from_bits(0x0123_4567_89AB_CDEF)];
    let are_known = bytes_of_objects(&py.get_type::<PyFloat>()).is_ok_and(|bytes| bytes >= VALUE_AT + 8)
        && samples.iter().all(|sample| {
            let float = PyFloat::new(py, *sample);
            // SAFETY: a float has at least 8 bytes behind its head.
            let found = unsafe { float.as_ptr().cast::<u8>().add(VALUE_AT).cast::<u64>().read_unaligned() };
            found == sample.to_bits()
        });
    FLOATS_ARE_KNOWN.store(are_known, Ordering::Relaxed);
}

/// Looks where numpy's scalars keep theirs. Runs Python code.
pub(crate) fn learn_scalars(numpy: &Bound<'_, PyModule>) -> PyResult<()> {
    for scalar in &SCALARS {
        let class = numpy.getattr(scalar.name)?.cast_into::<PyType>()?;
        if bytes_of_objects(&class)? < VALUE_AT + scalar.bytes {
            continue;
        }
        let shows = |number: i64| -> PyResult<bool> {
            let sample = class.call1((number,))?;
            // SAFETY: an object of this type has so many bytes behind its head.
            let (kind, bits) = unsafe { (scalar.read)(sample.as_ptr().cast::<u8>().add(VALUE_AT)) };
            let expected = match kind {
                value_kind::F64 => (number as f64).to_bits(),
                value_kind::I64 => number as u64,
                _ => u64::from(number != 0),
            };
            Ok(sample.get_type().is(&class) && bits == expected)
        };
        if shows(0)? && shows(1)? && shows(0x55)? {
            scalar.class.store(class.into_ptr().cast(), Ordering::Relaxed);
        }
    }
    SCALARS_KNOWN.store(SCALARS.len(), Ordering::Release);
    Ok(())
}

fn bytes_of_objects(class: &Bound<'_, PyType>) -> PyResult<usize> {
    class.getattr("__basicsize__")?.extract()
}

/// Whether [`float_bits`] may be called.
#[inline]
pub(crate) fn floats_are_known() -> bool {
    FLOATS_ARE_KNOWN.load(Ordering::Relaxed)
}

/// The bits of an exact float; `None`: it is something else.
///
/// # Safety
/// [`floats_are_known`], `value` is an object that lives, and the thread holds the GIL.
#[inline]
pub(crate) unsafe fn float_bits(value: *mut ffi::PyObject) -> Option<u64> {
    // SAFETY: it lives, and `learn_floats` has seen that floats have their value there.
    unsafe {
        let is_float = (*value).ob_type == &raw mut ffi::PyFloat_Type;
        is_float.then(|| value.cast::<u8>().add(VALUE_AT).cast::<u64>().read_unaligned())
    }
}

/// Kind and bits of an exact float, int, bool or None, or of a scalar of numpy's; `None`: something else, or an integer beyond 64 bits.
///
/// # Safety
/// `value` is an object that lives, and the thread holds the GIL.
#[inline]
pub(crate) unsafe fn bits_of(value: *mut ffi::PyObject) -> Option<(u8, u64)> {
    // SAFETY: the caller's promise.
    if floats_are_known()
        && let Some(bits) = unsafe { float_bits(value) }
    {
        return Some((value_kind::F64, bits));
    }
    // SAFETY: it lives.
    let class = unsafe { (*value).ob_type };
    if class == &raw mut ffi::PyFloat_Type {
        // SAFETY: it is a float, for which this cannot fail.
        return Some((value_kind::F64, unsafe { ffi::PyFloat_AsDouble(value) }.to_bits()));
    }
    // SAFETY: it lives.
    unsafe { other_bits(value, class) }
}

/// [`bits_of`], for an object that is held.
pub(crate) fn bits(value: &Bound<'_, PyAny>) -> Option<(u8, u64)> {
    // SAFETY: it is held, and where there is a `Bound` there is the GIL.
    unsafe { bits_of(value.as_ptr()) }
}

unsafe fn other_bits(value: *mut ffi::PyObject, class: *mut ffi::PyTypeObject) -> Option<(u8, u64)> {
    if class == &raw mut ffi::PyLong_Type {
        let mut overflow = 0;
        // SAFETY: it is an exact int: neither runs Python code nor raises.
        let number = unsafe { ffi::PyLong_AsLongLongAndOverflow(value, &raw mut overflow) };
        return (overflow == 0).then_some((value_kind::I64, number as u64));
    }
    if class == &raw mut ffi::PyBool_Type {
        // SAFETY: True and False are one object each.
        return Some((value_kind::BOOL, u64::from(value == unsafe { ffi::Py_True() })));
    }
    // SAFETY: None is one object.
    if value == unsafe { ffi::Py_None() } {
        return Some((value_kind::NULL, 0));
    }
    let scalars = SCALARS.get(..SCALARS_KNOWN.load(Ordering::Acquire))?;
    let scalar = scalars.iter().find(|scalar| scalar.class.load(Ordering::Relaxed) == class)?;
    // SAFETY: `learn_scalars` has seen that objects of this type have their value there.
    Some(unsafe { (scalar.read)(value.cast::<u8>().add(VALUE_AT)) })
}
