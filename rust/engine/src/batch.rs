//! Records to frames-to-be: the pure middle of the packer, shared by the living writer and by whoever adopts a dead one.
//!
//! # Order
//! Frames leave in the order their records came in. Rows between two frames become one ROWS block, documents keep their own
//! order beside it; the two commute, since rows touch metrics and documents do not.
//!
//! # Ends
//! Each packed frame names the ring offset behind the last record that it holds whole. A record that is split over frames
//! (a row of many megabytes) lends its end to the last of them, so packing it again after a crash repeats values, never loses one.

mod last;

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use runferry_wire::block::{self, Block};
use runferry_wire::builder::RowsBuilder;
use runferry_wire::record::{self, Dropped, Row};
use runferry_wire::rows::{MAX_PAYLOAD_COLUMNS, MAX_ROWS, Rows};
use runferry_wire::{Codec, Doc, Draft, Kind, flags, payload};

use crate::receipt::Covered;
pub use last::Last;
use last::LastValues;

/// A frame is closed when its block would be about this large.
const TARGET_RAW_BYTES: usize = 640 << 10;
/// A row is cut in the middle when its frame would grow beyond this.
const MAX_RAW_BYTES: usize = 4 << 20;
/// A block with so many columns is closed; twice as many fit a payload, so that a call has room behind it.
const MANY_COLUMNS: usize = MAX_PAYLOAD_COLUMNS / 2;
/// zstd level: the values are mostly noise, a higher one costs time and gains a few percent.
const ZSTD_LEVEL: i32 = 1;

/// Interned names and schemas, by id.
pub trait Names {
    /// The interned bytes.
    fn item(&self, id: u32) -> Option<&[u8]>;
}

/// Who the frames belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The run.
    pub run_id: [u8; 16],
    /// The writer.
    pub writer_id: u64,
}

/// A finished frame and what it stands for.
#[derive(Debug, Clone)]
pub struct Packed {
    /// The frame's bytes.
    pub frame: Vec<u8>,
    /// Its number.
    pub seq: u64,
    /// The number behind it.
    pub next_seq: u64,
    /// Ring offset behind its last whole record.
    pub end: u64,
    /// Rows in it.
    pub rows: u64,
    /// Values in it.
    pub points: u64,
    /// What it says is gone.
    pub gone: Dropped,
}

#[derive(Debug)]
enum Ready {
    /// Documents, and behind them rows if there are any.
    Data {
        blocks: Vec<Block>,
        points: u64,
    },
    Gap {
        reason: &'static str,
        counts: Dropped,
        detail: String,
    },
}

/// What will be one frame, and the ring offset behind it.
#[derive(Debug)]
pub struct Closed {
    ready: Ready,
    /// Ring offset behind the last record of it.
    pub end: u64,
}

impl Closed {
    /// Rows alone.
    pub fn of_rows(rows: Rows, end: u64) -> Self {
        let points = rows.columns.iter().map(|column| column.values.len() as u64).sum();
        Self { ready: Ready::Data { blocks: vec![Block::Rows(rows)], points }, end }
    }

    /// The same documents with other rows and another end; `None` if that is nothing.
    #[must_use]
    pub fn with_rows(&self, rows: Option<Rows>, points: u64, end: u64) -> Option<Self> {
        let Ready::Data { blocks, .. } = &self.ready else { return None };
        let documents = blocks.iter().filter(|block| !matches!(block, Block::Rows(_))).cloned();
        let rows = rows.filter(|rows| !rows.steps.is_empty());
        let blocks: Vec<Block> = documents.chain(rows.map(Block::Rows)).collect();
        (!blocks.is_empty()).then_some(Self { ready: Ready::Data { blocks, points }, end })
    }

    /// The rows in it.
    pub fn rows(&self) -> Option<&Rows> {
        let Ready::Data { blocks, .. } = &self.ready else { return None };
        if let Some(Block::Rows(rows)) = blocks.last() { Some(rows) } else { None }
    }

    /// What the receipt has to cover once it is packed.
    pub(crate) fn blocks(&self) -> &[Block] {
        if let Ready::Data { blocks, .. } = &self.ready { blocks } else { &[] }
    }

    /// Rows and values in it.
    pub fn counts(&self) -> (u64, u64) {
        let rows = self.rows().map_or(0, |rows| rows.steps.len() as u64);
        if let Ready::Data { points, .. } = &self.ready { (rows, *points) } else { (0, 0) }
    }

    /// How many documents are in it.
    pub fn documents(&self) -> u64 {
        let Ready::Data { blocks, .. } = &self.ready else { return 0 };
        blocks.len() as u64 - u64::from(self.rows().is_some())
    }

    /// The frame, as number `seq`.
    pub fn pack(&self, identity: Identity, seq: u64, extra_flags: u8) -> Packed {
        let (rows, points) = self.counts();
        let frame = match &self.ready {
            Ready::Data { blocks, .. } => {
                let documents = self.documents();
                let raw = block::encode_all(blocks);
                let (codec, stored) = payload::compress(&raw, ZSTD_LEVEL);
                let draft = Draft {
                    kind: Kind::Data,
                    flags: extra_flags | if documents > 0 { flags::DOCS } else { 0 },
                    run_id: identity.run_id,
                    writer_id: identity.writer_id,
                    seq,
                    record_count: (rows + documents) as u32,
                };
                draft.seal(codec, raw.len() as u32, &stored)
            }
            Ready::Gap { reason, counts, detail } => gap_frame(identity, seq, 1, extra_flags, reason, *counts, detail),
        };
        let gone = if let Ready::Gap { counts, .. } = &self.ready { *counts } else { Dropped::default() };
        Packed { frame, seq, next_seq: seq + 1, end: self.end, rows, points, gone }
    }
}

/// Gathers records until they are due to become a frame.
#[derive(Debug, Default)]
pub struct Batch {
    builder: RowsBuilder,
    documents: Vec<Block>,
    document_bytes: usize,
    /// Slots of each schema, by schema id.
    schemas: HashMap<u32, Vec<u32>>,
    ready: VecDeque<Closed>,
    first_at: Option<Duration>,
    /// Offset behind the last record taken in.
    end: u64,
    last: LastValues,
    damaged: u64,
    covered: Covered,
}

impl Batch {
    /// An empty one that adds what it packs to these sums.
    pub fn covering(covered: Covered) -> Self {
        Self { covered, ..Self::default() }
    }

    /// Takes in one entry of the ring that ends at `end`. `now` is any monotonic time.
    pub fn push(&mut self, entry_kind: u8, payload: &[u8], end: u64, names: &impl Names, now: Duration) {
        if self.builder.is_crowded() {
            self.close();
            self.forget_names();
        }
        self.first_at.get_or_insert(now);
        let is_read = match entry_kind {
            record::ROW_SCHEMA | record::ROW_NAMED => self.push_row(entry_kind, payload, names),
            record::DOCUMENT => record::decode_document(payload).is_ok_and(|document| {
                self.document_bytes += payload.len();
                self.documents.push(document);
                true
            }),
            record::DROPPED => Dropped::decode(payload).is_some_and(|(counts, reason)| {
                self.close();
                let detail = reason.text().to_owned();
                self.ready.push_back(Closed { ready: Ready::Gap { reason: "dropped", counts, detail }, end });
                true
            }),
            _ => false,
        };
        self.end = end;
        if !is_read {
            self.damaged += 1;
            self.close();
            let counts = Dropped { rows: 1, points: 0, bytes: payload.len() as u64 };
            let detail = format!("a record of kind {entry_kind} cannot be read");
            self.ready.push_back(Closed { ready: Ready::Gap { reason: "corrupt", counts, detail }, end });
        } else if self.builder.byte_count() + self.document_bytes >= TARGET_RAW_BYTES
            || self.builder.row_count() >= MAX_ROWS - 1
            || self.builder.column_count() >= MANY_COLUMNS
        {
            self.close();
        }
    }

    fn push_row(&mut self, entry_kind: u8, payload: &[u8], names: &impl Names) -> bool {
        let schemas = &mut self.schemas;
        let builder = &mut self.builder;
        let mut schema_len = |schema: u32| {
            if let Some(slots) = schemas.get(&schema) {
                return Some(slots.len());
            }
            let ids = record::decode_schema(names.item(schema)?)?;
            let slots: Option<Vec<u32>> = ids
                .iter()
                .map(|id| {
                    let name = names.item(*id)?.strip_prefix(&[record::TAG_NAME])?;
                    Some(builder.slot(std::str::from_utf8(name).ok()?))
                })
                .collect();
            let slots = slots?;
            let len = slots.len();
            schemas.insert(schema, slots);
            Some(len)
        };
        let len_of_schema = match entry_kind {
            record::ROW_SCHEMA => {
                let Some(raw) = payload.first_chunk::<4>() else { return false };
                schema_len(u32::from_le_bytes(*raw))
            }
            _ => None,
        };
        let Some(row) = Row::decode(entry_kind, payload, |_| len_of_schema) else { return false };
        if self.builder.row_count() > 0 && self.builder.last_step().is_some_and(|last| row.step < last) {
            // Steps within a block never go back; only an adopter of a ring that two processes shared could see this.
            self.close_rows();
        }
        self.builder.begin_row(row.step, row.time_us);
        if row.is_empty() {
            self.builder.push_empty();
            return true;
        }
        let slots = row.schema.and_then(|schema| self.schemas.get(&schema));
        if let (Some(floats), Some(slots)) = (row.floats(), slots.filter(|slots| slots.len() < MANY_COLUMNS)) {
            for (slot, value) in slots.iter().zip(floats) {
                self.builder.push_f64(*slot, value);
            }
            return true;
        }
        let mut is_whole = true;
        if let Some(slots) = row.schema.and_then(|schema| self.schemas.get(&schema)).cloned() {
            for (slot, value) in slots.into_iter().zip(row.values()) {
                match value {
                    Some(value) => self.builder.push(slot, value),
                    None => is_whole = false,
                }
                self.cut(&row, false);
            }
            return is_whole;
        }
        if row.inline_names().any(|name| name.is_none()) {
            return false;
        }
        for (name, value) in row.inline_names().flatten().zip(row.values()) {
            let slot = self.builder.slot(name);
            match value {
                Some(value) => self.builder.push(slot, value),
                None => is_whole = false,
            }
            self.cut(&row, true);
        }
        is_whole
    }

    /// Ends the frame in the middle of a row that is more than one can hold; the row goes on in the next one. `may_forget`: no slot is in
    /// use.
    fn cut(&mut self, row: &Row<'_>, may_forget: bool) {
        if self.builder.byte_count() >= MAX_RAW_BYTES || self.builder.column_count() >= MANY_COLUMNS {
            self.close_rows();
            if may_forget {
                self.forget_names();
            }
            self.builder.begin_row(row.step, row.time_us);
        }
    }

    /// Names that do not come again are not kept for ever.
    fn forget_names(&mut self) {
        if self.builder.prune() {
            self.schemas.clear();
        }
    }

    /// Ends the frame being gathered, if it holds anything.
    pub fn close(&mut self) {
        if self.builder.row_count() > 0 || !self.documents.is_empty() {
            self.close_rows();
        }
    }

    fn close_rows(&mut self) {
        let points = self.builder.point_count();
        let mut blocks = std::mem::take(&mut self.documents);
        self.document_bytes = 0;
        if self.builder.row_count() > 0 {
            let block = self.builder.take();
            self.last.remember(&block.columns);
            blocks.push(Block::Rows(block));
        }
        self.ready.push_back(Closed { ready: Ready::Data { blocks, points }, end: self.end });
    }

    /// Whether the oldest record has waited for `linger`, or a frame is closed already.
    pub fn is_due(&self, now: Duration, linger: Duration) -> bool {
        !self.ready.is_empty() || self.first_at.is_some_and(|first| now.saturating_sub(first) >= linger)
    }

    /// Whether a closed frame waits to be packed.
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Whether nothing is gathered.
    pub fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.builder.row_count() == 0 && self.documents.is_empty()
    }

    /// Records that could not be read since the start.
    pub fn damaged(&self) -> u64 {
        self.damaged
    }

    /// The last value of every metric seen in a closed frame.
    pub fn last_values(&self) -> &HashMap<String, Last> {
        self.last.by_name()
    }

    /// The oldest of what is closed.
    pub fn take(&mut self) -> Option<Closed> {
        let closed = self.ready.pop_front()?;
        if self.is_empty() {
            self.first_at = None;
        }
        Some(closed)
    }

    /// Packs the oldest closed frame as number `seq`.
    pub fn pack(&mut self, identity: Identity, seq: u64, extra_flags: u8) -> Option<Packed> {
        let closed = self.take()?;
        self.covered.add(closed.blocks(), seq + 1);
        Some(closed.pack(identity, seq, extra_flags))
    }
}

/// A GAP frame: the only legal form of loss.
pub fn gap_frame(
    identity: Identity,
    seq: u64,
    count: u32,
    extra_flags: u8,
    reason: &str,
    counts: Dropped,
    detail: &str,
) -> Vec<u8> {
    let map = Doc::Map(vec![
        ("reason".to_owned(), reason.into()),
        ("rows".to_owned(), Doc::Int(counts.rows as i64)),
        ("points".to_owned(), Doc::Int(counts.points as i64)),
        ("bytes".to_owned(), Doc::Int(counts.bytes as i64)),
        ("detail".to_owned(), detail.into()),
    ]);
    map_frame(identity, Kind::Gap, seq, count, extra_flags, &map)
}

/// A frame around one map: OPEN, FINISH or GAP.
pub fn map_frame(identity: Identity, kind: Kind, seq: u64, record_count: u32, extra_flags: u8, map: &Doc) -> Vec<u8> {
    let raw = map.encode();
    let (codec, stored) =
        if raw.len() < 512 { (Codec::Plain, raw.clone()) } else { payload::compress(&raw, ZSTD_LEVEL) };
    let Identity { run_id, writer_id } = identity;
    Draft { kind, flags: extra_flags, run_id, writer_id, seq, record_count }.seal(codec, raw.len() as u32, &stored)
}

#[cfg(test)]
mod tests {
    use super::*;
    use runferry_wire::record::{RowNames, Value, encode_row, encode_schema};
    use runferry_wire::rows::{EMPTY_ROW_NAME, Values};
    use runferry_wire::{Frame, block::decode_all};

    const WHO: Identity = Identity { run_id: [1; 16], writer_id: 2 };

    struct Table(Vec<Vec<u8>>);

    impl Names for Table {
        fn item(&self, id: u32) -> Option<&[u8]> {
            self.0.get(id as usize).map(Vec::as_slice)
        }
    }

    fn table() -> Table {
        Table(vec![b"nloss".to_vec(), b"nacc".to_vec(), encode_schema(&[0, 1])])
    }

    fn row(step: i64, values: &[Value<'_>]) -> (u8, Vec<u8>) {
        encode_row(RowNames::Schema(2), step, 1_000 + step, values)
    }

    fn unpack(packed: &Packed) -> Vec<Block> {
        let frame = Frame::read(&packed.frame).expect("just packed");
        decode_all(&payload::decompress(&frame.header, frame.payload).expect("just packed")).expect("just packed")
    }

    #[test]
    fn rows_of_one_step_become_one_row_and_the_later_value_wins() {
        let mut batch = Batch::default();
        for (end, (step, loss)) in [(0, 1.0), (0, 2.0), (1, 3.0)].into_iter().enumerate() {
            let (kind, payload) = row(step, &[Value::F64(loss), Value::I64(7)]);
            batch.push(kind, &payload, end as u64 + 1, &table(), Duration::ZERO);
        }

        batch.close();
        let packed = batch.pack(WHO, 1, 0).expect("closed");

        assert_eq!((packed.rows, packed.points, packed.end), (2, 4, 3));
        let [Block::Rows(rows)] = &unpack(&packed)[..] else { panic!("one block of rows") };
        assert_eq!(rows.steps, [0, 1]);
        assert_eq!(rows.columns[0].values, Values::F64(vec![2.0, 3.0]));
        assert_eq!(batch.last_values()["loss"], Last::F64(3.0));
    }

    #[test]
    fn a_row_larger_than_a_frame_is_cut_and_only_its_last_frame_takes_its_end() {
        let mut batch = Batch::default();
        let text = "x".repeat(3 << 20);
        let (kind, payload) = encode_row(RowNames::Inline(&["a", "b", "c"]), 0, 0, &[Value::Str(&text); 3]);

        batch.push(kind, &payload, 99, &table(), Duration::ZERO);
        batch.close();

        let ends: Vec<u64> = std::iter::from_fn(|| batch.pack(WHO, 1, 0)).map(|packed| packed.end).collect();
        assert_eq!(ends, [0, 99]);
    }

    /// Twice: the second call has its names interned, and goes the short way where it may.
    #[test]
    fn a_call_of_very_many_metrics_is_cut_where_a_payload_could_not_be_read_back() {
        let mut batch = Batch::default();
        let names: Vec<String> = (0..100_000).map(|index| format!("m{index}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let values = vec![Value::F64(0.5); names.len()];
        for step in 0..2 {
            let (kind, payload) = encode_row(RowNames::Inline(&names), step, 0, &values);
            batch.push(kind, &payload, 1, &table(), Duration::ZERO);
        }
        batch.close();

        let blocks: Vec<Block> =
            std::iter::from_fn(|| batch.pack(WHO, 1, 0)).flat_map(|packed| unpack(&packed)).collect();

        let columns = blocks.iter().map(|block| if let Block::Rows(rows) = block { rows.columns.len() } else { 0 });
        assert_eq!(columns.sum::<usize>(), 2 * names.len());
    }

    // fault: 60
    #[test]
    fn names_that_never_come_again_are_forgotten_and_lose_no_value() {
        let mut batch = Batch::default();
        let mut points = 0;
        for first in (0..200_000_u32).step_by(500) {
            let names: Vec<String> = (first..first + 500).map(|number| format!("name {number}")).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let values: Vec<Value<'_>> = (0..500).map(Value::I64).collect();
            let (kind, payload) = encode_row(RowNames::Inline(&names), i64::from(first), 0, &values);
            batch.push(kind, &payload, 1, &table(), Duration::ZERO);
            while let Some(packed) = batch.pack(WHO, 1, 0) {
                points += packed.points;
            }
            assert!(batch.builder.slot_count() < 20_000);
        }
        batch.close();
        points += batch.pack(WHO, 1, 0).map_or(0, |packed| packed.points);

        assert_eq!(points, 200_000);
        assert_eq!(batch.last_values().len(), last::MOST_VALUES);
    }

    #[test]
    fn last_values_are_bounded_in_bytes_and_never_old_ones() {
        let mut batch = Batch::default();
        let text = "x".repeat(3 << 20);
        for (step, names) in [&["a", "b"][..], &["c", "a"][..]].into_iter().enumerate() {
            for name in names {
                let text = format!("{step}{text}");
                let (kind, payload) = encode_row(RowNames::Inline(&[name]), step as i64, 0, &[Value::Str(&text)]);
                batch.push(kind, &payload, 1, &table(), Duration::ZERO);
                batch.close();
            }
        }

        let mut kept: Vec<(&str, bool)> = batch
            .last_values()
            .iter()
            .map(|(name, last)| (name.as_str(), matches!(last, Last::Str(text) if text.starts_with('1'))))
            .collect();
        kept.sort_unstable();
        assert_eq!(kept, [("a", true), ("b", false)], "there is no room for c");
    }

    #[test]
    fn what_cannot_be_read_becomes_a_gap_in_its_place() {
        let mut batch = Batch::default();
        let (kind, payload) = row(0, &[Value::F64(1.0), Value::F64(1.0)]);
        batch.push(kind, &payload, 1, &table(), Duration::ZERO);
        batch.push(kind, &payload[..20], 2, &table(), Duration::ZERO);
        batch.push(kind, &payload, 3, &table(), Duration::ZERO);
        batch.close();

        let kinds: Vec<Kind> = std::iter::from_fn(|| batch.pack(WHO, 1, 0))
            .map(|packed| Frame::read(&packed.frame).expect("just packed").header.kind)
            .collect();

        assert_eq!(kinds, [Kind::Data, Kind::Gap, Kind::Data]);
        assert_eq!(batch.damaged(), 1);
    }

    #[test]
    fn an_empty_row_is_kept() {
        let mut batch = Batch::default();
        let (kind, payload) = encode_row(RowNames::Inline(&[]), 4, 0, &[]);
        batch.push(kind, &payload, 1, &table(), Duration::ZERO);
        batch.close();

        let packed = batch.pack(WHO, 1, 0).expect("closed");

        let [Block::Rows(rows)] = &unpack(&packed)[..] else { panic!("one block of rows") };
        assert_eq!((rows.steps.as_slice(), rows.columns[0].name.as_str()), ([4].as_slice(), EMPTY_ROW_NAME));
    }
}
