//! Pieces: values of a series as they came in together, and the rows they stand at.
//!
//! Frames with few rows of many metrics come as thousands of small lists. So rows that follow one another are a range and no list,
//! and few values at the rows behind the last ones join those ([`join`]): a series is then one list, however many frames it came in.

#![expect(clippy::indexing_slicing, reason = "piece numbers are handed out by the list they index")]

use std::borrow::Cow;
use std::sync::Arc;

use runferry_wire::Values;

use crate::cells::{Cell, Cells};

/// More values than these stay a piece of their own: to join them would copy them more often than it saves.
const JOINED_VALUES: usize = 1024;

/// Rows of a table, by number.
#[derive(Debug, Clone)]
pub enum RowNumbers {
    /// Those from the first number to before the second.
    Range(u32, u32),
    /// These.
    Listed(Arc<[u32]>),
}

/// Tells rows from others while the table that handed them out lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum RowsId {
    Range(u32, u32),
    Listed(*const u32),
}

impl RowNumbers {
    /// How many.
    pub fn len(&self) -> usize {
        match self {
            Self::Range(first, end) => end.saturating_sub(*first) as usize,
            Self::Listed(rows) => rows.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One after the other.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        let (range, listed) = match self {
            Self::Range(first, end) => (*first..*end, &[][..]),
            Self::Listed(rows) => (0..0, rows.as_ref()),
        };
        range.chain(listed.iter().copied())
    }

    /// The first of them.
    pub(crate) fn first(&self) -> Option<u32> {
        self.iter().next()
    }

    /// The last of them.
    pub(crate) fn last(&self) -> Option<u32> {
        match self {
            Self::Range(first, end) => (first < end).then(|| end - 1),
            Self::Listed(rows) => rows.last().copied(),
        }
    }

    pub(crate) fn id(&self) -> RowsId {
        match self {
            Self::Range(first, end) => RowsId::Range(*first, *end),
            Self::Listed(rows) => RowsId::Listed(rows.as_ptr()),
        }
    }
}

/// Values of a series that came in together.
#[derive(Debug, Clone)]
pub(crate) struct Piece {
    pub(crate) rows: RowNumbers,
    pub(crate) cells: Arc<Cells>,
}

/// Adds values to the piece before them, if those rows follow its own, the values are few and of its kind, and nobody else has that
/// piece. Else they come back.
pub(crate) fn join(last: &mut Piece, rows: &RowNumbers, cells: Cells) -> Result<(), Cells> {
    let (RowNumbers::Range(_, end), RowNumbers::Range(first, new_end)) = (&mut last.rows, rows) else {
        return Err(cells);
    };
    if *end != *first || cells.len() > JOINED_VALUES || !cells.is_light() {
        return Err(cells);
    }
    let joined = Arc::get_mut(&mut last.cells).and_then(|mine| mine.append_same_kind(&cells));
    if joined.is_none() {
        return Err(cells);
    }
    *end = *new_end;
    Ok(())
}

/// The values of some pieces, one behind the other. They stay where they are until a part of them is asked for: all in one place they
/// would be copied once more.
#[derive(Debug, Default)]
pub struct Parts {
    cells: Vec<Arc<Cells>>,
    /// Of each where it ends.
    ends: Vec<usize>,
}

impl Parts {
    /// These, in this order.
    pub(crate) fn of(cells: Vec<Arc<Cells>>) -> Self {
        let ends = cells.iter().scan(0, |end, cells| {
            *end += cells.len();
            Some(*end)
        });
        Self { ends: ends.collect(), cells }
    }

    /// How many values.
    pub fn len(&self) -> usize {
        self.ends.last().copied().unwrap_or_default()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether every value weighs little.
    pub fn is_light(&self) -> bool {
        self.cells.iter().all(|cells| cells.is_light())
    }

    /// Where a value is: the number of its part, and its place in it.
    fn place(&self, index: usize) -> (usize, usize) {
        let part = self.ends.partition_point(|end| *end <= index);
        let before = part.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or_default();
        (part, index - before)
    }

    /// The value at `index`; `None` beyond the end.
    pub fn get(&self, index: usize) -> Option<Cell> {
        let (part, place) = self.place(index);
        self.cells.get(part)?.get(place)
    }

    /// As [`Cells::heavy_bytes`].
    pub fn heavy_bytes(&self, index: usize) -> usize {
        let (part, place) = self.place(index);
        self.cells.get(part).map_or(0, |cells| cells.heavy_bytes(place))
    }

    /// The values of a range, clamped to what is there.
    pub fn slice(&self, from: usize, to: usize) -> Cow<'_, Cells> {
        let (part, place) = self.place(from);
        let Some(cells) = self.cells.get(part) else { return Cow::Owned(Cells::from_cells(Vec::new())) };
        let mut left = to.saturating_sub(from);
        if place == 0 && left == cells.len() {
            return Cow::Borrowed(cells.as_ref());
        }
        let mut slices = Vec::new();
        let mut place = place;
        for cells in &self.cells[part..] {
            let count = left.min(cells.len() - place);
            slices.push(Arc::new(cells.slice(place, place + count)));
            left -= count;
            place = 0;
            if left == 0 {
                break;
            }
        }
        Cow::Owned(concatenate(slices))
    }
}

/// The values of all pieces in one place, one behind the other in the order given.
pub(crate) fn concatenate(mut pieces: Vec<Arc<Cells>>) -> Cells {
    if pieces.len() == 1
        && let Some(only) = pieces.pop()
    {
        return Arc::unwrap_or_clone(only);
    }
    let Some((first, rest)) = pieces.split_first() else { return Cells::from_cells(Vec::new()) };
    let mut cells = first.as_ref().clone();
    cells.reserve(rest.iter().map(|piece| piece.len()).sum());
    for piece in rest {
        if cells.append_same_kind(piece).is_none() {
            let all = pieces.iter().flat_map(|piece| (0..piece.len()).filter_map(|index| piece.get(index)));
            return Cells::from_cells(all.collect());
        }
    }
    cells
}

/// The picked values, `(piece, index)`, packed by kind where they are all of one.
pub(crate) fn gather(pieces: &[Piece], picks: &[(u32, u32)]) -> Cells {
    let cells_of = |pick: &(u32, u32)| (pieces[pick.0 as usize].cells.as_ref(), pick.1 as usize);
    let is_f64 = pieces.iter().all(|piece| matches!(*piece.cells, Cells::Uniform(Values::F64(_))));
    if is_f64 {
        let values = picks.iter().filter_map(|pick| match cells_of(pick) {
            (Cells::Uniform(Values::F64(values)), index) => values.get(index).copied(),
            _ => None,
        });
        return Cells::Uniform(Values::F64(values.collect()));
    }
    let is_null = pieces.iter().all(|piece| matches!(*piece.cells, Cells::Uniform(Values::Null(_))));
    if is_null {
        return Cells::Uniform(Values::Null(picks.len()));
    }
    let cells = picks.iter().map(cells_of).filter_map(|(cells, index)| cells.get(index));
    Cells::from_cells(cells.collect())
}
