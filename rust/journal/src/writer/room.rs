//! Room in a journal: how much there is, and how it is made.
//!
//! Two ways make room. What the server has durably is trimmed. Where that is not enough and the user prefers the new to the old, a
//! segment nobody has read yet is dropped, and a GAP frame takes its place: in a segment of GAP frames that stands where it stood and
//! takes those of the segments behind it too, so that the numbers never have a hole that nobody accounts for.
//!
//! # Failure
//! The GAP is written before the segment is removed: a crash between the two leaves both, and readers prefer what was begun later.

use std::io::ErrorKind;
use std::sync::Arc;

use super::{Gaps, Journal, MAX_ORDINAL, Sealed, Unsynced};
use crate::disk::DiskFile;
use crate::error::JournalError;
use crate::segment::SegmentName;
use crate::sync::SegmentSync;

/// How much a journal holds, and how much more it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Bytes of all segments.
    pub used_bytes: u64,
    /// Bytes to the cap.
    pub cap_left_bytes: u64,
    /// Bytes that the file system can give; unlimited where it does not tell.
    pub disk_left_bytes: u64,
}

/// A segment that may make room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Droppable {
    /// The first of its frames.
    pub seq: u64,
    /// The number behind the last of them.
    pub until_seq: u64,
    /// Its bytes.
    pub bytes: u64,
}

impl Journal {
    /// How full it is. A system call.
    pub fn room(&self) -> Room {
        let used_bytes = self.bytes();
        let reserved = self.active.as_ref().map_or(0, |active| active.allocated.saturating_sub(active.offset));
        let free_bytes = self.disk.free_bytes(&self.dir).ok();
        Room {
            used_bytes,
            cap_left_bytes: self.options.cap_bytes.saturating_sub(used_bytes),
            disk_left_bytes: free_bytes.map_or(u64::MAX, |free_bytes| {
                free_bytes.saturating_sub(self.options.min_free_bytes).saturating_add(reserved)
            }),
        }
    }

    /// Removes segments whose frames all lie below `durable_next_seq`, the oldest first, as long as `tail_keep_bytes`
    /// remain; never the newest one. The bytes won are the answer.
    ///
    /// # Errors
    /// `Io` if a segment cannot be removed; it stays and is tried again next time.
    pub fn trim(&mut self, durable_next_seq: u64) -> Result<u64, JournalError> {
        self.trim_to(durable_next_seq, self.options.tail_keep_bytes)
    }

    /// As [`trim`](Self::trim), with no tail kept: where the room is needed for what the server does not have.
    ///
    /// # Errors
    /// As of `trim`.
    pub fn trim_fully(&mut self, durable_next_seq: u64) -> Result<u64, JournalError> {
        self.trim_to(durable_next_seq, 0)
    }

    fn trim_to(&mut self, durable_next_seq: u64, tail_keep_bytes: u64) -> Result<u64, JournalError> {
        self.notice_failed_syncs();
        self.doubt = self
            .doubt
            .take()
            .map(|doubt| doubt.start.max(durable_next_seq)..doubt.end)
            .filter(|doubt| !doubt.is_empty());
        let mut left_bytes = self.bytes();
        let mut trimmed_bytes = 0;
        while let Some(oldest) = self.removable() {
            let would_be_left = left_bytes - oldest.bytes;
            if oldest.next_seq > durable_next_seq || would_be_left < tail_keep_bytes {
                break;
            }
            trimmed_bytes += self.remove_oldest()?;
            left_bytes = would_be_left;
        }
        Ok(trimmed_bytes)
    }

    /// The oldest segment none of whose frames lies below `from_seq`; `None`: there is no such segment, or frames are being
    /// written anew. One that shares frames with another is passed over: a GAP in its place would hide the copies.
    pub fn droppable(&mut self, from_seq: u64) -> Option<Droppable> {
        self.notice_failed_syncs();
        if self.doubt.is_some() {
            return None;
        }
        let mut oldest = None;
        let mut followed_from = self.active_first_seq().unwrap_or(self.next_seq).min(self.next_seq);
        for (place, segment) in self.sealed.iter().enumerate().rev() {
            let is_alone = segment.next_seq <= followed_from
                && self.sealed.iter().take(place).all(|before| before.next_seq <= segment.first_seq);
            let holds_frames = segment.first_seq < segment.next_seq && segment.gaps.is_none();
            if is_alone && holds_frames && segment.first_seq >= from_seq {
                oldest = Some(segment);
            }
            followed_from = followed_from.min(segment.first_seq);
        }
        oldest.map(|oldest| Droppable { seq: oldest.first_seq, until_seq: oldest.next_seq, bytes: oldest.bytes })
    }

    /// The first number of the segment being written.
    pub fn active_first_seq(&self) -> Option<u64> {
        self.active.as_ref().map(|active| active.first_seq)
    }

    /// Puts a GAP frame in the place of a segment and removes it, now or, where the disk refuses that, by [`Self::remove_dropped`]: once
    /// the GAP stands, readers see nothing else.
    ///
    /// # Errors
    /// `Full` and `Io`: there is no GAP, the segment stays as it is. `OutOfOrder`: `gap` covers other numbers, or the segment is gone.
    pub fn drop_segment(&mut self, segment: Droppable, gap: &[u8]) -> Result<(), JournalError> {
        let Droppable { seq, until_seq, .. } = segment;
        let header = runferry_wire::Header::decode(gap).map_err(|source| JournalError::NotAFrame { source })?;
        let is_it = |sealed: &Sealed| {
            sealed.gaps.is_none() && (sealed.first_seq, sealed.next_seq) == (header.seq, header.next_seq())
        };
        let Some(mut place) = self.sealed.iter().position(is_it).filter(|_| header.seq == seq) else {
            return Err(JournalError::OutOfOrder { expected: seq, found: header.seq });
        };
        let before = place.checked_sub(1).and_then(|place| self.sealed.get_mut(place));
        let joined = before.filter(|before| {
            before.next_seq == seq && before.gaps.as_ref().is_some_and(|gaps| !gaps.sync.has_failed())
        });
        if let Some(Sealed { path, next_seq, bytes, gaps: Some(gaps), .. }) = joined {
            put(&*gaps.file, gap, *bytes).map_err(|error| JournalError::io("write", path, error))?;
            *bytes += gap.len() as u64;
            *next_seq = until_seq;
            let (sync, name) = (Arc::clone(&gaps.sync), gaps.name);
            self.note_unsynced(sync, until_seq, name);
        } else {
            let gaps = self.begin_gaps(seq, until_seq, gap)?;
            self.sealed.insert(place, gaps);
            place += 1;
        }
        if let Some(dropped) = self.sealed.get_mut(place) {
            dropped.is_dropped = true;
        }
        self.remove(place).ok(); // the error is told by whoever asks for the room once more
        Ok(())
    }

    /// Removes what [`Self::drop_segment`] could not remove; the bytes won.
    ///
    /// # Errors
    /// `Io` if it cannot be removed now either: dropping more would win nothing.
    pub fn remove_dropped(&mut self) -> Result<u64, JournalError> {
        let mut won_bytes = 0;
        while let Some(place) = self.sealed.iter().position(|segment| segment.is_dropped) {
            won_bytes += self.remove(place)?;
        }
        Ok(won_bytes)
    }

    fn note_unsynced(&mut self, sync: Arc<SegmentSync>, next_seq: u64, name: u64) {
        self.unsynced.retain(|segment| !Arc::ptr_eq(&segment.sync, &sync));
        // Not behind the newest: that is where the active segment's numbers are noted.
        self.unsynced.insert(0, Unsynced { sync, next_seq, name });
    }

    /// A segment that holds `gap` alone, named behind the one whose place it takes.
    fn begin_gaps(&mut self, first_seq: u64, next_seq: u64, gap: &[u8]) -> Result<Sealed, JournalError> {
        let mut bytes = (self.open_frame)(first_seq);
        bytes.extend_from_slice(gap);
        let mut name = SegmentName { first_seq, ordinal: 1 };
        let (path, file) = loop {
            let path = name.path(&self.dir);
            match self.disk.create_new(&path) {
                Ok(file) => break (path, file),
                Err(error) if error.kind() == ErrorKind::AlreadyExists && name.ordinal < MAX_ORDINAL => {
                    name.ordinal += 1;
                }
                Err(error) => return Err(JournalError::io("create", &path, error)),
            }
        };
        if let Err(error) = put(&*file, &bytes, 0) {
            // An empty or torn segment does no harm, so a failure to remove it is none either.
            self.disk.unlink(&path).ok();
            return Err(JournalError::io("write", &path, error));
        }
        self.names += 1;
        let name = self.names;
        let sync = Arc::new(SegmentSync::new(path.clone(), Some(Arc::clone(&file)), first_seq));
        self.note_unsynced(Arc::clone(&sync), next_seq, name);
        let bytes = bytes.len() as u64;
        Ok(Sealed { path, first_seq, next_seq, bytes, gaps: Some(Gaps { file, sync, name }), is_dropped: false })
    }

    /// The oldest segment, unless the next process would give its numbers to other frames: because it is the only one, or
    /// because its frames are still being written anew.
    fn removable(&self) -> Option<&Sealed> {
        let is_followed = self.active.is_some() || self.sealed.len() > 1;
        self.sealed.front().filter(|oldest| is_followed && oldest.next_seq <= self.next_seq)
    }

    fn remove_oldest(&mut self) -> Result<u64, JournalError> {
        if self.removable().is_some() { self.remove(0) } else { Ok(0) }
    }

    /// Removes a sealed segment; its bytes.
    fn remove(&mut self, place: usize) -> Result<u64, JournalError> {
        let Some(segment) = self.sealed.get(place) else { return Ok(0) };
        match self.disk.unlink(&segment.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(JournalError::io("remove", &segment.path, error));
            }
            Ok(()) | Err(_) => {}
        }
        let Some(segment) = self.sealed.remove(place) else { return Ok(0) };
        self.unsynced.retain(|unsynced| unsynced.sync.path() != segment.path);
        Ok(segment.bytes)
    }
}

fn put(file: &dyn DiskFile, bytes: &[u8], offset: u64) -> std::io::Result<()> {
    let mut written = 0;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        match file.pwrite(rest, offset + written as u64) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => written += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
