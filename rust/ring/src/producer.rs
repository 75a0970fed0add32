//! The producer: what `log()` calls.
//!
//! # Order
//! Payload, commit word, tail; nothing of an entry is visible before the tail passes it. A caller that dies or panics while
//! it fills an entry leaves no trace: the next entry takes the same place.
//!
//! # Cost
//! Plain loads and stores: no system call, no allocation, no read-modify-write. The consumer's head, whose cache line travels
//! between cores, is read only when the head last seen says that the ring is full.

use std::sync::Arc;

use crate::MAX_PAYLOAD_BYTES;
use crate::names::NamesWriter;
use crate::place::{FailedPlace, Home, Placement};
use crate::region::{Notes, WriteHalf};
use crate::word::{WORD_BYTES, Word, entry_end};

/// What became of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "an entry that was not taken is lost unless the caller tries again"]
pub enum Pushed {
    /// It is in the ring, and survives what [`Placement`] says.
    Done,
    /// There is no room until the consumer releases some.
    Full,
    /// It is longer than [`Producer::max_payload_bytes`]: it will never fit.
    TooLarge,
    /// The ring was closed, or this is a forked child of the process that made it.
    Closed,
}

/// Puts entries and names into a ring. Callers on several threads take turns under a lock of their own.
#[derive(Debug)]
pub struct Producer {
    entries: WriteHalf,
    names: NamesWriter,
    notes: Notes,
    nonce: u64,
    max_payload_bytes: usize,
    is_closed: bool,
    home: Arc<Home>,
}

impl Producer {
    pub(crate) fn new(entries: WriteHalf, names: WriteHalf, notes: Notes, nonce: u64, home: Arc<Home>) -> Self {
        // With an entry of at most half the ring, a PAD and the entry behind it always fit into an empty ring.
        let half_ring_bytes = (entries.area_bytes() / 2 - WORD_BYTES) as usize;
        Self {
            entries,
            names: NamesWriter::new(names, nonce),
            notes,
            nonce,
            max_payload_bytes: half_ring_bytes.min(MAX_PAYLOAD_BYTES),
            is_closed: false,
            home,
        }
    }

    /// Copies `parts`, one behind the other, into an entry.
    pub fn push(&mut self, kind: u8, parts: &[&[u8]]) -> Pushed {
        let payload_len = parts.iter().map(|part| part.len()).fold(0, usize::saturating_add);
        self.push_with(kind, payload_len, |payload| {
            let mut rest = payload;
            for part in parts {
                let Some((to, behind)) = rest.split_at_mut_checked(part.len()) else { return };
                to.copy_from_slice(part);
                rest = behind;
            }
        })
    }

    /// Makes an entry of `payload_len` bytes in place: `fill` writes them straight into the ring.
    ///
    /// `fill` must write every byte: what it leaves out holds bytes of older entries. It is not called unless there is room. If it
    /// panics, nothing was pushed.
    #[inline]
    pub fn push_with(&mut self, kind: u8, payload_len: usize, fill: impl FnOnce(&mut [u8])) -> Pushed {
        let fill = |payload: &mut [u8]| {
            fill(payload);
            true
        };
        self.push_if(kind, payload_len, fill).unwrap_or(Pushed::Closed)
    }

    /// As [`Producer::push_with`], but `fill` may find that this is no entry after all, and say `false`: then nothing was pushed, and
    /// the answer is `None`.
    #[inline]
    pub fn push_if(&mut self, kind: u8, payload_len: usize, fill: impl FnOnce(&mut [u8]) -> bool) -> Option<Pushed> {
        if payload_len > self.max_payload_bytes {
            return Some(Pushed::TooLarge);
        }
        if self.is_closed {
            return Some(Pushed::Closed);
        }
        let at = self.entries.tail();
        let entry_bytes = entry_end(0, payload_len);
        let to_lap_end = self.entries.bytes_to_lap_end();
        let pad_bytes = if entry_bytes <= to_lap_end { 0 } else { to_lap_end };
        if !self.has_room(pad_bytes + entry_bytes) {
            return Some(Pushed::Full);
        }
        let start = at + pad_bytes;
        let Some(payload) = self.entries.bytes_mut(start + WORD_BYTES, payload_len) else {
            return Some(Pushed::Closed); // A forked child: the mapping is its parent's.
        };
        runferry_failpoints::hit!("ring.reserve");
        if !fill(payload) {
            return None;
        }
        runferry_failpoints::hit!("ring.copy");
        let word = Word::Entry { kind, payload_len: payload_len as u32 }.encode(self.nonce, start);
        let mut committed = self.entries.store_word(start, word);
        if pad_bytes > 0 {
            // After the entry's word: an adopter comes past the PAD only to a whole entry.
            committed = committed.and(self.entries.store_word(at, Word::Pad.encode(self.nonce, at)));
        }
        if committed.is_none() {
            return Some(Pushed::Closed); // `fill` forked, and this is the child.
        }
        runferry_failpoints::hit!("ring.commit");
        self.entries.publish(start + entry_bytes);
        runferry_failpoints::hit!("ring.publish");
        Some(Pushed::Done)
    }

    #[inline]
    fn has_room(&mut self, bytes: u64) -> bool {
        if bytes <= self.entries.free_bytes_seen() {
            return true;
        }
        self.entries.refresh_head();
        bytes <= self.entries.free_bytes_seen()
    }

    /// Gives a name the next number; `None` when the names' area has no room for it, which stays so.
    ///
    /// Equal names get different numbers: the caller keeps the numbers it was given.
    pub fn intern(&mut self, name: &[u8]) -> Option<u32> {
        if self.is_closed { None } else { self.names.intern(name) }
    }

    /// Bytes that are free now. An entry takes 8 more than its payload, in multiples of 8, and up to its own size more
    /// where a lap ends.
    pub fn free_bytes(&mut self) -> u64 {
        self.entries.refresh_head();
        self.entries.free_bytes_seen()
    }

    /// Size of the entries' area.
    pub fn capacity_bytes(&self) -> u64 {
        self.entries.area_bytes()
    }

    /// The longest payload that this ring takes: 1 MiB, or less than half of a small ring.
    pub fn max_payload_bytes(&self) -> usize {
        self.max_payload_bytes
    }

    /// Takes no more entries or names, and tells the consumer so. What is in the ring stays for it to drain.
    pub fn close(&mut self) {
        self.is_closed = true;
        self.notes.close();
    }

    /// Where the ring lies.
    pub fn placement(&self) -> &Placement {
        &self.home.placement
    }

    /// The places that could not be had, in the order they were tried.
    pub fn failed_places(&self) -> &[FailedPlace] {
        &self.home.failed
    }
}
