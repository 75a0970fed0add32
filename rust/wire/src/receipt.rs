//! Receipts: what a writer has packed, as a count and a checksum per metric, to be compared with what a server holds.
//!
//! # Why a sum
//! The checksum of a metric is the wrapping sum of a hash of each of its points, over step, kind and every bit of the value. A sum does not
//! depend on order or on where points are stored: the server may merge, reorder and supersede as it likes, and what it
//! stores plus what it superseded must still add up to what the writer packed. Sums can be subtracted too, so a receipt
//! for one number of the sequence can be carried to another by the frames between them.
//!
//! # What it is not
//! 64 bits against accidents, not against an adversary. Times are not in it: rows of one step that meet in the store keep one of their times.
//!
//! # Bounds
//! A receipt names at most [`MOST_METRICS`] metrics in [`MOST_NAME_BYTES`] bytes of names; what is beyond goes into one common sum, each
//! point's hash multiplied by its metric's, so that it can still be compared.

use std::collections::HashMap;

use crate::doc::Doc;
use crate::record::Value;
use crate::rows::{EMPTY_ROW_NAME, Rows, Values, bit};

/// Metrics that have a sum of their own.
pub const MOST_METRICS: usize = 1 << 14;
/// Bytes of their names.
pub const MOST_NAME_BYTES: usize = 1 << 20;
/// The name under which rows are counted; no metric can have it.
pub const ROWS: &str = "";

/// Points and the wrapping sum of their hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sums {
    /// How many.
    pub points: u64,
    /// The sum.
    pub hash: u64,
}

impl Sums {
    /// Adds one point.
    pub fn add(&mut self, hash: u64) {
        self.points = self.points.wrapping_add(1);
        self.hash = self.hash.wrapping_add(hash);
    }

    /// Adds those of `other`.
    pub fn merge(&mut self, other: Self) {
        self.points = self.points.wrapping_add(other.points);
        self.hash = self.hash.wrapping_add(other.hash);
    }

    /// What is to be added to `other` to get these.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self { points: self.points.wrapping_sub(other.points), hash: self.hash.wrapping_sub(other.hash) }
    }
}

/// The hash of one point of a metric.
pub fn hash_point(step: i64, value: &Value<'_>) -> u64 {
    match *value {
        Value::Null => mix(step, 0, 0),
        Value::F64(value) => mix(step, 1, value.to_bits()),
        Value::I64(value) => mix(step, 3, value as u64),
        Value::Bool(value) => mix(step, 4, u64::from(value)),
        Value::Str(value) => mix(step, 5, fold(0, value.as_bytes())),
        Value::Hist(value) => mix(step, 6, fold(0, value)),
        Value::Json(value) => mix(step, 7, fold(0, value)),
        Value::Marker(kind, text) => mix(step, 8, fold(fold(0, kind.as_bytes()), text.as_bytes())),
    }
}

/// The hash of a metric's name: odd, so that multiplying by it loses nothing.
pub fn hash_name(name: &str) -> u64 {
    finish(fold(0, name.as_bytes())) | 1
}

/// Three odd constants keep step, kind and bits apart; the finisher of splitmix64 spreads them.
fn mix(step: i64, kind: u64, bits: u64) -> u64 {
    let step = (step as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let bits = (bits ^ kind.wrapping_mul(0xd1b5_4a32_d192_ed03)).wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
    finish(step ^ bits.rotate_left(32))
}

fn finish(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// Eight bytes a round, the length last.
fn fold(seed: u64, bytes: &[u8]) -> u64 {
    let mut hash = seed ^ 0xcbf2_9ce4_8422_2325;
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        hash = finish(hash ^ u64::from_le_bytes(*word));
    }
    let mut last = [0; 8];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    finish(finish(hash ^ u64::from_le_bytes(last)) ^ bytes.len() as u64)
}

/// Sums by metric, [`ROWS`] among them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Receipt {
    metrics: HashMap<String, Sums>,
    name_bytes: usize,
    /// The metrics that have no sum of their own: points, and their hashes times the hash of their metric's name.
    pub rest: Sums,
}

impl Receipt {
    /// The sum of a metric that has one of its own.
    pub fn get(&self, name: &str) -> Option<Sums> {
        self.metrics.get(name).copied()
    }

    /// Metrics with a sum of their own, in no order.
    pub fn metrics(&self) -> impl Iterator<Item = (&str, Sums)> {
        self.metrics.iter().map(|(name, sums)| (name.as_str(), *sums))
    }

    /// How many metrics there are, rows among them; of those beyond the bounds only that there is one.
    pub fn name_count(&self) -> usize {
        self.metrics.len() + usize::from(self.rest.points > 0)
    }

    /// Adds points of a metric.
    pub fn add(&mut self, name: &str, sums: Sums) {
        if let Some(known) = self.metrics.get_mut(name) {
            known.merge(sums);
        } else if self.metrics.len() < MOST_METRICS && self.name_bytes + name.len() <= MOST_NAME_BYTES {
            self.name_bytes += name.len();
            self.metrics.insert(name.to_owned(), sums);
        } else {
            self.rest.merge(Sums { points: sums.points, hash: sums.hash.wrapping_mul(hash_name(name)) });
        }
    }

    /// Adds the rows of a block.
    pub fn add_rows(&mut self, rows: &Rows) {
        each_of(rows, |name, sums| self.add(name, sums));
    }

    /// As a map of FINISH and RECEIPT frames. `covers` is the number behind the last frame in the sums.
    pub fn to_doc(&self, covers: u64) -> Doc {
        let mut metrics: Vec<_> = self.metrics.iter().collect();
        metrics.sort_unstable_by_key(|(name, _)| name.as_str());
        Doc::Map(vec![
            ("covers".to_owned(), Doc::Int(covers as i64)),
            ("names".to_owned(), Doc::Array(metrics.iter().map(|(name, _)| name.as_str().into()).collect())),
            ("points".to_owned(), Doc::Array(metrics.iter().map(|(_, sums)| Doc::Int(sums.points as i64)).collect())),
            ("hashes".to_owned(), Doc::Array(metrics.iter().map(|(_, sums)| Doc::Int(sums.hash as i64)).collect())),
            ("rest_points".to_owned(), Doc::Int(self.rest.points as i64)),
            ("rest_hash".to_owned(), Doc::Int(self.rest.hash as i64)),
        ])
    }

    /// Reads [`Self::to_doc`]: the number it covers, and the sums.
    pub fn from_doc(doc: &Doc) -> Option<(u64, Self)> {
        let (Doc::Array(names), Doc::Array(points), Doc::Array(hashes)) =
            (doc.get("names")?, doc.get("points")?, doc.get("hashes")?)
        else {
            return None;
        };
        let mut receipt = Self::default();
        for ((name, points), hash) in names.iter().zip(points).zip(hashes) {
            let (Doc::Str(name), Doc::Int(points), Doc::Int(hash)) = (name, points, hash) else { return None };
            receipt.add(name, Sums { points: *points as u64, hash: *hash as u64 });
        }
        receipt.rest.merge(Sums { points: doc.get_int("rest_points")? as u64, hash: doc.get_int("rest_hash")? as u64 });
        Some((doc.get_int("covers")? as u64, receipt))
    }
}

/// The sums of a block: its rows, then each of its columns.
pub fn each_of<N: AsRef<str>>(rows: &Rows<N>, mut add: impl FnMut(&str, Sums)) {
    add(ROWS, sums_of(rows.steps.iter().copied(), &Values::Null(rows.steps.len())));
    for column in &rows.columns {
        let name = column.name.as_ref();
        if name == EMPTY_ROW_NAME && matches!(column.values, Values::Null(_)) {
            continue;
        }
        add(
            name,
            match &column.presence {
                None => sums_of(rows.steps.iter().copied(), &column.values),
                Some(mask) => {
                    let steps = rows.steps.iter().enumerate();
                    sums_of(steps.filter(|(index, _)| bit(mask, *index)).map(|(_, step)| *step), &column.values)
                }
            },
        );
    }
}

/// Counts the values of a column, at the steps of their rows.
pub fn sums_of(steps: impl Iterator<Item = i64>, values: &Values) -> Sums {
    fn of<T>(steps: impl Iterator<Item = i64>, values: &[T], hash: impl Fn(i64, &T) -> u64) -> Sums {
        let mut sums = Sums::default();
        steps.zip(values).for_each(|(step, value)| sums.add(hash(step, value)));
        sums
    }
    match values {
        Values::Null(count) => of(steps, &vec![(); *count], |step, ()| hash_point(step, &Value::Null)),
        Values::F64(values) => of(steps, values, |step, value| hash_point(step, &Value::F64(*value))),
        Values::I64(values) => of(steps, values, |step, value| hash_point(step, &Value::I64(*value))),
        Values::Bool(values) => of(steps, values, |step, value| hash_point(step, &Value::Bool(*value))),
        Values::Str(values) => of(steps, values, |step, value| hash_point(step, &Value::Str(value))),
        Values::Hist(values) => of(steps, values, |step, value| hash_point(step, &Value::Hist(value))),
        Values::Json(values) => of(steps, values, |step, value| hash_point(step, &Value::Json(value))),
        Values::Marker(values) => of(steps, values, |step, (kind, text)| hash_point(step, &Value::Marker(kind, text))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::Column;
    use proptest::prelude::*;

    fn floats(values: &[f64]) -> Values {
        Values::F64(values.to_vec())
    }

    fn rows(name: &str, steps: &[i64], values: &[f64]) -> Rows {
        let column = Column { name: name.to_owned(), presence: None, values: floats(values) };
        Rows { steps: steps.to_vec(), times_us: steps.to_vec(), columns: vec![column] }
    }

    #[test]
    fn kinds_steps_and_bits_all_count() {
        let points = [
            (0, Value::F64(1.0)),
            (0, Value::I64(1)),
            (0, Value::Bool(true)),
            (1, Value::F64(1.0)),
            (0, Value::F64(-0.0)),
            (0, Value::F64(0.0)),
            (0, Value::Null),
            (0, Value::Str("a")),
            (0, Value::Str("a\0")),
            (0, Value::Json(b"a")),
            (0, Value::Hist(b"a")),
            (0, Value::Marker("a", "")),
            (0, Value::Marker("", "a")),
        ];

        let hashes: std::collections::HashSet<u64> =
            points.iter().map(|(step, value)| hash_point(*step, value)).collect();

        assert_eq!(hashes.len(), points.len());
    }

    #[test]
    fn beyond_the_bound_metrics_share_one_sum_that_still_tells_them_apart() {
        let many = |swapped: bool| {
            let mut receipt = Receipt::default();
            for metric in 0..MOST_METRICS + 2 {
                let step = if swapped { (metric as i64) ^ 1 } else { metric as i64 };
                receipt.add(&metric.to_string(), Sums { points: 1, hash: hash_point(step, &Value::Null) });
            }
            receipt
        };

        assert_eq!(many(false).metrics().count(), MOST_METRICS);
        assert_eq!(many(false).rest.points, 2);
        assert_eq!(many(true).rest.points, 2);
        assert_ne!(many(false).rest, many(true).rest);
    }

    proptest! {
        #[test]
        fn blocks_may_come_in_any_order_and_any_cut(
            values in prop::collection::vec(any::<u64>().prop_map(f64::from_bits), 1..40),
            at in any::<prop::sample::Index>(),
        ) {
            let steps: Vec<i64> = (0..values.len() as i64).collect();
            let cut = at.index(values.len());
            let mut whole = Receipt::default();
            whole.add_rows(&rows("loss", &steps, &values));
            let mut parts = Receipt::default();
            parts.add_rows(&rows("loss", &steps[cut..], &values[cut..]));
            parts.add_rows(&rows("loss", &steps[..cut], &values[..cut]));

            prop_assert_eq!(&whole, &parts);
            prop_assert_eq!(whole.get(ROWS).map(|sums| sums.points), Some(values.len() as u64));
            prop_assert_eq!(Receipt::from_doc(&whole.to_doc(7)), Some((7, whole)));
        }

        #[test]
        fn any_flipped_bit_shows(bits in any::<u64>(), step in any::<i64>(), flipped in 0..64_u32) {
            let one = hash_point(step, &Value::F64(f64::from_bits(bits)));
            prop_assert_ne!(one, hash_point(step, &Value::F64(f64::from_bits(bits ^ (1 << flipped)))));
            prop_assert_ne!(one, hash_point(step ^ (1 << flipped), &Value::F64(f64::from_bits(bits))));
        }
    }
}
