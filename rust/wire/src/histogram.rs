//! Histogram values: their bytes, and the binning of arrays. Layout in `docs/format.md`, section 5.

use thiserror::Error;

use crate::varint;

/// Most bins of a histogram, as in the W&B SDK.
pub const MAX_BINS: usize = 512;

const EXPLICIT_EDGES: u8 = 1;
const FLOAT_COUNTS: u8 = 2;

/// Why a histogram cannot be made or read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum HistogramError {
    /// Too many bins, or none.
    #[error("a histogram of {0} bins, 1 to {MAX_BINS} are allowed")]
    Bins(usize),
    /// Edges and counts that do not fit.
    #[error("{edges} edges for {counts} counts, one more edge than counts is needed")]
    Edges {
        /// Edges given.
        edges: usize,
        /// Counts given.
        counts: usize,
    },
    /// Bytes that end early, or go on.
    #[error("histogram bytes are damaged")]
    Damaged,
}

/// A histogram: `counts[i]` values between `edges[i]` and `edges[i + 1]`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Histogram {
    /// One more than counts.
    pub edges: Vec<f64>,
    /// Values (or weights) per bin.
    pub counts: Vec<f64>,
    /// NaNs that were left out.
    pub nan_count: u64,
    /// Infinities that were left out.
    pub inf_count: u64,
}

/// The edges of `bins` equal bins, the last one exact.
fn equal_edges(first: f64, last: f64, bins: usize) -> impl Iterator<Item = f64> {
    // A span beyond the largest float is divided before it is taken.
    let width = if (last - first).is_finite() {
        (last - first) / bins as f64
    } else {
        last / bins as f64 - first / bins as f64
    };
    (0..=bins).map(move |index| if index == bins { last } else { first + index as f64 * width })
}

/// Between what numbers lie, and which are none.
struct Range {
    low: f64,
    high: f64,
    nan_count: u64,
    inf_count: u64,
}

impl Range {
    fn of<T: Copy>(raw: &[T], read: impl Fn(T) -> f64 + Copy) -> Self {
        if let Some((low, high)) = finite_range(raw, read) {
            return Self { low, high, nan_count: 0, inf_count: 0 };
        }
        let mut range = Self { low: f64::INFINITY, high: f64::NEG_INFINITY, nan_count: 0, inf_count: 0 };
        for value in raw.iter().map(|value| read(*value)) {
            if value.is_finite() {
                range.low = range.low.min(value);
                range.high = range.high.max(value);
            } else if value.is_nan() {
                range.nan_count += 1;
            } else {
                range.inf_count += 1;
            }
        }
        range
    }
}

/// The least and the greatest, if all are finite. Eight at a time, each with a minimum and a maximum of its own: the order in which they
/// meet changes nothing, so the compiler makes vectors of that.
fn finite_range<T: Copy>(raw: &[T], read: impl Fn(T) -> f64 + Copy) -> Option<(f64, f64)> {
    let (mut lows, mut highs) = ([f64::INFINITY; LANES], [f64::NEG_INFINITY; LANES]);
    // Zero for what is finite; what is not leaves NaN for good.
    let mut odds = [0.0; LANES];
    let mut take = |values: &[T]| {
        for (((low, high), odd), value) in lows.iter_mut().zip(&mut highs).zip(&mut odds).zip(values) {
            let value = read(*value);
            *odd += value * 0.0;
            *low = if value < *low { value } else { *low };
            *high = if value > *high { value } else { *high };
        }
    };
    let (chunks, rest) = raw.as_chunks::<LANES>();
    chunks.iter().for_each(|chunk| take(chunk));
    take(rest);
    let is_finite = odds.into_iter().all(|odd| odd == 0.0);
    is_finite
        .then(|| (lows.into_iter().fold(f64::INFINITY, f64::min), highs.into_iter().fold(f64::NEG_INFINITY, f64::max)))
}

/// Numbers worked on at once.
const LANES: usize = 8;
/// Adding it leaves a small number, rounded, in the lowest bits: around it the floats are the whole numbers.
const TO_LOW_BITS: f64 = (3_u64 << 51) as f64;

/// Which of some equal bins numbers lie in.
struct Binning<'a> {
    edges: &'a [f64],
    bins: usize,
    low: f64,
    /// Bins per unit.
    scale: f64,
    /// A number so near to an edge, in bins, is compared with the edges themselves: they decide, and both they and it were rounded.
    doubt: f64,
}

impl<'a> Binning<'a> {
    /// `edges` are at least two, ascending and finite.
    fn new(edges: &'a [f64]) -> Self {
        let (low, high) = (edges.first().copied().unwrap_or(0.0), edges.last().copied().unwrap_or(1.0));
        let bins = edges.len().saturating_sub(1).max(1);
        let scale = bins as f64 / (high - low);
        let rounding = 8.0 * f64::EPSILON * (low.abs().max(high.abs()) * scale + bins as f64);
        // A span beyond the largest float, or below the smallest: all are compared.
        let doubt = if scale.is_normal() && rounding.is_finite() { rounding } else { 1.0 };
        Self { edges, bins, low, scale, doubt }
    }

    /// The bin of a finite number between the first edge and the last.
    fn place(&self, value: f64) -> usize {
        self.edges.partition_point(|edge| *edge <= value).saturating_sub(1).min(self.bins - 1)
    }

    /// Of numbers that are all finite.
    fn count<T: Copy>(&self, raw: &[T], read: impl Fn(T) -> f64 + Copy) -> Vec<f64> {
        // Lanes that count for themselves do not wait for each other's counters.
        let mut counts = [[0_u32; MAX_BINS]; 4];
        let mut totals = vec![0.0; self.bins];
        for part in raw.chunks(1 << 30) {
            let (chunks, rest) = part.as_chunks::<LANES>();
            for chunk in chunks {
                let (mut places, mut is_clear) = ([0_u64; LANES], true);
                for (place, value) in places.iter_mut().zip(chunk) {
                    let at = (read(*value) - self.low) * self.scale;
                    let below = (at - 0.5) + TO_LOW_BITS;
                    let into = at - (below - TO_LOW_BITS);
                    is_clear &= (into - 0.5).abs() < 0.5 - self.doubt;
                    *place = below.to_bits() & 0xFFFF;
                }
                if !is_clear {
                    for (place, value) in places.iter_mut().zip(chunk) {
                        *place = self.place(read(*value)) as u64;
                    }
                }
                for (lane, place) in places.into_iter().enumerate() {
                    if let Some(count) = counts.get_mut(lane % 4).and_then(|counts| counts.get_mut(place as usize)) {
                        *count += 1;
                    }
                }
            }
            for (index, total) in totals.iter_mut().enumerate() {
                *total +=
                    counts.iter().filter_map(|counts| counts.get(index)).map(|count| f64::from(*count)).sum::<f64>();
            }
            counts = [[0; MAX_BINS]; 4];
            for value in rest {
                if let Some(total) = totals.get_mut(self.place(read(*value))) {
                    *total += 1.0;
                }
            }
        }
        totals
    }

    fn count_finite<T: Copy>(&self, raw: &[T], read: impl Fn(T) -> f64 + Copy) -> Vec<f64> {
        let mut totals = vec![0.0; self.bins];
        for value in raw.iter().map(|value| read(*value)).filter(|value| value.is_finite()) {
            if let Some(total) = totals.get_mut(self.place(value)) {
                *total += 1.0;
            }
        }
        totals
    }
}

impl Histogram {
    /// Counts finite values into equal bins between their minimum and maximum, as `numpy.histogram` does: the last bin is
    /// closed, equal values get a bin of width 1 around them, no value at all gives zeros between 0 and 1.
    ///
    /// `read` makes a number of each of `raw`.
    ///
    /// # Errors
    /// [`HistogramError::Bins`].
    pub fn of<T: Copy>(raw: &[T], bins: usize, read: impl Fn(T) -> f64 + Copy) -> Result<Self, HistogramError> {
        if !(1..=MAX_BINS).contains(&bins) {
            return Err(HistogramError::Bins(bins));
        }
        let Range { mut low, mut high, nan_count, inf_count } = Range::of(raw, read);
        if low > high {
            (low, high) = (0.0, 1.0);
        } else if low.to_bits() == high.to_bits() || low >= high {
            (low, high) = (low - 0.5, high + 0.5);
        }
        let edges: Vec<f64> = equal_edges(low, high, bins).collect();
        let binning = Binning::new(&edges);
        let counts =
            if nan_count + inf_count == 0 { binning.count(raw, read) } else { binning.count_finite(raw, read) };
        Ok(Self { edges, counts, nan_count, inf_count })
    }

    /// The histogram as bytes.
    ///
    /// # Errors
    /// [`HistogramError::Bins`], [`HistogramError::Edges`].
    pub fn encode(&self) -> Result<Vec<u8>, HistogramError> {
        let bins = self.counts.len();
        if !(1..=MAX_BINS).contains(&bins) {
            return Err(HistogramError::Bins(bins));
        }
        let (Some(first), Some(last), true) = (self.edges.first(), self.edges.last(), self.edges.len() == bins + 1)
        else {
            return Err(HistogramError::Edges { edges: self.edges.len(), counts: bins });
        };
        let same_bits = |(one, other): (f64, &f64)| one.to_bits() == other.to_bits();
        let has_equal_bins = equal_edges(*first, *last, bins).zip(&self.edges).all(same_bits);
        let whole = |count: &f64| {
            *count >= 0.0 && *count < 9e15 && count.fract() == 0.0 && !(*count == 0.0 && count.is_sign_negative())
        };
        let has_whole_counts = self.counts.iter().all(whole);
        let mut out =
            vec![if has_equal_bins { 0 } else { EXPLICIT_EDGES } | if has_whole_counts { 0 } else { FLOAT_COUNTS }];
        varint::put(&mut out, bins as u64);
        let put_f64 = |out: &mut Vec<u8>, value: f64| out.extend_from_slice(&value.to_bits().to_le_bytes());
        if has_equal_bins {
            put_f64(&mut out, *first);
            put_f64(&mut out, *last);
        } else {
            self.edges.iter().for_each(|edge| put_f64(&mut out, *edge));
        }
        for count in &self.counts {
            if has_whole_counts { varint::put(&mut out, *count as u64) } else { put_f64(&mut out, *count) }
        }
        varint::put(&mut out, self.nan_count);
        varint::put(&mut out, self.inf_count);
        Ok(out)
    }

    /// Reads the bytes written by [`Self::encode`].
    ///
    /// # Errors
    /// [`HistogramError::Damaged`], [`HistogramError::Bins`].
    pub fn decode(mut bytes: &[u8]) -> Result<Self, HistogramError> {
        let (flags, rest) = bytes.split_first().ok_or(HistogramError::Damaged)?;
        bytes = rest;
        let bins = varint::take(&mut bytes).ok_or(HistogramError::Damaged)? as usize;
        if !(1..=MAX_BINS).contains(&bins) {
            return Err(HistogramError::Bins(bins));
        }
        let edges = if flags & EXPLICIT_EDGES == 0 {
            let (first, last) = (take_f64(&mut bytes)?, take_f64(&mut bytes)?);
            equal_edges(first, last, bins).collect()
        } else {
            (0..=bins).map(|_| take_f64(&mut bytes)).collect::<Result<_, _>>()?
        };
        let counts = (0..bins)
            .map(|_| match flags & FLOAT_COUNTS {
                0 => varint::take(&mut bytes).map(|count| count as f64).ok_or(HistogramError::Damaged),
                _ => take_f64(&mut bytes),
            })
            .collect::<Result<_, _>>()?;
        let nan_count = varint::take(&mut bytes).ok_or(HistogramError::Damaged)?;
        let inf_count = varint::take(&mut bytes).ok_or(HistogramError::Damaged)?;
        if !bytes.is_empty() {
            return Err(HistogramError::Damaged);
        }
        Ok(Self { edges, counts, nan_count, inf_count })
    }
}

fn take_f64(bytes: &mut &[u8]) -> Result<f64, HistogramError> {
    let (raw, rest) = bytes.split_first_chunk::<8>().ok_or(HistogramError::Damaged)?;
    *bytes = rest;
    Ok(f64::from_bits(u64::from_le_bytes(*raw)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_histogram_reads_back_bit_for_bit(edges in vec(any::<f64>(), 2..60), whole: bool, nan_count: u64, inf_count: u64) {
            let counts = edges.iter().skip(1).enumerate().map(|(index, edge)| if whole { index as f64 } else { *edge }).collect();
            let histogram = Histogram { edges, counts, nan_count, inf_count };

            let bytes = histogram.encode().expect("fits");

            let again = Histogram::decode(&bytes).expect("just encoded");
            prop_assert_eq!(again.encode(), Ok(bytes));
            prop_assert_eq!((again.nan_count, again.inf_count, again.counts.len()), (nan_count, inf_count, histogram.counts.len()));
        }

        #[test]
        fn every_value_is_counted_once_in_the_bin_it_lies_in(
            values in prop_oneof![
                vec(any::<f64>(), 0..200),
                vec(-100.0..100.0_f64, 0..200),
                vec((0..64).prop_map(f64::from), 0..200),
                vec((0..1000).prop_map(|n| 1e9 + f64::from(n) * 1e-7), 0..200),
                vec(prop_oneof![20 => -1.0..1.0_f64, 1 => Just(f64::NAN), 1 => Just(f64::INFINITY)], 0..200),
            ],
            bins in prop_oneof![1_usize..70, Just(MAX_BINS)],
        ) {
            let histogram = Histogram::of(&values, bins, |value| value).expect("bins in range");

            let finite = values.iter().filter(|value| value.is_finite());
            for (index, count) in histogram.counts.iter().enumerate() {
                let inside = |value: &&f64| {
                    **value >= histogram.edges[index] && (**value < histogram.edges[index + 1] || index + 1 == bins)
                };
                let expected = finite.clone().filter(inside).count() as f64;
                prop_assert!((count - expected).abs() < 0.5, "bin {} has {} of {}", index, count, expected);
            }
            let nan_count = values.iter().filter(|value| value.is_nan()).count() as u64;
            prop_assert_eq!(histogram.nan_count, nan_count);
            prop_assert_eq!(histogram.inf_count, (values.len() - finite.count()) as u64 - nan_count);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            Histogram::decode(&bytes).ok();
        }
    }

    #[test]
    fn equal_values_get_a_bin_around_them() {
        let histogram = Histogram::of(&[3.0, 3.0], 2, |value| value).expect("two bins");

        assert_eq!((histogram.edges, histogram.counts), (vec![2.5, 3.0, 3.5], vec![0.0, 2.0]));
    }
}
