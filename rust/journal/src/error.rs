//! What can go wrong, by what the caller can do about it.

use std::io;
use std::path::{Path, PathBuf};

use runferry_wire::frame::FrameError;
use thiserror::Error;

/// Why the journal could not do what was asked.
#[derive(Debug, Error)]
pub enum JournalError {
    /// There is no room: apply the policy for a full journal. Nothing was written, the frame may be offered again.
    #[error("journal {} is full: {shortage}", path.display())]
    Full {
        /// Directory of the writer.
        path: PathBuf,
        /// What there is too little of.
        shortage: Shortage,
    },
    /// The disk fails: go on under another root, or without a journal.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried, a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A failed fsync is never tried again on the same file: write what it covered anew, behind `restart_from`.
    #[error("{} is not to be trusted: an earlier fsync of it failed", path.display())]
    Doubtful {
        /// The segment.
        path: PathBuf,
    },
    /// The journal was written by a later program: update this one. The files are left alone.
    #[error("{} has frame format version {found}, this program reads up to version {supported}", path.display())]
    Unsupported {
        /// The segment.
        path: PathBuf,
        /// Version in the file.
        found: u8,
        /// Newest version this program reads.
        supported: u8,
    },
    /// The caller gave something that is not one whole frame.
    #[error("cannot append: {source}")]
    NotAFrame {
        /// What is wrong with the bytes.
        source: FrameError,
    },
    /// The caller gave more or less than the frame.
    #[error("cannot append: expected one frame of {expected} bytes, found {found} bytes")]
    WrongLength {
        /// Bytes of the frame by its header.
        expected: usize,
        /// Bytes given.
        found: usize,
    },
    /// The caller gave a frame out of turn.
    #[error("cannot append: expected frame {expected}, found frame {found}")]
    OutOfOrder {
        /// The journal's next number.
        expected: u64,
        /// The frame's number.
        found: u64,
    },
}

/// What there is too little of.
#[derive(Debug, Error)]
pub enum Shortage {
    /// The journal has reached the size it was allowed.
    #[error("{used_bytes} of at most {cap_bytes} bytes used")]
    Cap {
        /// Bytes of all segments.
        used_bytes: u64,
        /// The limit.
        cap_bytes: u64,
    },
    /// The file system is nearly full, and the rest is not ours.
    #[error("{free_bytes} bytes free, {keep_bytes} have to stay free")]
    Free {
        /// Free bytes.
        free_bytes: u64,
        /// Bytes to be left to others.
        keep_bytes: u64,
    },
    /// The system refused: disk full, quota, file size limit.
    #[error("{0}")]
    Disk(#[source] io::Error),
}

impl JournalError {
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { action, path: path.to_owned(), source }
    }

    /// Whether the system's answer means "no room" (disk full, quota, file size limit).
    pub(crate) fn is_no_room(error: &io::Error) -> bool {
        use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
    }
}
