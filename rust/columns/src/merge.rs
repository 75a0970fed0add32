//! Merging: frames, and the chunks they touch, become new chunks.
//!
//! # Order
//! The caller adds the frames of a run, asks for the series in them, shows the step ranges of the chunks each series
//! already has, adds those that [`Merge::touch`] says are touched (and small neighbours it wants joined), and takes the
//! result. All of it happens before the database's write transaction opens.
//!
//! # Invariants
//! - Chunks of one series never overlap in steps: a new chunk ends where an untouched one begins.
//! - What is in the result is what a reader of frames and chunks saw before (the law of [`crate::table`]).
//! - A value (or a row) that loses is counted and summed per writer and series as in a writer's receipt, so that stored plus
//!   superseded is what the writer sent, whenever which value lost.

use std::collections::HashMap;
use std::sync::Arc;

use runferry_wire::receipt::{Sums, hash_point};

use crate::axis::{Axis, AxisRow};
use crate::chunk::ChunkRow;
use crate::pack::{ChunkError, Packer, Unpacker};
use crate::pieces::{Parts, RowNumbers};
use crate::table::{FrameFault, KnownRows, PlainRows, Table, Window, Writer};

/// Most points of a chunk.
pub const CHUNK_POINTS: usize = 2048;
/// Most bytes of large values (texts, histograms) in a chunk, unless a single one is larger.
pub const CHUNK_BYTES: usize = 64 << 10;

/// Values of one writer in one series that lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Superseded {
    /// The writer's ordinal.
    pub writer: u32,
    /// The series.
    pub key_id: i64,
    /// How many.
    pub points: u64,
    /// Wrapping sum of their hashes, as [`hash_point`] gives them.
    pub sum_hash: u64,
}

/// What a merge writes.
#[derive(Debug, Clone, Default)]
pub struct Merged {
    /// New axis rows with the number of chunks on each.
    pub axes: Vec<(AxisRow, u32)>,
    /// New chunk rows.
    pub chunks: Vec<ChunkRow>,
    /// What lost.
    pub superseded: Vec<Superseded>,
    /// The last value of each series that has new chunks: key, writer ordinal, value as bytes with its kind.
    pub last: Vec<(i64, u32, Vec<u8>)>,
}

/// See the module.
pub struct Merge {
    chunk_points: usize,
    table: Table,
    /// Step ranges that new chunks of a series must not span.
    untouched: HashMap<usize, Vec<(i64, i64)>>,
    axes: HashMap<(i64, i64), RowNumbers>,
    unpacker: Unpacker,
    packer: Packer,
}

impl Default for Merge {
    fn default() -> Self {
        Self::new()
    }
}

impl Merge {
    /// An empty merge.
    pub fn new() -> Self {
        Self::with_chunk_points(CHUNK_POINTS)
    }

    /// An empty merge that makes chunks of at most `chunk_points` points.
    pub fn with_chunk_points(chunk_points: usize) -> Self {
        Self {
            chunk_points: chunk_points.max(1),
            table: Table::new(),
            untouched: HashMap::new(),
            axes: HashMap::new(),
            unpacker: Unpacker::new(),
            packer: Packer::new(),
        }
    }

    /// Makes a writer of the run known: all of them, since chunks name any.
    pub fn set_writer(&mut self, ordinal: u32, writer: Writer) {
        self.table.set_writer(ordinal, writer);
    }

    /// Takes a frame. Frames of a writer come in ascending seq.
    ///
    /// # Errors
    /// [`FrameFault`]: the frame belongs into quarantine; the merge goes on.
    pub fn add_frame(&mut self, ordinal: u32, bytes: &[u8]) -> Result<usize, FrameFault> {
        self.table.add_frame(ordinal, bytes)
    }

    /// The rows and series collected so far.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Says for each stored chunk of a series, given as ascending `(step0, step1)`, whether new values fall into it. The
    /// caller adds those, and may add others; the rest it names in [`Self::leave`].
    pub fn touch(&self, series: usize, ranges: &[(i64, i64)]) -> Vec<bool> {
        let steps = self.table.steps_of(series);
        let is_touched = |&(step0, step1): &(i64, i64)| {
            steps.get(steps.partition_point(|step| *step < step0)).is_some_and(|step| *step <= step1)
        };
        ranges.iter().map(is_touched).collect()
    }

    /// Names a stored chunk that stays as it is.
    pub fn leave(&mut self, series: usize, range: (i64, i64)) {
        self.untouched.entry(series).or_default().push(range);
    }

    /// Takes a stored chunk, which the result replaces.
    ///
    /// # Errors
    /// [`ChunkError`]: the chunk is damaged, nothing of it was taken.
    pub fn add_chunk(&mut self, series: usize, chunk: &ChunkRow, axis: &AxisRow) -> Result<(), ChunkError> {
        let cells = chunk.decode(&mut self.unpacker)?;
        let key = (axis.axis_id, axis.step0);
        let rows = if let Some(rows) = self.axes.get(&key) {
            rows.clone()
        } else {
            let rows = self.table.add_axis(&axis.decode(&mut self.unpacker)?);
            self.axes.insert(key, rows.clone());
            rows
        };
        if rows.len() != cells.len() {
            return Err(ChunkError::malformed("axis"));
        }
        self.table.add_piece(series, rows, cells);
        Ok(())
    }

    /// The new rows. `key_ids` gives the id of each series by its number; axis ids begin at `next_axis_id`.
    pub fn finish(&mut self, key_ids: &[i64], next_axis_id: i64) -> Merged {
        let mut merged = Merged::default();
        let mut axes = Axes::new(next_axis_id);
        let mut known_rows = KnownRows::default();
        let mut superseded: HashMap<(u32, i64), Sums> = HashMap::new();
        for (series, &key_id) in key_ids.iter().enumerate() {
            if series >= self.table.series().len() {
                continue;
            }
            let (plain, cells, losers) = if let Some(plain) = self.table.plain_rows(series, &mut known_rows) {
                let cells = self.table.take_plain(series, &plain);
                (plain, cells, Vec::new())
            } else {
                let flat = self.table.flatten(series, Window::ALL);
                let steps = flat.rows.iter().map(|row| self.table.step(*row)).collect();
                (Arc::new(PlainRows::sorted(flat.rows, steps)), Parts::of(vec![Arc::new(flat.cells)]), flat.losers)
            };
            for loser in &losers {
                let sums = superseded.entry((self.table.owner(loser.row), key_id)).or_default();
                sums.add(hash_point(self.table.logged_step(loser.row), &loser.cell.value()));
            }
            let steps = &plain.steps;
            let mut untouched = self.untouched.remove(&series).unwrap_or_default();
            untouched.sort_unstable();
            for (from, to) in cut(steps, &cells, &untouched, self.chunk_points) {
                let Some(rows) = plain.rows.get(from..to) else { continue };
                let (axis, chunks) = axes.of(&self.table, rows, &mut self.packer);
                *chunks += 1;
                let span = (axis.step0, steps.get(to - 1).copied().unwrap_or(axis.step0));
                let part = cells.slice(from, to);
                merged.chunks.push(ChunkRow::encode(key_id, axis.axis_id, span, &part, &mut self.packer));
            }
            if let (Some(row), Some(cell)) = (plain.rows.last(), cells.get(cells.len().saturating_sub(1))) {
                merged.last.push((key_id, self.table.owner(*row), cell.to_bytes()));
            }
        }
        merged.axes = axes.made;
        merged.superseded = superseded
            .into_iter()
            .map(|((writer, key_id), Sums { points, hash })| Superseded { writer, key_id, points, sum_hash: hash })
            .collect();
        merged.superseded.sort_unstable_by_key(|lost| (lost.writer, lost.key_id));
        merged
    }
}

/// The axes that a merge makes: one for each list of rows.
struct Axes {
    next_axis_id: i64,
    made: Vec<(AxisRow, u32)>,
    /// By first row and number of rows: nearly always there is one.
    known: HashMap<(u32, usize), Vec<KnownAxis>>,
}

/// An axis that was made for some rows.
struct KnownAxis {
    rows: Vec<u32>,
    /// In the list of those made.
    place: usize,
}

impl Axes {
    fn new(next_axis_id: i64) -> Self {
        Self { next_axis_id, made: Vec::new(), known: HashMap::new() }
    }

    /// The axis of these rows, and how many chunks stand on it.
    fn of(&mut self, table: &Table, rows: &[u32], packer: &mut Packer) -> &mut (AxisRow, u32) {
        let known = self.known.entry((rows.first().copied().unwrap_or_default(), rows.len())).or_default();
        let found = known.iter().find(|axis| axis.rows == rows).map(|axis| axis.place);
        let place = found.unwrap_or_else(|| {
            let axis = Axis {
                steps: rows.iter().map(|row| table.step(*row)).collect(),
                times_us: rows.iter().map(|row| table.time_us(*row)).collect(),
                writers: rows.iter().map(|row| table.owner(*row)).collect(),
            };
            let axis_id = self.next_axis_id + self.made.len() as i64;
            self.made.push((axis.encode(axis_id, packer), 0));
            let place = self.made.len() - 1;
            known.push(KnownAxis { rows: rows.to_vec(), place });
            place
        });
        #[expect(clippy::indexing_slicing, reason = "places are handed out by the list they index")]
        &mut self.made[place]
    }
}

/// Where chunks begin and end: at untouched chunks, at `chunk_points` in equal parts, at [`CHUNK_BYTES`].
fn cut(steps: &[i64], cells: &Parts, untouched: &[(i64, i64)], chunk_points: usize) -> Vec<(usize, usize)> {
    let mut stretches = Vec::new();
    let mut from = 0;
    for (step0, _) in untouched {
        let to = steps.partition_point(|step| step < step0);
        if to > from {
            stretches.push((from, to));
            from = to;
        }
    }
    stretches.push((from, steps.len()));

    let mut cuts = Vec::new();
    for (from, to) in stretches {
        let count = to - from;
        if count == 0 {
            continue;
        }
        let size = count.div_ceil(count.div_ceil(chunk_points));
        let mut begin = from;
        while begin < to {
            let mut end = (begin + size).min(to);
            if !cells.is_light() {
                let mut bytes = 0;
                let fits = (begin..end).take_while(|index| {
                    bytes += cells.heavy_bytes(*index);
                    bytes <= CHUNK_BYTES
                });
                end = begin + fits.count().max(1);
            }
            cuts.push((begin, end));
            begin = end;
        }
    }
    cuts
}
