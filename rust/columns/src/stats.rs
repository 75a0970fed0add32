//! Statistics over a stretch of a series: what charts of any zoom are drawn from.

use runferry_wire::Values;

use crate::cells::Cells;

/// Counts over all numbers, and min, max and sum over the finite ones. NaN and the infinities are counted apart, so
/// that one of them does not hide everything else and a chart can still mark it.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Stats {
    /// Finite numbers.
    pub finite: u32,
    /// NaNs.
    pub nan: u32,
    /// Positive and negative infinities.
    pub inf: u32,
    /// Least finite number; 0 without one.
    pub min: f64,
    /// Greatest finite number; 0 without one.
    pub max: f64,
    /// Sum of the finite numbers, possibly infinite.
    pub sum: f64,
}

/// Numbers looked at together.
const AT_ONCE: usize = 256;
/// Sums that are kept side by side: one alone would wait for each addition before the next.
const LANES: usize = 8;

#[derive(Clone, Copy)]
struct Lane {
    min: f64,
    max: f64,
    sum: f64,
}

impl Lane {
    fn push(&mut self, value: f64) {
        self.min = if value < self.min { value } else { self.min };
        self.max = if value > self.max { value } else { self.max };
        self.sum += value;
    }
}

impl Stats {
    /// Over the cells `from..to`.
    pub fn of(cells: &Cells, from: usize, to: usize) -> Self {
        let mut stats = Self::default();
        match cells {
            Cells::Uniform(Values::F64(values)) => {
                values.get(from..to).unwrap_or_default().chunks(AT_ONCE).for_each(|values| stats.push_all(values));
            }
            Cells::Uniform(Values::I64(values)) => {
                values.get(from..to).unwrap_or_default().iter().for_each(|value| stats.push(*value as f64));
            }
            _ => (from..to).filter_map(|index| cells.number(index)).for_each(|value| stats.push(value)),
        }
        stats
    }

    /// Counts some numbers. Nearly always all of them are finite, and then nothing has to be decided for each.
    fn push_all(&mut self, values: &[f64]) {
        if !values.iter().fold(true, |are_finite, value| are_finite & value.is_finite()) {
            values.iter().for_each(|value| self.push(*value));
            return;
        }
        let Some(&first) = values.first() else { return };
        let mut part = [Lane { min: first, max: first, sum: 0.0 }; LANES];
        let whole = values.chunks_exact(LANES);
        let rest = whole.remainder();
        for values in whole {
            part.iter_mut().zip(values).for_each(|(lane, value)| lane.push(*value));
        }
        part.iter_mut().zip(rest).for_each(|(lane, value)| lane.push(*value));
        let mut all = Self { finite: values.len() as u32, min: first, max: first, ..Self::default() };
        for lane in part {
            all.min = all.min.min(lane.min);
            all.max = all.max.max(lane.max);
            all.sum += lane.sum;
        }
        self.add(&all);
    }

    /// Counts one more number.
    pub fn push(&mut self, value: f64) {
        if value.is_finite() {
            if self.finite == 0 {
                (self.min, self.max) = (value, value);
            } else {
                self.min = self.min.min(value);
                self.max = self.max.max(value);
            }
            self.finite += 1;
            self.sum += value;
        } else if value.is_nan() {
            self.nan += 1;
        } else {
            self.inf += 1;
        }
    }

    /// Counts all that `other` counted.
    pub fn add(&mut self, other: &Self) {
        if other.finite > 0 {
            if self.finite == 0 {
                (self.min, self.max) = (other.min, other.max);
            } else {
                self.min = self.min.min(other.min);
                self.max = self.max.max(other.max);
            }
            self.sum += other.sum;
        }
        self.finite += other.finite;
        self.nan += other.nan;
        self.inf += other.inf;
    }

    /// How many numbers of any sort.
    pub fn numbers(&self) -> u32 {
        self.finite + self.nan + self.inf
    }

    /// Least finite number.
    pub fn min(&self) -> Option<f64> {
        (self.finite > 0).then_some(self.min)
    }

    /// Greatest finite number.
    pub fn max(&self) -> Option<f64> {
        (self.finite > 0).then_some(self.max)
    }

    /// Mean of the finite numbers.
    pub fn mean(&self) -> Option<f64> {
        (self.finite > 0).then(|| self.sum / f64::from(self.finite))
    }
}
