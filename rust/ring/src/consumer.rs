//! The consumer: what `rf-pack` drains the ring with.
//!
//! Two cursors: reading runs ahead of the head, and the head moves only when the caller says that the records are in the
//! journal. Between the two a record is in both places or in the ring alone, never in neither; the intent tells an adopter
//! which, so that it is stored once.
//!
//! # Order of the caller
//! `next` … `next`, [`Consumer::set_intent`], write the frame, [`Consumer::release`].

use std::io;
use std::sync::Arc;

use crate::header::{Intent, encode_intent};
use crate::names::Names;
use crate::place::{FailedPlace, Home, Placement};
use crate::region::{Notes, ReadHalf, View};
use crate::word::{WORD_BYTES, Word, entry_end};

/// One entry, read in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// As it was pushed.
    pub kind: u8,
    /// As it was pushed.
    pub payload: &'a [u8],
    /// Absolute offset behind it: what [`Consumer::release`] and [`Consumer::set_intent`] take.
    pub end: u64,
}

/// Takes entries out of a ring.
#[derive(Debug)]
pub struct Consumer {
    entries: ReadHalf,
    cursor: u64,
    names: Names,
    notes: Notes,
    intent_generation: u64,
    damaged_bytes: u64,
    nonce: u64,
    home: Arc<Home>,
}

impl Consumer {
    pub(crate) fn new(entries: ReadHalf, names: View, notes: Notes, nonce: u64, home: Arc<Home>) -> Self {
        let names = Names::new(names, nonce);
        Self { entries, cursor: 0, names, notes, intent_generation: 0, damaged_bytes: 0, nonce, home }
    }

    /// The next entry, in the order of pushing; `None` if there is none yet. It keeps its place until it is released.
    #[expect(clippy::should_implement_trait, reason = "an iterator's items may not borrow from it, and end for good")]
    #[inline]
    pub fn next(&mut self) -> Option<Entry<'_>> {
        let (kind, start, payload_len) = self.advance()?;
        let payload = self.entries.view().bytes(start + WORD_BYTES, payload_len)?;
        Some(Entry { kind, payload, end: self.cursor })
    }

    /// Moves the cursor behind the next entry and says its kind, start and payload length.
    fn advance(&mut self) -> Option<(u8, u64, usize)> {
        let view = self.entries.view();
        let tail = if self.cursor < view.tail_seen() { view.tail_seen() } else { view.refresh_tail() };
        while self.cursor < tail {
            let at = self.cursor;
            let lap_end = (at | (view.area_bytes() - 1)) + 1;
            match Word::decode(view.word(at)?, self.nonce, at) {
                Some(Word::Pad) if lap_end < tail => self.cursor = lap_end,
                Some(Word::Entry { kind, payload_len }) if entry_end(at, payload_len as usize) <= tail.min(lap_end) => {
                    self.cursor = entry_end(at, payload_len as usize);
                    return Some((kind, at, payload_len as usize));
                }
                // A stray write destroyed the word, and with it the way to the entries behind it.
                Some(Word::Pad | Word::Entry { .. }) | None => {
                    self.damaged_bytes += tail - at;
                    self.cursor = tail;
                }
            }
        }
        None
    }

    /// Frees the entries up to `end`, which is an entry's `end` or [`Self::cursor`]: their place may be used again. To be called
    /// only when their records are in the journal. An `end` that was not read yet, or was released before, is ignored.
    pub fn release(&mut self, end: u64) {
        if end <= self.cursor {
            runferry_failpoints::hit!("ring.release");
            self.entries.release(end);
        }
    }

    /// Notes that frame `seq` holds the entries up to `end`. To be called before the frame is written anywhere: after a
    /// kill the adopter finds this intent or, if the kill came in the middle of this call, the one before.
    pub fn set_intent(&mut self, seq: u64, end: u64) {
        self.intent_generation += 1;
        let words = encode_intent(self.intent_generation, Intent { seq, end }, self.nonce);
        self.notes.store_intent(!self.intent_generation.is_multiple_of(2), words);
    }

    /// The name numbered `id`; `None` if there is none.
    pub fn intern_lookup(&self, id: u32) -> Option<&[u8]> {
        self.names.lookup(id)
    }

    /// A reader of names of its own: it can be used while an [`Entry`] is borrowed.
    pub fn names(&self) -> Names {
        self.names.another()
    }

    /// Bytes pushed and not yet read.
    pub fn unread_bytes(&self) -> u64 {
        self.entries.view().refresh_tail() - self.cursor
    }

    /// Bytes read and not yet released.
    pub fn unreleased_bytes(&self) -> u64 {
        self.cursor - self.entries.head()
    }

    /// Absolute offset up to which entries were read.
    pub fn cursor(&self) -> u64 {
        self.cursor
    }

    /// Size of the entries' area.
    pub fn capacity_bytes(&self) -> u64 {
        self.entries.view().area_bytes()
    }

    /// Bytes of entries that could not be read because something outside of the ring wrote into it. 0 in a sane process.
    pub fn damaged_bytes(&self) -> u64 {
        self.damaged_bytes
    }

    /// Whether the producer takes no more. Entries pushed before may still be unread.
    pub fn is_closed(&self) -> bool {
        self.notes.is_closed()
    }

    /// Whether the ring's file still has its name and size. If not, somebody unlinked it (what is pushed from then on dies with
    /// the process) or truncated it (the next touch may be a SIGBUS). A system call; true on the heap.
    pub fn is_file_whole(&self) -> bool {
        self.home.is_file_whole()
    }

    /// Where the ring lies.
    pub fn placement(&self) -> &Placement {
        &self.home.placement
    }

    /// The places that could not be had, in the order they were tried.
    pub fn failed_places(&self) -> &[FailedPlace] {
        &self.home.failed
    }

    /// Removes the ring's file: everything in it is in the journal. Dropping a consumer without this leaves the file to be
    /// adopted.
    ///
    /// # Errors
    /// The kernel's answer. A file that is gone already is no error.
    pub fn unlink(self) -> io::Result<()> {
        self.home.unlink()
    }
}
