//! The axis: steps, times and writers of the rows behind some chunks, stored once for all metrics logged together.
//!
//! # Layout
//! The body of the blob: *steps* (0, first, stride as zigzag varints, or 1, first as zigzag varint, width, shuffled
//! zigzag deltas), *times* (the same), *writers* (pairs of run length and writer ordinal as varints). Deltas are as
//! wide as the largest needs: 1, 2, 4 or 8 bytes.
//!
//! `sub` holds first step, last step and last time of every [`SUB_ROWS`] rows, so that statistics of as many points
//! can be placed on a chart without reading the values or this blob.

use runferry_wire::{rows, varint};

use crate::pack::{ChunkError, MAX_POINTS, Packer, Unpacker, take_array, take_len};

/// Rows behind one entry of `sub`, here and in chunks.
pub const SUB_ROWS: usize = 256;
const SUB_BYTES: usize = 24;

/// Where and when the rows are, and whose.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Axis {
    /// Strictly ascending.
    pub steps: Vec<i64>,
    /// Microseconds since 1970 UTC.
    pub times_us: Vec<i64>,
    /// The writer's ordinal in the run: decides between equal steps when a late journal arrives.
    pub writers: Vec<u32>,
}

/// One row of the axis table, but for the run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AxisRow {
    /// The number of the axis in its run.
    pub axis_id: i64,
    /// First step.
    pub step0: i64,
    /// Time of the last row.
    pub time1_us: i64,
    /// Rows.
    pub n: u32,
    /// Entries of 24 bytes per [`SUB_ROWS`] rows; empty for a single one.
    pub sub: Vec<u8>,
    /// Over all of the above and `data`.
    pub crc32c: u32,
    /// The blob.
    pub data: Vec<u8>,
}

/// One entry of `sub`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubAxis {
    /// Step of the first row.
    pub step_first: i64,
    /// Step of the last row.
    pub step_last: i64,
    /// Time of the last row.
    pub time_last_us: i64,
}

impl Axis {
    /// Rows.
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The row that stores this axis.
    pub fn encode(&self, axis_id: i64, packer: &mut Packer) -> AxisRow {
        let mut body = Vec::with_capacity(self.len() * 4 + 32);
        put_integers(&mut body, &self.steps);
        put_integers(&mut body, &self.times_us);
        let mut writers = self.writers.iter().copied().peekable();
        while let Some(writer) = writers.next() {
            let mut run = 1_u64;
            while writers.next_if_eq(&writer).is_some() {
                run += 1;
            }
            varint::put(&mut body, run);
            varint::put(&mut body, u64::from(writer));
        }
        let mut sub = Vec::new();
        if self.len() > SUB_ROWS {
            for (steps, times) in self.steps.chunks(SUB_ROWS).zip(self.times_us.chunks(SUB_ROWS)) {
                for value in [steps.first(), steps.last(), times.last()] {
                    sub.extend_from_slice(&value.copied().unwrap_or_default().to_le_bytes());
                }
            }
        }
        let mut row = AxisRow {
            axis_id,
            step0: self.steps.first().copied().unwrap_or_default(),
            time1_us: self.times_us.last().copied().unwrap_or_default(),
            n: self.len() as u32,
            sub,
            crc32c: 0,
            data: packer.pack(&body),
        };
        row.crc32c = row.checksum();
        row
    }
}

impl AxisRow {
    fn checksum(&self) -> u32 {
        let mut sum = crc32c::crc32c(&self.axis_id.to_le_bytes());
        for field in [self.step0, self.time1_us, i64::from(self.n), self.sub.len() as i64] {
            sum = crc32c::crc32c_append(sum, &field.to_le_bytes());
        }
        crc32c::crc32c_append(crc32c::crc32c_append(sum, &self.sub), &self.data)
    }

    /// Reads the axis back, checksum first.
    ///
    /// # Errors
    /// [`ChunkError`].
    pub fn decode(&self, unpacker: &mut Unpacker) -> Result<Axis, ChunkError> {
        let computed = self.checksum();
        if computed != self.crc32c {
            return Err(ChunkError::Checksum { part: "axis", stored: self.crc32c, computed });
        }
        if self.n > MAX_POINTS {
            return Err(ChunkError::malformed("axis"));
        }
        let body = unpacker.unpack(&self.data, "axis")?;
        read_body(&body, self.n as usize).ok_or(ChunkError::malformed("axis"))
    }
}

fn read_body(mut body: &[u8], count: usize) -> Option<Axis> {
    let steps = take_integers(&mut body, count)?;
    let times_us = take_integers(&mut body, count)?;
    let mut writers = Vec::with_capacity(steps.len());
    while !body.is_empty() {
        let run = take_len(&mut body)?;
        let writer = u32::try_from(varint::take(&mut body)?).ok()?;
        if run > count - writers.len() {
            return None;
        }
        writers.extend(std::iter::repeat_n(writer, run));
    }
    (writers.len() == count).then_some(Axis { steps, times_us, writers })
}

/// The entries of `sub`.
pub fn read_sub(mut bytes: &[u8]) -> Vec<SubAxis> {
    let mut entries = Vec::with_capacity(bytes.len() / SUB_BYTES);
    while let Some(entry) = (|| {
        Some(SubAxis {
            step_first: i64::from_le_bytes(take_array(&mut bytes)?),
            step_last: i64::from_le_bytes(take_array(&mut bytes)?),
            time_last_us: i64::from_le_bytes(take_array(&mut bytes)?),
        })
    })() {
        entries.push(entry);
    }
    entries
}

fn put_integers(body: &mut Vec<u8>, values: &[i64]) {
    let Some(&first) = values.first() else {
        body.push(0);
        varint::put(body, 0);
        varint::put(body, 0);
        return;
    };
    let deltas = || values.iter().skip(1).zip(values).map(|(next, one)| next.wrapping_sub(*one));
    let stride = deltas().next().unwrap_or(1);
    if deltas().all(|delta| delta == stride) {
        body.push(0);
        varint::put(body, varint::zigzag(first));
        varint::put(body, varint::zigzag(stride));
        return;
    }
    body.push(1);
    varint::put(body, varint::zigzag(first));
    let coded: Vec<u64> = deltas().map(varint::zigzag).collect();
    let widest = coded.iter().copied().max().unwrap_or_default();
    if widest <= 0xff {
        body.push(1);
        body.extend(coded.iter().map(|value| *value as u8));
    } else if widest <= 0xffff {
        body.push(2);
        body.extend(rows::shuffle(&coded.iter().map(|value| (*value as u16).to_le_bytes())));
    } else if u32::try_from(widest).is_ok() {
        body.push(4);
        body.extend(rows::shuffle(&coded.iter().map(|value| (*value as u32).to_le_bytes())));
    } else {
        body.push(8);
        body.extend(rows::shuffle(&coded.iter().map(|value| value.to_le_bytes())));
    }
}

fn take_integers(body: &mut &[u8], count: usize) -> Option<Vec<i64>> {
    let [form] = take_array(body)?;
    let first = varint::unzigzag(varint::take(body)?);
    if form == 0 {
        let stride = varint::unzigzag(varint::take(body)?);
        return Some((0..count).map(|index| first.wrapping_add(stride.wrapping_mul(index as i64))).collect());
    }
    let [width] = take_array(body)?;
    let deltas = count.checked_sub(1)?;
    let bytes = crate::pack::take_bytes(body, deltas.checked_mul(usize::from(width))?)?;
    let coded: Vec<u64> = match width {
        1 => bytes.iter().map(|byte| u64::from(*byte)).collect(),
        2 => rows::unshuffle::<2>(bytes).into_iter().map(|raw| u64::from(u16::from_le_bytes(raw))).collect(),
        4 => rows::unshuffle::<4>(bytes).into_iter().map(|raw| u64::from(u32::from_le_bytes(raw))).collect(),
        8 => rows::unshuffle::<8>(bytes).into_iter().map(u64::from_le_bytes).collect(),
        _ => return None,
    };
    let mut values = Vec::with_capacity(count);
    let mut previous = first;
    values.push(first);
    for delta in coded {
        previous = previous.wrapping_add(varint::unzigzag(delta));
        values.push(previous);
    }
    Some(values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    pub(crate) fn any_axis() -> impl Strategy<Value = Axis> {
        vec((any::<i64>(), any::<i64>(), 0_u32..3), 1..600).prop_map(|rows| Axis {
            steps: rows.iter().map(|row| row.0).collect(),
            times_us: rows.iter().map(|row| row.1).collect(),
            writers: rows.iter().map(|row| row.2).collect(),
        })
    }

    proptest! {
        #[test]
        fn an_axis_reads_back(axis in any_axis(), small in any::<bool>()) {
            let axis = if small { Axis { steps: axis.steps.iter().map(|step| step % 300).collect(), ..axis } } else { axis };

            let row = axis.encode(7, &mut Packer::new());

            prop_assert_eq!(row.decode(&mut Unpacker::new()), Ok(axis));
        }

        #[test]
        fn no_body_makes_it_panic(body: Vec<u8>, count in 0_usize..1000) {
            read_body(&body, count);
        }

        #[test]
        fn every_flipped_bit_is_noticed(axis in any_axis(), bit: proptest::sample::Index) {
            let mut row = axis.encode(7, &mut Packer::new());
            let bit = bit.index(row.data.len() * 8);
            row.data[bit / 8] ^= 1 << (bit % 8);

            let found = row.decode(&mut Unpacker::new());
            prop_assert!(matches!(found, Err(ChunkError::Checksum { part: "axis", .. })), "{found:?}");
        }
    }

    /// A stride says any number of rows in three bytes.
    #[test]
    fn rows_that_no_axis_has_are_refused_before_there_is_memory_for_them() {
        let mut row =
            Axis { steps: vec![1, 2], times_us: vec![3, 4], writers: vec![5, 5] }.encode(7, &mut Packer::new());
        row.n = u32::MAX;
        row.crc32c = row.checksum();

        assert_eq!(row.decode(&mut Unpacker::new()), Err(ChunkError::malformed("axis")));
    }

    #[test]
    fn a_regular_axis_takes_a_few_bytes() {
        let axis = Axis {
            steps: (0..2000).collect(),
            times_us: (0..2000).map(|row| row * 1000).collect(),
            writers: vec![0; 2000],
        };

        assert!(axis.encode(1, &mut Packer::new()).data.len() < 20);
    }
}
