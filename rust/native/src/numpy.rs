//! numpy's scalar types, recognised by their type objects: training loops log them as often as Python's own numbers.
//!
//! Nothing is imported: whoever logs a numpy scalar has imported numpy. Most are then read
//! directly; what is here is for the others.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;
use runferry_wire::record::value_kind;

use crate::direct;

/// Type objects and the kind their values are kept as.
static TYPES: PyOnceLock<Vec<(Py<PyType>, u8)>> = PyOnceLock::new();

const FLOATS: [&str; 3] = ["float16", "float32", "float64"];
const INTEGERS: [&str; 8] = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"];

/// Looks numpy's types up if `value` is the first object of numpy's to be met. Runs Python code: not to be called under a lock.
pub(crate) fn learn(value: &Bound<'_, PyAny>) {
    let py = value.py();
    if TYPES.get(py).is_none()
        && value.get_type().module().is_ok_and(|module| module == "numpy")
        && let Ok(types) = types_of_numpy(py)
    {
        // Another thread may have been faster: its table is the same.
        TYPES.set(py, types).ok();
    }
}

/// Kind and bits of a numpy scalar, by numpy's own conversion; `None`: something else, an integer beyond 64 bits signed, or numpy was not
/// [`learn`]ed yet.
pub(crate) fn bits_of(value: &Bound<'_, PyAny>) -> Option<(u8, u64)> {
    let class = value.get_type();
    let types = TYPES.get(value.py())?;
    match types.iter().find(|(known, _)| known.is(&class))?.1 {
        value_kind::F64 => Some((value_kind::F64, value.extract::<f64>().ok()?.to_bits())),
        value_kind::I64 => Some((value_kind::I64, value.extract::<i64>().ok()? as u64)),
        _ => Some((value_kind::BOOL, u64::from(value.is_truthy().ok()?))),
    }
}

fn types_of_numpy(py: Python<'_>) -> PyResult<Vec<(Py<PyType>, u8)>> {
    let numpy = py.import("numpy")?;
    direct::learn_scalars(&numpy)?;
    let floats = FLOATS.iter().map(|name| (*name, value_kind::F64));
    let integers = INTEGERS.iter().map(|name| (*name, value_kind::I64));
    floats
        .chain(integers)
        .chain([("bool_", value_kind::BOOL)])
        .map(|(name, kind)| Ok((numpy.getattr(name)?.cast_into::<PyType>()?.unbind(), kind)))
        .collect()
}
