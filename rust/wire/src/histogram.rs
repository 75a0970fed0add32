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

impl Histogram {
    /// Counts finite values into equal bins between their minimum and maximum, as `numpy.histogram` does: the last bin is
    /// closed, equal values get a bin of width 1 around them, no value at all gives zeros between 0 and 1.
    ///
    /// # Errors
    /// [`HistogramError::Bins`].
    pub fn of(values: impl Iterator<Item = f64> + Clone, bins: usize) -> Result<Self, HistogramError> {
        if !(1..=MAX_BINS).contains(&bins) {
            return Err(HistogramError::Bins(bins));
        }
        let (mut nan_count, mut inf_count, mut low, mut high) = (0, 0, f64::INFINITY, f64::NEG_INFINITY);
        for value in values.clone() {
            if value.is_finite() {
                low = low.min(value);
                high = high.max(value);
            } else if value.is_nan() {
                nan_count += 1;
            } else {
                inf_count += 1;
            }
        }
        if low > high {
            (low, high) = (0.0, 1.0);
        } else if low.to_bits() == high.to_bits() || low >= high {
            (low, high) = (low - 0.5, high + 0.5);
        }
        let edges: Vec<f64> = equal_edges(low, high, bins).collect();
        let mut counts = vec![0.0; bins];
        // A span beyond the largest float: halves keep the quotient finite.
        let span = high / 2.0 - low / 2.0;
        for value in values.filter(|value| value.is_finite()) {
            let guess = (((value / 2.0 - low / 2.0) / span * bins as f64) as usize).min(bins - 1);
            // Rounding may put a value beside its bin; the edges decide.
            let fits = edges.get(guess).is_some_and(|edge| *edge <= value)
                && (guess + 1 == bins || edges.get(guess + 1).is_some_and(|edge| value < *edge));
            let place =
                if fits { guess } else { edges.partition_point(|edge| *edge <= value).saturating_sub(1).min(bins - 1) };
            if let Some(count) = counts.get_mut(place) {
                *count += 1.0;
            }
        }
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
        fn every_value_is_counted_once_in_the_bin_it_lies_in(values in vec(any::<f64>(), 0..200), bins in 1_usize..70) {
            let histogram = Histogram::of(values.iter().copied(), bins).expect("bins in range");

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
        let histogram = Histogram::of([3.0, 3.0].into_iter(), 2).expect("two bins");

        assert_eq!((histogram.edges, histogram.counts), (vec![2.5, 3.0, 3.5], vec![0.0, 2.0]));
    }
}
