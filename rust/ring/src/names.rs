//! Names: byte strings with a number, kept next to the entries that use the number.
//!
//! A row of metrics repeats its names for ever; entries carry their numbers instead. The names lie in the same file, so that
//! whoever adopts a killed process's ring can read its rows. The area is append-only: a name is published before any entry
//! that may use it, and never changes. Numbers count from 0 in order of interning; the caller keeps the map from name to number.
//!
//! # Layout
//! From the area's start: length 4, check 4, bytes, zeros to a multiple of 8; then the next name. The check is the CRC32C,
//! begun with this ring's own number, of the name's number and bytes; so it is its own end mark. It is never 0.

use std::cell::RefCell;

use crate::region::{View, WriteHalf};

/// Bytes before each name.
pub const NAME_HEADER_BYTES: usize = 8;

/// Appends names: the producer's side.
#[derive(Debug)]
pub(crate) struct NamesWriter {
    area: WriteHalf,
    nonce: u64,
    next_id: u32,
}

impl NamesWriter {
    pub(crate) fn new(area: WriteHalf, nonce: u64) -> Self {
        Self { area, nonce, next_id: 0 }
    }

    /// Publishes a name; `None` if the area is full, which it stays for a name of this length.
    pub(crate) fn intern(&mut self, name: &[u8]) -> Option<u32> {
        let record_bytes = record_bytes(name.len());
        let at = self.area.tail();
        if record_bytes as u64 > self.area.free_bytes_seen() {
            return None;
        }
        let id = self.next_id;
        let check = check(self.nonce, id, name);
        let record = self.area.bytes_mut(at, record_bytes)?;
        let head = (name.len() as u32).to_le_bytes().into_iter().chain(check.to_le_bytes());
        record.iter_mut().zip(head.chain(name.iter().copied())).for_each(|(to, from)| *to = from);
        self.area.publish(at + record_bytes as u64);
        self.next_id += 1;
        Some(id)
    }
}

/// Looks names up, in the process that interns them. Any number of these may exist.
#[derive(Debug)]
pub struct Names {
    view: View,
    nonce: u64,
    /// Where the bytes of each known name lie, and how many they are.
    found: RefCell<Vec<(u64, usize)>>,
}

impl Names {
    pub(crate) fn new(view: View, nonce: u64) -> Self {
        Self { view, nonce, found: RefCell::default() }
    }

    /// Another reader of the same names, for another thread or for use while an [`Entry`](crate::Entry) is borrowed.
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "the one `expect` holds its proof")]
    pub fn another(&self) -> Self {
        Self::new(self.view.another().expect("the names' area has no head"), self.nonce)
    }

    /// The name numbered `id`; `None` if there is none.
    pub fn lookup(&self, id: u32) -> Option<&[u8]> {
        let known = self.found.borrow().get(id as usize).copied();
        let (at, len) = known.or_else(|| self.find(id))?;
        self.view.bytes(at, len)
    }

    /// Walks the names published since the last walk.
    fn find(&self, id: u32) -> Option<(u64, usize)> {
        let mut found = self.found.borrow_mut();
        let mut at = found.last().map_or(0, |(at, len)| at - NAME_HEADER_BYTES as u64 + record_bytes(*len) as u64);
        let tail = self.view.refresh_tail();
        while at < tail {
            let name = (at + NAME_HEADER_BYTES as u64, (self.view.word(at)? as u32) as usize);
            let bytes = self.view.bytes(name.0, name.1)?;
            if self.view.word(at)? != head_word(self.nonce, found.len() as u32, bytes) {
                break; // A stray write destroyed it: names behind it cannot be found either.
            }
            found.push(name);
            at += record_bytes(name.1) as u64;
        }
        found.get(id as usize).copied()
    }
}

/// The names of a dead ring: where each lies in `area`, up to the first that is not whole.
pub(crate) fn scan(area: &[u8], nonce: u64) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut rest = area;
    while let Some(word) = rest.first_chunk() {
        let word = u64::from_le_bytes(*word);
        let len = (word as u32) as usize;
        let Some(name) = rest.get(NAME_HEADER_BYTES..).and_then(|bytes| bytes.get(..len)) else { break };
        if word != head_word(nonce, found.len() as u32, name) {
            break;
        }
        found.push((area.len() - rest.len() + NAME_HEADER_BYTES, len));
        rest = rest.get(record_bytes(len)..).unwrap_or_default();
    }
    found
}

fn record_bytes(name_len: usize) -> usize {
    NAME_HEADER_BYTES + name_len.next_multiple_of(8)
}

fn head_word(nonce: u64, id: u32, name: &[u8]) -> u64 {
    name.len() as u64 | (u64::from(check(nonce, id, name)) << 32)
}

fn check(nonce: u64, id: u32, name: &[u8]) -> u32 {
    let crc = crc32c::crc32c_append(nonce as u32, &id.to_le_bytes());
    crc32c::crc32c_append(crc, name).max(1)
}
