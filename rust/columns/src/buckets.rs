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

use std::sync::Arc;

use crate::axis::{AxisRow, SUB_ROWS, SubAxis, read_sub};
use crate::cells::Cell;
use crate::chunk::{ChunkRow, SubStats};
use crate::pack::{ChunkError, Unpacker};
use crate::stats::Stats;
use crate::table::{Flat, Role, Table, Window};

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

/// The chunks of a series without their values, ascending and undamaged: good for any number of charts until they are replaced.
#[derive(Debug, Clone, Default)]
pub struct Heads(Arc<[Head]>);

impl Heads {
    /// Takes rows as they were stored.
    ///
    /// # Errors
    /// [`ChunkError`] with the number of the head that is damaged.
    pub fn new(heads: Vec<Head>) -> Result<Self, (usize, ChunkError)> {
        for (index, head) in heads.iter().enumerate() {
            head.chunk.verify_head().map_err(|error| (index, error))?;
        }
        Ok(Self(heads.into()))
    }

    /// By number.
    pub fn all(&self) -> &[Head] {
        &self.0
    }

    /// Points of all chunks.
    pub fn points(&self) -> u64 {
        self.0.iter().map(|head| u64::from(head.chunk.n)).sum()
    }

    /// About how much memory they take.
    pub fn weight_bytes(&self) -> usize {
        let heavy =
            |head: &Head| head.axis_sub.len() + head.chunk.sub.len() + head.chunk.first.len() + head.chunk.last.len();
        self.0.iter().map(|head| size_of::<Head>() + heavy(head)).sum()
    }
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

impl Chart {
    /// Every bucket is a number as it was logged.
    pub fn is_exact(&self) -> bool {
        self.buckets.iter().all(|bucket| bucket.stats.numbers() == 1)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Chunks that are cut by the window or meet unmerged values.
    Edges,
    /// Chunks that span buckets, or all.
    Rest,
    Done,
}

/// Values that were read, as far as they are not in a bucket yet.
struct Parts<'a> {
    flat: &'a Flat,
    table: &'a Table,
    next: usize,
}

impl Parts<'_> {
    /// The next number, and those behind it up to the step that `end_of` says of its step.
    fn take(&mut self, end_of: impl Fn(i64) -> i64) -> Option<Bucket> {
        let rows = &self.flat.rows;
        let is_number = |index: &usize| self.flat.cells.number(*index).is_some();
        let first = (self.next..rows.len()).find(is_number)?;
        let step_of = |index: usize| rows.get(index).map_or(i64::MAX, |row| self.table.step(*row));
        let step_first = step_of(first);
        let end = end_of(step_first);
        let behind = (first + 1..rows.len()).find(|index| step_of(*index) > end).unwrap_or(rows.len());
        let last = (first..behind).rev().find(is_number)?;
        self.next = behind;
        Some(Bucket {
            step_first,
            step_last: step_of(last),
            time_last_us: rows.get(last).map_or(0, |row| self.table.time_us(*row)),
            stats: Stats::of(&self.flat.cells, first, behind),
            last: self.flat.cells.number(last)?,
        })
    }
}

/// Steps of each of so many buckets; all steps there are, in one bucket, are one more than it can say, and the last bucket has no end.
fn width_of(span: Window, buckets: usize) -> u64 {
    let steps = i128::from(span.max) - i128::from(span.min) + 1;
    let buckets = buckets as i128;
    u64::try_from(((steps + buckets - 1) / buckets).max(1)).unwrap_or(u64::MAX)
}

/// See the module.
pub struct SeriesRead {
    table: Table,
    series: usize,
    heads: Heads,
    /// Read into the table, or without a number in the window.
    is_settled: Vec<bool>,
    window: Window,
    span: Window,
    buckets: usize,
    /// Steps of a bucket.
    width: u64,
    stage: Stage,
    may_snap: bool,
    tail_steps: Vec<i64>,
    unpacker: Unpacker,
}

impl SeriesRead {
    /// Begins to read a series: what `tail` holds of it, and its chunks, those within `window` at least. `span` is first and last step
    /// of all its chunks, `None` without any.
    pub fn new(
        tail: &Table,
        (label, name): (&str, &str),
        heads: Heads,
        span: Option<Window>,
        window: Window,
        buckets: usize,
    ) -> Self {
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
            heads.all().iter().map(|head| head.chunk.step1 < window.min || head.chunk.step0 > window.max).collect();
        let buckets = buckets.max(1);
        let unpacker = Unpacker::new();
        Self {
            table,
            series,
            heads,
            is_settled,
            window,
            span,
            buckets,
            width: width_of(span, buckets),
            stage: Stage::Edges,
            may_snap: false,
            tail_steps,
            unpacker,
        }
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
        self.heads.all().iter().enumerate().filter(|(index, _)| self.is_settled.get(*index) == Some(&false))
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
        u64::from(Stats::of(&flat.cells, 0, flat.cells.len()).numbers())
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
        self.place_of(step).0
    }

    /// The bucket of a step, and the last step that is in the same one.
    fn place_of(&self, step: i64) -> (usize, i64) {
        let min = self.span.min;
        let place = (step.max(min).wrapping_sub(min) as u64 / self.width).min(self.buckets as u64 - 1);
        let end = i128::from(min) + (i128::from(place) + 1) * i128::from(self.width) - 1;
        (place as usize, if place == self.buckets as u64 - 1 { i64::MAX } else { end.min(i128::from(i64::MAX)) as i64 })
    }

    /// The chart, once nothing is needed any more.
    pub fn finish(&self) -> Chart {
        let flat = self.table.flatten(self.series, self.window);
        let mut stretches: Vec<Bucket> = self.open_heads().flat_map(|(_, head)| self.stretches(head)).collect();
        stretches.sort_by_key(|stretch| stretch.step_first);
        let read = Stats::of(&flat.cells, 0, flat.cells.len()).numbers();
        let counted: u64 = stretches.iter().map(|stretch| u64::from(stretch.stats.numbers())).sum();
        let raw_points = u64::from(read) + counted;
        let mut parts = Parts { flat: &flat, table: &self.table, next: 0 };
        if raw_points <= self.buckets as u64 {
            let mut buckets: Vec<Bucket> = std::iter::from_fn(|| parts.take(|_| i64::MIN)).collect();
            buckets.append(&mut stretches);
            buckets.sort_by_key(|bucket| bucket.step_first);
            return Chart { raw_points, buckets };
        }
        let mut buckets: Vec<Bucket> = Vec::with_capacity(self.buckets);
        let mut end = None;
        let mut stretches = stretches.into_iter().peekable();
        let mut read = parts.take(|step| self.place_of(step).1);
        loop {
            // Values that were read do not overlap a stretch: their chunks were read for that.
            let is_stretch_first = match (&read, stretches.peek()) {
                (Some(points), Some(stretch)) => stretch.step_first < points.step_first,
                (points, _) => points.is_none(),
            };
            let part = if is_stretch_first {
                stretches.next()
            } else {
                std::mem::replace(&mut read, parts.take(|step| self.place_of(step).1))
            };
            let Some(part) = part else { break };
            match buckets.last_mut() {
                Some(bucket) if end.is_some_and(|end| part.step_first <= end) => bucket.add(&part),
                _ => {
                    end = Some(self.place_of(part.step_first).1);
                    buckets.push(part);
                }
            }
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
