//! Tests of `thin.rs`: what every thinned block has to keep, whatever was logged.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use runferry_wire::builder::RowsBuilder;
use runferry_wire::record::Value;

use super::*;

/// Rows of (name, kind) items; values are their own number, so that each can be told from every other.
fn block_of(rows: &[Vec<(usize, u8)>]) -> Rows {
    let mut builder = RowsBuilder::default();
    let mut number = 0;
    for (step, items) in rows.iter().enumerate() {
        builder.begin_row(step as i64 * 10, step as i64);
        for (name, kind) in items {
            let slot = builder.slot(["a", "b", "c", "d"][*name]);
            let text = number.to_string();
            builder.push(
                slot,
                match kind {
                    0 => Value::F64(f64::from(number)),
                    1 => Value::I64(i64::from(number)),
                    2 => Value::Str(&text),
                    _ => Value::Hist(text.as_bytes()),
                },
            );
            number += 1;
        }
        if items.is_empty() {
            builder.push_empty();
        }
    }
    builder.take()
}

/// Step to metric to value, and whether the value is a text or a histogram.
fn cells(block: &Rows) -> BTreeMap<i64, BTreeMap<String, (String, u8)>> {
    let mut found: BTreeMap<i64, BTreeMap<String, (String, u8)>> = BTreeMap::new();
    for column in &block.columns {
        let steps = block.steps.iter().enumerate().filter(|(row, _)| column.has(*row)).map(|(_, step)| *step);
        for (place, step) in steps.enumerate() {
            let (value, kind) = match &column.values {
                Values::Null(_) => (String::new(), 0),
                Values::F64(values) => (values[place].to_string(), 0),
                Values::I64(values) => (values[place].to_string(), 0),
                Values::Str(values) => (values[place].clone(), 2),
                Values::Hist(values) => (format!("{:?}", values[place]), 3),
                other => panic!("{other:?}"),
            };
            found.entry(step).or_default().insert(column.name.clone(), (value, kind));
        }
    }
    found
}

proptest! {
    #[test]
    fn what_stays_is_as_it_was_what_goes_is_counted_and_every_last_value_and_text_stays(
        rows in vec(vec((0_usize..4, 0_u8..4), 0..5), 1..80), level in 0_u32..8,
    ) {
        let block = block_of(&rows);
        let before = cells(&block);

        let Thinned { kept, gone } = thin(&block, level);

        let after = cells(&kept);
        prop_assert_eq!(gone.rows as usize, before.len() - after.len());
        let count = |cells: &BTreeMap<i64, BTreeMap<String, (String, u8)>>| cells.values().map(BTreeMap::len).sum::<usize>();
        prop_assert_eq!(gone.points as usize, count(&before) - count(&after));
        prop_assert_eq!(kept.steps.len(), after.len());
        let mut last = BTreeMap::new();
        for (step, row) in &before {
            for (name, cell) in row {
                last.insert(name.clone(), (*step, cell.clone()));
                if cell.1 == 2 {
                    prop_assert_eq!(after.get(step).and_then(|row| row.get(name)), Some(cell), "a text");
                }
            }
        }
        for (name, (step, cell)) in last {
            prop_assert_eq!(after.get(&step).and_then(|row| row.get(&name)), Some(&cell), "a last value");
        }
        for (step, row) in &after {
            let whole = &before[step];
            let numbers = |row: &BTreeMap<String, (String, u8)>| row.values().filter(|cell| cell.1 == 0).count();
            prop_assert!(numbers(row) == 0 || numbers(row) == numbers(whole), "the numbers of a step stay together");
            for (name, cell) in row {
                prop_assert_eq!(&whole[name], cell);
            }
        }
    }

    #[test]
    fn at_level_0_every_number_stays(rows in vec(vec((0_usize..4, 0_u8..3), 0..5), 1..40)) {
        let block = block_of(&rows);

        let thinned = thin(&block, 0);

        prop_assert_eq!(cells(&thinned.kept), cells(&block));
        prop_assert_eq!(thinned.gone, Dropped::default());
    }
}

#[test]
fn a_metric_that_is_logged_between_the_others_keeps_its_share() {
    let rows: Vec<_> = (0..800).map(|row| vec![(usize::from(row % 2 == 1), 0)]).collect();

    let Thinned { kept, .. } = thin(&block_of(&rows), 3);

    let found = cells(&kept);
    let share = |name: &str| found.values().filter(|row| row.contains_key(name)).count();
    assert_eq!((share("a"), share("b")), (50, 50), "every 8th of 400");
}

#[test]
fn histograms_go_first() {
    let rows: Vec<_> = (0..256).map(|_| vec![(0, 0), (1, 3)]).collect();

    let Thinned { kept, .. } = thin(&block_of(&rows), 2);

    let found = cells(&kept);
    let share = |name: &str| found.values().filter(|row| row.contains_key(name)).count();
    assert_eq!((share("a"), share("b")), (64, 8));
}
