//! The values of one series, of one kind or of several.
//!
//! A metric usually keeps its kind, then its values lie packed side by side. But `1` may be followed by `0.5`, and the
//! two must stay what they were: such a stretch is a list of single cells.

use runferry_wire::Values;
use runferry_wire::record::Value;

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// A logged nothing.
    Null,
    /// A float, every bit of it.
    F64(f64),
    /// An integer.
    I64(i64),
    /// A truth value.
    Bool(bool),
    /// A text.
    Str(String),
    /// A histogram, as in `docs/format.md` section 5.
    Hist(Vec<u8>),
    /// A msgpack value.
    Json(Vec<u8>),
    /// Type and printable form of a value that could not be kept.
    Marker(String, String),
}

impl Cell {
    /// The kind as a byte, numbered as the columns of `docs/format.md` section 4.
    pub fn kind(&self) -> u8 {
        match self {
            Self::Null => 0,
            Self::F64(_) => 1,
            Self::I64(_) => 3,
            Self::Bool(_) => 4,
            Self::Str(_) => 5,
            Self::Hist(_) => 6,
            Self::Json(_) => 7,
            Self::Marker(..) => 8,
        }
    }

    /// The value on a chart: numbers, and truth values as 0 and 1.
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::F64(value) => Some(*value),
            Self::I64(value) => Some(*value as f64),
            Self::Bool(value) => Some(f64::from(u8::from(*value))),
            Self::Null | Self::Str(_) | Self::Hist(_) | Self::Json(_) | Self::Marker(..) => None,
        }
    }

    /// The value as it was logged.
    pub fn value(&self) -> Value<'_> {
        match self {
            Self::Null => Value::Null,
            Self::F64(value) => Value::F64(*value),
            Self::I64(value) => Value::I64(*value),
            Self::Bool(value) => Value::Bool(*value),
            Self::Str(value) => Value::Str(value),
            Self::Hist(value) => Value::Hist(value),
            Self::Json(value) => Value::Json(value),
            Self::Marker(kind, text) => Value::Marker(kind, text),
        }
    }

    /// Kind byte and value: how `first` and `last` of a chunk are stored.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![self.kind()];
        match self {
            Self::Null => {}
            Self::F64(value) => bytes.extend_from_slice(&value.to_bits().to_le_bytes()),
            Self::I64(value) => bytes.extend_from_slice(&value.to_le_bytes()),
            Self::Bool(value) => bytes.push(u8::from(*value)),
            Self::Str(value) => bytes.extend_from_slice(value.as_bytes()),
            Self::Hist(value) | Self::Json(value) => bytes.extend_from_slice(value),
            Self::Marker(kind, text) => {
                runferry_wire::varint::put(&mut bytes, kind.len() as u64);
                bytes.extend_from_slice(kind.as_bytes());
                bytes.extend_from_slice(text.as_bytes());
            }
        }
        bytes
    }

    /// Reads [`Self::to_bytes`]; `None` for anything else.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (&kind, mut rest) = bytes.split_first()?;
        Some(match kind {
            0 => Self::Null,
            1 => Self::F64(f64::from_bits(u64::from_le_bytes(rest.try_into().ok()?))),
            3 => Self::I64(i64::from_le_bytes(rest.try_into().ok()?)),
            4 => Self::Bool(*rest.first()? != 0),
            5 => Self::Str(String::from_utf8(rest.to_vec()).ok()?),
            6 => Self::Hist(rest.to_vec()),
            7 => Self::Json(rest.to_vec()),
            8 => {
                let len = crate::pack::take_len(&mut rest)?;
                let kind = crate::pack::take_bytes(&mut rest, len)?;
                Self::Marker(String::from_utf8(kind.to_vec()).ok()?, String::from_utf8(rest.to_vec()).ok()?)
            }
            _ => return None,
        })
    }

    /// Bytes it takes in memory beside its place.
    pub(crate) fn heavy_bytes(&self) -> usize {
        match self {
            Self::Null | Self::F64(_) | Self::I64(_) | Self::Bool(_) => 0,
            Self::Str(value) => value.len() + 1,
            Self::Hist(value) | Self::Json(value) => value.len() + 2,
            Self::Marker(kind, text) => kind.len() + text.len() + 2,
        }
    }
}

/// The values of a series, in row order.
#[derive(Debug, Clone, PartialEq)]
pub enum Cells {
    /// All of one kind.
    Uniform(Values),
    /// Of several kinds.
    Mixed(Vec<Cell>),
}

impl Cells {
    /// How many.
    pub fn len(&self) -> usize {
        match self {
            Self::Uniform(values) => values.len(),
            Self::Mixed(cells) => cells.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// About how much memory the values take.
    pub fn weight_bytes(&self) -> usize {
        let heavy = |count: usize| (0..count).map(|index| self.heavy_bytes(index)).sum::<usize>();
        match self {
            Self::Uniform(Values::Null(_)) => 0,
            Self::Uniform(Values::F64(values)) => 8 * values.len(),
            Self::Uniform(Values::I64(values)) => 8 * values.len(),
            Self::Uniform(Values::Bool(values)) => values.len(),
            Self::Uniform(values) => 24 * values.len() + heavy(values.len()),
            Self::Mixed(cells) => size_of::<Cell>() * cells.len() + heavy(cells.len()),
        }
    }

    /// The value at `index`; `None` beyond the end.
    pub fn get(&self, index: usize) -> Option<Cell> {
        match self {
            Self::Uniform(values) => value_at(values, index),
            Self::Mixed(cells) => cells.get(index).cloned(),
        }
    }

    /// The value on a chart at `index`.
    pub fn number(&self, index: usize) -> Option<f64> {
        match self {
            Self::Uniform(Values::F64(values)) => values.get(index).copied(),
            Self::Uniform(Values::I64(values)) => values.get(index).map(|value| *value as f64),
            Self::Uniform(Values::Bool(values)) => values.get(index).map(|value| f64::from(u8::from(*value))),
            Self::Uniform(Values::Null(_) | Values::Str(_) | Values::Hist(_) | Values::Json(_) | Values::Marker(_)) => {
                None
            }
            Self::Mixed(cells) => cells.get(index).and_then(Cell::number),
        }
    }

    /// Bytes of the value at `index` beyond 8: what chunks are cut by when values are large.
    pub fn heavy_bytes(&self, index: usize) -> usize {
        match self {
            Self::Uniform(Values::Null(_) | Values::F64(_) | Values::I64(_) | Values::Bool(_)) => 0,
            Self::Uniform(Values::Str(values)) => values.get(index).map_or(0, |value| value.len() + 1),
            Self::Uniform(Values::Hist(values) | Values::Json(values)) => {
                values.get(index).map_or(0, |value| value.len() + 2)
            }
            Self::Uniform(Values::Marker(values)) => {
                values.get(index).map_or(0, |(kind, text)| kind.len() + text.len() + 2)
            }
            Self::Mixed(cells) => cells.get(index).map_or(0, Cell::heavy_bytes),
        }
    }

    /// Whether every value weighs the same and little.
    pub fn is_light(&self) -> bool {
        matches!(self, Self::Uniform(Values::Null(_) | Values::F64(_) | Values::I64(_) | Values::Bool(_)))
    }

    /// The values of a range, clamped to what is there.
    #[must_use]
    pub fn slice(&self, from: usize, to: usize) -> Self {
        fn part<T: Clone>(values: &[T], from: usize, to: usize) -> Vec<T> {
            values.get(from..to.min(values.len())).unwrap_or_default().to_vec()
        }
        match self {
            Self::Uniform(values) => Self::Uniform(match values {
                Values::Null(len) => Values::Null(to.min(*len).saturating_sub(from)),
                Values::F64(values) => Values::F64(part(values, from, to)),
                Values::I64(values) => Values::I64(part(values, from, to)),
                Values::Bool(values) => Values::Bool(part(values, from, to)),
                Values::Str(values) => Values::Str(part(values, from, to)),
                Values::Hist(values) => Values::Hist(part(values, from, to)),
                Values::Json(values) => Values::Json(part(values, from, to)),
                Values::Marker(values) => Values::Marker(part(values, from, to)),
            }),
            Self::Mixed(cells) => Self::from_cells(part(cells, from, to)),
        }
    }

    /// Cells packed by kind if they are all of one.
    pub fn from_cells(cells: Vec<Cell>) -> Self {
        let Some(first) = cells.first() else { return Self::Uniform(Values::Null(0)) };
        let kind = first.kind();
        if cells.iter().any(|cell| cell.kind() != kind) {
            return Self::Mixed(cells);
        }
        let mut packed = empty_of(kind);
        for cell in cells {
            push(&mut packed, cell);
        }
        Self::Uniform(packed)
    }

    /// Makes room for so many more values of the same kind.
    pub(crate) fn reserve(&mut self, more: usize) {
        match self {
            Self::Uniform(Values::F64(values)) => values.reserve_exact(more),
            Self::Uniform(Values::I64(values)) => values.reserve_exact(more),
            Self::Uniform(_) | Self::Mixed(_) => {}
        }
    }

    /// Appends `other`; `None` (and `self` as it was) if that would mix kinds.
    pub(crate) fn append_same_kind(&mut self, other: &Self) -> Option<()> {
        let (Self::Uniform(mine), Self::Uniform(theirs)) = (self, other) else { return None };
        match (mine, theirs) {
            (Values::Null(mine), Values::Null(theirs)) => *mine += theirs,
            (Values::F64(mine), Values::F64(theirs)) => mine.extend_from_slice(theirs),
            (Values::I64(mine), Values::I64(theirs)) => mine.extend_from_slice(theirs),
            (Values::Bool(mine), Values::Bool(theirs)) => mine.extend_from_slice(theirs),
            (Values::Str(mine), Values::Str(theirs)) => mine.extend_from_slice(theirs),
            (Values::Hist(mine), Values::Hist(theirs)) | (Values::Json(mine), Values::Json(theirs)) => {
                mine.extend_from_slice(theirs);
            }
            (Values::Marker(mine), Values::Marker(theirs)) => mine.extend_from_slice(theirs),
            _ => return None,
        }
        Some(())
    }
}

/// A value of packed values.
fn value_at(values: &Values, index: usize) -> Option<Cell> {
    Some(match values {
        Values::Null(len) => {
            if index >= *len {
                return None;
            }
            Cell::Null
        }
        Values::F64(values) => Cell::F64(*values.get(index)?),
        Values::I64(values) => Cell::I64(*values.get(index)?),
        Values::Bool(values) => Cell::Bool(*values.get(index)?),
        Values::Str(values) => Cell::Str(values.get(index)?.clone()),
        Values::Hist(values) => Cell::Hist(values.get(index)?.clone()),
        Values::Json(values) => Cell::Json(values.get(index)?.clone()),
        Values::Marker(values) => values.get(index).map(|(kind, text)| Cell::Marker(kind.clone(), text.clone()))?,
    })
}

/// No values of a kind (as numbered by [`Cell::kind`]).
pub(crate) fn empty_of(kind: u8) -> Values {
    match kind {
        1 => Values::F64(Vec::new()),
        3 => Values::I64(Vec::new()),
        4 => Values::Bool(Vec::new()),
        5 => Values::Str(Vec::new()),
        6 => Values::Hist(Vec::new()),
        7 => Values::Json(Vec::new()),
        8 => Values::Marker(Vec::new()),
        _ => Values::Null(0),
    }
}

/// Appends a cell to values of its kind; a cell of another kind is not taken.
pub(crate) fn push(values: &mut Values, cell: Cell) {
    match (values, cell) {
        (Values::Null(len), Cell::Null) => *len += 1,
        (Values::F64(values), Cell::F64(value)) => values.push(value),
        (Values::I64(values), Cell::I64(value)) => values.push(value),
        (Values::Bool(values), Cell::Bool(value)) => values.push(value),
        (Values::Str(values), Cell::Str(value)) => values.push(value),
        (Values::Hist(values), Cell::Hist(value)) | (Values::Json(values), Cell::Json(value)) => values.push(value),
        (Values::Marker(values), Cell::Marker(kind, text)) => values.push((kind, text)),
        _ => debug_assert!(false, "callers compare kinds first"),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    pub(crate) fn any_cell() -> impl Strategy<Value = Cell> {
        prop_oneof![
            Just(Cell::Null),
            any::<u64>().prop_map(|bits| Cell::F64(f64::from_bits(bits))),
            any::<f32>().prop_map(|value| Cell::F64(f64::from(value))),
            prop_oneof![Just(f64::NAN), Just(f64::INFINITY), Just(f64::NEG_INFINITY), Just(-0.0)].prop_map(Cell::F64),
            any::<i64>().prop_map(Cell::I64),
            any::<bool>().prop_map(Cell::Bool),
            any::<String>().prop_map(Cell::Str),
            any::<Vec<u8>>().prop_map(Cell::Hist),
            any::<Vec<u8>>().prop_map(Cell::Json),
            any::<(String, String)>().prop_map(|(kind, text)| Cell::Marker(kind, text)),
        ]
    }

    pub(crate) fn any_cells(count: impl Into<proptest::collection::SizeRange>) -> impl Strategy<Value = Cells> {
        let count = count.into();
        prop_oneof![
            vec(any_cell(), count.clone()).prop_map(Cells::from_cells),
            vec(any::<u64>().prop_map(|bits| Cell::F64(f64::from_bits(bits))), count.clone())
                .prop_map(Cells::from_cells),
            vec(any::<f32>().prop_map(|value| Cell::F64(f64::from(value))), count.clone()).prop_map(Cells::from_cells),
            vec(any::<i64>().prop_map(Cell::I64), count.clone()).prop_map(Cells::from_cells),
            vec(any::<bool>().prop_map(Cell::Bool), count.clone()).prop_map(Cells::from_cells),
            vec(any::<String>().prop_map(Cell::Str), count.clone()).prop_map(Cells::from_cells),
            vec(any::<Vec<u8>>().prop_map(Cell::Hist), count).prop_map(Cells::from_cells),
        ]
    }

    /// NaN is not equal to itself, its bytes are.
    pub(crate) fn bytes_of(cells: &Cells) -> Vec<Vec<u8>> {
        (0..cells.len()).filter_map(|index| cells.get(index)).map(|cell| cell.to_bytes()).collect()
    }

    proptest! {
        #[test]
        fn a_cell_reads_back_from_its_bytes(cell in any_cell()) {
            let bytes = cell.to_bytes();

            prop_assert_eq!(Cell::from_bytes(&bytes).map(|cell| cell.to_bytes()), Some(bytes));
        }

        #[test]
        fn no_bytes_make_a_cell_panic(bytes: Vec<u8>) {
            Cell::from_bytes(&bytes);
        }

        #[test]
        fn a_slice_holds_the_values_of_its_range(cells in any_cells(0..40), from in 0_usize..40, len in 0_usize..40) {
            let from = from.min(cells.len());

            let slice = cells.slice(from, from + len);

            prop_assert_eq!(bytes_of(&slice), bytes_of(&cells).into_iter().skip(from).take(len).collect::<Vec<_>>());
        }
    }
}
