//! The last value of each metric, for the summary that a run shows of itself without asking a server.
//!
//! Bounded in number and in bytes, since a program may make up names without end. What finds no room is left out: rather no value than an
//! old one, and the server has all of them.

use std::collections::HashMap;

use runferry_wire::Column;
use runferry_wire::rows::{EMPTY_ROW_NAME, Values};

/// Metrics whose last value is kept for the local summary; the server's has all of them.
pub(super) const MOST_VALUES: usize = 1 << 14;
/// And bytes of their names and values: two of the largest.
const MOST_BYTES: usize = 8 << 20;

/// The last value of a metric, for the run's summary.
#[derive(Debug, Clone, PartialEq)]
pub enum Last {
    /// A float.
    F64(f64),
    /// An integer.
    I64(i64),
    /// A truth value.
    Bool(bool),
    /// Text.
    Str(String),
    /// Histogram bytes.
    Hist(Vec<u8>),
    /// A msgpack value.
    Json(Vec<u8>),
    /// Printable form of a value that could not be kept.
    Marker(String),
}

impl Last {
    /// Bytes it takes beyond its own size.
    fn byte_count(&self) -> usize {
        match self {
            Self::F64(_) | Self::I64(_) | Self::Bool(_) => 0,
            Self::Str(text) | Self::Marker(text) => text.len(),
            Self::Hist(bytes) | Self::Json(bytes) => bytes.len(),
        }
    }
}

/// What is kept of the columns that went by.
#[derive(Debug, Default)]
pub(super) struct LastValues {
    values: HashMap<String, Last>,
    bytes: usize,
}

impl LastValues {
    /// All of them, by the names of their metrics.
    pub(super) fn by_name(&self) -> &HashMap<String, Last> {
        &self.values
    }

    /// Takes in the columns of a block: their last values are newer than those kept.
    pub(super) fn remember(&mut self, columns: &[Column]) {
        for column in columns.iter().filter(|column| column.name != EMPTY_ROW_NAME) {
            let last = match &column.values {
                Values::Null(_) => None,
                Values::F64(values) => values.last().map(|value| Last::F64(*value)),
                Values::I64(values) => values.last().map(|value| Last::I64(*value)),
                Values::Bool(values) => values.last().map(|value| Last::Bool(*value)),
                Values::Str(values) => values.last().map(|value| Last::Str(value.clone())),
                Values::Hist(values) => values.last().map(|value| Last::Hist(value.clone())),
                Values::Json(values) => values.last().map(|value| Last::Json(value.clone())),
                Values::Marker(values) => values.last().map(|(_, text)| Last::Marker(text.clone())),
            };
            let Some(last) = last else { continue };
            let (name_bytes, value_bytes) = (column.name.len(), last.byte_count());
            if let Some(slot) = self.values.get_mut(&column.name) {
                self.bytes -= slot.byte_count();
                if self.bytes + value_bytes <= MOST_BYTES {
                    self.bytes += value_bytes;
                    *slot = last;
                } else {
                    // Rather none than an old one.
                    self.bytes -= name_bytes;
                    self.values.remove(&column.name);
                }
            } else if self.values.len() < MOST_VALUES && self.bytes + name_bytes + value_bytes <= MOST_BYTES {
                self.bytes += name_bytes + value_bytes;
                self.values.insert(column.name.clone(), last);
            }
        }
    }
}
