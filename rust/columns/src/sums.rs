//! What a store holds of each writer, in the terms of a writer's receipt: points and checksums per metric.
//!
//! Read from the stored bytes themselves, not from counters: a chunk that lost or changed a value shows here. Every axis names
//! the writer of each of its rows, so a point of a chunk is counted for the writer that logged it, at the step it logged.

use std::collections::HashMap;

use runferry_wire::receipt::{Sums, each_of, hash_point, sums_of};

use crate::axis::{Axis, AxisRow};
use crate::cells::Cells;
use crate::chunk::ChunkRow;
use crate::pack::{ChunkError, Unpacker};
use crate::table::{FrameFault, decode_rows, payload_of};

/// Sums by writer ordinal and metric. Rows are under [`runferry_wire::receipt::ROWS`].
#[derive(Default)]
pub struct StoredSums {
    offsets: HashMap<u32, i64>,
    by_writer: HashMap<u32, HashMap<String, Sums>>,
    unpacker: Unpacker,
}

impl StoredSums {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// What is added to each step of a writer.
    pub fn set_offset(&mut self, ordinal: u32, step_offset: i64) {
        self.offsets.insert(ordinal, step_offset);
    }

    /// Adds sums that were kept, such as those of superseded points.
    pub fn add(&mut self, ordinal: u32, name: &str, sums: Sums) {
        let of_writer = self.by_writer.entry(ordinal).or_default();
        match of_writer.get_mut(name) {
            Some(known) => known.merge(sums),
            None => {
                of_writer.insert(name.to_owned(), sums);
            }
        }
    }

    /// Adds a stored chunk of a metric, or of rows.
    ///
    /// # Errors
    /// [`ChunkError`]: it is damaged, nothing of it was counted.
    pub fn add_chunk(&mut self, name: &str, chunk: &ChunkRow, axis: &AxisRow) -> Result<(), ChunkError> {
        let cells = chunk.decode(&mut self.unpacker)?;
        let axis = axis.decode(&mut self.unpacker)?;
        if axis.len() != cells.len() {
            return Err(ChunkError::malformed("axis"));
        }
        for (ordinal, sums) in self.sums_by_writer(&axis, &cells) {
            self.add(ordinal, name, sums);
        }
        Ok(())
    }

    fn sums_by_writer(&self, axis: &Axis, cells: &Cells) -> HashMap<u32, Sums> {
        let mut found: HashMap<u32, Sums> = HashMap::new();
        let offset_of = |ordinal: u32| self.offsets.get(&ordinal).copied().unwrap_or_default();
        if let (Some(&first), Cells::Uniform(values)) = (axis.writers.first(), cells)
            && axis.writers.iter().all(|writer| *writer == first)
        {
            let offset = offset_of(first);
            found.insert(first, sums_of(axis.steps.iter().map(|step| step.wrapping_sub(offset)), values));
            return found;
        }
        for (index, (writer, step)) in axis.writers.iter().zip(&axis.steps).enumerate() {
            let Some(cell) = cells.get(index) else { continue };
            let hash = hash_point(step.wrapping_sub(offset_of(*writer)), &cell.value());
            found.entry(*writer).or_default().add(hash);
        }
        found
    }

    /// Adds a frame that no merge has taken yet.
    ///
    /// # Errors
    /// [`FrameFault`]: it does not decode, nothing of it was counted.
    pub fn add_frame(&mut self, ordinal: u32, bytes: &[u8]) -> Result<(), FrameFault> {
        let raw = payload_of(bytes)?;
        for rows in decode_rows(raw.as_deref())? {
            each_of(&rows, |name, sums| self.add(ordinal, name, sums));
        }
        Ok(())
    }

    /// The sums of every writer, by ordinal.
    pub fn finish(self) -> HashMap<u32, HashMap<String, Sums>> {
        self.by_writer
    }
}
