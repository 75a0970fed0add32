//! The segment being written: reserving space, and putting a frame at the end wholly or not at all.
//!
//! # Failure
//! A write that fails half way is cut off again. Where even that fails the error says that the tail is in doubt, and
//! nothing may be written behind it.

use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;

use crate::disk::{Disk, DiskFile};
use crate::error::{JournalError, Shortage};
use crate::sync::SegmentSync;

/// Space is reserved in steps of this, so that a full disk shows between frames.
const ALLOCATE_BYTES: u64 = 1 << 20;
/// The segment being written.
pub(crate) struct Active {
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) sync: Arc<SegmentSync>,
    pub(crate) first_seq: u64,
    /// End of the last whole frame.
    pub(crate) offset: u64,
    /// End of the reserved space.
    pub(crate) allocated: u64,
    pub(crate) has_frames: bool,
}

/// Why a frame could not be put at the end of the active segment.
pub(crate) enum WriteFault {
    Full(Shortage),
    /// A smaller file may do.
    FileTooLarge(io::Error),
    Io(&'static str, io::Error),
}

/// Disk, directory and bytes to be left free, where they are to be left.
pub(crate) type Limits<'a> = Option<(&'a dyn Disk, &'a Path, u64)>;

impl Active {
    /// Makes sure that `len` bytes more have a place on the disk, without writing them.
    pub(crate) fn reserve(
        &mut self,
        len: u64,
        segment_bytes: u64,
        can_allocate: &mut bool,
        limits: Limits<'_>,
    ) -> Result<(), (WriteFault, bool)> {
        let end = self.offset + len;
        if end <= self.allocated {
            return Ok(());
        }
        let wanted = end.next_multiple_of(ALLOCATE_BYTES).min(segment_bytes.max(end));
        if let Some((disk, dir, keep_bytes)) = limits
            // A file system that does not tell is taken at its word when it refuses a write.
            && let Ok(free_bytes) = disk.free_bytes(dir)
            && free_bytes < keep_bytes.saturating_add(wanted - self.allocated)
        {
            return Err((WriteFault::Full(Shortage::Free { free_bytes, keep_bytes }), false));
        }
        if *can_allocate {
            match self.file.allocate(self.allocated, wanted - self.allocated) {
                Ok(()) => {}
                Err(error) if JournalError::is_no_room(&error) => {
                    // The frame itself may fit where the step does not: FINISH and GAP try.
                    return match limits {
                        Some(_) => Err((WriteFault::Full(Shortage::Disk(error)), false)),
                        None => Ok(()),
                    };
                }
                // It is a courtesy; the write decides.
                Err(_) => *can_allocate = false,
            }
        }
        self.allocated = wanted;
        Ok(())
    }

    /// Writes `bytes` at the end, wholly or not at all. The flag of an error says that the tail is in doubt.
    pub(crate) fn put(&mut self, bytes: &[u8]) -> Result<(), (WriteFault, bool)> {
        let mut rest = bytes;
        let mut at = self.offset;
        let error = loop {
            if rest.is_empty() {
                self.offset = at;
                return Ok(());
            }
            match self.file.pwrite(rest, at) {
                Ok(0) => break io::Error::from(ErrorKind::WriteZero),
                Ok(count) => {
                    rest = rest.get(count..).unwrap_or_default();
                    at += count as u64;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => break error,
            }
        };
        let is_doubtful = self.file.truncate(self.offset).is_err();
        self.allocated = self.offset;
        let fault = match error.kind() {
            ErrorKind::FileTooLarge => WriteFault::FileTooLarge(error),
            _ if JournalError::is_no_room(&error) => WriteFault::Full(Shortage::Disk(error)),
            _ => WriteFault::Io("write", error),
        };
        Err((fault, is_doubtful))
    }
}
