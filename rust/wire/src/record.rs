//! Records: what one `log()` call leaves in the ring, and what an adopter finds there.
//!
//! A row names its metrics by a *schema* (an interned list of interned names), so that a loop that logs the same keys
//! writes 24 bytes and 8 per value. A row whose names are not interned (names region full, keys that never repeat)
//! carries them itself. The ring is of one machine and one version: integers are little-endian, but nothing here is promised
//! to outlive the version that the ring's header names.
//!
//! # Layout
//! ```text
//! ROW_SCHEMA  schema u32 | flags u32 | step i64 | time_us i64 | n x 8 values | [n kinds] | heap
//! ROW_NAMED   n u32      | flags u32 | step i64 | time_us i64 | n x 8 values | n kinds | n x (offset u32, len u32) names | heap
//! DOCUMENT    kind u8 (2 config, 3 summary, 4 meta) | msgpack [updates, removed]
//! SPOOLED     entry kind u8 | path of the file that holds the entry's payload
//! DROPPED     rows u64 | points u64 | bytes u64 | reason u8
//! ```
//! Without kinds every value is an f64. A value in the heap is `offset u32, len u32` there. A MARKER is
//! `len u32 of the type | type | text`.

use crate::block::{Block, Changes};
use crate::doc::{Doc, Nodes};
use crate::msgpack::{MsgpackError, Reader};

/// A row by schema.
pub const ROW_SCHEMA: u8 = 1;
/// A row that carries its names.
pub const ROW_NAMED: u8 = 2;
/// Changes of config, summary or meta.
pub const DOCUMENT: u8 = 3;
/// An entry too large for the ring, in a file.
pub const SPOOLED: u8 = 4;
/// Rows that were refused.
pub const DROPPED: u8 = 5;

/// First byte of an interned name.
pub const TAG_NAME: u8 = b'n';
/// First byte of an interned schema: u32 name ids follow.
pub const TAG_SCHEMA: u8 = b's';

/// Bytes before the values of a row.
pub const ROW_HEAD_BYTES: usize = 24;
/// Flag of a row: kinds stand behind the values.
pub const HAS_KINDS: u32 = 1;

/// The kind byte of a value; as the column kinds of `docs/format.md`.
pub mod value_kind {
    /// null
    pub const NULL: u8 = 0;
    /// 64-bit float
    pub const F64: u8 = 1;
    /// 64-bit integer
    pub const I64: u8 = 3;
    /// 0 or 1
    pub const BOOL: u8 = 4;
    /// UTF-8 in the heap
    pub const STR: u8 = 5;
    /// histogram bytes in the heap
    pub const HIST: u8 = 6;
    /// msgpack in the heap
    pub const JSON: u8 = 7;
    /// type and text in the heap
    pub const MARKER: u8 = 8;
}

/// One value of a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// Nothing.
    Null,
    /// A float.
    F64(f64),
    /// An integer.
    I64(i64),
    /// A truth value.
    Bool(bool),
    /// Text.
    Str(&'a str),
    /// Histogram bytes.
    Hist(&'a [u8]),
    /// A msgpack value.
    Json(&'a [u8]),
    /// Type and printable form of a value that could not be kept.
    Marker(&'a str, &'a str),
}

impl Value<'_> {
    /// About the bytes it takes.
    pub fn byte_count(&self) -> usize {
        8 + self.heap_bytes()
    }

    /// Bytes it takes in a row beyond its 8.
    fn heap_bytes(&self) -> usize {
        match self {
            Self::Null | Self::F64(_) | Self::I64(_) | Self::Bool(_) => 0,
            Self::Str(text) => text.len(),
            Self::Hist(bytes) | Self::Json(bytes) => bytes.len(),
            Self::Marker(kind, text) => 4 + kind.len() + text.len(),
        }
    }
}

/// Who names the values of a row.
#[derive(Debug, Clone, Copy)]
pub enum RowNames<'a> {
    /// An interned schema.
    Schema(u32),
    /// The row itself.
    Inline(&'a [&'a str]),
}

/// Writes one row; returns the entry kind and the payload.
pub fn encode_row(names: RowNames<'_>, step: i64, time_us: i64, values: &[Value<'_>]) -> (u8, Vec<u8>) {
    let has_kinds = matches!(names, RowNames::Inline(_)) || values.iter().any(|value| !matches!(value, Value::F64(_)));
    let heap_bytes: usize = values.iter().map(Value::heap_bytes).sum();
    let mut out = Vec::with_capacity(ROW_HEAD_BYTES + values.len() * 17 + heap_bytes);
    let (kind, head) = match names {
        RowNames::Schema(schema) => (ROW_SCHEMA, schema),
        RowNames::Inline(names) => (ROW_NAMED, names.len() as u32),
    };
    out.extend_from_slice(&head.to_le_bytes());
    out.extend_from_slice(&u32::from(has_kinds).to_le_bytes());
    out.extend_from_slice(&step.to_le_bytes());
    out.extend_from_slice(&time_us.to_le_bytes());
    let mut heap = Vec::with_capacity(heap_bytes);
    let mut spill = |parts: &[&[u8]]| {
        let offset = heap.len() as u64;
        parts.iter().for_each(|part| heap.extend_from_slice(part));
        offset | (heap.len() as u64 - offset) << 32
    };
    let mut kinds = Vec::with_capacity(values.len());
    for value in values {
        let (kind, bits) = match value {
            Value::Null => (value_kind::NULL, 0),
            Value::F64(value) => (value_kind::F64, value.to_bits()),
            Value::I64(value) => (value_kind::I64, *value as u64),
            Value::Bool(value) => (value_kind::BOOL, u64::from(*value)),
            Value::Str(text) => (value_kind::STR, spill(&[text.as_bytes()])),
            Value::Hist(bytes) => (value_kind::HIST, spill(&[bytes])),
            Value::Json(bytes) => (value_kind::JSON, spill(&[bytes])),
            Value::Marker(kind, text) => {
                let len = (kind.len() as u32).to_le_bytes();
                (value_kind::MARKER, spill(&[&len, kind.as_bytes(), text.as_bytes()]))
            }
        };
        kinds.push(kind);
        out.extend_from_slice(&bits.to_le_bytes());
    }
    if has_kinds {
        out.extend_from_slice(&kinds);
    }
    if let RowNames::Inline(names) = names {
        for name in names {
            out.extend_from_slice(&spill(&[name.as_bytes()]).to_le_bytes());
        }
    }
    out.extend_from_slice(&heap);
    (kind, out)
}

/// A row as it lies in an entry.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    /// The schema, or `None` when the row carries its names.
    pub schema: Option<u32>,
    /// The step.
    pub step: i64,
    /// Microseconds since 1970 UTC.
    pub time_us: i64,
    values: &'a [u8],
    kinds: Option<&'a [u8]>,
    names: &'a [u8],
    heap: &'a [u8],
}

impl<'a> Row<'a> {
    /// Reads a row entry. `schema_len` gives the number of names of a schema. `None`: the bytes are not a row.
    pub fn decode(entry_kind: u8, payload: &'a [u8], schema_len: impl Fn(u32) -> Option<usize>) -> Option<Self> {
        let (head, mut rest) = payload.split_first_chunk::<ROW_HEAD_BYTES>()?;
        let [n0, n1, n2, n3, f0, f1, f2, f3, times @ ..] = *head;
        let first = u32::from_le_bytes([n0, n1, n2, n3]);
        let has_kinds = u32::from_le_bytes([f0, f1, f2, f3]) & HAS_KINDS != 0;
        let step = times.first_chunk::<8>()?;
        let count = if entry_kind == ROW_SCHEMA { schema_len(first)? } else { first as usize };
        let mut take = |len: usize| {
            let (taken, left) = rest.split_at_checked(len)?;
            rest = left;
            Some(taken)
        };
        let values = take(count.checked_mul(8)?)?;
        let kinds = if has_kinds { Some(take(count)?) } else { None };
        let names = if entry_kind == ROW_NAMED { take(count.checked_mul(8)?)? } else { &[] };
        let row = Self {
            schema: (entry_kind == ROW_SCHEMA).then_some(first),
            step: i64::from_le_bytes(*step),
            time_us: i64::from_le_bytes(*times.last_chunk::<8>()?),
            values,
            kinds,
            names,
            heap: rest,
        };
        (row.referenced_bytes() <= row.heap.len() as u64).then_some(row)
    }

    /// Bytes that values and names ask of the heap. No two share any, so it is never more than the heap: a damaged row whose values all
    /// mean the same megabyte would unfold to gigabytes.
    fn referenced_bytes(&self) -> u64 {
        let (names, _) = self.names.as_chunks::<8>();
        let (values, _) = self.values.as_chunks::<8>();
        let of_heap = |kind: u8| matches!(kind, value_kind::STR..=value_kind::MARKER);
        let kinds = self.kinds.unwrap_or_default().iter();
        let values = kinds.zip(values).filter(|(kind, _)| of_heap(**kind)).map(|(_, raw)| raw);
        names.iter().chain(values).map(|raw| u64::from_le_bytes(*raw) >> 32).sum()
    }

    /// How many values the row has.
    pub fn len(&self) -> usize {
        self.values.len() / 8
    }

    /// Whether the row has no value.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    fn heap_slice(&self, reference: u64) -> Option<&'a [u8]> {
        let offset = (reference & 0xffff_ffff) as usize;
        self.heap.get(offset..offset.checked_add((reference >> 32) as usize)?)
    }

    /// The values, in the order of the names; `None` items are damaged.
    pub fn values(&self) -> impl Iterator<Item = Option<Value<'a>>> + use<'a> {
        let row = *self;
        let (chunks, _) = self.values.as_chunks::<8>();
        chunks.iter().enumerate().map(move |(index, raw)| {
            let bits = u64::from_le_bytes(*raw);
            let Some(kinds) = row.kinds else { return Some(Value::F64(f64::from_bits(bits))) };
            let text = |bytes: &'a [u8]| std::str::from_utf8(bytes).ok();
            Some(match *kinds.get(index)? {
                value_kind::NULL => Value::Null,
                value_kind::F64 => Value::F64(f64::from_bits(bits)),
                value_kind::I64 => Value::I64(bits as i64),
                value_kind::BOOL => Value::Bool(bits != 0),
                value_kind::STR => Value::Str(text(row.heap_slice(bits)?)?),
                value_kind::HIST => Value::Hist(row.heap_slice(bits)?),
                value_kind::JSON => Value::Json(row.heap_slice(bits)?),
                value_kind::MARKER => {
                    let (len, rest) = row.heap_slice(bits)?.split_first_chunk::<4>()?;
                    let (kind, printable) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
                    Value::Marker(text(kind)?, text(printable)?)
                }
                _ => return None,
            })
        })
    }

    /// The floats of a row that holds nothing else: the fast way through the packer.
    pub fn floats(&self) -> Option<impl ExactSizeIterator<Item = f64> + use<'a>> {
        let (chunks, _) = self.values.as_chunks::<8>();
        self.kinds.is_none().then(|| chunks.iter().map(|raw| f64::from_bits(u64::from_le_bytes(*raw))))
    }

    /// The names of a row that carries them; `None` items are damaged.
    pub fn inline_names(&self) -> impl Iterator<Item = Option<&'a str>> + use<'a> {
        let row = *self;
        let (chunks, _) = self.names.as_chunks::<8>();
        chunks.iter().map(move |raw| std::str::from_utf8(row.heap_slice(u64::from_le_bytes(*raw))?).ok())
    }
}

/// The payload of a DOCUMENT entry; `None` for a block that is not a document.
pub fn encode_document(block: &Block) -> Option<Vec<u8>> {
    let (kind, updates, removed): (u8, &Doc, &[String]) = match block {
        Block::Config(changes) => (2, &changes.updates, &changes.removed),
        Block::Summary(changes) => (3, &changes.updates, &changes.removed),
        Block::Meta(doc) => (4, doc, &[]),
        Block::Rows(_) | Block::Unknown { .. } => return None,
    };
    let mut out = vec![kind];
    crate::msgpack::put_array(&mut out, 2);
    updates.encode_into(&mut out);
    crate::msgpack::put_array(&mut out, removed.len());
    removed.iter().for_each(|name| crate::msgpack::put_str(&mut out, name));
    Some(out)
}

/// Reads a DOCUMENT entry.
///
/// # Errors
/// [`MsgpackError`]: the bytes are not one.
pub fn decode_document(payload: &[u8]) -> Result<Block, MsgpackError> {
    let (kind, rest) = payload.split_first().ok_or(MsgpackError::Torn(1))?;
    let mut reader = Reader::new(rest);
    reader.array()?;
    let updates = Doc::read(&mut reader, &mut Nodes::of_documents())?;
    let removed = (0..reader.array()?).map(|_| Ok(reader.str()?.to_owned())).collect::<Result<_, MsgpackError>>()?;
    match kind {
        2 => Ok(Block::Config(Changes { updates, removed })),
        3 => Ok(Block::Summary(Changes { updates, removed })),
        4 => Ok(Block::Meta(updates)),
        found => Err(MsgpackError::Unexpected { expected: "a document kind", found: *found }),
    }
}

/// Why rows were refused, as the last byte of a DROPPED entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DropReason {
    /// The ring was full and stayed so.
    Full,
    /// Their step lies behind the current one.
    Behind,
    /// The call was larger than a call may be.
    TooLarge,
    /// Their step is no 64-bit number.
    Beyond,
}

impl DropReason {
    /// In words, for the GAP.
    pub fn text(self) -> &'static str {
        match self {
            Self::Full => "there was no room",
            Self::Beyond => "the step was not below 2**63",
            Self::Behind => "the step lay behind the current one",
            Self::TooLarge => "the call was larger than a call may be",
        }
    }
}

/// How much was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Dropped {
    /// Rows (calls).
    pub rows: u64,
    /// Values.
    pub points: u64,
    /// Bytes they would have taken.
    pub bytes: u64,
}

impl Dropped {
    /// The payload of a DROPPED entry.
    pub fn encode(&self, reason: DropReason) -> Vec<u8> {
        let counts = [self.rows, self.points, self.bytes].into_iter().flat_map(u64::to_le_bytes);
        counts.chain([reason as u8]).collect()
    }

    /// Reads a DROPPED entry.
    pub fn decode(payload: &[u8]) -> Option<(Self, DropReason)> {
        let (counts, rest) = payload.as_chunks::<8>();
        let mut counts = counts.iter().map(|raw| u64::from_le_bytes(*raw));
        let dropped = Self { rows: counts.next()?, points: counts.next()?, bytes: counts.next()? };
        let reason = match rest {
            [0] => DropReason::Full,
            [1] => DropReason::Behind,
            [2] => DropReason::TooLarge,
            [3] => DropReason::Beyond,
            _ => return None,
        };
        Some((dropped, reason))
    }
}

/// An interned schema as bytes.
pub fn encode_schema(name_ids: &[u32]) -> Vec<u8> {
    std::iter::once(TAG_SCHEMA).chain(name_ids.iter().flat_map(|id| id.to_le_bytes())).collect()
}

/// The name ids of an interned schema.
pub fn decode_schema(bytes: &[u8]) -> Option<Vec<u32>> {
    let (ids, rest) = bytes.strip_prefix(&[TAG_SCHEMA])?.as_chunks::<4>();
    rest.is_empty().then(|| ids.iter().map(|id| u32::from_le_bytes(*id)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn any_value() -> impl Strategy<Value = Value<'static>> {
        let leak = |text: String| -> &'static str { text.leak() };
        prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(|bits| Value::F64(f64::from_bits(bits as u64))),
            any::<i64>().prop_map(Value::I64),
            any::<bool>().prop_map(Value::Bool),
            any::<String>().prop_map(move |text| Value::Str(leak(text))),
            any::<Vec<u8>>().prop_map(|bytes| Value::Hist(bytes.leak())),
            any::<Vec<u8>>().prop_map(|bytes| Value::Json(bytes.leak())),
            any::<(String, String)>().prop_map(move |(kind, text)| Value::Marker(leak(kind), leak(text))),
        ]
    }

    proptest! {
        #[test]
        fn a_row_reads_back_bit_for_bit(items in vec((any::<String>(), any_value()), 0..20), step: i64, time_us: i64, inline: bool) {
            let names: Vec<&str> = items.iter().map(|(name, _)| name.as_str()).collect();
            let values: Vec<Value> = items.iter().map(|(_, value)| *value).collect();

            let names_of_row = if inline { RowNames::Inline(&names) } else { RowNames::Schema(5) };
            let (kind, payload) = encode_row(names_of_row, step, time_us, &values);

            let row = Row::decode(kind, &payload, |schema| (schema == 5).then_some(names.len())).expect("just encoded");
            prop_assert_eq!((row.step, row.time_us, row.schema), (step, time_us, (!inline).then_some(5)));
            let again: Vec<Value> = row.values().map(|value| value.expect("whole")).collect();
            prop_assert_eq!(format!("{again:?}"), format!("{values:?}"));
            for (again, value) in again.iter().zip(&values) {
                if let (Value::F64(again), Value::F64(value)) = (again, value) {
                    prop_assert_eq!(again.to_bits(), value.to_bits());
                }
            }
            if inline {
                prop_assert_eq!(row.inline_names().collect::<Vec<_>>(), names.iter().map(|name| Some(*name)).collect::<Vec<_>>());
            }
        }

        #[test]
        fn no_bytes_make_the_reader_panic(kind in 0_u8..6, payload: Vec<u8>, schema_len in 0_usize..100) {
            if let Some(row) = Row::decode(kind, &payload, |_| Some(schema_len)) {
                row.values().for_each(drop);
                row.inline_names().for_each(drop);
            }
            decode_document(&payload).ok();
            Dropped::decode(&payload);
            decode_schema(&payload);
        }
    }

    #[test]
    fn values_that_all_mean_the_same_bytes_are_no_row() {
        let text = "x".repeat(1000);
        let (kind, whole) = encode_row(RowNames::Schema(5), 1, 2, &[Value::Str(&text), Value::Str("")]);
        let mut damaged = whole.clone();
        damaged.copy_within(ROW_HEAD_BYTES..ROW_HEAD_BYTES + 8, ROW_HEAD_BYTES + 8);

        assert!(Row::decode(kind, &whole, |_| Some(2)).is_some());
        assert!(Row::decode(kind, &damaged, |_| Some(2)).is_none());
    }

    #[test]
    fn a_document_reads_back() {
        let block = Block::Config(Changes {
            updates: Doc::Map(vec![("lr".to_owned(), Doc::F64(0.1))]),
            removed: vec!["x".to_owned()],
        });

        assert_eq!(decode_document(&encode_document(&block).expect("a document")), Ok(block));
    }
}
