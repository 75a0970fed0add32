//! ROWS: many rows, stored by column.
//!
//! Names stand once per block, steps and times once per row, and the values of a metric side by side, where they
//! compress: bytes of floats are shuffled, integers are differences, what fits 32-bit floats exactly is stored so.
//! A metric that changes its kind has one column per kind, with presence masks that do not overlap: `1` and `1.0`
//! stay different. Layout in `docs/format.md`, section 4.

use thiserror::Error;

use crate::msgpack::{self, MsgpackError, Reader, Token};
use crate::varint;

/// Most rows of a block: bounds what a few hostile bytes (a constant stride) can unfold to.
pub const MAX_ROWS: usize = 1 << 17;
/// Most values of a payload, all its blocks together: nulls, which take no bytes, are values too.
pub const MAX_PAYLOAD_VALUES: usize = 1 << 20;
/// Most columns of a payload, all its blocks together: an empty one takes five bytes here and hundreds once it is a series.
pub const MAX_PAYLOAD_COLUMNS: usize = 1 << 16;
/// The same of a payload in which a server answers a reader.
pub const MAX_ANSWER_VALUES: usize = 1 << 22;
/// As above.
pub const MAX_ANSWER_COLUMNS: usize = 1 << 20;
/// Most columns that room is made for before one was read.
const COLUMNS_AT_FIRST: usize = 4096;
/// The name under which a row without values is kept.
pub const EMPTY_ROW_NAME: &str = "_timestamp";

/// Why a ROWS block cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RowsError {
    /// The msgpack around it is broken.
    #[error(transparent)]
    Msgpack(#[from] MsgpackError),
    /// More rows than a block may have.
    #[error("a block of {0} rows, at most {MAX_ROWS} are allowed")]
    TooManyRows(i64),
    /// More values or columns than a payload may have.
    #[error("more than {most} {what} in one payload")]
    TooMany {
        /// Values or columns.
        what: &'static str,
        /// The limit.
        most: usize,
    },
    /// Data that do not give as many values as rows are present.
    #[error("{what} of {name:?} does not hold {expected} values")]
    Length {
        /// Which part.
        what: &'static str,
        /// The column's name, or `steps`, `times`.
        name: String,
        /// Values needed.
        expected: usize,
    },
    /// A value kind of a later version.
    #[error("column {name:?} has the unknown kind {kind}")]
    UnknownKind {
        /// The column's name.
        name: String,
        /// The kind found.
        kind: i64,
    },
}

/// The values of one column, one per present row.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// So many nulls.
    Null(usize),
    /// Floats (stored in 32 bits where that loses no bit).
    F64(Vec<f64>),
    /// Integers.
    I64(Vec<i64>),
    /// Truth values.
    Bool(Vec<bool>),
    /// Texts.
    Str(Vec<String>),
    /// Histograms, as in [`crate::histogram`].
    Hist(Vec<Vec<u8>>),
    /// msgpack values.
    Json(Vec<Vec<u8>>),
    /// Type and printable form of values that could not be kept.
    Marker(Vec<(String, String)>),
}

impl Values {
    /// How many values.
    pub fn len(&self) -> usize {
        match self {
            Self::Null(len) => *len,
            Self::F64(values) => values.len(),
            Self::I64(values) => values.len(),
            Self::Bool(values) => values.len(),
            Self::Str(values) => values.len(),
            Self::Hist(values) | Self::Json(values) => values.len(),
            Self::Marker(values) => values.len(),
        }
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One metric (of one kind) in a block; its name may be borrowed from the payload.
#[derive(Debug, Clone, PartialEq)]
pub struct Column<N = String> {
    /// The metric's name.
    pub name: N,
    /// Which rows have a value, row i at bit i % 8 of byte i / 8; `None`: all.
    pub presence: Option<Vec<u8>>,
    /// A value per present row.
    pub values: Values,
}

impl<N> Column<N> {
    /// Whether row `index` has a value.
    pub fn has(&self, index: usize) -> bool {
        self.presence.as_ref().is_none_or(|mask| bit(mask, index))
    }
}

/// A decoded block of rows.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Rows<N = String> {
    /// The step of each row, never going back.
    pub steps: Vec<i64>,
    /// The time of each row, microseconds since 1970 UTC.
    pub times_us: Vec<i64>,
    /// The metrics.
    pub columns: Vec<Column<N>>,
}

/// Bit `index` of a mask; bits beyond its end are clear.
pub fn bit(mask: &[u8], index: usize) -> bool {
    mask.get(index / 8).is_some_and(|byte| byte >> (index % 8) & 1 == 1)
}

/// The numbers of the bits that are set, of the first `rows`. Costs what is set, and a byte's look per eight rows.
pub fn set_bits(mask: &[u8], rows: usize) -> impl Iterator<Item = usize> {
    let bits = mask.iter().enumerate().flat_map(|(place, byte)| {
        let mut left = *byte;
        std::iter::from_fn(move || {
            let bit = left.trailing_zeros() as usize;
            left &= left.wrapping_sub(1);
            (bit < 8).then_some(place * 8 + bit)
        })
    });
    bits.take_while(move |bit| *bit < rows)
}

/// What the blocks of one payload may still unfold to.
#[derive(Debug)]
pub(crate) struct Budget {
    values: Left,
    columns: Left,
}

#[derive(Debug)]
struct Left {
    what: &'static str,
    most: usize,
    used: usize,
}

impl Left {
    fn take(&mut self, count: usize) -> Result<(), RowsError> {
        self.used = self.used.saturating_add(count);
        if self.used > self.most {
            return Err(RowsError::TooMany { what: self.what, most: self.most });
        }
        Ok(())
    }
}

impl Budget {
    /// That of a payload made by a writer.
    pub(crate) fn written() -> Self {
        Self::of(MAX_PAYLOAD_VALUES, MAX_PAYLOAD_COLUMNS)
    }

    /// That of a payload in which a server answers: one row may hold what came in many frames.
    pub(crate) fn answered() -> Self {
        Self::of(MAX_ANSWER_VALUES, MAX_ANSWER_COLUMNS)
    }

    fn of(values: usize, columns: usize) -> Self {
        let left = |what, most| Left { what, most, used: 0 };
        Self { values: left("values", values), columns: left("columns", columns) }
    }
}

/// A mask of the bits that are set.
pub fn mask(bits: impl ExactSizeIterator<Item = bool>) -> Vec<u8> {
    let mut bytes = vec![0; bits.len().div_ceil(8)];
    for (index, is_set) in bits.enumerate() {
        if let (true, Some(byte)) = (is_set, bytes.get_mut(index / 8)) {
            *byte |= 1 << (index % 8);
        }
    }
    bytes
}

/// All first bytes, then all second bytes, and so on. A pass for each byte: those the compiler turns into vectors.
pub fn shuffle<const N: usize>(values: &(impl ExactSizeIterator<Item = [u8; N]> + Clone)) -> Vec<u8> {
    let count = values.len();
    let mut bytes = vec![0; count * N];
    if count == 0 {
        return bytes;
    }
    for (place, plane) in bytes.chunks_exact_mut(count).enumerate() {
        for (slot, value) in plane.iter_mut().zip(values.clone()) {
            *slot = value.get(place).copied().unwrap_or_default();
        }
    }
    bytes
}

/// The inverse of [`shuffle`]; surplus bytes are ignored.
pub fn unshuffle<const N: usize>(bytes: &[u8]) -> Vec<[u8; N]> {
    let count = bytes.len() / N;
    let mut values = vec![[0; N]; count];
    if count == 0 {
        return values;
    }
    for (place, plane) in bytes.chunks_exact(count).take(N).enumerate() {
        for (value, byte) in values.iter_mut().zip(plane) {
            if let Some(slot) = value.get_mut(place) {
                *slot = *byte;
            }
        }
    }
    values
}

/// The shuffled 32-bit form of floats of which not a bit is lost by that; `None`: some would be.
pub fn shuffle_exact_f32(values: &[f64]) -> Option<Vec<u8>> {
    let is_exact = |part: &[f64]| part.iter().fold(true, |is_exact, value| is_exact & exact_f32(*value).is_some());
    if !values.chunks(LOOK_AHEAD).all(is_exact) {
        return None;
    }
    let narrow: Vec<u32> = values.iter().map(|value| (*value as f32).to_bits()).collect();
    Some(shuffle(&narrow.iter().map(|bits| bits.to_le_bytes())))
}

/// Values looked at before the next decision: none is needed within, so they are looked at side by side.
const LOOK_AHEAD: usize = 64;

/// The floats behind [`shuffle`] of their 32-bit form.
pub fn unshuffle_f32(bytes: &[u8]) -> Vec<f64> {
    let count = bytes.len() / 4;
    let (first, rest) = bytes.split_at(count);
    let (second, rest) = rest.split_at(count);
    let (third, rest) = rest.split_at(count);
    let planes = first.iter().zip(second).zip(third.iter().zip(rest));
    planes.map(|((a, b), (c, d))| f64::from(f32::from_bits(u32::from_le_bytes([*a, *b, *c, *d])))).collect()
}

/// The value as a 32-bit float, if not a bit is lost by that.
pub fn exact_f32(value: f64) -> Option<f32> {
    let narrow = value as f32;
    // NaNs only where the payload survives both ways; `as` may quiet a signalling one, which shows here.
    (f64::from(narrow).to_bits() == value.to_bits()).then_some(narrow)
}

impl Rows {
    /// Appends the block's items behind its kind: `n, steps, times, columns`.
    pub(crate) fn encode_items(&self, out: &mut Vec<u8>) {
        msgpack::put_uint(out, self.steps.len() as u64);
        encode_axis(out, &self.steps);
        encode_axis(out, &self.times_us);
        msgpack::put_array(out, self.columns.len());
        for column in &self.columns {
            encode_column(out, column);
        }
    }
}

impl<'a, N: From<&'a str>> Rows<N> {
    /// Reads the items written by `encode_items`; columns whose name is not wanted are passed over.
    pub(crate) fn decode_wanted(
        reader: &mut Reader<'a>,
        wanted: &dyn Fn(&str) -> bool,
        budget: &mut Budget,
    ) -> Result<Self, RowsError> {
        let promised = reader.int()?;
        let count = usize::try_from(promised).ok().filter(|count| *count <= MAX_ROWS);
        let count = count.ok_or(RowsError::TooManyRows(promised))?;
        let steps = decode_axis(reader, count, "steps")?;
        let times_us = decode_axis(reader, count, "times")?;
        let promised = reader.array()?;
        let mut columns = Vec::with_capacity(promised.min(COLUMNS_AT_FIRST));
        for _ in 0..promised {
            let items = reader.array()?;
            let name = reader.str()?;
            if !wanted(name) {
                for _ in 1..items {
                    reader.skip()?;
                }
                continue;
            }
            budget.columns.take(1)?;
            columns.push(decode_column(reader, name, count, budget)?);
            for _ in 4..items {
                reader.skip()?;
            }
        }
        Ok(Self { steps, times_us, columns })
    }
}

fn encode_axis(out: &mut Vec<u8>, values: &[i64]) {
    let first = values.first().copied().unwrap_or_default();
    msgpack::put_array(out, 2);
    msgpack::put_int(out, first);
    let stride = values.get(1).map_or(1, |second| second.wrapping_sub(first));
    let has_stride = values.iter().zip(values.iter().skip(1)).all(|(one, next)| next.wrapping_sub(*one) == stride);
    if has_stride {
        msgpack::put_int(out, stride);
    } else {
        msgpack::put_bin(out, &varint::encode_deltas(values.iter().skip(1).copied(), first));
    }
}

fn decode_axis(reader: &mut Reader<'_>, count: usize, what: &'static str) -> Result<Vec<i64>, RowsError> {
    let wrong = || RowsError::Length { what: "axis", name: what.to_owned(), expected: count };
    if reader.array()? != 2 {
        return Err(wrong());
    }
    let first = reader.int()?;
    match reader.token()? {
        Token::Int(stride) => {
            Ok((0..count).map(|index| first.wrapping_add(stride.wrapping_mul(index as i64))).collect())
        }
        Token::Bin(bytes) if count > 0 => {
            let deltas = varint::decode_deltas(bytes, count - 1, first).ok_or_else(wrong)?;
            Ok(std::iter::once(first).chain(deltas).collect())
        }
        _ => Err(wrong()),
    }
}

fn encode_column(out: &mut Vec<u8>, column: &Column) {
    msgpack::put_array(out, 4);
    msgpack::put_str(out, &column.name);
    let narrow: Option<Vec<f32>> = match &column.values {
        Values::F64(values) => values.iter().map(|value| exact_f32(*value)).collect(),
        _ => None,
    };
    let kind = match &column.values {
        Values::Null(_) => 0,
        Values::F64(_) if narrow.is_some() => 2,
        Values::F64(_) => 1,
        Values::I64(_) => 3,
        Values::Bool(_) => 4,
        Values::Str(_) => 5,
        Values::Hist(_) => 6,
        Values::Json(_) => 7,
        Values::Marker(_) => 8,
    };
    msgpack::put_uint(out, kind);
    match &column.presence {
        None => msgpack::put_nil(out),
        Some(mask) => msgpack::put_bin(out, mask),
    }
    match &column.values {
        Values::Null(_) => msgpack::put_nil(out),
        Values::F64(values) => match narrow {
            Some(narrow) => msgpack::put_bin(out, &shuffle(&narrow.iter().map(|value| value.to_bits().to_le_bytes()))),
            None => msgpack::put_bin(out, &shuffle(&values.iter().map(|value| value.to_bits().to_le_bytes()))),
        },
        Values::I64(values) => msgpack::put_bin(out, &varint::encode_deltas(values.iter().copied(), 0)),
        Values::Bool(values) => msgpack::put_bin(out, &mask(values.iter().copied())),
        Values::Str(values) => {
            msgpack::put_array(out, values.len());
            values.iter().for_each(|value| msgpack::put_str(out, value));
        }
        Values::Hist(values) | Values::Json(values) => {
            msgpack::put_array(out, values.len());
            values.iter().for_each(|value| msgpack::put_bin(out, value));
        }
        Values::Marker(values) => {
            msgpack::put_array(out, values.len());
            for (kind, text) in values {
                msgpack::put_array(out, 2);
                msgpack::put_str(out, kind);
                msgpack::put_str(out, text);
            }
        }
    }
}

fn decode_column<'a, N: From<&'a str>>(
    reader: &mut Reader<'a>,
    name: &'a str,
    rows: usize,
    budget: &mut Budget,
) -> Result<Column<N>, RowsError> {
    let kind = reader.int()?;
    let presence = match reader.token()? {
        Token::Nil => None,
        Token::Bin(mask) if mask.len() == rows.div_ceil(8) => Some(mask.to_vec()),
        _ => return Err(RowsError::Length { what: "presence", name: name.to_owned(), expected: rows }),
    };
    let present = match &presence {
        None => rows,
        Some(mask) => set_bits(mask, rows).count(),
    };
    budget.values.take(present)?;
    let wrong = || RowsError::Length { what: "data", name: name.to_owned(), expected: present };
    let values = match kind {
        0 => {
            reader.skip()?;
            Values::Null(present)
        }
        1 => {
            let bytes = reader.bin()?;
            if bytes.len() != present * 8 {
                return Err(wrong());
            }
            Values::F64(unshuffle::<8>(bytes).into_iter().map(|raw| f64::from_bits(u64::from_le_bytes(raw))).collect())
        }
        2 => {
            let bytes = reader.bin()?;
            if bytes.len() != present * 4 {
                return Err(wrong());
            }
            Values::F64(unshuffle_f32(bytes))
        }
        3 => Values::I64(varint::decode_deltas(reader.bin()?, present, 0).ok_or_else(wrong)?),
        4 => {
            let bytes = reader.bin()?;
            if bytes.len() != present.div_ceil(8) {
                return Err(wrong());
            }
            Values::Bool((0..present).map(|index| bit(bytes, index)).collect())
        }
        5..=8 => {
            if reader.array()? != present {
                return Err(wrong());
            }
            match kind {
                5 => Values::Str(collect(present, || Ok(reader.str()?.to_owned()))?),
                6 => Values::Hist(collect(present, || Ok(reader.bin()?.to_owned()))?),
                7 => Values::Json(collect(present, || Ok(reader.bin()?.to_owned()))?),
                _ => Values::Marker(collect(present, || {
                    if reader.array()? != 2 {
                        return Err(wrong());
                    }
                    Ok((reader.str()?.to_owned(), reader.str()?.to_owned()))
                })?),
            }
        }
        _ => return Err(RowsError::UnknownKind { name: name.to_owned(), kind }),
    };
    Ok(Column { name: name.into(), presence, values })
}

fn collect<T>(count: usize, mut next: impl FnMut() -> Result<T, RowsError>) -> Result<Vec<T>, RowsError> {
    (0..count).map(|_| next()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn set_bits_are_those_that_are_set(mask: Vec<u8>, rows in 0_usize..300) {
            let found: Vec<usize> = set_bits(&mask, rows).collect();

            prop_assert_eq!(found, (0..rows).filter(|index| bit(&mask, *index)).collect::<Vec<_>>());
        }
    }
}
