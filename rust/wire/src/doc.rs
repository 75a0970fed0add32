//! Documents: the dynamic values of config, summary, OPEN, FINISH and GAP.

use crate::msgpack::{self, MsgpackError, Reader, Token};

/// Deepest nesting of a document.
pub const MAX_DEPTH: usize = 64;
/// Most values in the documents of one payload, counting those inside of lists and maps: a byte there is 32 bytes here.
pub const MAX_NODES: usize = 5 << 18;
/// Most values in one document that a writer takes: a frame may hold small ones before it.
pub const MAX_DOCUMENT_NODES: usize = 1 << 19;

/// How many values may still be read.
#[derive(Debug)]
pub struct Nodes(usize);

impl Nodes {
    /// Those of the documents of one payload.
    pub fn of_documents() -> Self {
        Self(MAX_NODES)
    }

    /// As many as the bytes hold: for values that the reader has asked for, whatever their size.
    pub fn unbounded() -> Self {
        Self(usize::MAX)
    }

    /// Counts one value.
    ///
    /// # Errors
    /// [`MsgpackError::TooMany`].
    pub fn take(&mut self) -> Result<(), MsgpackError> {
        self.0 = self.0.checked_sub(1).ok_or(MsgpackError::TooMany(MAX_NODES))?;
        Ok(())
    }
}

/// One dynamic value. Floats keep every bit.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Doc {
    /// Nothing.
    #[default]
    Nil,
    /// True or false.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// An integer above `i64::MAX`.
    Uint(u64),
    /// A float.
    F64(f64),
    /// Text.
    Str(String),
    /// Bytes.
    Bin(Vec<u8>),
    /// A list.
    Array(Vec<Doc>),
    /// Names and values, in order.
    Map(Vec<(String, Doc)>),
}

impl Doc {
    /// Appends the document to `out`.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        match self {
            Self::Nil => msgpack::put_nil(out),
            Self::Bool(value) => msgpack::put_bool(out, *value),
            Self::Int(value) => msgpack::put_int(out, *value),
            Self::Uint(value) => msgpack::put_uint(out, *value),
            Self::F64(value) => msgpack::put_f64(out, *value),
            Self::Str(value) => msgpack::put_str(out, value),
            Self::Bin(value) => msgpack::put_bin(out, value),
            Self::Array(items) => {
                msgpack::put_array(out, items.len());
                items.iter().for_each(|item| item.encode_into(out));
            }
            Self::Map(pairs) => {
                msgpack::put_map(out, pairs.len());
                for (name, value) in pairs {
                    msgpack::put_str(out, name);
                    value.encode_into(out);
                }
            }
        }
    }

    /// The document as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode_into(&mut out);
        out
    }

    /// Reads one document off the front of `reader`. Integers as map keys become text.
    ///
    /// # Errors
    /// [`MsgpackError`]: not msgpack, nested deeper than [`MAX_DEPTH`], more values than `nodes`, or another thing than text or
    /// an integer as map key.
    pub fn read(reader: &mut Reader<'_>, nodes: &mut Nodes) -> Result<Self, MsgpackError> {
        Self::read_at(reader, 0, nodes)
    }

    fn read_at(reader: &mut Reader<'_>, depth: usize, nodes: &mut Nodes) -> Result<Self, MsgpackError> {
        nodes.take()?;
        if depth > MAX_DEPTH {
            return Err(MsgpackError::TooDeep(MAX_DEPTH));
        }
        Ok(match reader.token()? {
            Token::Nil => Self::Nil,
            Token::Bool(value) => Self::Bool(value),
            Token::Int(value) => Self::Int(value),
            Token::Uint(value) => Self::Uint(value),
            Token::F64(value) => Self::F64(value),
            Token::Str(value) => Self::Str(value.to_owned()),
            Token::Bin(value) => Self::Bin(value.to_owned()),
            Token::Array(len) => {
                // Grown by what is really there, not by what the head promises: 64 levels of promises would multiply.
                let mut items = Vec::new();
                for _ in 0..len {
                    items.push(Self::read_at(reader, depth + 1, nodes)?);
                }
                Self::Array(items)
            }
            Token::Map(len) => {
                let mut pairs = Vec::new();
                for _ in 0..len {
                    let marker = reader.rest().first().copied().unwrap_or_default();
                    let name = match reader.token()? {
                        Token::Str(name) => name.to_owned(),
                        Token::Int(number) => number.to_string(),
                        _ => return Err(MsgpackError::Unexpected { expected: "a name", found: marker }),
                    };
                    pairs.push((name, Self::read_at(reader, depth + 1, nodes)?));
                }
                Self::Map(pairs)
            }
        })
    }

    /// Reads one document that fills `bytes`.
    ///
    /// # Errors
    /// [`MsgpackError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, MsgpackError> {
        Self::decode_within(bytes, Nodes::of_documents())
    }

    /// As [`Self::decode`], with another bound.
    ///
    /// # Errors
    /// [`MsgpackError`].
    pub fn decode_within(bytes: &[u8], mut nodes: Nodes) -> Result<Self, MsgpackError> {
        let mut reader = Reader::new(bytes);
        let doc = Self::read(&mut reader, &mut nodes)?;
        reader.end()?;
        Ok(doc)
    }

    /// How many values it is made of, as [`Nodes`] counts them.
    pub fn node_count(&self) -> usize {
        match self {
            Self::Array(items) => 1 + items.iter().map(Self::node_count).sum::<usize>(),
            Self::Map(pairs) => 1 + pairs.iter().map(|(_, value)| value.node_count()).sum::<usize>(),
            _ => 1,
        }
    }

    /// The value of a name in a map; `None` for anything else.
    pub fn get(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Map(pairs) => pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value),
            _ => None,
        }
    }

    /// The text of a name in a map.
    pub fn get_str(&self, name: &str) -> Option<&str> {
        match self.get(name) {
            Some(Self::Str(text)) => Some(text),
            _ => None,
        }
    }

    /// The integer of a name in a map.
    pub fn get_int(&self, name: &str) -> Option<i64> {
        match self.get(name) {
            Some(Self::Int(value)) => Some(*value),
            _ => None,
        }
    }

    /// Sets a name in a map; anything else is left as it is.
    pub fn set(&mut self, name: &str, value: Self) {
        if let Self::Map(pairs) = self {
            match pairs.iter_mut().find(|(key, _)| key == name) {
                Some((_, old)) => *old = value,
                None => pairs.push((name.to_owned(), value)),
            }
        }
    }
}

impl From<&str> for Doc {
    fn from(value: &str) -> Self {
        Self::Str(value.to_owned())
    }
}

impl From<i64> for Doc {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn any_doc() -> impl Strategy<Value = Doc> {
        let leaf = prop_oneof![
            Just(Doc::Nil),
            any::<bool>().prop_map(Doc::Bool),
            any::<i64>().prop_map(Doc::Int),
            ((i64::MAX as u64 + 1)..).prop_map(Doc::Uint),
            any::<f64>().prop_map(Doc::F64),
            any::<String>().prop_map(Doc::Str),
            any::<Vec<u8>>().prop_map(Doc::Bin),
        ];
        leaf.prop_recursive(4, 64, 20, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..20).prop_map(Doc::Array),
                proptest::collection::vec((any::<String>(), inner), 0..20).prop_map(Doc::Map),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_document_reads_back_bit_for_bit(doc in any_doc()) {
            let bytes = doc.encode();

            let again = Doc::decode(&bytes).expect("just encoded");

            prop_assert_eq!(again.encode(), bytes, "NaN is not equal to itself, its bytes are");
        }

        #[test]
        fn every_cut_of_a_document_is_an_error(doc in any_doc(), cut: proptest::sample::Index) {
            let bytes = doc.encode();
            let cut = cut.index(bytes.len());

            prop_assert!(Doc::decode(&bytes[..cut]).is_err());
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes: Vec<u8>) {
            Doc::decode(&bytes).ok();
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let deep = vec![0x91; 10_000];

        assert_eq!(Doc::decode(&deep).err(), Some(MsgpackError::TooDeep(MAX_DEPTH)));
    }

    #[test]
    fn an_array_that_promises_more_than_is_there_is_refused_before_it_is_allocated() {
        assert_eq!(Doc::decode(&[0xdd, 0xff, 0xff, 0xff, 0xff]).err(), Some(MsgpackError::Torn(0xffff_ffff)));
    }
}
