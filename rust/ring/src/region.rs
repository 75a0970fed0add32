//! Who may touch which bytes of a mapping: the one place where shared memory is read and written.
//!
//! An *area* is a ring of bytes with a tail (all before it is published) and a head (all before it is free again). Its
//! [`WriteHalf`] may write `[tail, head + size)`, its [`ReadHalf`] may read `[head, tail)`, and the words move only by
//! [`WriteHalf::publish`] (Release, read with Acquire) and [`ReadHalf::release`] (likewise). The two ranges never meet, so
//! all methods here are safe to call: each checks its range against the half's own copy of the words. A copy is taken over
//! from shared memory only if it is one that the protocol allows, so stray writes to the header cannot lead out of an area.
//!
//! The names' area has no head: what is published stays, so any number of [`View`]s may read it.
//!
//! Under loom the head and tail words are loom's, and each 8 bytes of an area have a shadow cell, which loom fails the
//! test for when two threads reach it without an order between them.

#![expect(unsafe_code, reason = "turns addresses of a mapping into references; each block names the protocol's rule")]

use std::cell::Cell;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::Arc;

#[cfg(loom)]
use loom::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU64, Ordering};

use crate::header::{CLOSED_AT, FIXED_BYTES, HEAD_AT, HEADER_BYTES, Header, INTENT_AT, NAMES_TAIL_AT, TAIL_AT};
use crate::map::Map;
use crate::word::WORD_BYTES;

/// The mapping and where things lie in it. Built by [`split`] only, which gives out each half once.
#[derive(Debug)]
struct Region {
    map: Map,
    #[cfg(loom)]
    model: model::Model,
}

/// A ring of bytes in a region: `bytes` is a power of two and `start + bytes` is within the mapping.
#[derive(Clone, Copy, Debug)]
struct Area {
    start: usize,
    bytes: u64,
    tail_at: usize,
    head_at: Option<usize>,
}

/// What a mapping is taken apart into.
pub(crate) struct Halves {
    pub(crate) entries: (WriteHalf, ReadHalf),
    pub(crate) names: (WriteHalf, View),
    pub(crate) notes: (Notes, Notes),
}

/// Writes the header into a fresh mapping of zeros and hands out its halves; `None` if the mapping is too small for it.
pub(crate) fn split(map: Map, header: &Header) -> Option<Halves> {
    if (map.bytes() as u64) < header.file_bytes() {
        return None;
    }
    let fixed = header.encode();
    // SAFETY: the mapping is larger than `fixed`, and nobody else has it yet: it was moved in here.
    unsafe { ptr::copy_nonoverlapping(fixed.as_ptr(), map.base()?.as_ptr(), FIXED_BYTES) };

    let names = Area { start: header.names_at(), bytes: header.names_bytes, tail_at: NAMES_TAIL_AT, head_at: None };
    let entries =
        Area { start: header.entries_at(), bytes: header.entry_bytes, tail_at: TAIL_AT, head_at: Some(HEAD_AT) };
    #[cfg(loom)]
    let model = model::Model::new(header.file_bytes());
    let region = Arc::new(Region {
        map,
        #[cfg(loom)]
        model,
    });
    let write = |area| WriteHalf { region: Arc::clone(&region), area, tail: 0, head_seen: 0 };
    let view = |area| View { region: Arc::clone(&region), area, floor: 0, tail_seen: Cell::new(0) };
    let notes = || Notes { region: Arc::clone(&region) };
    Some(Halves {
        entries: (write(entries), ReadHalf { view: view(entries) }),
        names: (write(names), view(names)),
        notes: (notes(), notes()),
    })
}

impl Region {
    /// The word at `at` of the header page; `None` in a forked child.
    #[inline]
    fn control(&self, at: usize) -> Option<&AtomicU64> {
        debug_assert!(at + 8 <= HEADER_BYTES && at.is_multiple_of(8), "a control word lies in the header page");
        #[cfg(loom)]
        return self.map.base().map(|_| self.model.control(at));
        #[cfg(not(loom))]
        // SAFETY: the header page is mapped and page-aligned, `at` is one of this module's aligned offsets in it, and these
        // words are only ever accessed as atomics.
        self.map.base().map(|base| unsafe { base.add(at).cast::<AtomicU64>().as_ref() })
    }

    /// The address of absolute offset `at`, if `len` bytes from there lie in one piece; `None` in a forked child.
    #[inline]
    fn address(&self, area: Area, at: u64, len: usize) -> Option<NonNull<u8>> {
        let position = (at & (area.bytes - 1)) as usize;
        if len > area.bytes as usize - position {
            return None;
        }
        // SAFETY: `position + len` is within the area, which is within the mapping (checked in `split`).
        self.map.base().map(|base| unsafe { base.add(area.start + position) })
    }
}

/// The only writer of an area.
#[derive(Debug)]
pub(crate) struct WriteHalf {
    region: Arc<Region>,
    area: Area,
    tail: u64,
    /// A head that was read with Acquire. `head_seen <= tail <= head_seen + area.bytes`, always.
    head_seen: u64,
}

impl WriteHalf {
    pub(crate) fn area_bytes(&self) -> u64 {
        self.area.bytes
    }

    #[inline]
    pub(crate) fn tail(&self) -> u64 {
        self.tail
    }

    /// Bytes from the tail to the end of its lap; the area's size at the start of one.
    #[inline]
    pub(crate) fn bytes_to_lap_end(&self) -> u64 {
        self.area.bytes - (self.tail & (self.area.bytes - 1))
    }

    /// Free bytes by the head last seen: never more than there are.
    #[inline]
    pub(crate) fn free_bytes_seen(&self) -> u64 {
        self.area.bytes - (self.tail - self.head_seen)
    }

    /// Looks how far the reader has released.
    pub(crate) fn refresh_head(&mut self) {
        let Some(word) = self.area.head_at.and_then(|at| self.region.control(at)) else { return };
        let head = word.load(Ordering::Acquire);
        if (self.head_seen..=self.tail).contains(&head) {
            self.head_seen = head;
        }
    }

    #[inline]
    fn owns(&self, at: u64, len: usize) -> bool {
        at >= self.tail && at + len as u64 <= self.head_seen + self.area.bytes
    }

    /// `len` unpublished bytes at `at`; `None` if they are not this half's to write, or would wrap.
    #[inline]
    pub(crate) fn bytes_mut(&mut self, at: u64, len: usize) -> Option<&mut [u8]> {
        if !self.owns(at, len) {
            return None;
        }
        let address = self.region.address(self.area, at, len)?;
        #[cfg(loom)]
        self.region.model.writes(self.area, at, len);
        // SAFETY: the bytes are mapped, initialised (a fresh mapping is zeros) and in one piece. They are in
        // `[tail, head_seen + size)`: the reader gives out nothing behind the tail, and what it gave out before `head_seen` it
        // has released, which the Acquire load of the head ordered before this. The only writer is borrowed mutably.
        Some(unsafe { slice::from_raw_parts_mut(address.as_ptr(), len) })
    }

    /// Stores an aligned word behind everything written so far; `None` as for [`Self::bytes_mut`].
    #[inline]
    pub(crate) fn store_word(&mut self, at: u64, word: u64) -> Option<()> {
        if !self.owns(at, WORD_BYTES as usize) || !at.is_multiple_of(WORD_BYTES) {
            return None;
        }
        let address = self.region.address(self.area, at, WORD_BYTES as usize)?;
        #[cfg(loom)]
        self.region.model.writes(self.area, at, WORD_BYTES as usize);
        // SAFETY: aligned (areas start at multiples of 64 bytes), and ours to write as in `bytes_mut`. Release keeps the
        // payload's stores before this one, which is what an adopter after a kill relies on.
        unsafe { std::sync::atomic::AtomicU64::from_ptr(address.as_ptr().cast()) }.store(word, Ordering::Release);
        Some(())
    }

    /// Makes everything before `tail` readable. Ignored if it is not within what this half may write.
    #[inline]
    pub(crate) fn publish(&mut self, tail: u64) {
        if tail < self.tail || tail > self.head_seen + self.area.bytes {
            return;
        }
        if let Some(word) = self.region.control(self.area.tail_at) {
            word.store(tail, Ordering::Release);
            self.tail = tail;
        }
    }
}

/// Reads the published bytes of an area from `floor` on.
#[derive(Debug)]
pub(crate) struct View {
    region: Arc<Region>,
    area: Area,
    /// The head, for the half that moves it; 0 for names.
    floor: u64,
    /// A tail that was read with Acquire. `floor <= tail_seen <= floor + area.bytes`, always.
    tail_seen: Cell<u64>,
}

impl View {
    pub(crate) fn area_bytes(&self) -> u64 {
        self.area.bytes
    }

    /// Another view of an area without a head, whose bytes are never written twice.
    pub(crate) fn another(&self) -> Option<Self> {
        let view = || Self { region: Arc::clone(&self.region), tail_seen: self.tail_seen.clone(), ..*self };
        self.area.head_at.is_none().then(view)
    }

    #[inline]
    pub(crate) fn tail_seen(&self) -> u64 {
        self.tail_seen.get()
    }

    /// Looks how far the writer has published, and returns it.
    #[inline]
    pub(crate) fn refresh_tail(&self) -> u64 {
        if let Some(word) = self.region.control(self.area.tail_at) {
            let tail = word.load(Ordering::Acquire);
            if (self.tail_seen.get()..=self.floor + self.area.bytes).contains(&tail) {
                self.tail_seen.set(tail);
            }
        }
        self.tail_seen.get()
    }

    #[inline]
    fn owns(&self, at: u64, len: usize) -> bool {
        at >= self.floor && at.checked_add(len as u64).is_some_and(|end| end <= self.tail_seen.get())
    }

    /// `len` published bytes at `at`; `None` if they are not all published, were released, or would wrap.
    #[inline]
    pub(crate) fn bytes(&self, at: u64, len: usize) -> Option<&[u8]> {
        if !self.owns(at, len) {
            return None;
        }
        let address = self.region.address(self.area, at, len)?;
        #[cfg(loom)]
        self.region.model.reads(self.area, at, len);
        // SAFETY: the bytes are mapped, initialised and in one piece. They are in `[floor, tail_seen)`: the Acquire load of the
        // tail ordered their writing before this, and the writer leaves them alone until the head passes them, which takes
        // `ReadHalf::release` and so a mutable borrow that ends this one.
        Some(unsafe { slice::from_raw_parts(address.as_ptr(), len) })
    }

    /// The published word at `at`; `None` as for [`Self::bytes`].
    #[inline]
    pub(crate) fn word(&self, at: u64) -> Option<u64> {
        let bytes = self.bytes(at, WORD_BYTES as usize)?;
        bytes.first_chunk().map(|word| u64::from_le_bytes(*word))
    }
}

/// The only reader of an area that is used again: a [`View`] that may give bytes back.
#[derive(Debug)]
pub(crate) struct ReadHalf {
    view: View,
}

impl ReadHalf {
    #[inline]
    pub(crate) fn view(&self) -> &View {
        &self.view
    }

    pub(crate) fn head(&self) -> u64 {
        self.view.floor
    }

    /// Gives everything before `head` back to the writer. Ignored if it was not published, or given back before.
    pub(crate) fn release(&mut self, head: u64) {
        if !(self.view.floor..=self.view.tail_seen.get()).contains(&head) {
            return;
        }
        if let Some(word) = self.view.area.head_at.and_then(|at| self.view.region.control(at)) {
            self.view.floor = head;
            word.store(head, Ordering::Release);
        }
    }
}

/// The header's words that guard no bytes.
#[derive(Debug)]
pub(crate) struct Notes {
    region: Arc<Region>,
}

impl Notes {
    pub(crate) fn close(&self) {
        if let Some(word) = self.region.control(CLOSED_AT) {
            word.store(1, Ordering::Release);
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.region.control(CLOSED_AT).is_some_and(|word| word.load(Ordering::Acquire) != 0)
    }

    /// Writes an intent slot, its check last: whatever is written after this call finds the slot whole.
    pub(crate) fn store_intent(&self, slot_is_odd: bool, words: [u64; 4]) {
        let [even, odd] = INTENT_AT;
        for (index, value) in words.into_iter().enumerate() {
            if let Some(word) = self.region.control(if slot_is_odd { odd } else { even } + index * 8) {
                word.store(value, Ordering::Release);
            }
        }
    }
}

#[cfg(loom)]
mod model {
    //! What loom watches instead of the mapping: the control words, and a cell for each 8 bytes of the areas.

    use loom::cell::UnsafeCell;
    use loom::sync::atomic::AtomicU64;

    use super::{Area, CLOSED_AT, HEAD_AT, HEADER_BYTES, INTENT_AT, NAMES_TAIL_AT, TAIL_AT};

    #[derive(Debug)]
    pub(super) struct Model {
        controls: Vec<(usize, AtomicU64)>,
        cells: Vec<UnsafeCell<()>>,
    }

    // SAFETY: threads do share the cells; that they do so in order is what loom checks at each access.
    unsafe impl Sync for Model {}

    impl Model {
        pub(super) fn new(file_bytes: u64) -> Self {
            let intents = INTENT_AT.into_iter().flat_map(|at| (at..at + 32).step_by(8));
            let controls = [TAIL_AT, HEAD_AT, NAMES_TAIL_AT, CLOSED_AT].into_iter().chain(intents);
            // Models use areas of 64 bytes: the cells of the first ones are enough, and loom pays for each.
            let cells = (file_bytes.min(HEADER_BYTES as u64 + 256) - HEADER_BYTES as u64) / 8;
            Self {
                controls: controls.map(|at| (at, AtomicU64::new(0))).collect(),
                cells: (0..cells).map(|_| UnsafeCell::new(())).collect(),
            }
        }

        pub(super) fn control(&self, at: usize) -> &AtomicU64 {
            self.controls.iter().find(|(known, _)| *known == at).map(|(_, word)| word).expect("all of them are listed")
        }

        pub(super) fn writes(&self, area: Area, at: u64, len: usize) {
            self.cells_of(area, at, len).for_each(|cell| cell.with_mut(|_| ()));
        }

        pub(super) fn reads(&self, area: Area, at: u64, len: usize) {
            self.cells_of(area, at, len).for_each(|cell| cell.with(|_| ()));
        }

        fn cells_of(&self, area: Area, at: u64, len: usize) -> impl Iterator<Item = &UnsafeCell<()>> {
            let first = area.start - HEADER_BYTES + (at & (area.bytes - 1)) as usize;
            self.cells.iter().take((first + len).div_ceil(8)).skip(first / 8)
        }
    }
}
