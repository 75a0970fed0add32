//! The caller's side of the ring, held by one call at a time: steps, names, entries, and the counting of what is refused.
//!
//! # Steps
//! The rules of the W&B SDK. `current` is the step of the open row. A call without `step` writes to it and moves on unless
//! `commit=False`; a call with a later `step` moves there and stays unless `commit=True`; one with an earlier `step` is dropped
//! whole and counted. Rows of one step that follow each other are merged by the packer, so nothing is held back here.
//!
//! # Invariants
//! - What is refused becomes a DROPPED entry, at most one a second, so that the server counts it too.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use runferry_ring::{Producer, Pushed};
use runferry_wire::block::Block;
use runferry_wire::doc::MAX_DOCUMENT_NODES;
use runferry_wire::record::{
    self, DOCUMENT, DROPPED, DropReason, Dropped, HAS_KINDS, ROW_HEAD_BYTES, ROW_SCHEMA, RowNames, SPOOLED, TAG_NAME,
    Value,
};

use crate::writer::Writer;
use crate::{clock, rowspool};

/// Largest call.
const LARGEST_CALL_BYTES: usize = 64 << 20;
/// A document has to fit a frame, here and once it is unfolded.
const LARGEST_DOCUMENT_BYTES: usize = 4 << 20;
/// Schemas interned; calls whose keys never repeat carry their names from then on.
const MOST_SCHEMAS: usize = 1_024;
/// Longest wait of a call while the packer makes no progress.
const LONGEST_STALL: Duration = Duration::from_millis(250);
/// A packer whose last frame is younger makes progress: what a call waits for it counts for nothing.
const FRAME_PAUSE: Duration = Duration::from_millis(100);
/// Longest wait of all calls within a minute, beyond that.
const STALL_BUDGET: Duration = Duration::from_millis(900);
const STALL_WINDOW: Duration = Duration::from_secs(60);
/// A packer that has done nothing for so long is not waited for at all.
const HOPELESS_AFTER: Duration = Duration::from_secs(5);
/// How often drops are reported.
const DROP_REPORT: Duration = Duration::from_secs(1);

/// What became of a call.
#[derive(Debug)]
pub enum Taken {
    /// A row is in the ring.
    Done,
    /// A document is in the ring.
    Document,
    /// The step lay behind; counted.
    Behind,
    /// Too large, or its spool could not be written; counted.
    Refused {
        /// Values in it.
        points: u64,
    },
    /// The writer is finished, or this is a forked child.
    Closed,
    /// No room: to be tried again by [`Waiting`].
    Full {
        /// Entry kind.
        kind: u8,
        /// Entry payload.
        payload: Vec<u8>,
        /// Values in it.
        points: u64,
    },
}

/// What a row of known names is, but for its values.
#[derive(Debug, Clone, Copy)]
pub struct KnownRow {
    /// Of its names, as [`Intake::take_row`] gave it.
    pub schema: u32,
    /// How many.
    pub values: usize,
    /// Whether they are not all floats.
    pub has_kinds: bool,
    /// When, microseconds since 1970 UTC.
    pub time_us: i64,
}

/// See the module.
#[derive(Debug)]
pub struct Intake {
    producer: Producer,
    dir: PathBuf,
    current: i64,
    is_closed: bool,
    names: HashMap<String, u32>,
    schemas: HashMap<Vec<u32>, u32>,
    spooled: u64,
    unreported: HashMap<u8, (DropReason, Dropped)>,
    reported_at: Duration,
    behind_rows: u64,
    dropped_values: u64,
    stalled: Duration,
    stall_window: Duration,
    /// Frames packed when a call last looked, and since when it has been so many.
    progress: (u64, Duration),
}

impl Intake {
    /// The caller's half of a new ring; rows begin at `start_step`.
    pub fn new(producer: Producer, dir: PathBuf, start_step: i64) -> Self {
        Self {
            producer,
            dir,
            current: start_step,
            is_closed: false,
            names: HashMap::new(),
            schemas: HashMap::new(),
            spooled: 0,
            unreported: HashMap::new(),
            reported_at: Duration::ZERO,
            behind_rows: 0,
            dropped_values: 0,
            stalled: Duration::ZERO,
            stall_window: Duration::ZERO,
            progress: (0, Duration::ZERO),
        }
    }

    /// The step of the next call without one.
    pub fn step(&self) -> i64 {
        self.current
    }

    /// Whether nothing is taken any more.
    pub fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Calls refused because their step lay behind.
    pub fn behind_rows(&self) -> u64 {
        self.behind_rows
    }

    /// Names interned: distinct ones, as far as there was room for them.
    pub fn name_count(&self) -> usize {
        self.names.len()
    }

    /// An interned name that is not this one.
    pub fn any_name(&self, but: &str) -> Option<String> {
        self.names.keys().find(|name| *name != but).cloned()
    }

    /// Values under names that cannot be stored.
    pub fn dropped_values(&self) -> u64 {
        self.dropped_values
    }

    /// Takes nothing any more.
    pub fn close(&mut self) {
        self.is_closed = true;
        self.producer.close();
    }

    /// The step this call writes to, and the one of the next call without; `None`: it lies behind.
    #[inline]
    fn place(&self, step: Option<i64>, commit: Option<bool>) -> Option<(i64, i64)> {
        let at = match step {
            None => self.current,
            Some(step) if step < self.current => return None,
            Some(step) => step,
        };
        let is_committed = commit.unwrap_or(step.is_none());
        Some((at, if is_committed { at.saturating_add(1) } else { at }))
    }

    /// A row of a schema that [`Self::take_row`] has given, of `count` values that `fill` writes straight into the ring: their bits and,
    /// if the row is to have them, their kinds (without kinds all are floats).
    ///
    /// `false`: nothing has happened, because `fill` says so, there is no room, the step lies behind, or something else is to be told: the
    /// row comes again by `take_row`. Else it is counted by `accepted`.
    #[inline]
    pub fn take_known(
        &mut self,
        row: KnownRow,
        step: Option<i64>,
        commit: Option<bool>,
        accepted: &Writer,
        fill: impl FnOnce(&mut [[u8; 8]], &mut [u8]) -> bool,
    ) -> bool {
        if self.is_closed || !self.unreported.is_empty() {
            return false;
        }
        let Some((step, next)) = self.place(step, commit) else { return false };
        let KnownRow { schema, values, has_kinds, time_us } = row;
        let len = ROW_HEAD_BYTES + values * 8 + if has_kinds { values } else { 0 };
        let pushed = self.producer.push_if(ROW_SCHEMA, len, |out| {
            let Some((head, rest)) = out.split_first_chunk_mut::<ROW_HEAD_BYTES>() else { return false };
            let flags = if has_kinds { HAS_KINDS } else { 0 };
            let words = [u64::from(schema) | u64::from(flags) << 32, step as u64, time_us as u64];
            for (to, word) in head.as_chunks_mut::<8>().0.iter_mut().zip(words) {
                *to = word.to_le_bytes();
            }
            let Some((bits, kinds)) = rest.split_at_mut_checked(values * 8) else { return false };
            fill(bits.as_chunks_mut::<8>().0, kinds)
        });
        if pushed != Some(Pushed::Done) {
            return false;
        }
        self.current = next;
        accepted.accepted_row(self);
        true
    }

    /// Any other row. Also the schema of its names, by which the next such row may come.
    pub fn take_row(
        &mut self,
        names: &[&str],
        values: &[Value<'_>],
        step: Option<i64>,
        commit: Option<bool>,
        time_us: i64,
    ) -> (Taken, Option<u32>) {
        if self.is_closed {
            return (Taken::Closed, None);
        }
        let Some((step, next)) = self.place(step, commit) else { return (self.count_behind(names.len()), None) };
        self.current = next;
        let bytes: usize =
            values.iter().map(Value::byte_count).sum::<usize>() + names.iter().map(|name| name.len()).sum::<usize>();
        if bytes > LARGEST_CALL_BYTES {
            let points = names.len() as u64;
            self.count(DropReason::TooLarge, Dropped { rows: 1, points, bytes: bytes as u64 });
            return (Taken::Refused { points }, None);
        }
        self.report_drops(false);
        let schema = self.schema_of(names);
        let row_names = schema.map_or(RowNames::Inline(names), RowNames::Schema);
        let (kind, payload) = record::encode_row(row_names, step, time_us, values);
        (self.push(kind, payload, names.len() as u64), schema)
    }

    /// Counts values under names that cannot be stored.
    pub fn count_dropped_values(&mut self, values: u64) {
        self.dropped_values += values;
    }

    /// Changes of config, summary or meta.
    pub fn take_document(&mut self, block: &Block) -> Taken {
        if self.is_closed {
            return Taken::Closed;
        }
        let Some(payload) = record::encode_document(block) else { return Taken::Refused { points: 0 } };
        if payload.len() > LARGEST_DOCUMENT_BYTES || block.node_count() > MAX_DOCUMENT_NODES {
            self.count(DropReason::TooLarge, Dropped { rows: 1, points: 0, bytes: payload.len() as u64 });
            return Taken::Refused { points: 0 };
        }
        match self.push(DOCUMENT, payload, 0) {
            Taken::Done => Taken::Document,
            other => other,
        }
    }

    fn push(&mut self, kind: u8, payload: Vec<u8>, points: u64) -> Taken {
        match self.producer.push(kind, &[&payload]) {
            Pushed::Done => Taken::Done,
            Pushed::Closed => Taken::Closed,
            Pushed::Full => Taken::Full { kind, payload, points },
            Pushed::TooLarge => self.spool(kind, &payload, points),
        }
    }

    /// An entry larger than the ring takes goes through a file.
    fn spool(&mut self, kind: u8, payload: &[u8], points: u64) -> Taken {
        self.spooled += 1;
        let Ok(entry) = rowspool::write(&self.dir, self.spooled, kind, payload) else {
            self.count_full(payload.len(), points);
            return Taken::Refused { points };
        };
        self.push(SPOOLED, entry, points)
    }

    /// The schema of these names, interned if need be; `None`: the row has to carry its names.
    fn schema_of(&mut self, names: &[&str]) -> Option<u32> {
        let mut ids = Vec::with_capacity(names.len());
        for name in names {
            let id = match self.names.get(*name) {
                Some(id) => *id,
                None if self.schemas.len() >= MOST_SCHEMAS => return None,
                None => {
                    let mut item = vec![TAG_NAME];
                    item.extend_from_slice(name.as_bytes());
                    let id = self.producer.intern(&item)?;
                    self.names.insert((*name).to_owned(), id);
                    id
                }
            };
            ids.push(id);
        }
        if let Some(schema) = self.schemas.get(&ids) {
            return Some(*schema);
        }
        if self.schemas.len() >= MOST_SCHEMAS {
            return None;
        }
        let schema = self.producer.intern(&record::encode_schema(&ids))?;
        self.schemas.insert(ids, schema);
        Some(schema)
    }

    fn count_behind(&mut self, points: usize) -> Taken {
        self.behind_rows += 1;
        self.count(DropReason::Behind, Dropped { rows: 1, points: points as u64, bytes: 0 });
        Taken::Behind
    }

    /// Counts a row that found no room.
    pub fn count_full(&mut self, bytes: usize, points: u64) {
        self.count(DropReason::Full, Dropped { rows: 1, points, bytes: bytes as u64 });
    }

    /// Counts a row whose step is beyond what a step can be.
    pub fn count_beyond(&mut self, points: u64) {
        self.count(DropReason::Beyond, Dropped { rows: 1, points, bytes: 0 });
    }

    fn count(&mut self, reason: DropReason, more: Dropped) {
        let (_, counts) = self.unreported.entry(reason as u8).or_insert((reason, Dropped::default()));
        counts.rows += more.rows;
        counts.points += more.points;
        counts.bytes += more.bytes;
    }

    /// Puts what was refused into the ring, at most once a second unless it is `now`.
    pub fn report_drops(&mut self, now: bool) {
        if self.unreported.is_empty() || !(now || clock::mono().saturating_sub(self.reported_at) >= DROP_REPORT) {
            return;
        }
        self.reported_at = clock::mono();
        let producer = &mut self.producer;
        self.unreported.retain(|_, (reason, counts)| {
            // No room for it now: next time.
            producer.push(DROPPED, &[&counts.encode(*reason)]) != Pushed::Done
        });
    }

    /// Whether a call may wait `slice` more, with so many frames packed by now and `waited` without any progress.
    fn may_wait(&mut self, packed_frames: u64, waited: Duration, slice: Duration) -> bool {
        let now = clock::mono();
        if self.progress.0 != packed_frames {
            self.progress = (packed_frames, now);
            return true;
        }
        if now.saturating_sub(self.stall_window) > STALL_WINDOW {
            self.stall_window = now;
            self.stalled = Duration::ZERO;
        }
        let idle = now.saturating_sub(self.progress.1);
        if idle > FRAME_PAUSE {
            self.stalled += slice;
        }
        waited < LONGEST_STALL && self.stalled < STALL_BUDGET && idle < HOPELESS_AFTER
    }
}

/// A call that waits for room: without end while the packer makes progress, else 250 ms at most; where the policy is to block, as long as
/// that says, and while the journal is full no longer, progress or not.
#[derive(Debug)]
pub struct Waiting {
    begun: Duration,
    packed_frames: u64,
    progressed_at: Duration,
}

impl Waiting {
    /// How long to sleep before each try, without holding the intake.
    pub const POLL: Duration = Duration::from_micros(500);

    /// Wakes the packer.
    pub fn begin(writer: &Writer) -> Self {
        let begun = clock::mono();
        Self { begun, packed_frames: writer.wake(), progressed_at: begun }
    }

    /// Tries again. Whether the entry is in the ring, or will not be; `None`: not yet.
    pub fn again(&mut self, writer: &Writer, intake: &mut Intake, kind: u8, payload: &[u8]) -> Option<bool> {
        match intake.producer.push(kind, &[payload]) {
            Pushed::Done => {
                if kind != DOCUMENT {
                    writer.accepted_row(intake);
                }
                return Some(true);
            }
            Pushed::Closed | Pushed::TooLarge => return Some(false),
            Pushed::Full => {}
        }
        let (now, packed) = (clock::mono(), writer.wake());
        if packed != self.packed_frames {
            (self.packed_frames, self.progressed_at) = (packed, now);
        }
        let stalled = now.saturating_sub(self.progressed_at);
        let goes_on = match writer.patience() {
            Some(longest) if writer.is_holding() => now.saturating_sub(self.begun) < longest,
            Some(longest) => stalled < longest,
            None => intake.may_wait(packed, stalled, Self::POLL),
        };
        (!goes_on).then_some(false)
    }
}
