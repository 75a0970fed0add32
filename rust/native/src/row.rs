//! One `log()` dict as a row, whatever is in it; [`crate::seen`] has the short way of a loop.

use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString, PyTuple};
use runferry_wire::record::{Value, value_kind};

use crate::documents::doc_of;
use crate::{direct, memory, numpy};

/// Longest text, histogram or JSON value kept as it is: larger ones become a marker.
const LARGEST_VALUE_BYTES: usize = 4 << 20;
/// A text of so many bytes is asked about before it is copied, as often as it will be until it is in the ring.
const LARGE_TEXT_BYTES: usize = 64 << 10;
const COPIES_OF_A_TEXT: usize = 4;
/// Longest name.
const LONGEST_NAME_BYTES: usize = 1 << 10;

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

/// A float, int, bool, text, None or numpy scalar of exactly these types; `None` for anything that needs a conversion.
fn plain(value: &Bound<'_, PyAny>) -> Option<Owned> {
    if let Ok(value) = value.cast_exact::<PyString>() {
        return value.to_str().ok().map(owned_text);
    }
    numpy::learn(value);
    let found = direct::bits(value).or_else(|| numpy::bits_of(value));
    found.map(|(kind, bits)| match kind {
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
