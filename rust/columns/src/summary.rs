//! What is known of each metric without reading it: how many points, from where to where, and the last value.
//!
//! Merged points are summed up in the rows of the table `key`, the others lie in the tail. A tail value that will replace a merged one at
//! its step counts as one more until the merge: to know better, chunks would have to be read.

use std::cmp::Ordering;

use crate::cells::Cell;
use crate::table::{Role, Table, Window};

/// One metric.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// Its name.
    pub name: String,
    /// The label of its writers.
    pub label: String,
    /// Values.
    pub points: u64,
    /// Step of the first one.
    pub step0: i64,
    /// Step of the last one.
    pub step1: i64,
    /// The last value; `None` if it was too large to be kept beside the others.
    pub last: Option<Cell>,
    /// Ordinal of the writer of the last value.
    pub writer: Option<u32>,
}

impl Summary {
    fn place(&self) -> (&str, &str) {
        (&self.name, &self.label)
    }

    /// About how much memory it takes.
    pub fn weight_bytes(&self) -> usize {
        size_of::<Self>() + self.name.len() + self.label.len() + self.last.as_ref().map_or(0, Cell::heavy_bytes)
    }

    /// Adds what waits in the tail.
    fn add(&mut self, new: Self, table: &Table) {
        let newness = |one: &Self| (one.step1, one.writer.map_or(0, |writer| table.rank(writer)));
        if newness(&new) >= newness(self) {
            (self.last, self.writer) = (new.last, new.writer);
        }
        self.points += new.points;
        self.step0 = self.step0.min(new.step0);
        self.step1 = self.step1.max(new.step1);
    }
}

/// Metrics behind `after` by name and label, at most `limit`: those of `stored`, which has the first so many of the merged ones behind it
/// in that order, and may have others before them, and of the tail.
pub fn summaries(tail: &Table, stored: &[Summary], after: Option<(&str, &str)>, limit: usize) -> Vec<Summary> {
    let mut waiting = of_tail(tail, after, limit).into_iter().peekable();
    let behind = stored.partition_point(|one| after.is_some_and(|after| one.place() <= after));
    let mut stored = stored.iter().skip(behind).peekable();
    let mut found = Vec::with_capacity(stored.len() + waiting.len());
    while found.len() < limit {
        let order = match (stored.peek(), waiting.peek()) {
            (Some(old), Some(new)) => old.place().cmp(&new.place()),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => break,
        };
        let mut next = if order == Ordering::Greater { waiting.next() } else { stored.next().cloned() };
        if order == Ordering::Equal
            && let (Some(one), Some(new)) = (&mut next, waiting.next())
        {
            one.add(new, tail);
        }
        found.extend(next);
    }
    found
}

/// Each step counted once, in order.
fn of_tail(table: &Table, after: Option<(&str, &str)>, limit: usize) -> Vec<Summary> {
    let mut wanted: Vec<(&str, &str, usize)> = table
        .series()
        .iter()
        .enumerate()
        .filter(|(_, series)| series.role == Role::Metric)
        .map(|(number, series)| (series.name.as_str(), series.label.as_str(), number))
        .filter(|(name, label, _)| after.is_none_or(|after| (*name, *label) > after))
        .collect();
    if limit < wanted.len() {
        wanted.select_nth_unstable(limit);
        wanted.truncate(limit);
    }
    wanted.sort_unstable();
    let summaries = wanted.into_iter().filter_map(|(name, label, number)| {
        let flat = table.flatten(number, Window::ALL);
        let (first, last) = (*flat.rows.first()?, *flat.rows.last()?);
        Some(Summary {
            name: name.to_owned(),
            label: label.to_owned(),
            points: flat.rows.len() as u64,
            step0: table.step(first),
            step1: table.step(last),
            last: flat.cells.get(flat.cells.len() - 1),
            writer: Some(table.owner(last)),
        })
    });
    summaries.collect()
}
