//! What goes when the journal nears its cap: rows between rows, so that every curve keeps its shape. Pure.
//!
//! # What stays
//! At level k of each metric its last value and, going back from there, every 2^k-th; the row of such a value stays whole, so that
//! the metrics of a step stay together. Histograms stay 8 times more seldom. Texts stay always. As the last value of every metric
//! of every block stays, the summary is right at all times, whenever the process dies.

use std::collections::HashMap;

use runferry_wire::record::Dropped;
use runferry_wire::rows::{self, Column, Rows, Values};

/// The most seldom that values are kept: every 65,536th.
pub(crate) const MOST_LEVEL: u32 = 16;
/// Histograms are kept this many halvings more seldom than numbers.
const HISTOGRAM_LEVELS: u32 = 3;

/// A block with rows taken out, and what went.
#[derive(Debug, PartialEq)]
pub(crate) struct Thinned {
    pub(crate) kept: Rows,
    pub(crate) gone: Dropped,
}

/// Every value of a block, ordered by row and within it by column.
struct Cells {
    /// Where each row begins in `columns`; one more than there are rows.
    starts: Vec<usize>,
    columns: Vec<usize>,
}

impl Cells {
    fn of(block: &Rows) -> Self {
        let count = block.steps.len();
        let mut starts = vec![0; count + 1];
        for column in &block.columns {
            for row in present(column, count) {
                if let Some(start) = starts.get_mut(row + 1) {
                    *start += 1;
                }
            }
        }
        let mut before = 0;
        for start in &mut starts {
            before += *start;
            *start = before;
        }
        let mut columns = vec![0; before];
        let mut next = starts.clone();
        for (number, column) in block.columns.iter().enumerate() {
            for row in present(column, count) {
                let Some(place) = next.get_mut(row) else { continue };
                if let Some(cell) = columns.get_mut(*place) {
                    *cell = number;
                }
                *place += 1;
            }
        }
        Self { starts, columns }
    }

    fn row(&self, row: usize) -> std::ops::Range<usize> {
        let at = |row: usize| self.starts.get(row).copied().unwrap_or_default();
        at(row)..at(row + 1)
    }
}

/// The rows in which a column has a value. Stretches without one cost an eighth of a look each.
fn present(column: &Column, count: usize) -> Box<dyn Iterator<Item = usize> + '_> {
    match &column.presence {
        None => Box::new(0..count),
        Some(mask) => Box::new(
            mask.iter()
                .enumerate()
                .filter(|(_, byte)| **byte != 0)
                .flat_map(|(place, byte)| {
                    (0..8).filter(move |bit| byte >> bit & 1 == 1).map(move |bit| place * 8 + bit)
                })
                .filter(move |row| *row < count),
        ),
    }
}

/// How a column is thinned.
#[derive(Clone, Copy)]
struct Rule {
    /// Columns of one name count together.
    metric: usize,
    /// Every so many values one stays; `None`: all stay.
    stride: Option<u32>,
}

/// Thins a block to `level`, 0 to [`MOST_LEVEL`].
pub(crate) fn thin(block: &Rows, level: u32) -> Thinned {
    thin_by(block, 1 << level, 1 << (level + HISTOGRAM_LEVELS))
}

/// Only the last value of each metric, and all texts.
pub(crate) fn last_values(block: &Rows) -> Thinned {
    thin_by(block, u32::MAX, u32::MAX)
}

/// The counts of a block of which nothing stays.
pub(crate) fn everything(block: &Rows) -> Dropped {
    let cells = Cells::of(block);
    split(block, &cells, &vec![false; cells.columns.len()]).gone
}

fn thin_by(block: &Rows, stride: u32, histogram_stride: u32) -> Thinned {
    let cells = Cells::of(block);
    let mut metrics = HashMap::new();
    let rules: Vec<Rule> = block
        .columns
        .iter()
        .map(|column| {
            let next = metrics.len();
            let metric = *metrics.entry(column.name.as_str()).or_insert(next);
            let stride = match &column.values {
                Values::Str(_) => None,
                Values::Hist(_) => Some(histogram_stride),
                _ => Some(stride),
            };
            Rule { metric, stride }
        })
        .collect();
    // Values of each metric since the last that stayed, counted from the end of the block.
    let mut since = vec![u32::MAX; metrics.len()];
    let mut stays = vec![false; cells.columns.len()];
    for row in (0..block.steps.len()).rev() {
        let range = cells.row(row);
        let rules_here = || {
            let columns = cells.columns.get(range.clone()).unwrap_or_default();
            columns.iter().filter_map(|column| rules.get(*column).copied())
        };
        let is_due = |rule: &Rule, since: &[u32]| {
            let passed = since.get(rule.metric).copied().unwrap_or_default().saturating_add(1);
            rule.stride.is_some_and(|stride| passed >= stride)
        };
        let row_stays = rules_here().any(|rule| is_due(&rule, &since));
        let flags = stays.get_mut(range.clone()).unwrap_or_default();
        for (rule, flag) in rules_here().zip(flags) {
            let is_seldom = rule.stride == Some(histogram_stride) && histogram_stride != stride;
            *flag = rule.stride.is_none() || row_stays && (!is_seldom || is_due(&rule, &since));
            if let Some(since) = since.get_mut(rule.metric) {
                *since = if *flag { 0 } else { since.saturating_add(1) };
            }
        }
    }
    split(block, &cells, &stays)
}

/// The block with the cells that stay.
fn split(block: &Rows, cells: &Cells, stays: &[bool]) -> Thinned {
    let row_stays: Vec<bool> =
        (0..block.steps.len()).map(|row| stays.get(cells.row(row)).unwrap_or_default().contains(&true)).collect();
    let chosen = |values: &[i64]| -> Vec<i64> {
        values.iter().zip(&row_stays).filter(|(_, stays)| **stays).map(|(value, _)| *value).collect()
    };
    let (steps, times_us) = (chosen(&block.steps), chosen(&block.times_us));
    let mut gone = Dropped { rows: (block.steps.len() - steps.len()) as u64, ..Dropped::default() };
    let mut kept_before = 0;
    let new_rows: Vec<usize> = row_stays
        .iter()
        .map(|stays| {
            kept_before += usize::from(*stays);
            kept_before - usize::from(*stays)
        })
        .collect();
    let mut next = cells.starts.clone();
    let mut columns = Vec::new();
    for column in &block.columns {
        let mut flags = Vec::with_capacity(column.values.len());
        let mut kept_rows = Vec::new();
        for row in present(column, block.steps.len()) {
            let (Some(place), Some(new_row)) = (next.get_mut(row), new_rows.get(row)) else { continue };
            let cell_stays = stays.get(*place).copied().unwrap_or_default();
            *place += 1;
            flags.push(cell_stays);
            if cell_stays {
                kept_rows.push(*new_row);
            }
        }
        let (values, bytes) = chosen_values(&column.values, &flags);
        gone.points += (flags.len() - values.len()) as u64;
        gone.bytes += bytes;
        if !values.is_empty() {
            let mut kept = kept_rows.iter().copied().peekable();
            let presence = (kept_rows.len() != steps.len())
                .then(|| rows::mask((0..steps.len()).map(|row| kept.next_if_eq(&row).is_some())));
            columns.push(Column { name: column.name.clone(), presence, values });
        }
    }
    Thinned { kept: Rows { steps, times_us, columns }, gone }
}

/// The values whose flag is set, and the bytes of the others.
fn chosen_values(values: &Values, flags: &[bool]) -> (Values, u64) {
    fn choose<T: Clone>(values: &[T], flags: &[bool], bytes_of: impl Fn(&T) -> usize) -> (Vec<T>, u64) {
        let mut bytes = 0;
        let chosen = values.iter().zip(flags).filter_map(|(value, flag)| {
            if *flag {
                return Some(value.clone());
            }
            bytes += bytes_of(value) as u64;
            None
        });
        (chosen.collect(), bytes)
    }
    match values {
        Values::Null(_) => {
            let stay = flags.iter().filter(|flag| **flag).count();
            (Values::Null(stay), (flags.len() - stay) as u64)
        }
        Values::F64(values) => wrap(choose(values, flags, |_| 8), Values::F64),
        Values::I64(values) => wrap(choose(values, flags, |_| 8), Values::I64),
        Values::Bool(values) => wrap(choose(values, flags, |_| 1), Values::Bool),
        Values::Str(values) => wrap(choose(values, flags, String::len), Values::Str),
        Values::Hist(values) => wrap(choose(values, flags, Vec::len), Values::Hist),
        Values::Json(values) => wrap(choose(values, flags, Vec::len), Values::Json),
        Values::Marker(values) => wrap(choose(values, flags, |(kind, text)| kind.len() + text.len()), Values::Marker),
    }
}

fn wrap<T>((values, bytes): (Vec<T>, u64), kind: impl Fn(Vec<T>) -> Values) -> (Values, u64) {
    (kind(values), bytes)
}

#[cfg(test)]
#[path = "thin_tests.rs"]
mod tests;
