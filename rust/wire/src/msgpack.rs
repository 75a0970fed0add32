//! msgpack, the little of it that blocks are made of: writers that append to a buffer, and a reader that trusts nothing.
//!
//! Written out instead of taken from a crate because the reader faces hostile bytes on the server: every length is
//! checked against what is left before anything is allocated, and depth is the caller's to bound ([`crate::doc`]).

use thiserror::Error;

/// Why bytes are not the msgpack that was expected.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MsgpackError {
    /// The bytes end inside a value.
    #[error("msgpack ends inside a value, {0} bytes from its end")]
    Torn(usize),
    /// Another type stands where this one was expected.
    #[error("msgpack: expected {expected}, found marker {found:#04x}")]
    Unexpected {
        /// What the format asks for here.
        expected: &'static str,
        /// The marker byte found.
        found: u8,
    },
    /// A string that is not UTF-8.
    #[error("msgpack: a string is not utf-8")]
    NotUtf8,
    /// Nested deeper than allowed.
    #[error("msgpack: nested deeper than {0}")]
    TooDeep(usize),
    /// More values than allowed.
    #[error("msgpack: more than {0} values")]
    TooMany(usize),
    /// Bytes behind the end of the value.
    #[error("msgpack: {0} bytes behind the end")]
    Surplus(usize),
}

/// Appends nil.
pub fn put_nil(out: &mut Vec<u8>) {
    out.push(0xc0);
}

/// Appends a bool.
pub fn put_bool(out: &mut Vec<u8>, value: bool) {
    out.push(if value { 0xc3 } else { 0xc2 });
}

/// Appends an unsigned integer in its shortest form.
pub fn put_uint(out: &mut Vec<u8>, value: u64) {
    match value {
        0..=0x7f => out.push(value as u8),
        0x80..=0xff => out.extend_from_slice(&[0xcc, value as u8]),
        0x100..=0xffff => {
            out.push(0xcd);
            out.extend_from_slice(&(value as u16).to_be_bytes());
        }
        0x1_0000..=0xffff_ffff => {
            out.push(0xce);
            out.extend_from_slice(&(value as u32).to_be_bytes());
        }
        _ => {
            out.push(0xcf);
            out.extend_from_slice(&value.to_be_bytes());
        }
    }
}

/// Appends a signed integer in its shortest form.
pub fn put_int(out: &mut Vec<u8>, value: i64) {
    match value {
        0.. => put_uint(out, value as u64),
        -32..=-1 => out.push(value as u8),
        -128..=-33 => out.extend_from_slice(&[0xd0, value as u8]),
        -0x8000..=-129 => {
            out.push(0xd1);
            out.extend_from_slice(&(value as i16).to_be_bytes());
        }
        -0x8000_0000..=-0x8001 => {
            out.push(0xd2);
            out.extend_from_slice(&(value as i32).to_be_bytes());
        }
        _ => {
            out.push(0xd3);
            out.extend_from_slice(&value.to_be_bytes());
        }
    }
}

/// Appends a 64-bit float, every bit of it.
pub fn put_f64(out: &mut Vec<u8>, value: f64) {
    out.push(0xcb);
    out.extend_from_slice(&value.to_bits().to_be_bytes());
}

/// Appends a string.
pub fn put_str(out: &mut Vec<u8>, value: &str) {
    match value.len() {
        len @ 0..=31 => out.push(0xa0 | len as u8),
        len @ 32..=0xff => out.extend_from_slice(&[0xd9, len as u8]),
        len => put_length(out, len, 0xda),
    }
    out.extend_from_slice(value.as_bytes());
}

/// Appends bytes.
pub fn put_bin(out: &mut Vec<u8>, value: &[u8]) {
    match value.len() {
        len @ 0..=0xff => out.extend_from_slice(&[0xc4, len as u8]),
        len => put_length(out, len, 0xc5),
    }
    out.extend_from_slice(value);
}

/// Appends the head of an array; `len` values follow.
pub fn put_array(out: &mut Vec<u8>, len: usize) {
    if len < 16 { out.push(0x90 | len as u8) } else { put_length(out, len, 0xdc) }
}

/// Appends the head of a map; `len` keys and values follow.
pub fn put_map(out: &mut Vec<u8>, len: usize) {
    if len < 16 { out.push(0x80 | len as u8) } else { put_length(out, len, 0xde) }
}

/// A 16-bit length behind `marker16`, or a 32-bit one behind the next marker.
fn put_length(out: &mut Vec<u8>, len: usize, marker16: u8) {
    if let Ok(short) = u16::try_from(len) {
        out.push(marker16);
        out.extend_from_slice(&short.to_be_bytes());
    } else {
        out.push(marker16 + 1);
        out.extend_from_slice(&(len as u32).to_be_bytes());
    }
}

/// One value without its contents: what stands at the reader's place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Token<'a> {
    /// nil
    Nil,
    /// bool
    Bool(bool),
    /// An integer that fits i64.
    Int(i64),
    /// An integer above `i64::MAX`.
    Uint(u64),
    /// A float (32-bit ones widened).
    F64(f64),
    /// A string.
    Str(&'a str),
    /// Bytes.
    Bin(&'a [u8]),
    /// The head of an array of so many values.
    Array(usize),
    /// The head of a map of so many pairs.
    Map(usize),
}

/// Reads values off the front of some bytes.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader at the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// What is left to read.
    pub fn rest(&self) -> &'a [u8] {
        self.bytes
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], MsgpackError> {
        let Some((taken, rest)) = self.bytes.split_at_checked(len) else {
            return Err(MsgpackError::Torn(len - self.bytes.len()));
        };
        self.bytes = rest;
        Ok(taken)
    }

    fn take_array<const N: usize>(&mut self) -> Result<[u8; N], MsgpackError> {
        let Some((taken, rest)) = self.bytes.split_first_chunk::<N>() else {
            return Err(MsgpackError::Torn(N - self.bytes.len()));
        };
        self.bytes = rest;
        Ok(*taken)
    }

    fn len8(&mut self) -> Result<usize, MsgpackError> {
        Ok(usize::from(u8::from_be_bytes(self.take_array()?)))
    }

    fn len16(&mut self) -> Result<usize, MsgpackError> {
        Ok(usize::from(u16::from_be_bytes(self.take_array()?)))
    }

    fn len32(&mut self) -> Result<usize, MsgpackError> {
        Ok(u32::from_be_bytes(self.take_array()?) as usize)
    }

    /// A string of `len` bytes.
    fn text(&mut self, len: usize) -> Result<Token<'a>, MsgpackError> {
        let bytes = self.take(len)?;
        Ok(Token::Str(std::str::from_utf8(bytes).map_err(|_not_utf8| MsgpackError::NotUtf8)?))
    }

    /// A head that promises `len` items: each takes at least a byte, so a longer promise is a lie found out here.
    fn head(&self, len: usize, bytes_each: usize) -> Result<usize, MsgpackError> {
        match len.saturating_mul(bytes_each).checked_sub(self.bytes.len()) {
            None | Some(0) => Ok(len),
            Some(missing) => Err(MsgpackError::Torn(missing)),
        }
    }

    /// The next value; of arrays and maps only the head.
    ///
    /// # Errors
    /// [`MsgpackError`], but for `TooDeep` and `Surplus`.
    pub fn token(&mut self) -> Result<Token<'a>, MsgpackError> {
        let [marker] = self.take_array()?;
        Ok(match marker {
            0x00..=0x7f => Token::Int(i64::from(marker)),
            0x80..=0x8f => Token::Map(self.head(usize::from(marker & 0x0f), 2)?),
            0x90..=0x9f => Token::Array(self.head(usize::from(marker & 0x0f), 1)?),
            0xa0..=0xbf => self.text(usize::from(marker & 0x1f))?,
            0xc0 => Token::Nil,
            0xc2 => Token::Bool(false),
            0xc3 => Token::Bool(true),
            0xc4 => {
                let len = self.len8()?;
                Token::Bin(self.take(len)?)
            }
            0xc5 => {
                let len = self.len16()?;
                Token::Bin(self.take(len)?)
            }
            0xc6 => {
                let len = self.len32()?;
                Token::Bin(self.take(len)?)
            }
            0xca => Token::F64(f64::from(f32::from_be_bytes(self.take_array()?))),
            0xcb => Token::F64(f64::from_bits(u64::from_be_bytes(self.take_array()?))),
            0xcc => Token::Int(i64::from(u8::from_be_bytes(self.take_array()?))),
            0xcd => Token::Int(i64::from(u16::from_be_bytes(self.take_array()?))),
            0xce => Token::Int(i64::from(u32::from_be_bytes(self.take_array()?))),
            0xcf => {
                let value = u64::from_be_bytes(self.take_array()?);
                i64::try_from(value).map_or(Token::Uint(value), Token::Int)
            }
            0xd0 => Token::Int(i64::from(i8::from_be_bytes(self.take_array()?))),
            0xd1 => Token::Int(i64::from(i16::from_be_bytes(self.take_array()?))),
            0xd2 => Token::Int(i64::from(i32::from_be_bytes(self.take_array()?))),
            0xd3 => Token::Int(i64::from_be_bytes(self.take_array()?)),
            0xd9 => {
                let len = self.len8()?;
                self.text(len)?
            }
            0xda => {
                let len = self.len16()?;
                self.text(len)?
            }
            0xdb => {
                let len = self.len32()?;
                self.text(len)?
            }
            0xdc => {
                let len = self.len16()?;
                Token::Array(self.head(len, 1)?)
            }
            0xdd => {
                let len = self.len32()?;
                Token::Array(self.head(len, 1)?)
            }
            0xde => {
                let len = self.len16()?;
                Token::Map(self.head(len, 2)?)
            }
            0xdf => {
                let len = self.len32()?;
                Token::Map(self.head(len, 2)?)
            }
            0xe0..=0xff => Token::Int(i64::from(marker as i8)),
            0xc1 | 0xc7..=0xc9 | 0xd4..=0xd8 => {
                return Err(MsgpackError::Unexpected { expected: "a plain value", found: marker });
            }
        })
    }

    fn unexpected<T>(expected: &'static str, at: &'a [u8]) -> Result<T, MsgpackError> {
        Err(MsgpackError::Unexpected { expected, found: at.first().copied().unwrap_or_default() })
    }

    /// The head of an array.
    ///
    /// # Errors
    /// [`MsgpackError`]: another value stands here, or fewer bytes than items follow.
    pub fn array(&mut self) -> Result<usize, MsgpackError> {
        let at = self.bytes;
        if let Token::Array(len) = self.token()? { Ok(len) } else { Self::unexpected("an array", at) }
    }

    /// The head of a map.
    ///
    /// # Errors
    /// As [`Self::array`].
    pub fn map(&mut self) -> Result<usize, MsgpackError> {
        let at = self.bytes;
        if let Token::Map(len) = self.token()? { Ok(len) } else { Self::unexpected("a map", at) }
    }

    /// An integer.
    ///
    /// # Errors
    /// [`MsgpackError`]: another value stands here.
    pub fn int(&mut self) -> Result<i64, MsgpackError> {
        let at = self.bytes;
        if let Token::Int(value) = self.token()? { Ok(value) } else { Self::unexpected("an integer", at) }
    }

    /// A string.
    ///
    /// # Errors
    /// [`MsgpackError`]: another value stands here.
    pub fn str(&mut self) -> Result<&'a str, MsgpackError> {
        let at = self.bytes;
        if let Token::Str(value) = self.token()? { Ok(value) } else { Self::unexpected("a string", at) }
    }

    /// Bytes.
    ///
    /// # Errors
    /// [`MsgpackError`]: another value stands here.
    pub fn bin(&mut self) -> Result<&'a [u8], MsgpackError> {
        let at = self.bytes;
        if let Token::Bin(value) = self.token()? { Ok(value) } else { Self::unexpected("bytes", at) }
    }

    /// Passes over one whole value, without recursion, and returns its bytes.
    ///
    /// # Errors
    /// [`MsgpackError`]: the value is not whole.
    pub fn skip(&mut self) -> Result<&'a [u8], MsgpackError> {
        let start = self.bytes;
        let mut open = 1_usize;
        while open > 0 {
            open -= 1;
            open += match self.token()? {
                Token::Array(len) => len,
                Token::Map(len) => len * 2,
                _ => 0,
            };
        }
        Ok(start.get(..start.len() - self.bytes.len()).unwrap_or_default())
    }

    /// Nothing may be left.
    ///
    /// # Errors
    /// [`MsgpackError::Surplus`].
    pub fn end(&self) -> Result<(), MsgpackError> {
        if self.bytes.is_empty() { Ok(()) } else { Err(MsgpackError::Surplus(self.bytes.len())) }
    }
}
