//! The last values of rows for which there was no room at all, kept in memory for the end of the run.
//!
//! A run whose journal is full to the last byte still has to end with the right final values: `finish` writes them past the
//! cap, as it writes FINISH. A value is counted as gone when a later one takes its place, so at the end each is either stored or counted.
//!
//! # Failure
//! A process that is killed in this state takes what is held with it, uncounted: at most one value of each metric.

use std::collections::{BTreeMap, HashMap};

use runferry_wire::builder::RowsBuilder;
use runferry_wire::record::{Dropped, Value};
use runferry_wire::rows::{Rows, Values};

/// Metrics beyond this are not held but counted as gone.
const MOST_VALUES: usize = 10_000;
/// Nor are values larger than this.
const LARGEST_BYTES: usize = 4 << 10;

#[derive(Debug, Clone, PartialEq)]
struct Last {
    step: i64,
    time_us: i64,
    /// One value.
    value: Values,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Held {
    last: HashMap<String, Last>,
    /// How many of them each step has.
    steps: BTreeMap<i64, u32>,
}

impl Held {
    /// Takes in the last values of a block (`crate::thin::last_values`); what is gone for good by that.
    pub(crate) fn take_in(&mut self, block: &Rows) -> Dropped {
        let mut gone = Dropped::default();
        let new_steps = block.steps.iter().filter(|step| !self.steps.contains_key(step)).count();
        let steps_before = self.steps.len() + new_steps;
        for column in &block.columns {
            let places = (0..block.steps.len()).filter(|row| column.has(*row));
            for (place, row) in places.enumerate() {
                let (Some(step), Some(time_us)) = (block.steps.get(row), block.times_us.get(row)) else { continue };
                let last = Last { step: *step, time_us: *time_us, value: one(&column.values, place) };
                let earlier = self.last.get(&column.name);
                let is_latest = earlier.map_or(self.last.len() < MOST_VALUES, |earlier| earlier.step <= last.step);
                if is_latest && size(&last.value) <= LARGEST_BYTES {
                    self.forget(&column.name, &mut gone);
                    *self.steps.entry(last.step).or_default() += 1;
                    self.last.insert(column.name.clone(), last);
                } else {
                    gone.points += 1;
                    gone.bytes += size(&last.value) as u64;
                }
            }
        }
        gone.rows = (steps_before - self.steps.len()) as u64;
        gone
    }

    /// What is gone for good as this block, with later values, is stored.
    pub(crate) fn superseded_by(&mut self, block: &Rows) -> Dropped {
        let mut gone = Dropped::default();
        let steps_before = self.steps.len();
        if !self.last.is_empty() {
            block.columns.iter().for_each(|column| self.forget(&column.name, &mut gone));
        }
        gone.rows = (steps_before - self.steps.len()) as u64;
        gone
    }

    fn forget(&mut self, name: &str, gone: &mut Dropped) {
        let Some(last) = self.last.remove(name) else { return };
        gone.points += 1;
        gone.bytes += size(&last.value) as u64;
        if let Some(count) = self.steps.get_mut(&last.step) {
            *count -= 1;
            if *count == 0 {
                self.steps.remove(&last.step);
            }
        }
    }

    /// All that is held, as rows; nothing is held afterwards.
    pub(crate) fn take(&mut self) -> Option<Rows> {
        self.steps.clear();
        let mut last: Vec<_> = self.last.drain().collect();
        last.sort_by(|(name, one), (other, two)| (one.step, name).cmp(&(two.step, other)));
        let mut builder = RowsBuilder::default();
        for (name, Last { step, time_us, value }) in &last {
            builder.begin_row(*step, *time_us);
            let slot = builder.slot(name);
            if let Some(value) = as_value(value) {
                builder.push(slot, value);
            }
        }
        (builder.row_count() > 0).then(|| builder.take())
    }
}

/// The value at `place`, alone.
fn one(values: &Values, place: usize) -> Values {
    match values {
        Values::Null(_) => Values::Null(1),
        Values::F64(values) => Values::F64(values.get(place).copied().into_iter().collect()),
        Values::I64(values) => Values::I64(values.get(place).copied().into_iter().collect()),
        Values::Bool(values) => Values::Bool(values.get(place).copied().into_iter().collect()),
        Values::Str(values) => Values::Str(values.get(place).cloned().into_iter().collect()),
        Values::Hist(values) => Values::Hist(values.get(place).cloned().into_iter().collect()),
        Values::Json(values) => Values::Json(values.get(place).cloned().into_iter().collect()),
        Values::Marker(values) => Values::Marker(values.get(place).cloned().into_iter().collect()),
    }
}

fn as_value(values: &Values) -> Option<Value<'_>> {
    Some(match values {
        Values::Null(_) => Value::Null,
        Values::F64(values) => Value::F64(*values.first()?),
        Values::I64(values) => Value::I64(*values.first()?),
        Values::Bool(values) => Value::Bool(*values.first()?),
        Values::Str(values) => Value::Str(values.first()?),
        Values::Hist(values) => Value::Hist(values.first()?),
        Values::Json(values) => Value::Json(values.first()?),
        Values::Marker(values) => values.first().map(|(kind, text)| Value::Marker(kind, text))?,
    })
}

fn size(values: &Values) -> usize {
    as_value(values).map_or(0, |value| value.byte_count())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(rows: &[(i64, &[(&str, f64)])]) -> Rows {
        let mut builder = RowsBuilder::default();
        for (step, items) in rows {
            builder.begin_row(*step, *step);
            for (name, value) in *items {
                let slot = builder.slot(name);
                builder.push_f64(slot, *value);
            }
        }
        builder.take()
    }

    #[test]
    fn every_value_is_held_or_counted_and_the_latest_are_held() {
        let mut held = Held::default();

        let first = held.take_in(&block(&[(1, &[("a", 1.0)]), (2, &[("b", 2.0), ("c", 2.5)])]));
        let second = held.take_in(&block(&[(5, &[("b", 5.0)])]));
        let third = held.superseded_by(&block(&[(6, &[("a", 6.0)])]));

        assert_eq!((first.rows, first.points), (0, 0));
        assert_eq!((second.rows, second.points), (0, 1), "row 2 is held by c");
        assert_eq!((third.rows, third.points), (1, 1));
        assert_eq!(held.take(), Some(block(&[(2, &[("c", 2.5)]), (5, &[("b", 5.0)])])));
        assert_eq!(held.take(), None);
    }

    #[test]
    fn what_is_too_large_to_be_held_is_counted() {
        let mut builder = RowsBuilder::default();
        builder.begin_row(1, 1);
        let slot = builder.slot("text");
        builder.push(slot, Value::Str(&"x".repeat(LARGEST_BYTES)));
        let mut held = Held::default();

        let gone = held.take_in(&builder.take());

        assert_eq!((gone.rows, gone.points), (1, 1));
        assert_eq!(held.take(), None);
    }
}
