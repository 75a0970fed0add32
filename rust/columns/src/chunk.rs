//! The chunk: a stretch of one metric, its values compressed, its statistics beside them.
//!
//! Charts read statistics first, so those stand in columns of the row and not in the blob; values are read where a
//! bucket begins or ends inside the chunk. Neither SQLite nor PostgreSQL notices a flipped bit in a row, so the
//! statistics (`head`) and the values (`data`) carry a CRC32C each.
//!
//! # Layout
//! The body of `data` by `kind` (numbered as columns in `docs/format.md`): floats byte-shuffled, in 32 bits where that
//! loses no bit of any value; integers as zigzag varints of differences; truth values as bits; texts, histograms and
//! JSON as lengths, then bytes; markers as two texts each. Kind 15, *mixed*: one kind byte per value, then the body of
//! each kind that occurs, in ascending order, behind its length. A metric that alternates between `1` and `0.5` would
//! else break into chunks of one point.
//!
//! `sub` has 38 bytes per [`SUB_ROWS`] points: finite, NaN, infinite (u16 each), min, max, sum, last (f64). It is empty
//! for short chunks and for those with values that are not numbers.

use runferry_wire::rows;
use runferry_wire::{Values, varint};

use crate::axis::SUB_ROWS;
use crate::cells::{self, Cell, Cells};
use crate::pack::{ChunkError, MAX_POINTS, Packer, Unpacker, take_array, take_bytes, take_len};
use crate::stats::Stats;

/// The encoding written by this crate, and the newest it reads.
pub const CODEC: u8 = 1;
/// Kind of a chunk with values of several kinds.
pub const MIXED: u8 = 15;
const F32: u8 = 2;
const SUB_BYTES: usize = 38;
/// `first` and `last` above this are left out of the head.
const MAX_EDGE_BYTES: usize = 1024;

/// One row of the chunk table, but for the run.
#[derive(Debug, Clone, PartialEq)]
pub struct ChunkRow {
    /// The series.
    pub key_id: i64,
    /// First step.
    pub step0: i64,
    /// Last step.
    pub step1: i64,
    /// The axis; its row has the same `step0` and `n`.
    pub axis_id: i64,
    /// Points.
    pub n: u32,
    /// Kind of the values.
    pub kind: u8,
    /// Statistics over all numbers of it.
    pub stats: Stats,
    /// First and last value as [`Cell::to_bytes`]; empty when larger than 1 KiB.
    pub first: Vec<u8>,
    /// See `first`.
    pub last: Vec<u8>,
    /// Statistics per 256 points.
    pub sub: Vec<u8>,
    /// Version of the encoding.
    pub codec: u8,
    /// Over everything but `data`.
    pub head_crc32c: u32,
    /// Over `data`.
    pub crc32c: u32,
    /// The blob.
    pub data: Vec<u8>,
}

/// One entry of `sub`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SubStats {
    /// Statistics over the points of the entry.
    pub stats: Stats,
    /// The last value.
    pub last: f64,
}

impl ChunkRow {
    /// The row that stores `cells`, which stand at `step0` to `step1` of an axis.
    pub fn encode(key_id: i64, axis_id: i64, (step0, step1): (i64, i64), cells: &Cells, packer: &mut Packer) -> Self {
        let (kind, body) = encode_body(cells);
        let edge = |index: usize| {
            let bytes = cells.get(index).map(|cell| cell.to_bytes()).unwrap_or_default();
            if bytes.len() > MAX_EDGE_BYTES { Vec::new() } else { bytes }
        };
        let data = packer.pack(&body);
        let (stats, sub) = summarize(cells);
        let mut row = Self {
            key_id,
            step0,
            step1,
            axis_id,
            n: cells.len() as u32,
            kind,
            stats,
            first: edge(0),
            last: edge(cells.len().saturating_sub(1)),
            sub,
            codec: CODEC,
            head_crc32c: 0,
            crc32c: crc32c::crc32c(&data),
            data,
        };
        row.head_crc32c = row.head_checksum();
        row
    }

    fn head_checksum(&self) -> u32 {
        let stats = &self.stats;
        let mut sum = 0;
        for field in [self.key_id, self.step0, self.step1, self.axis_id] {
            sum = crc32c::crc32c_append(sum, &field.to_le_bytes());
        }
        for field in [
            self.n,
            stats.finite,
            stats.nan,
            stats.inf,
            self.first.len() as u32,
            self.last.len() as u32,
            self.sub.len() as u32,
        ] {
            sum = crc32c::crc32c_append(sum, &field.to_le_bytes());
        }
        for field in [stats.min, stats.max, stats.sum] {
            // SQLite keeps -0.0 as 0: the sign of a zero is not part of the sum.
            sum = crc32c::crc32c_append(sum, &(field + 0.0).to_bits().to_le_bytes());
        }
        sum = crc32c::crc32c_append(sum, &[self.kind, self.codec]);
        for field in [&self.first, &self.last, &self.sub] {
            sum = crc32c::crc32c_append(sum, field);
        }
        sum
    }

    /// Checks everything but the values.
    ///
    /// # Errors
    /// [`ChunkError::Checksum`].
    pub fn verify_head(&self) -> Result<(), ChunkError> {
        let computed = self.head_checksum();
        if computed == self.head_crc32c {
            Ok(())
        } else {
            Err(ChunkError::Checksum { part: "head", stored: self.head_crc32c, computed })
        }
    }

    /// Reads the values back, both checksums first.
    ///
    /// # Errors
    /// [`ChunkError`].
    pub fn decode(&self, unpacker: &mut Unpacker) -> Result<Cells, ChunkError> {
        self.verify_head()?;
        let computed = crc32c::crc32c(&self.data);
        if computed != self.crc32c {
            return Err(ChunkError::Checksum { part: "data", stored: self.crc32c, computed });
        }
        if self.codec != CODEC {
            return Err(ChunkError::UnknownCodec { found: self.codec, expected: CODEC });
        }
        if self.n > MAX_POINTS {
            return Err(ChunkError::malformed("data"));
        }
        let body = unpacker.unpack(&self.data, "data")?;
        decode_body(self.kind, &body, self.n as usize).ok_or(ChunkError::malformed("data"))
    }

    /// Whether every value is a number, so that `sub` and the statistics say all a chart asks.
    pub fn is_numeric(&self) -> bool {
        self.stats.numbers() == self.n
    }

    /// The entries of `sub`.
    pub fn read_sub(&self) -> Vec<SubStats> {
        read_sub(&self.sub)
    }
}

/// Kind and body of some values.
fn encode_body(cells: &Cells) -> (u8, Vec<u8>) {
    match cells {
        Cells::Uniform(values) => encode_values(values),
        Cells::Mixed(cells) => {
            let mut body: Vec<u8> = cells.iter().map(Cell::kind).collect();
            for kind in 0..MIXED {
                let mut of_kind = cells.iter().filter(|cell| cell.kind() == kind).peekable();
                if of_kind.peek().is_none() {
                    continue;
                }
                let mut values = cells::empty_of(kind);
                of_kind.for_each(|cell| cells::push(&mut values, cell.clone()));
                let (stored_kind, part) = encode_values(&values);
                body.push(stored_kind);
                varint::put(&mut body, part.len() as u64);
                body.extend_from_slice(&part);
            }
            (MIXED, body)
        }
    }
}

fn encode_values(values: &Values) -> (u8, Vec<u8>) {
    match values {
        Values::Null(_) => (0, Vec::new()),
        Values::F64(values) => match rows::shuffle_exact_f32(values) {
            Some(narrow) => (F32, narrow),
            None => (1, rows::shuffle(&values.iter().map(|value| value.to_bits().to_le_bytes()))),
        },
        Values::I64(values) => (3, varint::encode_deltas(values.iter().copied(), 0)),
        Values::Bool(values) => (4, rows::mask(values.iter().copied())),
        Values::Str(values) => (5, encode_bytes(values.iter().map(String::as_bytes))),
        Values::Hist(values) => (6, encode_bytes(values.iter().map(Vec::as_slice))),
        Values::Json(values) => (7, encode_bytes(values.iter().map(Vec::as_slice))),
        Values::Marker(values) => {
            (8, encode_bytes(values.iter().flat_map(|(kind, text)| [kind.as_bytes(), text.as_bytes()])))
        }
    }
}

fn encode_bytes<'a>(values: impl Iterator<Item = &'a [u8]> + Clone) -> Vec<u8> {
    let mut body = Vec::new();
    values.clone().for_each(|value| varint::put(&mut body, value.len() as u64));
    values.for_each(|value| body.extend_from_slice(value));
    body
}

fn decode_body(kind: u8, mut body: &[u8], count: usize) -> Option<Cells> {
    if kind != MIXED {
        return decode_values(kind, body, count).map(Cells::Uniform);
    }
    let kinds = take_bytes(&mut body, count)?;
    let mut parts = Vec::new();
    while !body.is_empty() {
        let [stored_kind] = take_array(&mut body)?;
        let len = take_len(&mut body)?;
        let part = take_bytes(&mut body, len)?;
        let kind = if stored_kind == F32 { 1 } else { stored_kind };
        let of_kind = kinds.iter().map(|found| usize::from(*found == kind)).sum();
        parts.push((kind, Cells::Uniform(decode_values(stored_kind, part, of_kind)?), 0_usize));
    }
    let mut cells = Vec::with_capacity(count);
    for kind in kinds {
        let (_, part, next) = parts.iter_mut().find(|(found, _, _)| found == kind)?;
        cells.push(part.get(*next)?);
        *next += 1;
    }
    Some(Cells::from_cells(cells))
}

fn decode_values(kind: u8, body: &[u8], count: usize) -> Option<Values> {
    let is_whole = |width: usize| count.checked_mul(width).is_some_and(|bytes| bytes == body.len());
    Some(match kind {
        0 if body.is_empty() => Values::Null(count),
        1 if is_whole(8) => Values::F64(
            rows::unshuffle::<8>(body).into_iter().map(|raw| f64::from_bits(u64::from_le_bytes(raw))).collect(),
        ),
        F32 if is_whole(4) => Values::F64(rows::unshuffle_f32(body)),
        3 => Values::I64(varint::decode_deltas(body, count, 0)?),
        4 if body.len() == count.div_ceil(8) => Values::Bool((0..count).map(|index| rows::bit(body, index)).collect()),
        5 => Values::Str(decode_bytes(body, count)?.into_iter().map(String::from_utf8).collect::<Result<_, _>>().ok()?),
        6 => Values::Hist(decode_bytes(body, count)?),
        7 => Values::Json(decode_bytes(body, count)?),
        8 => {
            let texts = decode_bytes(body, count.checked_mul(2)?)?.into_iter().map(String::from_utf8);
            let mut texts = texts.collect::<Result<Vec<_>, _>>().ok()?.into_iter();
            let mut pairs = Vec::with_capacity(count);
            while let (Some(kind), Some(text)) = (texts.next(), texts.next()) {
                pairs.push((kind, text));
            }
            Values::Marker(pairs)
        }
        _ => return None,
    })
}

fn decode_bytes(mut body: &[u8], count: usize) -> Option<Vec<Vec<u8>>> {
    if count > body.len() {
        return None;
    }
    let lens = (0..count).map(|_| take_len(&mut body)).collect::<Option<Vec<_>>>()?;
    let values = lens.into_iter().map(|len| Some(take_bytes(&mut body, len)?.to_vec())).collect::<Option<Vec<_>>>()?;
    body.is_empty().then_some(values)
}

/// The statistics of a chunk and its `sub`, in one look at its values.
fn summarize(cells: &Cells) -> (Stats, Vec<u8>) {
    let count = cells.len();
    let mut total = Stats::default();
    let mut sub = Vec::with_capacity(count.div_ceil(SUB_ROWS) * SUB_BYTES);
    for from in (0..count).step_by(SUB_ROWS) {
        let to = (from + SUB_ROWS).min(count);
        let stats = Stats::of(cells, from, to);
        for counted in [stats.finite, stats.nan, stats.inf] {
            sub.extend_from_slice(&(counted as u16).to_le_bytes());
        }
        for value in [stats.min, stats.max, stats.sum, cells.number(to - 1).unwrap_or_default()] {
            sub.extend_from_slice(&value.to_bits().to_le_bytes());
        }
        total.add(&stats);
    }
    let is_worth_it = count > SUB_ROWS && total.numbers() as usize == count;
    (total, if is_worth_it { sub } else { Vec::new() })
}

fn read_sub(mut bytes: &[u8]) -> Vec<SubStats> {
    fn count(bytes: &mut &[u8]) -> Option<u32> {
        take_array(bytes).map(u16::from_le_bytes).map(u32::from)
    }
    fn number(bytes: &mut &[u8]) -> Option<f64> {
        take_array(bytes).map(u64::from_le_bytes).map(f64::from_bits)
    }
    let mut entries = Vec::with_capacity(bytes.len() / SUB_BYTES);
    while let Some(entry) = (|| {
        let (finite, nan, inf) = (count(&mut bytes)?, count(&mut bytes)?, count(&mut bytes)?);
        let (min, max, sum) = (number(&mut bytes)?, number(&mut bytes)?, number(&mut bytes)?);
        Some(SubStats { stats: Stats { finite, nan, inf, min, max, sum }, last: number(&mut bytes)? })
    })() {
        entries.push(entry);
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cells::tests::{any_cells, bytes_of};
    use proptest::prelude::*;

    fn encode(cells: &Cells) -> ChunkRow {
        ChunkRow::encode(3, 4, (10, 20), cells, &mut Packer::new())
    }

    proptest! {
        #[test]
        fn a_chunk_of_any_kind_reads_back_bit_for_bit(cells in any_cells(1..300)) {
            let row = encode(&cells);

            let again = row.decode(&mut Unpacker::new()).expect("just encoded");

            prop_assert_eq!(bytes_of(&again), bytes_of(&cells));
            prop_assert_eq!(row.n as usize, cells.len());
        }

        #[test]
        fn no_body_makes_it_panic(kind in 0_u8..17, body: Vec<u8>, count in 0_usize..300) {
            decode_body(kind, &body, count);
        }

        #[test]
        fn every_flipped_bit_of_the_values_is_noticed(cells in any_cells(1..100), bit: proptest::sample::Index) {
            let mut row = encode(&cells);
            let bit = bit.index(row.data.len() * 8);
            row.data[bit / 8] ^= 1 << (bit % 8);

            let found = row.decode(&mut Unpacker::new());
            prop_assert!(matches!(found, Err(ChunkError::Checksum { part: "data", .. })), "{found:?}");
        }

        #[test]
        fn a_changed_statistic_is_noticed(cells in any_cells(1..100), which in 0_usize..6) {
            let mut row = encode(&cells);
            match which {
                0 => row.n += 1,
                1 => row.stats.sum += row.stats.sum.abs().max(1.0),
                2 => row.step1 += 1,
                3 => row.stats.nan += 1,
                4 => row.last.push(0),
                _ => row.key_id += 1,
            }

            let is_noticed = matches!(row.verify_head(), Err(ChunkError::Checksum { part: "head", .. }));
            prop_assert!(is_noticed || row.stats.sum.is_infinite(), "infinity plus anything is infinity");
        }

        #[test]
        fn sub_statistics_add_up_to_those_of_the_chunk(values in proptest::collection::vec(any::<f64>(), 257..1000)) {
            let cells = Cells::Uniform(Values::F64(values));

            let row = encode(&cells);

            let mut total = Stats::default();
            row.read_sub().iter().for_each(|entry| total.add(&entry.stats));
            prop_assert_eq!((total.finite, total.nan, total.inf), (row.stats.finite, row.stats.nan, row.stats.inf));
            prop_assert_eq!((total.min, total.max), (row.stats.min, row.stats.max));
        }
    }

    #[test]
    fn floats_that_fit_32_bits_take_32_bits() {
        let cells = Cells::Uniform(Values::F64(vec![0.5; 3]));

        assert_eq!(encode(&cells).kind, F32);
        assert_eq!(encode(&Cells::Uniform(Values::F64(vec![0.1; 3]))).kind, 1);
    }
}
