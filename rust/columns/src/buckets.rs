//! Charts: a series of any length as at most so many buckets, from as few values as possible.
//!
//! # Buckets
//! Up to as many numbers as buckets were asked for, each number is a bucket. Above that the range of steps is cut into
//! equal parts; a chunk within one part counts by its statistics, one that spans several is read. From
//! [`SNAP_POINTS`] numbers per bucket on, chunks that span parts are counted by their statistics of 256 points, each
//! entry as a whole where it begins: a bucket then ends up to 256 points late, says so in its last step, and no value
//! is read. NaN and infinities are counted apart. Values that are not numbers are not on the chart.
//!
//! # Use
//! [`SeriesRead::need`] names chunks, the caller feeds them, until it names none; then [`SeriesRead::finish`].

use crate::axis::{AxisRow, SUB_ROWS, SubAxis, read_sub};
use crate::cells::Cell;
use crate::chunk::{ChunkRow, SubStats};
use crate::pack::{ChunkError, Unpacker};
use crate::stats::Stats;
use crate::table::{Role, Table, Window};

/// Numbers per bucket from which edges of buckets may snap to statistics.
pub const SNAP_POINTS: u64 = 2 * SUB_ROWS as u64;

/// A stored chunk without its values.
#[derive(Debug, Clone, PartialEq)]
pub struct Head {
    /// The row; `data` may be empty.
    pub chunk: ChunkRow,
    /// Time of its last point, from the axis.
    pub time1_us: i64,
    /// `sub` of the axis; may be empty, then edges do not snap.
    pub axis_sub: Vec<u8>,
}

/// One point or stretch of a chart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bucket {
    /// Step of its first number.
    pub step_first: i64,
    /// Step of its last number.
    pub step_last: i64,
    /// Time of its last number.
    pub time_last_us: i64,
    /// Statistics of its numbers.
    pub stats: Stats,
    /// Its last number.
    pub last: f64,
}

impl Bucket {
    /// Adds a stretch that does not overlap.
    fn add(&mut self, other: &Self) {
        self.stats.add(&other.stats);
        self.step_first = self.step_first.min(other.step_first);
        if other.step_last > self.step_last {
            self.step_last = other.step_last;
            self.time_last_us = other.time_last_us;
            self.last = other.last;
        }
    }
}

/// A finished chart.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Chart {
    /// Numbers behind it.
    pub raw_points: u64,
    /// Ascending, none empty.
    pub buckets: Vec<Bucket>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Chunks that are cut by the window or meet unmerged values.
    Edges,
    /// Chunks that span buckets, or all.
    Rest,
    Done,
}

/// See the module.
pub struct SeriesRead {
    table: Table,
    series: usize,
    heads: Vec<Head>,
    /// Read into the table, or without a number in the window.
    is_settled: Vec<bool>,
    window: Window,
    span: Window,
    buckets: usize,
    stage: Stage,
    may_snap: bool,
    tail_steps: Vec<i64>,
    unpacker: Unpacker,
}

impl SeriesRead {
    /// Begins to read a series: what `tail` holds of it, and its chunks within `window`. `span` is first and last step of
    /// all its chunks, `None` without any.
    ///
    /// # Errors
    /// [`ChunkError`] with the number of the head that is damaged.
    pub fn new(
        tail: &Table,
        (label, name): (&str, &str),
        heads: Vec<Head>,
        span: Option<Window>,
        window: Window,
        buckets: usize,
    ) -> Result<Self, (usize, ChunkError)> {
        for (index, head) in heads.iter().enumerate() {
            head.chunk.verify_head().map_err(|error| (index, error))?;
        }
        let mut table = Table::over(tail);
        let series = table.find_or_add(Role::Metric, label, name);
        if let Some(found) = tail.find(Role::Metric, label, name) {
            table.adopt(series, tail, found);
        }
        let tail_steps = table.steps_of(series);
        let ends = [tail_steps.first(), tail_steps.last()].into_iter().flatten().copied();
        let ends: Vec<i64> = ends.chain(span.into_iter().flat_map(|span| [span.min, span.max])).collect();
        let span = Window {
            min: ends.iter().copied().min().unwrap_or_default().max(window.min),
            max: ends.iter().copied().max().unwrap_or_default().min(window.max),
        };
        let is_settled =
            heads.iter().map(|head| head.chunk.step1 < window.min || head.chunk.step0 > window.max).collect();
        let buckets = buckets.max(1);
        let unpacker = Unpacker::new();
        Ok(Self {
            table,
            series,
            heads,
            is_settled,
            window,
            span,
            buckets,
            stage: Stage::Edges,
            may_snap: false,
            tail_steps,
            unpacker,
        })
    }

    /// The chunks whose values are needed next; none: all is there.
    pub fn need(&mut self) -> Vec<usize> {
        while self.stage != Stage::Done {
            let needed = match self.stage {
                Stage::Edges => {
                    self.stage = Stage::Rest;
                    self.edges()
                }
                Stage::Rest | Stage::Done => {
                    self.stage = Stage::Done;
                    self.rest()
                }
            };
            if !needed.is_empty() {
                return needed;
            }
        }
        Vec::new()
    }

    fn open_heads(&self) -> impl Iterator<Item = (usize, &Head)> {
        self.heads.iter().enumerate().filter(|(index, _)| self.is_settled.get(*index) == Some(&false))
    }

    fn edges(&self) -> Vec<usize> {
        let is_edge = |head: &Head| {
            let chunk = &head.chunk;
            let next = self.tail_steps.get(self.tail_steps.partition_point(|step| *step < chunk.step0));
            let meets_tail = next.is_some_and(|step| *step <= chunk.step1);
            let is_cut = !self.window.has(chunk.step0) || !self.window.has(chunk.step1);
            meets_tail || (chunk.stats.numbers() > 0 && (is_cut || !chunk.is_numeric()))
        };
        self.open_heads().filter(|(_, head)| is_edge(head)).map(|(index, _)| index).collect()
    }

    fn rest(&mut self) -> Vec<usize> {
        let numbers: u64 =
            self.open_heads().map(|(_, head)| u64::from(head.chunk.stats.numbers())).sum::<u64>() + self.read_numbers();
        let has_numbers = |head: &Head| head.chunk.stats.numbers() > 0;
        if numbers <= self.buckets as u64 {
            return self.open_heads().filter(|(_, head)| has_numbers(head)).map(|(index, _)| index).collect();
        }
        self.may_snap = numbers >= SNAP_POINTS.saturating_mul(self.buckets as u64);
        let spans_buckets = |head: &Head| self.bucket_of(head.chunk.step0) != self.bucket_of(head.chunk.step1);
        let can_snap = |head: &Head| self.may_snap && (head.chunk.n as usize <= SUB_ROWS || !head.axis_sub.is_empty());
        let is_needed = |head: &Head| has_numbers(head) && spans_buckets(head) && !can_snap(head);
        self.open_heads().filter(|(_, head)| is_needed(head)).map(|(index, _)| index).collect()
    }

    fn read_numbers(&self) -> u64 {
        let flat = self.table.flatten(self.series, self.window);
        (0..flat.cells.len()).filter(|index| flat.cells.number(*index).is_some()).count() as u64
    }

    /// Gives a needed chunk.
    ///
    /// # Errors
    /// [`ChunkError`]: chunk or axis is damaged.
    pub fn feed(&mut self, index: usize, chunk: &ChunkRow, axis: &AxisRow) -> Result<(), ChunkError> {
        let cells = chunk.decode(&mut self.unpacker)?;
        let axis = axis.decode(&mut self.unpacker)?;
        if axis.len() != cells.len() {
            return Err(ChunkError::malformed("axis"));
        }
        let rows = self.table.add_axis(&axis);
        self.table.add_piece(self.series, rows, cells);
        if let Some(is_settled) = self.is_settled.get_mut(index) {
            *is_settled = true;
        }
        Ok(())
    }

    fn bucket_of(&self, step: i64) -> usize {
        let range = i128::from(self.span.max) - i128::from(self.span.min) + 1;
        let buckets = self.buckets as i128;
        let width = (range + buckets - 1) / buckets;
        let place = (i128::from(step) - i128::from(self.span.min)) / width.max(1);
        place.clamp(0, buckets - 1) as usize
    }

    /// The chart, once nothing is needed any more.
    pub fn finish(&self) -> Chart {
        let flat = self.table.flatten(self.series, self.window);
        let points = flat.rows.iter().enumerate().filter_map(|(index, row)| {
            let last = flat.cells.number(index)?;
            let mut stats = Stats::default();
            stats.push(last);
            let step = self.table.step(*row);
            Some(Bucket { step_first: step, step_last: step, time_last_us: self.table.time_us(*row), stats, last })
        });
        let stretches = self.open_heads().flat_map(|(_, head)| self.stretches(head));
        let mut parts: Vec<Bucket> = points.chain(stretches).collect();
        parts.sort_by_key(|part| part.step_first);

        let raw_points: u64 = parts.iter().map(|part| u64::from(part.stats.numbers())).sum();
        if raw_points <= self.buckets as u64 {
            return Chart { raw_points, buckets: parts };
        }
        let mut buckets: Vec<Bucket> = Vec::with_capacity(self.buckets);
        let mut current = None;
        for part in parts {
            let place = self.bucket_of(part.step_first);
            match buckets.last_mut() {
                Some(bucket) if current == Some(place) => bucket.add(&part),
                _ => buckets.push(part),
            }
            current = Some(place);
        }
        Chart { raw_points, buckets }
    }

    /// What the statistics of a chunk say: one stretch if it lies in one bucket, else one per 256 points.
    fn stretches(&self, head: &Head) -> Vec<Bucket> {
        let chunk = &head.chunk;
        let last = Cell::from_bytes(&chunk.last).and_then(|cell| cell.number());
        let Some(last) = last.filter(|_| chunk.stats.numbers() > 0) else { return Vec::new() };
        let is_whole = self.bucket_of(chunk.step0) == self.bucket_of(chunk.step1);
        let (subs, steps) = (chunk.read_sub(), read_sub(&head.axis_sub));
        if is_whole || subs.is_empty() || subs.len() != steps.len() {
            let (step_first, step_last) = (chunk.step0, chunk.step1);
            return vec![Bucket { step_first, step_last, time_last_us: head.time1_us, stats: chunk.stats, last }];
        }
        let entry = |(sub, axis): (&SubStats, &SubAxis)| Bucket {
            step_first: axis.step_first,
            step_last: axis.step_last,
            time_last_us: axis.time_last_us,
            stats: sub.stats,
            last: sub.last,
        };
        subs.iter().zip(&steps).map(entry).collect()
    }
}
