//! Rows to columns: where the packer gathers rows until they become a ROWS block.
//!
//! A metric is a *slot*, found once per name; a row is then a push per value. Rows of one step that follow each other are one
//! row (that is how `commit=False` and `step=` merge), and within it the later value of a metric wins.

use std::collections::HashMap;
use std::sync::Arc;

use crate::record::Value;
use crate::rows::{self, Column, EMPTY_ROW_NAME, Rows, Values};

/// The values of one kind of one metric, with the rows they belong to.
#[derive(Debug)]
struct Part {
    values: Values,
    rows: Vec<u32>,
}

/// Names remembered from block to block; a run that never repeats its names starts anew instead of growing without end.
const MOST_SLOTS: usize = 1 << 14;
/// And bytes of them.
const MOST_NAME_BYTES: usize = 1 << 20;

#[derive(Debug)]
struct Slot {
    name: Arc<str>,
    /// One part per kind seen since the last block.
    parts: Vec<Part>,
}

/// Gathers rows. Slots outlive blocks, so a name is looked up once.
#[derive(Debug, Default)]
pub struct RowsBuilder {
    slots: Vec<Slot>,
    by_name: HashMap<Arc<str>, u32>,
    name_bytes: usize,
    /// Slots with values in this block, in the order of their first one.
    touched: Vec<u32>,
    steps: Vec<i64>,
    times_us: Vec<i64>,
    bytes: usize,
    /// Columns of this block: each may need a bit for every row, whether it has values there or not.
    columns: usize,
    points: u64,
}

impl RowsBuilder {
    /// The slot of a name.
    pub fn slot(&mut self, name: &str) -> u32 {
        if let Some(slot) = self.by_name.get(name) {
            return *slot;
        }
        let slot = self.slots.len() as u32;
        let name: Arc<str> = name.into();
        self.name_bytes += name.len();
        self.slots.push(Slot { name: Arc::clone(&name), parts: Vec::new() });
        self.by_name.insert(name, slot);
        slot
    }

    /// The name of a slot.
    pub fn name(&self, slot: u32) -> &str {
        self.slots.get(slot as usize).map_or("", |slot| &slot.name)
    }

    /// Names known now.
    pub fn slot_count(&self) -> usize {
        self.slots.len()
    }

    /// Whether there are more slots than are worth their memory.
    pub fn is_crowded(&self) -> bool {
        self.slots.len() > MOST_SLOTS || self.name_bytes > MOST_NAME_BYTES
    }

    /// Forgets all slots if there are too many of them and no row is being gathered. True: those given out are no longer valid.
    pub fn prune(&mut self) -> bool {
        let is_due = self.is_crowded() && self.steps.is_empty();
        if is_due {
            // Their memory, too: one call of very many names must not be paid for until the end of the run.
            self.slots = Vec::new();
            self.by_name = HashMap::new();
            self.name_bytes = 0;
        }
        is_due
    }

    /// Rows gathered.
    pub fn row_count(&self) -> usize {
        self.steps.len()
    }

    /// The step of the newest row.
    pub fn last_step(&self) -> Option<i64> {
        self.steps.last().copied()
    }

    /// Values gathered.
    pub fn point_count(&self) -> u64 {
        self.points
    }

    /// About how many bytes the block would have.
    pub fn byte_count(&self) -> usize {
        self.bytes + self.columns * (self.steps.len() / 8)
    }

    /// Columns of the block.
    pub fn column_count(&self) -> usize {
        self.columns
    }

    /// Begins a row, or goes on with the last one if it has the same step.
    pub fn begin_row(&mut self, step: i64, time_us: i64) {
        if self.steps.last() == Some(&step) {
            if let Some(last) = self.times_us.last_mut() {
                *last = time_us;
            }
            return;
        }
        self.steps.push(step);
        self.times_us.push(time_us);
        self.bytes += 4;
    }

    /// Marks the current row as one without values.
    pub fn push_empty(&mut self) {
        let slot = self.slot(EMPTY_ROW_NAME);
        self.push(slot, Value::Null);
    }

    /// A float for the current row: the path nearly every value takes.
    pub fn push_f64(&mut self, slot: u32, value: f64) {
        let row = (self.steps.len() as u32).wrapping_sub(1);
        if let Some(Slot { parts, .. }) = self.slots.get_mut(slot as usize)
            && let [Part { values: Values::F64(values), rows }] = parts.as_mut_slice()
            && rows.last() != Some(&row)
        {
            values.push(value);
            rows.push(row);
            self.bytes += 8;
            self.points += 1;
            return;
        }
        self.push(slot, Value::F64(value));
    }

    /// A value for the current row; an earlier one of the same metric in the same row is replaced.
    pub fn push(&mut self, slot: u32, value: Value<'_>) {
        let row = (self.steps.len() as u32).wrapping_sub(1);
        let number = slot;
        let Some(slot) = self.slots.get_mut(number as usize) else { return };
        for part in &mut slot.parts {
            if part.rows.last() == Some(&row) {
                part.rows.pop();
                pop(&mut part.values);
                self.points -= 1;
            }
        }
        let place = slot.parts.iter().position(|part| has_kind_of(&part.values, &value));
        let place = place.unwrap_or_else(|| {
            if slot.parts.is_empty() {
                self.touched.push(number);
            }
            slot.parts.reserve_exact(1); // most metrics have values of one kind
            slot.parts.push(Part { values: empty_like(&value), rows: Vec::new() });
            self.bytes += slot.name.len() + 8;
            self.columns += 1;
            slot.parts.len() - 1
        });
        let Some(part) = slot.parts.get_mut(place) else { return };
        part.rows.push(row);
        self.points += 1;
        self.bytes += append(&mut part.values, value);
    }

    /// The gathered rows; the builder is empty afterwards. It keeps its slots.
    pub fn take(&mut self) -> Rows {
        let count = self.steps.len();
        let mut columns = Vec::new();
        for number in std::mem::take(&mut self.touched) {
            let Some(slot) = self.slots.get_mut(number as usize) else { continue };
            for part in std::mem::take(&mut slot.parts) {
                if part.rows.is_empty() {
                    continue;
                }
                let presence = (part.rows.len() != count).then(|| {
                    let mut present = part.rows.iter().copied().peekable();
                    rows::mask((0..count as u32).map(|row| present.next_if_eq(&row).is_some()))
                });
                columns.push(Column { name: slot.name.as_ref().to_owned(), presence, values: part.values });
            }
        }
        self.bytes = 0;
        self.columns = 0;
        self.points = 0;
        Rows { steps: std::mem::take(&mut self.steps), times_us: std::mem::take(&mut self.times_us), columns }
    }
}

fn has_kind_of(values: &Values, value: &Value<'_>) -> bool {
    matches!(
        (values, value),
        (Values::Null(_), Value::Null)
            | (Values::F64(_), Value::F64(_))
            | (Values::I64(_), Value::I64(_))
            | (Values::Bool(_), Value::Bool(_))
            | (Values::Str(_), Value::Str(_))
            | (Values::Hist(_), Value::Hist(_))
            | (Values::Json(_), Value::Json(_))
            | (Values::Marker(_), Value::Marker(..))
    )
}

fn empty_like(value: &Value<'_>) -> Values {
    match value {
        Value::Null => Values::Null(0),
        Value::F64(_) => Values::F64(Vec::new()),
        Value::I64(_) => Values::I64(Vec::new()),
        Value::Bool(_) => Values::Bool(Vec::new()),
        Value::Str(_) => Values::Str(Vec::new()),
        Value::Hist(_) => Values::Hist(Vec::new()),
        Value::Json(_) => Values::Json(Vec::new()),
        Value::Marker(..) => Values::Marker(Vec::new()),
    }
}

/// Appends a value of the column's own kind; returns about how many bytes it takes.
fn append(values: &mut Values, value: Value<'_>) -> usize {
    match (values, value) {
        (Values::Null(count), Value::Null) => *count += 1,
        (Values::F64(values), Value::F64(value)) => values.push(value),
        (Values::I64(values), Value::I64(value)) => values.push(value),
        (Values::Bool(values), Value::Bool(value)) => values.push(value),
        (Values::Str(values), Value::Str(value)) => {
            values.push(value.to_owned());
            return 8 + value.len();
        }
        (Values::Hist(values), Value::Hist(value)) | (Values::Json(values), Value::Json(value)) => {
            values.push(value.to_owned());
            return 8 + value.len();
        }
        (Values::Marker(values), Value::Marker(kind, text)) => {
            values.push((kind.to_owned(), text.to_owned()));
            return 8 + kind.len() + text.len();
        }
        // The caller chose the column by the value's kind.
        _ => return 0,
    }
    8
}

fn pop(values: &mut Values) {
    match values {
        Values::Null(count) => *count = count.saturating_sub(1),
        Values::F64(values) => drop(values.pop()),
        Values::I64(values) => drop(values.pop()),
        Values::Bool(values) => drop(values.pop()),
        Values::Str(values) => drop(values.pop()),
        Values::Hist(values) | Values::Json(values) => drop(values.pop()),
        Values::Marker(values) => drop(values.pop()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// 20,000 rows of a new name each have few values and 50 MB of presence masks: a frame that nobody may write.
    #[test]
    fn names_that_never_come_again_count_with_their_masks() {
        let mut builder = RowsBuilder::default();
        for step in 0..2_000 {
            builder.begin_row(step, 0);
            let slot = builder.slot(&step.to_string());
            builder.push_f64(slot, 0.5);
        }

        let estimate = builder.byte_count();
        let mut raw = Vec::new();
        builder.take().encode_items(&mut raw);

        assert!((raw.len()..raw.len() * 2).contains(&estimate), "{estimate} for {}", raw.len());
        assert_eq!(builder.byte_count(), 0);
    }

    proptest! {
        /// The model: a map of rows to maps of names.
        #[test]
        fn the_block_holds_the_last_value_of_every_metric_in_every_row(
            calls in vec((0_i64..6, vec((0_usize..4, 0_u8..3, any::<i32>()), 0..6)), 0..30),
        ) {
            let names = ["a", "b", "c", "d"];
            let mut builder = RowsBuilder::default();
            let mut model: Vec<(i64, BTreeMap<&str, String>)> = Vec::new();
            for (advance, items) in &calls {
                let step = model.last().map_or(0, |row| row.0) + advance;
                if model.last().is_none_or(|row| row.0 != step) {
                    model.push((step, BTreeMap::new()));
                }
                builder.begin_row(step, 1);
                for (name, kind, number) in items {
                    let value = match kind {
                        0 => Value::F64(f64::from(*number)),
                        1 => Value::I64(i64::from(*number)),
                        _ => Value::Bool(*number > 0),
                    };
                    let slot = builder.slot(names[*name]);
                    if let Value::F64(value) = value { builder.push_f64(slot, value) } else { builder.push(slot, value) }
                    model.last_mut().expect("a row is open").1.insert(names[*name], format!("{value:?}"));
                }
            }
            prop_assert_eq!(builder.point_count(), model.iter().map(|row| row.1.len() as u64).sum::<u64>());

            let block = builder.take();

            prop_assert_eq!(&block.steps, &model.iter().map(|row| row.0).collect::<Vec<_>>());
            let mut found: Vec<BTreeMap<&str, String>> = vec![BTreeMap::new(); block.steps.len()];
            for column in &block.columns {
                let present = (0..block.steps.len()).filter(|row| column.has(*row));
                for (place, row) in present.enumerate() {
                    let value = match &column.values {
                        Values::F64(values) => format!("{:?}", Value::F64(values[place])),
                        Values::I64(values) => format!("{:?}", Value::I64(values[place])),
                        Values::Bool(values) => format!("{:?}", Value::Bool(values[place])),
                        other => panic!("{other:?}"),
                    };
                    prop_assert!(found[row].insert(&column.name, value).is_none(), "two values in a row");
                }
            }
            prop_assert_eq!(found, model.into_iter().map(|row| row.1).collect::<Vec<_>>());
        }
    }
}
