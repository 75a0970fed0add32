//! Rows and series of one run in memory: the one place that decides which of several values at a step counts.
//!
//! Frames not yet merged, chunks read back and reads that span both all become a [`Table`]; merging, charts and scans
//! take flat series from it. So a reader sees the same values before a merge as after it.
//!
//! # Law
//! Of several values of one series at one step the last one written counts: by writer first (start time, then id), in a
//! writer by seq. Order of arrival never matters, or a late journal would overwrite newer values.
//!
//! # Rows
//! Every logged row is also a point of its label's *row series* ([`Role::Rows`]), without a value. That one counts rows,
//! gives each step its time, and keeps rows that carried nothing.

#![expect(clippy::indexing_slicing, reason = "row and series numbers are handed out by the table they index")]

use std::collections::HashMap;
use std::sync::Arc;

use runferry_wire::block::{self, Block};
use runferry_wire::rows::{EMPTY_ROW_NAME, set_bits};
use runferry_wire::{Frame, Kind, Rows, Values, payload};
use thiserror::Error;

use crate::axis::Axis;
use crate::cells::{Cell, Cells};
use crate::pieces::{self, Parts, Piece, RowNumbers, RowsId};

/// What a series is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// A metric of the user.
    Metric,
    /// The rows of a label, whatever is in them.
    Rows,
}

/// A writer, as far as its rows are concerned.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Writer {
    /// When it started: the first thing that orders writers.
    pub started_us: i64,
    /// Its id: the second.
    pub writer_id: u64,
    /// Which label its series carry.
    pub label: String,
    /// What is added to each of its steps.
    pub step_offset: i64,
}

/// Why a frame is set aside instead of being merged.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FrameFault {
    /// Not a whole, undamaged frame.
    #[error(transparent)]
    Frame(#[from] runferry_wire::FrameError),
    /// The payload cannot be decompressed.
    #[error("payload: {0}")]
    Payload(String),
    /// The payload is not a list of blocks.
    #[error("blocks: {0}")]
    Blocks(String),
    /// A kind of a later version that must not be passed over.
    #[error("frame kind {0} is of a later version")]
    UnknownKind(u8),
    /// The writer's offset pushes a step out of 64 bits.
    #[error("step {step} plus offset {offset} does not fit 64 bits")]
    StepOverflow {
        /// The step in the frame.
        step: i64,
        /// The writer's offset.
        offset: i64,
    },
    /// The decoder has a mistake that this frame has found.
    #[error("decoding it panicked")]
    Panicked,
    /// The writer is not known to the table.
    #[error("writer ordinal {0} is unknown")]
    UnknownWriter(u32),
}

/// Rows by number.
#[derive(Debug, Clone, Default)]
struct RowColumns {
    steps: Vec<i64>,
    times_us: Vec<i64>,
    owners: Vec<u32>,
    /// From a frame (rather than from a chunk, which is older than any frame of the same writer).
    are_new: Vec<bool>,
}

impl RowColumns {
    fn len(&self) -> usize {
        self.steps.len()
    }
}

/// One series.
#[derive(Debug, Clone)]
pub struct Series {
    /// What it is for.
    pub role: Role,
    /// The writer label.
    pub label: String,
    /// The metric's name; empty for rows.
    pub name: String,
    pieces: Vec<Piece>,
}

/// A value that lost against a later one at the same step.
#[derive(Debug, Clone, PartialEq)]
pub struct Loser {
    /// Its row.
    pub row: u32,
    /// The value.
    pub cell: Cell,
}

/// Step, precedence, piece, place in it: in the order that decides.
type Entry = (i64, (u32, bool, u32), u32, u32);

/// A series with at most one value per step, ascending.
#[derive(Debug, Clone)]
pub struct Flat {
    /// Row numbers, ascending by step.
    pub rows: Vec<u32>,
    /// A value per row.
    pub cells: Cells,
    /// What lost.
    pub losers: Vec<Loser>,
}

/// Rows of which none has to be weighed against another, and their steps.
#[derive(Debug)]
pub struct PlainRows {
    /// Row numbers.
    pub rows: Vec<u32>,
    /// Ascending, each once.
    pub steps: Vec<i64>,
    /// The pieces of the series in this order.
    order: Vec<usize>,
}

impl PlainRows {
    /// Those of a series that had to be sorted.
    pub fn sorted(rows: Vec<u32>, steps: Vec<i64>) -> Self {
        Self { rows, steps, order: Vec::new() }
    }
}

/// What [`Table::plain_rows`] has found, by the rows of the pieces of a series (which a table never gives up). Good until the table
/// changes.
#[derive(Debug, Default)]
pub struct KnownRows(HashMap<Vec<RowsId>, Option<Arc<PlainRows>>>);

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Table {
    writers: HashMap<u32, Writer>,
    ranks: HashMap<u32, u32>,
    /// Rows shared with the table this one was made from.
    base: Arc<RowColumns>,
    own: RowColumns,
    series: Vec<Series>,
    index: HashMap<(Role, String), HashMap<String, usize>>,
    weight_bytes: usize,
}

/// About what a row takes: step, time, owner, a mark and its number in a piece.
const ROW_BYTES: usize = 32;
/// About what a piece takes beside its values.
const PIECE_BYTES: usize = 128;
/// About what a series takes beside its values, from here to the rows of the database: tables, names, statistics.
const SERIES_BYTES: usize = 512;

impl Table {
    /// An empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// A table without series that knows the rows and writers of `other`, ready to [`Self::adopt`] series of it.
    pub fn over(other: &Self) -> Self {
        let base = if other.own.len() == 0 { Arc::clone(&other.base) } else { Arc::new(other.all_rows()) };
        Self { writers: other.writers.clone(), ranks: other.ranks.clone(), base, ..Self::default() }
    }

    /// Moves own rows to where [`Self::over`] can share them.
    pub fn settle(&mut self) {
        if self.own.len() > 0 {
            let mut own = std::mem::take(&mut self.own);
            let base = Arc::make_mut(&mut self.base);
            base.steps.append(&mut own.steps);
            base.times_us.append(&mut own.times_us);
            base.owners.append(&mut own.owners);
            base.are_new.append(&mut own.are_new);
        }
    }

    fn all_rows(&self) -> RowColumns {
        let mut rows = self.base.as_ref().clone();
        rows.steps.extend_from_slice(&self.own.steps);
        rows.times_us.extend_from_slice(&self.own.times_us);
        rows.owners.extend_from_slice(&self.own.owners);
        rows.are_new.extend_from_slice(&self.own.are_new);
        rows
    }

    /// Makes a writer known, by its ordinal in the run.
    pub fn set_writer(&mut self, ordinal: u32, writer: Writer) {
        if self.writers.get(&ordinal) == Some(&writer) {
            return;
        }
        self.writers.insert(ordinal, writer);
        let mut order: Vec<_> =
            self.writers.iter().map(|(ordinal, writer)| (writer.started_us, writer.writer_id, *ordinal)).collect();
        order.sort_unstable();
        self.ranks = order.into_iter().enumerate().map(|(rank, (.., ordinal))| (ordinal, rank as u32 + 1)).collect();
    }

    /// All series, by number.
    pub fn series(&self) -> &[Series] {
        &self.series
    }

    /// The number of a series, if it is here.
    pub fn find(&self, role: Role, label: &str, name: &str) -> Option<usize> {
        self.index.get(&(role, label.to_owned()))?.get(name).copied()
    }

    /// The labels under which a metric is here.
    pub fn labels_of(&self, name: &str) -> Vec<&str> {
        let found = self.index.iter().filter(|((role, _), names)| *role == Role::Metric && names.contains_key(name));
        found.map(|((_, label), _)| label.as_str()).collect()
    }

    /// The number of a series, which is made if it is not here.
    pub fn find_or_add(&mut self, role: Role, label: &str, name: &str) -> usize {
        let names = self.index.entry((role, label.to_owned())).or_default();
        if let Some(index) = names.get(name) {
            return *index;
        }
        names.insert(name.to_owned(), self.series.len());
        self.series.push(Series { role, label: label.to_owned(), name: name.to_owned(), pieces: Vec::new() });
        self.weight_bytes += SERIES_BYTES + 3 * name.len();
        self.series.len() - 1
    }

    /// About how much memory its rows, series and values take: what bounds a merge, whose frames may unfold to anything.
    pub fn weight_bytes(&self) -> usize {
        self.weight_bytes
    }

    /// Rows in the table.
    pub fn row_count(&self) -> usize {
        self.base.len() + self.own.len()
    }

    /// The step of a row.
    pub fn step(&self, row: u32) -> i64 {
        let row = row as usize;
        if row < self.base.len() { self.base.steps[row] } else { self.own.steps[row - self.base.len()] }
    }

    /// The time of a row.
    pub fn time_us(&self, row: u32) -> i64 {
        let row = row as usize;
        if row < self.base.len() { self.base.times_us[row] } else { self.own.times_us[row - self.base.len()] }
    }

    /// The ordinal of the writer of a row.
    pub fn owner(&self, row: u32) -> u32 {
        let row = row as usize;
        if row < self.base.len() { self.base.owners[row] } else { self.own.owners[row - self.base.len()] }
    }

    /// The step of a row as its writer logged it.
    pub fn logged_step(&self, row: u32) -> i64 {
        let offset = self.writers.get(&self.owner(row)).map_or(0, |writer| writer.step_offset);
        self.step(row).wrapping_sub(offset)
    }

    fn is_new(&self, row: u32) -> bool {
        let row = row as usize;
        if row < self.base.len() { self.base.are_new[row] } else { self.own.are_new[row - self.base.len()] }
    }

    /// The place of a writer among all, later ones higher.
    pub fn rank(&self, ordinal: u32) -> u32 {
        self.ranks.get(&ordinal).copied().unwrap_or_default()
    }

    /// What decides between rows of equal step: the greater one counts.
    fn precedence(&self, row: u32) -> (u32, bool, u32) {
        (self.rank(self.owner(row)), self.is_new(row), row)
    }

    /// Takes the rows of a frame; all of them or, on an error, none. Frames of a writer come in ascending seq. Returns
    /// the number of rows.
    ///
    /// # Errors
    /// [`FrameFault`]: the frame belongs into quarantine.
    pub fn add_frame(&mut self, ordinal: u32, bytes: &[u8]) -> Result<usize, FrameFault> {
        let raw = payload_of(bytes)?;
        let blocks = decode_rows(raw.as_deref())?;
        let writer = self.writers.get(&ordinal).cloned().ok_or(FrameFault::UnknownWriter(ordinal))?;
        let offset = writer.step_offset;
        for step in blocks.iter().flat_map(|rows| rows.steps.iter()) {
            if step.checked_add(offset).is_none() {
                return Err(FrameFault::StepOverflow { step: *step, offset });
            }
        }
        let mut added = 0;
        for rows in blocks {
            let first = self.row_count() as u32;
            let count = rows.steps.len();
            added += count;
            self.own.steps.extend(rows.steps.iter().map(|step| step + offset));
            self.own.times_us.extend_from_slice(&rows.times_us);
            self.own.owners.extend(std::iter::repeat_n(ordinal, count));
            self.own.are_new.extend(std::iter::repeat_n(true, count));
            self.weight_bytes += count * ROW_BYTES;
            let all = RowNumbers::Range(first, first + count as u32);
            let mut by_mask: HashMap<Vec<u8>, RowNumbers> = HashMap::new();

            let mut series = self.find_or_add(Role::Rows, &writer.label, "");
            self.add_rows(series, all.clone(), Cells::Uniform(Values::Null(count)));
            for column in rows.columns {
                if column.name == EMPTY_ROW_NAME && matches!(column.values, Values::Null(_)) {
                    continue;
                }
                let present = match &column.presence {
                    None => all.clone(),
                    Some(mask) => by_mask
                        .entry(mask.clone())
                        .or_insert_with(|| {
                            RowNumbers::Listed(set_bits(mask, count).map(|index| first + index as u32).collect())
                        })
                        .clone(),
                };
                // Frame after frame brings the same metrics in the same order: the next one is most often next to this one.
                let is_next =
                    |next: &Series| next.role == Role::Metric && next.name == column.name && next.label == writer.label;
                series = match self.series.get(series + 1) {
                    Some(next) if is_next(next) => series + 1,
                    _ => self.find_or_add(Role::Metric, &writer.label, column.name),
                };
                self.add_rows(series, present, Cells::Uniform(column.values));
            }
        }
        Ok(added)
    }

    /// Adds the rows of a stored axis; returns their numbers.
    pub fn add_axis(&mut self, axis: &Axis) -> RowNumbers {
        let first = self.row_count() as u32;
        self.own.steps.extend_from_slice(&axis.steps);
        self.own.times_us.extend_from_slice(&axis.times_us);
        self.own.owners.extend_from_slice(&axis.writers);
        self.own.are_new.extend(std::iter::repeat_n(false, axis.len()));
        RowNumbers::Range(first, first + axis.len() as u32)
    }

    /// Adds values of a frame to a series.
    fn add_rows(&mut self, series: usize, rows: RowNumbers, cells: Cells) {
        let mut cells = cells;
        let last_step = self.series[series].pieces.last().and_then(|last| last.rows.last()).map(|row| self.step(row));
        if last_step.is_some_and(|last| rows.first().is_some_and(|row| last < self.step(row)))
            && let Some(last) = self.series[series].pieces.last_mut()
        {
            let weight_bytes = 2 * cells.weight_bytes(); // a list that grows has room to spare
            cells = match pieces::join(last, &rows, cells) {
                Ok(()) => {
                    self.weight_bytes += weight_bytes;
                    return;
                }
                Err(cells) => cells,
            };
        }
        self.add_piece(series, rows, cells);
    }

    /// Adds values to a series, one per row.
    pub fn add_piece(&mut self, series: usize, rows: RowNumbers, cells: Cells) {
        debug_assert_eq!(rows.len(), cells.len(), "a value per row");
        if !rows.is_empty() {
            self.weight_bytes += PIECE_BYTES + cells.weight_bytes();
            self.series[series].pieces.push(Piece { rows, cells: Arc::new(cells) });
        }
    }

    /// Shares the values of a series of the table this one was made [`Self::over`].
    pub fn adopt(&mut self, series: usize, other: &Self, other_series: usize) {
        self.series[series].pieces.extend(other.series[other_series].pieces.iter().cloned());
    }

    /// How many values a series got, losers included.
    pub fn value_count(&self, series: usize) -> usize {
        self.series[series].pieces.iter().map(|piece| piece.rows.len()).sum()
    }

    /// The least and the greatest step of each series, by number; `None` without a value. Series that were logged together share
    /// their rows, which are looked at once.
    pub fn spans(&self) -> Vec<Option<(i64, i64)>> {
        let mut known: HashMap<RowsId, (i64, i64)> = HashMap::new();
        let mut span_of = |rows: &RowNumbers| {
            *known.entry(rows.id()).or_insert_with(|| {
                let steps = rows.iter().map(|row| self.step(row));
                steps.fold((i64::MAX, i64::MIN), |(min, max), step| (min.min(step), max.max(step)))
            })
        };
        let spans = self.series.iter().map(|series| {
            let spans = series.pieces.iter().map(|piece| span_of(&piece.rows));
            spans.reduce(|all, one| (all.0.min(one.0), all.1.max(one.1)))
        });
        spans.collect()
    }

    /// All steps of a series, ascending, each once.
    pub fn steps_of(&self, series: usize) -> Vec<i64> {
        let mut steps: Vec<i64> =
            self.series[series].pieces.iter().flat_map(|piece| piece.rows.iter()).map(|row| self.step(row)).collect();
        if !steps.is_sorted() {
            steps.sort_unstable();
        }
        steps.dedup();
        steps
    }

    /// The rows of a series if its pieces can be put behind one another, step above step: then nothing of it has to be sorted. What is
    /// found is kept in `known`, since series that were logged together have the same rows.
    pub fn plain_rows(&self, series: usize, known: &mut KnownRows) -> Option<Arc<PlainRows>> {
        let pieces = &self.series[series].pieces;
        let key: Vec<RowsId> = pieces.iter().map(|piece| piece.rows.id()).collect();
        let found = known.0.entry(key).or_insert_with(|| {
            let mut order: Vec<usize> = (0..pieces.len()).collect();
            order.sort_by_key(|piece| pieces[*piece].rows.first().map(|row| self.step(row)));
            let rows: Vec<u32> = order.iter().flat_map(|piece| pieces[*piece].rows.iter()).collect();
            let steps: Vec<i64> = rows.iter().map(|row| self.step(*row)).collect();
            steps.is_sorted_by(|one, next| one < next).then(|| Arc::new(PlainRows { rows, steps, order }))
        });
        found.clone()
    }

    /// Takes the values of a series out, at the rows that [`Self::plain_rows`] has found for it.
    pub fn take_plain(&mut self, series: usize, rows: &PlainRows) -> Parts {
        let mut pieces: Vec<_> = std::mem::take(&mut self.series[series].pieces).into_iter().map(Some).collect();
        let ordered = rows.order.iter().filter_map(|piece| pieces[*piece].take());
        Parts::of(ordered.map(|piece| piece.cells).collect())
    }

    /// The values of a series within a range of steps, each step once.
    pub fn flatten(&self, series: usize, window: Window) -> Flat {
        let pieces = &self.series[series].pieces;
        let mut previous = None;
        let is_plain = pieces.iter().flat_map(|piece| piece.rows.iter()).all(|row| {
            let step = self.step(row);
            let is_ascending = previous.is_none_or(|previous| previous < step) && window.has(step);
            previous = Some(step);
            is_ascending
        });
        if is_plain {
            let rows = pieces.iter().flat_map(|piece| piece.rows.iter()).collect();
            let cells = pieces::concatenate(pieces.iter().map(|piece| Arc::clone(&piece.cells)).collect());
            return Flat { rows, cells, losers: Vec::new() };
        }

        let mut entries: Vec<Entry> = Vec::with_capacity(self.value_count(series));
        for (number, piece) in pieces.iter().enumerate() {
            for (index, row) in piece.rows.iter().enumerate() {
                let step = self.step(row);
                if window.has(step) {
                    entries.push((step, self.precedence(row), number as u32, index as u32));
                }
            }
        }
        entries.sort_unstable();
        let mut rows = Vec::with_capacity(entries.len());
        let mut picks = Vec::with_capacity(entries.len());
        let mut losers = Vec::new();
        let mut entries = entries.into_iter().peekable();
        while let Some((step, (.., row), piece, index)) = entries.next() {
            if entries.peek().is_some_and(|next| next.0 == step) {
                if let Some(cell) = pieces[piece as usize].cells.get(index as usize) {
                    losers.push(Loser { row, cell });
                }
                continue;
            }
            rows.push(row);
            picks.push((piece, index));
        }
        Flat { rows, cells: pieces::gather(pieces, &picks), losers }
    }
}

/// A range of steps, both ends in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// First step.
    pub min: i64,
    /// Last step.
    pub max: i64,
}

impl Window {
    /// All steps.
    pub const ALL: Self = Self { min: i64::MIN, max: i64::MAX };

    /// Whether a step lies in it.
    pub fn has(self, step: i64) -> bool {
        self.min <= step && step <= self.max
    }
}

/// The decompressed payload of a frame, `None` for kinds without rows.
///
/// A panic in here would be a mistake of ours that somebody's bytes have found: the frame is set aside like any other that
/// cannot be read, and its neighbours go on.
pub(crate) fn payload_of(bytes: &[u8]) -> Result<Option<Vec<u8>>, FrameFault> {
    std::panic::catch_unwind(|| inflated(bytes)).unwrap_or(Err(FrameFault::Panicked))
}

/// The ROWS blocks of a payload; panics as in [`payload_of`].
pub(crate) fn decode_rows(payload: Option<&[u8]>) -> Result<Vec<Rows<&str>>, FrameFault> {
    let Some(payload) = payload else { return Ok(Vec::new()) };
    let decode = || block::decode_borrowed(payload).map_err(|error| FrameFault::Blocks(error.to_string()));
    let blocks = std::panic::catch_unwind(decode).unwrap_or(Err(FrameFault::Panicked))?;
    let rows = blocks.into_iter().filter_map(|block| match block {
        Block::Rows(rows) => Some(rows),
        Block::Config(_) | Block::Summary(_) | Block::Meta(_) | Block::Unknown { .. } => None,
    });
    Ok(rows.filter(|rows| !rows.steps.is_empty()).collect())
}

fn inflated(bytes: &[u8]) -> Result<Option<Vec<u8>>, FrameFault> {
    let frame = Frame::read(bytes)?;
    match frame.header.kind {
        Kind::Data => {}
        Kind::Unknown(kind) if kind >= 128 => return Err(FrameFault::UnknownKind(kind)),
        Kind::Open
        | Kind::Finish
        | Kind::Gap
        | Kind::Dict
        | Kind::Mark
        | Kind::BlobRef
        | Kind::Receipt
        | Kind::Unknown(_) => {
            return Ok(None);
        }
    }
    let raw = payload::decompress_written(&frame.header, frame.payload);
    raw.map(Some).map_err(|error| FrameFault::Payload(error.to_string()))
}
