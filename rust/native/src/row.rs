//! One `log()` dict as a row: the fast path for a loop that logs the same keys, and the long way for everything else.
//!
//! # The fast path
//! A loop's key objects are the same objects in every call, so a call is recognised by comparing pointers; the cache owns its
//! keys, since a freed object's address is used again. Floats, integers and bools of exactly these types, None and numpy's
//! scalars are read without running any Python code; whatever else comes up sends the whole call the long way.

use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};
use runferry_wire::record::{Value, value_kind};

use crate::documents::doc_of;
use crate::{memory, numpy};

/// Longest text, histogram or JSON value kept as it is: larger ones become a marker.
const LARGEST_VALUE_BYTES: usize = 4 << 20;
/// A text of so many bytes is asked about before it is copied, as often as it will be until it is in the ring.
const LARGE_TEXT_BYTES: usize = 64 << 10;
const COPIES_OF_A_TEXT: usize = 4;
/// Longest name.
const LONGEST_NAME_BYTES: usize = 1 << 10;
/// Key sequences remembered: a loop has a few kinds of calls.
const REMEMBERED_CALLS: usize = 8;

/// A value that owns what it holds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Owned {
    Null,
    F64(f64),
    I64(i64),
    Bool(bool),
    Str(String),
    Hist(Vec<u8>),
    Json(Vec<u8>),
    Marker(String, String),
}

impl Owned {
    pub(crate) fn as_value(&self) -> Value<'_> {
        match self {
            Self::Null => Value::Null,
            Self::F64(value) => Value::F64(*value),
            Self::I64(value) => Value::I64(*value),
            Self::Bool(value) => Value::Bool(*value),
            Self::Str(value) => Value::Str(value),
            Self::Hist(value) => Value::Hist(value),
            Self::Json(value) => Value::Json(value),
            Self::Marker(kind, text) => Value::Marker(kind, text),
        }
    }

    /// Itself, or a marker if it is larger than a value may be.
    fn bounded(self) -> Self {
        let (kind, len) = match &self {
            Self::Str(text) => ("str", text.len()),
            Self::Hist(bytes) => ("histogram", bytes.len()),
            Self::Json(bytes) => ("json", bytes.len()),
            _ => return self,
        };
        if len <= LARGEST_VALUE_BYTES {
            return self;
        }
        Self::Marker(kind.to_owned(), format!("{len} bytes, at most {LARGEST_VALUE_BYTES} are stored"))
    }
}

/// A call seen before: its key objects and the schema of its names.
#[derive(Debug)]
pub(crate) struct SeenCall {
    keys: Vec<Py<PyAny>>,
    schema: u32,
}

/// The calls seen lately, newest first.
#[derive(Debug, Default)]
pub(crate) struct SeenCalls(Vec<SeenCall>);

/// Values of a recognised call, as they go into a row entry.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    pub(crate) bits: Vec<u64>,
    kinds: Vec<u8>,
    has_only_floats: bool,
}

impl Scratch {
    /// The kinds; `None`: all are floats.
    pub(crate) fn kinds(&self) -> Option<&[u8]> {
        (!self.has_only_floats).then_some(&self.kinds)
    }
}

impl SeenCalls {
    /// Recognises a call and reads its values; the schema, or `None` for the long way.
    #[inline]
    pub(crate) fn read(&mut self, data: &Bound<'_, PyDict>, scratch: &mut Scratch) -> Option<u32> {
        let len = data.len();
        for place in 0..self.0.len() {
            let Some(seen) = self.0.get(place).filter(|seen| seen.keys.len() == len) else { continue };
            match read_if_same(&seen.keys, data, scratch) {
                Some(true) => {
                    let schema = seen.schema;
                    if place > 0 {
                        self.0.swap(0, place);
                    }
                    return Some(schema);
                }
                Some(false) => return None,
                None => {}
            }
        }
        None
    }

    /// Remembers a call whose names make up `schema`; returns what it forgets for it, to be dropped where Python code may run.
    pub(crate) fn remember(&mut self, keys: Vec<Py<PyAny>>, schema: u32) -> Vec<SeenCall> {
        let forgotten = self.0.split_off(self.0.len().min(REMEMBERED_CALLS - 1));
        self.0.insert(0, SeenCall { keys, schema });
        forgotten
    }
}

/// `None`: other keys. `Some(false)`: these keys, but a value for the long way.
#[inline]
fn read_if_same(keys: &[Py<PyAny>], data: &Bound<'_, PyDict>, scratch: &mut Scratch) -> Option<bool> {
    scratch.bits.clear();
    scratch.kinds.clear();
    scratch.has_only_floats = true;
    for ((key, value), seen) in data.iter().zip(keys) {
        if !key.is(seen) {
            return None;
        }
        let (kind, bits) = if let Ok(value) = value.cast_exact::<PyFloat>() {
            (value_kind::F64, value.value().to_bits())
        } else {
            match plain_bits(&value) {
                Some(found) => {
                    scratch.has_only_floats &= found.0 == value_kind::F64;
                    found
                }
                None => return Some(false),
            }
        };
        scratch.bits.push(bits);
        scratch.kinds.push(kind);
    }
    Some(true)
}

/// Kind and bits of an exact int, bool or None, or of a numpy scalar.
fn plain_bits(value: &Bound<'_, PyAny>) -> Option<(u8, u64)> {
    if value.is_exact_instance_of::<PyInt>() {
        return Some((value_kind::I64, value.extract::<i64>().ok()? as u64));
    }
    if let Ok(value) = value.cast_exact::<PyBool>() {
        return Some((value_kind::BOOL, u64::from(value.is_true())));
    }
    if value.is_none() {
        return Some((value_kind::NULL, 0));
    }
    numpy::bits_of(value)
}

/// A dict taken apart the long way.
#[derive(Debug, Default)]
pub(crate) struct LongRow {
    pub(crate) items: Vec<(String, Owned)>,
    /// `_timestamp` of the dict, microseconds.
    pub(crate) time_us: Option<i64>,
    /// The dict's key objects, if the next such call may take the fast path.
    pub(crate) keys: Option<Vec<Py<PyAny>>>,
    pub(crate) marked_values: u64,
    pub(crate) dropped_values: u64,
    pub(crate) drop_reason: Option<String>,
}

impl LongRow {
    /// Reads a dict; `convert` turns the values that are not plain into plain ones.
    ///
    /// Raises TypeError for a key that is not a string (before anything else happens) and what `convert` raises.
    pub(crate) fn read(data: &Bound<'_, PyDict>, convert: &Py<PyAny>) -> PyResult<Self> {
        let py = data.py();
        let pairs: Vec<(Bound<'_, PyAny>, Bound<'_, PyAny>)> = data.iter().collect();
        if pairs.iter().any(|(key, _)| !key.is_instance_of::<PyString>()) {
            return Err(PyTypeError::new_err("Key values passed to `runferry.log` must be strings."));
        }
        let mut row = Self { items: Vec::with_capacity(pairs.len()), ..Self::default() };
        let mut is_repeatable = !pairs.is_empty();
        for (key, value) in &pairs {
            let Ok(name) = key.cast::<PyString>()?.to_str().map(ToOwned::to_owned) else {
                is_repeatable = false;
                row.convert(py, convert, key, value)?;
                continue;
            };
            if name == "_step" {
                is_repeatable = false;
                continue;
            }
            if name == "_timestamp" {
                is_repeatable = false;
                if let Ok(seconds) = value.extract::<f64>()
                    && seconds.is_finite()
                {
                    row.time_us = Some((seconds * 1e6).round() as i64);
                }
                continue;
            }
            let is_odd_name = name.is_empty() || name.len() > LONGEST_NAME_BYTES;
            match plain(value) {
                Some(plain) if !is_odd_name => row.keep(name, plain),
                _ => {
                    is_repeatable = false;
                    row.convert(py, convert, key, value)?;
                }
            }
        }
        if is_repeatable {
            row.keys = Some(pairs.into_iter().map(|(key, _)| key.unbind()).collect());
        }
        Ok(row)
    }

    fn keep(&mut self, name: String, value: Owned) {
        let value = value.bounded();
        self.marked_values += u64::from(matches!(value, Owned::Marker(..)));
        self.items.push((name, value));
    }

    fn convert(
        &mut self,
        py: Python<'_>,
        convert: &Py<PyAny>,
        key: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let leaves = convert.bind(py).call1((key, value))?;
        for leaf in leaves.cast::<PyList>()?.iter() {
            let (path, value): (Bound<'_, PyAny>, Bound<'_, PyAny>) = leaf.extract()?;
            if let Some(plain) = plain(&value) {
                self.keep(path.extract()?, plain);
                continue;
            }
            let tagged = value.cast::<PyTuple>()?;
            let tag: String = tagged.get_item(0)?.extract()?;
            match tag.as_str() {
                "hist" => self.keep(path.extract()?, Owned::Hist(tagged.get_item(1)?.extract()?)),
                "json" => self.keep(path.extract()?, Owned::Json(doc_of(&tagged.get_item(1)?)?.encode())),
                "marker" => {
                    let text = (tagged.get_item(1)?.extract()?, tagged.get_item(2)?.extract()?);
                    self.keep(path.extract()?, Owned::Marker(text.0, text.1));
                }
                _ => {
                    self.dropped_values += 1;
                    self.drop_reason = Some(tagged.get_item(1)?.extract()?);
                }
            }
        }
        Ok(())
    }
}

/// A copy, or a marker where there is no memory for one.
fn owned_text(text: &str) -> Owned {
    if text.len() >= LARGE_TEXT_BYTES && !memory::has_room(COPIES_OF_A_TEXT * text.len()) {
        return Owned::Marker("str".to_owned(), format!("{} bytes, for which there was no memory", text.len()));
    }
    Owned::Str(text.to_owned())
}

/// A float, int, bool, text or None of exactly these types; `None` for anything that needs a conversion.
fn plain(value: &Bound<'_, PyAny>) -> Option<Owned> {
    if let Ok(value) = value.cast_exact::<PyFloat>() {
        return Some(Owned::F64(value.value()));
    }
    if let Ok(value) = value.cast_exact::<PyString>() {
        return value.to_str().ok().map(owned_text);
    }
    numpy::learn(value);
    plain_bits(value).map(|(kind, bits)| match kind {
        value_kind::I64 => Owned::I64(bits as i64),
        value_kind::F64 => Owned::F64(f64::from_bits(bits)),
        value_kind::BOOL => Owned::Bool(bits != 0),
        _ => Owned::Null,
    })
}

/// Whether `data` is a mapping other than a dict, as a dict.
pub(crate) fn as_dict<'py>(data: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyDict>> {
    if let Ok(dict) = data.cast::<PyDict>() {
        return Ok(dict.clone());
    }
    let py = data.py();
    let is_mapping = py.import("collections.abc")?.getattr(intern!(py, "Mapping"))?;
    if data.is_instance(&is_mapping)? {
        let dict = PyDict::new(py);
        dict.update(data.cast::<pyo3::types::PyMapping>()?)?;
        return Ok(dict);
    }
    Err(PyTypeError::new_err("runferry.log must be passed a dictionary"))
}
