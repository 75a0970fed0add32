//! Frames as Python sees them: checked, taken apart, and (for tests and tools) put together.
//!
//! Ingest asks whether frames are whole, the metadata asks for their documents, readers for their rows. Checksums and
//! decompression run detached from the interpreter; only the conversion to objects holds it.

#![expect(clippy::needless_pass_by_value, reason = "PyO3 hands arguments over by value")]

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString};
use runferry_wire::block::{self, Block, Changes};
use runferry_wire::doc::Nodes;
use runferry_wire::payload::PayloadError;
use runferry_wire::{Doc, Draft, Frame, Header, Kind, Values, payload, varint};

/// One answer of [`verify_frames`]: kind, flags, run, writer, seq, next seq, record count, error.
type Verdict<'py> = (u8, u8, Bound<'py, PyBytes>, u64, u64, u64, u32, Option<String>);

/// Checks both checksums and the limits of each frame; never raises on bad bytes.
#[pyfunction]
pub(crate) fn verify_frames(py: Python<'_>, data: Vec<PyBackedBytes>) -> Vec<Verdict<'_>> {
    let checked: Vec<_> = py.detach(|| {
        data.iter()
            .map(|bytes| match Frame::read(bytes) {
                Ok(frame) if frame.bytes.len() == bytes.len() => (Some(frame.header), None),
                Ok(frame) => {
                    let surplus = bytes.len() - frame.bytes.len();
                    (Some(frame.header), Some(format!("{surplus} bytes behind the frame")))
                }
                Err(error) => (runferry_wire::Header::decode(bytes).ok(), Some(error.to_string())),
            })
            .collect()
    });
    checked
        .into_iter()
        .map(|(header, error)| match header {
            Some(header) => (
                header.kind.to_byte(),
                header.flags,
                PyBytes::new(py, &header.run_id),
                header.writer_id,
                header.seq,
                header.next_seq(),
                header.record_count,
                error,
            ),
            None => (0, 0, PyBytes::new(py, &[]), 0, 0, 0, 0, error),
        })
        .collect()
}

/// The blocks other than ROWS, or the map of an OPEN, FINISH, GAP or RECEIPT frame, by name.
#[pyfunction]
pub(crate) fn documents(py: Python<'_>, frame: PyBackedBytes) -> PyResult<Vec<(&'static str, Bound<'_, PyAny>)>> {
    let (kind, raw) = py.detach(|| caught(|| open_payload(&frame, payload::decompress_written)))?;
    let map_name = match kind {
        Kind::Open => Some("open"),
        Kind::Finish => Some("finish"),
        Kind::Gap => Some("gap"),
        Kind::Receipt => Some("receipt"),
        Kind::Data | Kind::Dict | Kind::Mark | Kind::BlobRef | Kind::Unknown(_) => None,
    };
    if let Some(name) = map_name {
        let doc = if raw.is_empty() {
            Doc::Map(Vec::new())
        } else {
            caught(|| Doc::decode(&raw).map_err(|error| PyValueError::new_err(error.to_string())))?
        };
        return Ok(vec![(name, doc_to_python(py, &doc)?)]);
    }
    if kind != Kind::Data {
        return Ok(Vec::new());
    }
    let decode = || block::decode_wanted(&raw, &|_| false).map_err(|error| PyValueError::new_err(error.to_string()));
    let blocks = py.detach(|| caught(decode))?;
    let mut found = Vec::new();
    for block in blocks {
        match block {
            Block::Config(changes) => found.push(("config", changes_to_python(py, &changes)?)),
            Block::Summary(changes) => found.push(("summary", changes_to_python(py, &changes)?)),
            Block::Meta(doc) => found.push(("meta", doc_to_python(py, &doc)?)),
            Block::Rows(_) | Block::Unknown { .. } => {}
        }
    }
    Ok(found)
}

/// One column of [`decode_rows`]: name, kind, presence per row (None: all), one value per present row.
type PythonColumn<'py> = (String, &'static str, Option<Vec<bool>>, Bound<'py, PyList>);

/// One ROWS block: steps, times in microseconds, columns.
type PythonRows<'py> = (Vec<i64>, Vec<i64>, Vec<PythonColumn<'py>>);

/// All rows of a DATA frame, one item per ROWS block.
#[pyfunction]
pub(crate) fn decode_rows(py: Python<'_>, frame: PyBackedBytes) -> PyResult<Vec<PythonRows<'_>>> {
    let blocks = py.detach(|| {
        let (kind, raw) = open_payload(&frame, payload::decompress)?;
        if kind != Kind::Data {
            return Err(PyValueError::new_err(format!("frame of kind {}, expected DATA", kind.to_byte())));
        }
        block::decode_answer(&raw).map_err(|error| PyValueError::new_err(error.to_string()))
    })?;
    let mut found = Vec::new();
    for block in blocks {
        let Block::Rows(rows) = block else { continue };
        let count = rows.steps.len();
        let mut columns = Vec::with_capacity(rows.columns.len());
        for column in rows.columns {
            let presence = column.presence.is_some().then(|| (0..count).map(|index| column.has(index)).collect());
            let values = values_to_python(py, &column.values)?;
            columns.push((column.name, kind_name(&column.values), presence, values));
        }
        found.push((rows.steps, rows.times_us, columns));
    }
    Ok(found)
}

/// A sealed frame around a raw msgpack payload.
#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "the fields of a header")]
pub(crate) fn pack_frame(
    py: Python<'_>,
    kind: u8,
    flags: u8,
    run_id: [u8; 16],
    writer_id: u64,
    seq: u64,
    record_count: u32,
    raw: PyBackedBytes,
) -> PyResult<Bound<'_, PyBytes>> {
    let raw_len = u32::try_from(raw.len()).ok().filter(|len| *len <= runferry_wire::frame::MAX_RAW_BYTES);
    let raw_len =
        raw_len.ok_or_else(|| PyValueError::new_err(format!("payload of {} bytes is too large", raw.len())))?;
    let draft = Draft { kind: Kind::from_byte(kind), flags, run_id, writer_id, seq, record_count };
    let frame = py.detach(|| {
        let (codec, stored) = payload::compress(&raw, 1);
        draft.seal(codec, raw_len, &stored)
    });
    Ok(PyBytes::new(py, &frame))
}

/// Runs a decoder over bytes that anybody may have sent; a panic in it is an error like any other.
fn caught<T>(decode: impl FnOnce() -> PyResult<T>) -> PyResult<T> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(decode))
        .unwrap_or_else(|_panic| Err(PyValueError::new_err("decoding it panicked")))
}

/// Verifies a frame and decompresses its payload.
fn open_payload(
    bytes: &[u8],
    decompress: impl Fn(&Header, &[u8]) -> Result<Vec<u8>, PayloadError>,
) -> PyResult<(Kind, Vec<u8>)> {
    let frame = Frame::read(bytes).map_err(|error| PyValueError::new_err(error.to_string()))?;
    let raw = decompress(&frame.header, frame.payload).map_err(|error| PyValueError::new_err(error.to_string()))?;
    Ok((frame.header.kind, raw))
}

fn changes_to_python<'py>(py: Python<'py>, changes: &Changes) -> PyResult<Bound<'py, PyAny>> {
    let dict = PyDict::new(py);
    dict.set_item("updates", doc_to_python(py, &changes.updates)?)?;
    dict.set_item("removed", &changes.removed)?;
    Ok(dict.into_any())
}

/// A document as the Python object it was.
pub(crate) fn doc_to_python<'py>(py: Python<'py>, doc: &Doc) -> PyResult<Bound<'py, PyAny>> {
    Ok(match doc {
        Doc::Nil => py.None().into_bound(py),
        Doc::Bool(value) => PyBool::new(py, *value).to_owned().into_any(),
        Doc::Int(value) => PyInt::new(py, *value).into_any(),
        Doc::Uint(value) => PyInt::new(py, *value).into_any(),
        Doc::F64(value) => PyFloat::new(py, *value).into_any(),
        Doc::Str(value) => PyString::new(py, value).into_any(),
        Doc::Bin(value) => PyBytes::new(py, value).into_any(),
        Doc::Array(items) => {
            let list = PyList::empty(py);
            for item in items {
                list.append(doc_to_python(py, item)?)?;
            }
            list.into_any()
        }
        Doc::Map(pairs) => {
            let dict = PyDict::new(py);
            for (name, value) in pairs {
                dict.set_item(name, doc_to_python(py, value)?)?;
            }
            dict.into_any()
        }
    })
}

/// The kind of a column, as `decode_rows` names it.
fn kind_name(values: &Values) -> &'static str {
    match values {
        Values::Null(_) => "null",
        Values::F64(_) => "float",
        Values::I64(_) => "int",
        Values::Bool(_) => "bool",
        Values::Str(_) => "string",
        Values::Hist(_) => "histogram",
        Values::Json(_) => "json",
        Values::Marker(_) => "marker",
    }
}

/// Histograms stay bytes, JSON becomes objects, markers become `(type, text)`.
fn values_to_python<'py>(py: Python<'py>, values: &Values) -> PyResult<Bound<'py, PyList>> {
    match values {
        Values::Null(count) => PyList::new(py, std::iter::repeat_n(py.None().into_bound(py), *count)),
        Values::F64(values) => PyList::new(py, values),
        Values::I64(values) => PyList::new(py, values),
        Values::Bool(values) => PyList::new(py, values),
        Values::Str(values) => PyList::new(py, values),
        Values::Hist(values) => PyList::new(py, values.iter().map(|value| PyBytes::new(py, value))),
        Values::Json(values) => {
            let list = PyList::empty(py);
            for value in values {
                list.append(json_to_python(py, value)?)?;
            }
            Ok(list)
        }
        Values::Marker(values) => PyList::new(py, values),
    }
}

/// One stored JSON value as an object.
pub(crate) fn json_to_python<'py>(py: Python<'py>, value: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    let doc =
        Doc::decode_within(value, Nodes::unbounded()).map_err(|error| PyValueError::new_err(error.to_string()))?;
    doc_to_python(py, &doc)
}

/// How many fields a message of the write door has, those of the message in its field 2 (frames) included; counting ends where the
/// bytes are no protobuf, and beyond a million.
#[pyfunction]
pub(crate) fn message_parts(message: &[u8]) -> usize {
    const MOST: usize = 1 << 20;
    const FRAMES: u64 = 2 << 3 | 2;
    let mut count = 0;
    let mut outer = message;
    while count <= MOST
        && let Some((tag, mut inner)) = take_field(&mut outer)
    {
        count += 1;
        while tag == FRAMES && count <= MOST && take_field(&mut inner).is_some() {
            count += 1;
        }
    }
    count
}

/// Takes a protobuf field off the front: its tag, and what is in it if it has a length.
fn take_field<'a>(bytes: &mut &'a [u8]) -> Option<(u64, &'a [u8])> {
    let tag = varint::take(bytes)?;
    let len = match tag & 7 {
        0 => varint::take(bytes).map(|_value| 0)?,
        1 => 8,
        2 => varint::take(bytes)?,
        5 => 4,
        _ => return None,
    };
    let (inner, rest) = bytes.split_at_checked(usize::try_from(len).ok()?)?;
    *bytes = rest;
    Some((tag, inner))
}
