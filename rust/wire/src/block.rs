//! Blocks: what a DATA payload is made of.

use thiserror::Error;

use crate::doc::{Doc, Nodes};
use crate::msgpack::{self, MsgpackError, Reader};
use crate::rows::{Budget, Rows, RowsError};

/// Most rows of one payload, all its blocks together.
pub const MAX_PAYLOAD_ROWS: usize = 1 << 20;
/// Most blocks of one payload.
pub const MAX_BLOCKS: usize = 1 << 16;

const ROWS: i64 = 1;
const CONFIG: i64 = 2;
const SUMMARY: i64 = 3;
const META: i64 = 4;

/// Why a payload is not a list of blocks.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BlockError {
    /// Broken msgpack.
    #[error(transparent)]
    Msgpack(#[from] MsgpackError),
    /// A broken ROWS block.
    #[error(transparent)]
    Rows(#[from] RowsError),
    /// More than a payload may hold.
    #[error("a payload of {found} {what}, at most {most} are allowed")]
    TooMany {
        /// Rows or blocks.
        what: &'static str,
        /// How many.
        found: usize,
        /// The limit.
        most: usize,
    },
}

/// Changes of a document: top-level names set, and names removed.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Changes {
    /// A map of names to their new values.
    pub updates: Doc,
    /// Names that are gone.
    pub removed: Vec<String>,
}

/// One block of a payload; names of metrics may be borrowed from it.
#[derive(Debug, Clone, PartialEq)]
pub enum Block<N = String> {
    /// Rows of metrics.
    Rows(Rows<N>),
    /// Changes of the run's config.
    Config(Changes),
    /// Changes of the run's summary made by the user.
    Summary(Changes),
    /// Changes of name, notes, tags.
    Meta(Doc),
    /// A block of a later version, passed over.
    Unknown {
        /// Its kind.
        kind: i64,
    },
}

impl<N> Block<N> {
    /// How many values its document is made of; 0 for rows.
    pub fn node_count(&self) -> usize {
        match self {
            Self::Config(changes) | Self::Summary(changes) => changes.updates.node_count() + changes.removed.len(),
            Self::Meta(doc) => doc.node_count(),
            Self::Rows(_) | Self::Unknown { .. } => 0,
        }
    }
}

/// The payload (not yet compressed) of some blocks.
pub fn encode_all(blocks: &[Block]) -> Vec<u8> {
    let mut out = Vec::new();
    msgpack::put_array(&mut out, blocks.len());
    for block in blocks {
        match block {
            Block::Rows(rows) => {
                msgpack::put_array(&mut out, 5);
                msgpack::put_int(&mut out, ROWS);
                rows.encode_items(&mut out);
            }
            Block::Config(changes) => encode_changes(&mut out, CONFIG, changes),
            Block::Summary(changes) => encode_changes(&mut out, SUMMARY, changes),
            Block::Meta(doc) => {
                msgpack::put_array(&mut out, 2);
                msgpack::put_int(&mut out, META);
                doc.encode_into(&mut out);
            }
            Block::Unknown { kind } => {
                msgpack::put_array(&mut out, 1);
                msgpack::put_int(&mut out, *kind);
            }
        }
    }
    out
}

fn encode_changes(out: &mut Vec<u8>, kind: i64, changes: &Changes) {
    msgpack::put_array(out, 3);
    msgpack::put_int(out, kind);
    changes.updates.encode_into(out);
    msgpack::put_array(out, changes.removed.len());
    changes.removed.iter().for_each(|name| msgpack::put_str(out, name));
}

/// All blocks of a decompressed payload.
///
/// # Errors
/// [`BlockError`].
pub fn decode_all(raw: &[u8]) -> Result<Vec<Block>, BlockError> {
    decode_wanted(raw, &|_| true)
}

/// As [`decode_all`], with the names of metrics borrowed: a server that merges reads thousands in each frame, which it knows.
///
/// # Errors
/// [`BlockError`].
pub fn decode_borrowed(raw: &[u8]) -> Result<Vec<Block<&str>>, BlockError> {
    decode_within(raw, &|_| true, Budget::written())
}

/// As [`decode_all`], of a payload in which a server answers: it may hold more.
///
/// # Errors
/// [`BlockError`].
pub fn decode_answer(raw: &[u8]) -> Result<Vec<Block>, BlockError> {
    decode_within(raw, &|_| true, Budget::answered())
}

/// All blocks of a decompressed payload; in ROWS only the columns whose name is wanted.
///
/// # Errors
/// [`BlockError`].
pub fn decode_wanted(raw: &[u8], wanted: &dyn Fn(&str) -> bool) -> Result<Vec<Block>, BlockError> {
    decode_within(raw, wanted, Budget::written())
}

fn decode_within<'a, N: From<&'a str>>(
    raw: &'a [u8],
    wanted: &dyn Fn(&str) -> bool,
    mut budget: Budget,
) -> Result<Vec<Block<N>>, BlockError> {
    let mut reader = Reader::new(raw);
    let count = reader.array()?;
    if count > MAX_BLOCKS {
        return Err(BlockError::TooMany { what: "blocks", found: count, most: MAX_BLOCKS });
    }
    let mut rows_total = 0;
    let mut nodes = Nodes::of_documents();
    let mut blocks = Vec::new();
    for _ in 0..count {
        let mut items = reader.array()?;
        let kind = reader.int()?;
        let block = match kind {
            ROWS => {
                let rows = Rows::decode_wanted(&mut reader, wanted, &mut budget)?;
                rows_total += rows.steps.len();
                if rows_total > MAX_PAYLOAD_ROWS {
                    return Err(BlockError::TooMany { what: "rows", found: rows_total, most: MAX_PAYLOAD_ROWS });
                }
                items = items.saturating_sub(4);
                Block::Rows(rows)
            }
            CONFIG | SUMMARY => {
                let updates = Doc::read(&mut reader, &mut nodes)?;
                let mut removed = Vec::new();
                for _ in 0..reader.array()? {
                    nodes.take()?;
                    removed.push(reader.str()?.to_owned());
                }
                items = items.saturating_sub(2);
                let changes = Changes { updates, removed };
                if kind == CONFIG { Block::Config(changes) } else { Block::Summary(changes) }
            }
            META => {
                items = items.saturating_sub(1);
                Block::Meta(Doc::read(&mut reader, &mut nodes)?)
            }
            _ => Block::Unknown { kind },
        };
        for _ in 1..items {
            reader.skip()?;
        }
        blocks.push(block);
    }
    reader.end()?;
    Ok(blocks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::{self, Column, Values};
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn any_values(count: usize) -> impl Strategy<Value = Values> {
        prop_oneof![
            Just(Values::Null(count)),
            vec(any::<f64>(), count).prop_map(Values::F64),
            vec(any::<f32>().prop_map(f64::from), count).prop_map(Values::F64),
            vec(any::<u64>().prop_map(f64::from_bits), count).prop_map(Values::F64),
            vec(any::<i64>(), count).prop_map(Values::I64),
            vec(any::<bool>(), count).prop_map(Values::Bool),
            vec(any::<String>(), count).prop_map(Values::Str),
            vec(any::<Vec<u8>>(), count).prop_map(Values::Hist),
            vec(any::<Vec<u8>>(), count).prop_map(Values::Json),
            vec(any::<(String, String)>(), count).prop_map(Values::Marker),
        ]
    }

    fn any_column(rows: usize) -> impl Strategy<Value = Column> {
        let presence = prop_oneof![Just(None), vec(any::<bool>(), rows).prop_map(Some)];
        (any::<String>(), presence).prop_flat_map(move |(name, presence)| {
            let present = presence.as_ref().map_or(rows, |bits| bits.iter().filter(|bit| **bit).count());
            let presence = presence.map(|bits| rows::mask(bits.into_iter()));
            any_values(present).prop_map(move |values| Column {
                name: name.clone(),
                presence: presence.clone(),
                values,
            })
        })
    }

    fn any_rows() -> impl Strategy<Value = Rows> {
        (0_usize..40).prop_flat_map(|count| {
            let steps = prop_oneof![vec(any::<i64>(), count), Just((0..count as i64).collect::<Vec<_>>())];
            (steps, vec(any::<i64>(), count), vec(any_column(count), 0..6))
                .prop_map(|(steps, times_us, columns)| Rows { steps, times_us, columns })
        })
    }

    proptest! {
        #[test]
        fn rows_read_back_bit_for_bit(rows in any_rows()) {
            let bytes = encode_all(&[Block::Rows(rows.clone())]);

            let blocks = decode_all(&bytes).expect("just encoded");

            let [Block::Rows(again)] = blocks.as_slice() else { panic!("one block of rows") };
            prop_assert_eq!((&again.steps, &again.times_us), (&rows.steps, &rows.times_us));
            prop_assert_eq!(again.columns.len(), rows.columns.len());
            for (again, column) in again.columns.iter().zip(&rows.columns) {
                prop_assert_eq!((&again.name, &again.presence), (&column.name, &column.presence));
                match (&again.values, &column.values) {
                    (Values::F64(again), Values::F64(values)) => {
                        let bits = |values: &[f64]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
                        prop_assert_eq!(bits(again), bits(values));
                    }
                    (again, values) => prop_assert_eq!(again, values),
                }
            }
        }

        #[test]
        fn unwanted_columns_are_passed_over(rows in any_rows(), name: String) {
            let bytes = encode_all(&[Block::Rows(rows.clone())]);

            let blocks = decode_wanted(&bytes, &|column| column == name).expect("just encoded");

            let [Block::Rows(again)] = blocks.as_slice() else { panic!("one block of rows") };
            prop_assert!(again.columns.iter().all(|column| column.name == name));
            prop_assert_eq!(again.columns.len(), rows.columns.iter().filter(|column| column.name == name).count());
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes: Vec<u8>, rows in any_rows(), place: proptest::sample::Index, byte: u8) {
            decode_all(&bytes).ok();
            let mut damaged = encode_all(&[Block::Rows(rows)]);
            let place = place.index(damaged.len());
            damaged[place] = byte;
            decode_all(&damaged).ok();
        }
    }

    #[test]
    fn unknown_blocks_and_surplus_items_are_skipped() {
        let mut bytes = vec![0x93]; // three blocks
        bytes.extend_from_slice(&[0x93, 99, 0x92, 1, 2, 0xc0]); // [99, [1, 2], nil]
        bytes.extend_from_slice(&[0x93, 4, 0x80, 7]); // META with an item too many
        bytes.extend_from_slice(&[0x94, 2, 0x80, 0x90, 7]); // CONFIG with an item too many

        let blocks = decode_all(&bytes);

        assert_eq!(
            blocks,
            Ok(vec![
                Block::Unknown { kind: 99 },
                Block::Meta(Doc::Map(vec![])),
                Block::Config(Changes { updates: Doc::Map(vec![]), removed: vec![] }),
            ])
        );
    }

    #[test]
    fn documents_read_back() {
        let changes = Changes {
            updates: Doc::Map(vec![("lr".to_owned(), Doc::F64(f64::INFINITY))]),
            removed: vec!["old".to_owned()],
        };
        let blocks = vec![
            Block::Config(changes.clone()),
            Block::Summary(changes),
            Block::Meta(Doc::Map(vec![("name".to_owned(), "x".into())])),
        ];

        assert_eq!(decode_all(&encode_all(&blocks)), Ok(blocks));
    }

    // fault: 56
    #[test]
    fn columns_of_nothing_are_refused_before_they_fill_the_memory() {
        let columns = 10_000_000_u32;
        let mut bytes = vec![0x91, 0x95, 1, 0, 0x92, 0, 1, 0x92, 0, 1, 0xdd];
        bytes.extend_from_slice(&columns.to_be_bytes());
        bytes.extend_from_slice(&[0x94, 0xa0, 0, 0xc0, 0xc0].repeat(columns as usize));

        let most = rows::MAX_PAYLOAD_COLUMNS;
        assert_eq!(decode_all(&bytes), Err(BlockError::Rows(RowsError::TooMany { what: "columns", most })));
    }

    // fault: 56
    #[test]
    fn nulls_that_take_no_bytes_are_counted_as_values() {
        let mut bytes = vec![0x91, 0x95, 1];
        crate::msgpack::put_uint(&mut bytes, rows::MAX_ROWS as u64);
        bytes.extend_from_slice(&[0x92, 0, 1, 0x92, 0, 1, 0xdc, 0, 100]);
        bytes.extend_from_slice(&[0x94, 0xa0, 0, 0xc0, 0xc0].repeat(100));

        let most = rows::MAX_PAYLOAD_VALUES;
        assert_eq!(decode_all(&bytes), Err(BlockError::Rows(RowsError::TooMany { what: "values", most })));
    }

    // fault: 56
    #[test]
    fn a_document_of_too_many_values_is_refused() {
        let nodes = crate::doc::MAX_NODES as u32;
        let mut list = vec![0x81, 0xa1, b'x', 0xdd];
        list.extend_from_slice(&nodes.to_be_bytes());
        list.extend(std::iter::repeat_n(0xc0, nodes as usize));
        let mut removed = vec![0x91, 0x93, 2, 0x80, 0xdd];
        removed.extend_from_slice(&(nodes + 1).to_be_bytes());
        removed.extend(std::iter::repeat_n(0xa0, nodes as usize + 1));

        let expected = MsgpackError::TooMany(crate::doc::MAX_NODES);
        assert_eq!(Doc::decode(&list), Err(expected.clone()));
        assert_eq!(decode_all(&removed), Err(BlockError::Msgpack(expected)));
    }

    #[test]
    fn a_stride_of_a_billion_rows_is_refused() {
        let mut bytes = vec![0x91, 0x95, 1];
        crate::msgpack::put_uint(&mut bytes, 1_000_000_000);
        bytes.extend_from_slice(&[0x92, 0, 1, 0x92, 0, 1, 0x90]);

        assert_eq!(decode_all(&bytes), Err(BlockError::Rows(RowsError::TooManyRows(1_000_000_000))));
    }
}
