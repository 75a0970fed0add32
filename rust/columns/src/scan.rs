//! Scans: rows put together again, exactly as they were logged.
//!
//! Chunks and frames of a window of steps become DATA frames of ROWS (`docs/format.md`): ascending steps, each once,
//! values of the kinds they had. Labels are not part of a row: of two writers' values of one name at one step the later
//! writer's stands. A row carries the time of the last row logged at its step.

use std::collections::{HashMap, HashSet};

use runferry_wire::block::{self, Block};
use runferry_wire::frame::{MAX_PAYLOAD_BYTES, MAX_RAW_BYTES};
use runferry_wire::{Column, Draft, Kind, Rows, Values, payload, rows};
use thiserror::Error;

use crate::axis::AxisRow;
use crate::cells::{self, Cell, Cells};
use crate::chunk::{ChunkRow, MIXED};
use crate::pack::{ChunkError, Unpacker};
use crate::pieces::RowNumbers;
use crate::table::{Flat, Role, Table, Window};

/// Most rows of a frame.
const FRAME_ROWS: usize = 4096;
/// Raw bytes above which a frame ends.
const FRAME_BYTES: usize = 4 << 20;
/// Not 0, which no writer has; these frames are nobody's.
const WRITER_ID: u64 = 1;

/// A row that no frame can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the row at step {step} has {bytes} bytes, more than a frame can hold")]
pub struct RowTooLarge {
    /// Its step.
    pub step: i64,
    /// Its encoded length.
    pub bytes: usize,
}

/// Which rows a scan gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// All, also those without values.
    All,
    /// Those with a value of one of these metrics, and only these.
    Names(HashSet<String>),
    /// Those with a histogram of this metric.
    Histograms(String),
}

impl Wanted {
    fn has(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Names(names) => names.contains(name),
            Self::Histograms(only) => only == name,
        }
    }
}

/// One window of a scan.
pub struct Scan {
    table: Table,
    rows: usize,
    wanted: Wanted,
    window: Window,
    axes: HashMap<(i64, i64), RowNumbers>,
    unpacker: Unpacker,
}

impl Scan {
    /// Begins with what `tail` holds.
    pub fn new(tail: &Table, wanted: Wanted, window: Window) -> Self {
        let mut table = Table::over(tail);
        let rows = table.find_or_add(Role::Rows, "", "");
        for (number, series) in tail.series().iter().enumerate() {
            match series.role {
                Role::Rows => table.adopt(rows, tail, number),
                Role::Metric if wanted.has(&series.name) => {
                    let union = table.find_or_add(Role::Metric, "", &series.name);
                    table.adopt(union, tail, number);
                }
                Role::Metric => {}
            }
        }
        Self { table, rows, wanted, window, axes: HashMap::new(), unpacker: Unpacker::new() }
    }

    /// Adds a chunk of a series, `name` empty for rows. Without `data` in the chunk only its steps and kind count, enough
    /// for [`Self::steps`]; a chunk of mixed kinds always needs its data.
    ///
    /// # Errors
    /// [`ChunkError`]: chunk or axis is damaged.
    pub fn add_chunk(&mut self, role: Role, name: &str, chunk: &ChunkRow, axis: &AxisRow) -> Result<(), ChunkError> {
        let cells = if chunk.data.is_empty() && chunk.kind != MIXED {
            chunk.verify_head()?;
            placeholder(chunk.kind, chunk.n as usize)
        } else {
            chunk.decode(&mut self.unpacker)?
        };
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
        let series = self.table.find_or_add(role, "", name);
        self.table.add_piece(series, rows, cells);
        Ok(())
    }

    /// The steps of all rows that match, ascending.
    pub fn steps(&self) -> Vec<i64> {
        let mut steps = match &self.wanted {
            Wanted::All => self.table.steps_of(self.rows),
            Wanted::Names(_) => {
                let all = self.metrics().flat_map(|(series, _)| self.table.steps_of(series));
                let mut steps: Vec<i64> = all.collect();
                steps.sort_unstable();
                steps.dedup();
                steps
            }
            Wanted::Histograms(_) => {
                let flats = self.metrics().map(|(series, _)| self.table.flatten(series, self.window));
                flats.flat_map(|flat| self.histogram_steps(&flat)).collect()
            }
        };
        steps.retain(|step| self.window.has(*step));
        steps
    }

    fn histogram_steps(&self, flat: &Flat) -> Vec<i64> {
        let is_histogram = |index: &usize| match &flat.cells {
            Cells::Uniform(values) => matches!(values, Values::Hist(_)),
            Cells::Mixed(cells) => matches!(cells.get(*index), Some(Cell::Hist(_))),
        };
        flat.rows
            .iter()
            .enumerate()
            .filter(|(index, _)| is_histogram(index))
            .map(|(_, row)| self.table.step(*row))
            .collect()
    }

    fn metrics(&self) -> impl Iterator<Item = (usize, &str)> {
        let series = self.table.series().iter().enumerate();
        series.filter(|(_, series)| series.role == Role::Metric).map(|(number, series)| (number, series.name.as_str()))
    }

    /// The histograms at some of [`Self::steps`]: step, time, value.
    pub fn histograms(&self, keep: &[i64]) -> Vec<(i64, i64, Vec<u8>)> {
        let keep: HashSet<i64> = keep.iter().copied().collect();
        let mut found = Vec::new();
        for (series, _) in self.metrics() {
            let flat = self.table.flatten(series, self.window);
            for (index, row) in flat.rows.iter().enumerate() {
                let step = self.table.step(*row);
                if let (true, Some(Cell::Hist(value))) = (keep.contains(&step), flat.cells.get(index)) {
                    found.push((step, self.table.time_us(*row), value));
                }
            }
        }
        found
    }

    /// The rows at `steps` (some or all of [`Self::steps`], ascending) as frames numbered from `first_seq`.
    ///
    /// # Errors
    /// [`RowTooLarge`].
    pub fn frames(&self, run_id: [u8; 16], first_seq: u64, steps: &[i64]) -> Result<Vec<Vec<u8>>, RowTooLarge> {
        let mut flats: Vec<(&str, Vec<i64>, Cells)> = Vec::new();
        for (series, name) in self.metrics() {
            let flat = self.table.flatten(series, self.window);
            flats.push((name, flat.rows.iter().map(|row| self.table.step(*row)).collect(), flat.cells));
        }
        flats.sort_by(|one, other| one.0.cmp(other.0));
        let rows = self.table.flatten(self.rows, self.window);
        let times: HashMap<i64, i64> =
            rows.rows.iter().map(|row| (self.table.step(*row), self.table.time_us(*row))).collect();

        let mut frames = Vec::new();
        let mut groups: Vec<&[i64]> = steps.chunks(FRAME_ROWS).rev().collect();
        while let Some(group) = groups.pop() {
            let block = Rows {
                steps: group.to_vec(),
                times_us: group.iter().map(|step| times.get(step).copied().unwrap_or_default()).collect(),
                columns: flats.iter().flat_map(|(name, steps, cells)| columns(name, steps, cells, group)).collect(),
            };
            let values: usize = block.columns.iter().map(|column| column.values.len()).sum();
            let raw = block::encode_all(&[Block::Rows(block)]);
            if (raw.len() > FRAME_BYTES || values > rows::MAX_PAYLOAD_VALUES) && group.len() > 1 {
                let (head, rest) = group.split_at(group.len() / 2);
                groups.push(rest);
                groups.push(head);
                continue;
            }
            let (codec, stored) = payload::compress(&raw, 1);
            if raw.len() > MAX_RAW_BYTES as usize || stored.len() > MAX_PAYLOAD_BYTES as usize {
                return Err(RowTooLarge { step: group.first().copied().unwrap_or_default(), bytes: raw.len() });
            }
            let seq = first_seq + frames.len() as u64;
            let draft = Draft {
                kind: Kind::Data,
                flags: 0,
                run_id,
                writer_id: WRITER_ID,
                seq,
                record_count: group.len() as u32,
            };
            frames.push(draft.seal(codec, raw.len() as u32, &stored));
        }
        Ok(frames)
    }
}

/// One column per kind of the values of a series at the rows `group`.
fn columns(name: &str, steps: &[i64], cells: &Cells, group: &[i64]) -> Vec<Column> {
    let (Some(first), Some(last)) = (group.first(), group.last()) else { return Vec::new() };
    let from = steps.partition_point(|step| step < first);
    let to = steps.partition_point(|step| step <= last);
    let Some(here) = steps.get(from..to).filter(|here| !here.is_empty()) else { return Vec::new() };
    if here == group
        && let Cells::Uniform(values) = cells.slice(from, to)
    {
        return vec![Column { name: name.to_owned(), presence: None, values }];
    }
    let mut by_kind: Vec<(u8, Vec<bool>, Values)> = Vec::new();
    let mut place = 0;
    for (offset, step) in here.iter().enumerate() {
        while group.get(place).is_some_and(|row| row < step) {
            place += 1;
        }
        if group.get(place) != Some(step) {
            continue; // thinned out
        }
        let Some(cell) = cells.get(from + offset) else { continue };
        let kind = cell.kind();
        if !by_kind.iter().any(|column| column.0 == kind) {
            by_kind.push((kind, vec![false; group.len()], cells::empty_of(kind)));
        }
        if let Some((_, presence, values)) = by_kind.iter_mut().find(|column| column.0 == kind) {
            if let Some(is_present) = presence.get_mut(place) {
                *is_present = true;
            }
            cells::push(values, cell);
        }
    }
    let column = |(_, presence, values): (u8, Vec<bool>, Values)| {
        let presence = presence.iter().any(|is_present| !is_present).then(|| rows::mask(presence.into_iter()));
        Column { name: name.to_owned(), presence, values }
    };
    by_kind.into_iter().map(column).collect()
}

/// So many values of a kind without what is in them.
fn placeholder(kind: u8, count: usize) -> Cells {
    Cells::Uniform(if kind == 6 { Values::Hist(vec![Vec::new(); count]) } else { Values::Null(count) })
}
