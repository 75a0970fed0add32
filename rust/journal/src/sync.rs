//! Making a journal durable from another thread.
//!
//! An fsync may take 30 s on a sick disk, and neither packing nor sending may wait for it. So the journal hands out a
//! [`SyncTicket`]: what has to be synced for everything appended so far to survive a power cut. The owner goes on
//! appending while another thread redeems the ticket.
//!
//! # Failure
//! After a failed fsync the kernel counts the lost pages as clean, so that a second one would succeed and mean
//! nothing. The segment is marked, is never synced again by any ticket, and the journal leaves it at the next append.
//! Only the process that saw the failure knows of it: should it die before it has written the frames anew, its heir will
//! sync the segment and believe it.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::disk::{Disk, DiskFile};
use crate::error::JournalError;

/// How far one segment is durable; shared by the journal and its tickets.
#[derive(Debug)]
pub(crate) struct SegmentSync {
    path: PathBuf,
    /// `None`: a segment found at the start, opened only to be synced.
    file: Option<Arc<dyn DiskFile>>,
    durable_next_seq: AtomicU64,
    has_failed: AtomicBool,
}

impl SegmentSync {
    pub(crate) fn new(path: PathBuf, file: Option<Arc<dyn DiskFile>>, first_seq: u64) -> Self {
        Self { path, file, durable_next_seq: AtomicU64::new(first_seq), has_failed: AtomicBool::new(false) }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn durable_next_seq(&self) -> u64 {
        self.durable_next_seq.load(Ordering::Acquire)
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Acquire)
    }

    pub(crate) fn mark_failed(&self) {
        self.has_failed.store(true, Ordering::Release);
    }

    /// The file is gone: nothing in it is durable, whatever was synced.
    pub(crate) fn mark_lost(&self, first_seq: u64) {
        self.durable_next_seq.store(first_seq, Ordering::Release);
        self.mark_failed();
    }

    fn sync(&self, disk: &dyn Disk) -> Result<(), JournalError> {
        if self.has_failed() {
            return Err(JournalError::Doubtful { path: self.path.clone() });
        }
        let result = match &self.file {
            Some(file) => file.sync_data(),
            None => match disk.open_read(&self.path) {
                // Trimmed meanwhile: the server has it.
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
                Err(error) => return Err(JournalError::io("open", &self.path, error)),
                Ok(file) => file.sync_data(),
            },
        };
        result.map_err(|error| {
            self.mark_failed();
            JournalError::io("fdatasync", &self.path, error)
        })
    }
}

/// What has to be synced for the frames below [`next_seq`](Self::next_seq) to survive a power cut.
#[derive(Debug, Clone)]
pub struct SyncTicket {
    pub(crate) disk: Arc<dyn Disk>,
    /// Segments and the numbers their bytes reached when the ticket was made.
    pub(crate) segments: Vec<(Arc<SegmentSync>, u64)>,
    /// Directories with new names.
    pub(crate) dirs: Vec<PathBuf>,
    pub(crate) durable_names: Arc<AtomicU64>,
    pub(crate) names: u64,
    pub(crate) next_seq: u64,
}

impl SyncTicket {
    /// The number behind the last frame the ticket covers.
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Syncs files, then directories. Blocks as long as the disk does; meant for a thread of its own.
    ///
    /// # Errors
    /// `Io` for the first failure; `Doubtful` if a segment had failed before. Neither is cured by another call:
    /// see [`Journal::doubt`](crate::Journal::doubt).
    pub fn sync(&self) -> Result<(), JournalError> {
        for (segment, _) in &self.segments {
            segment.sync(&*self.disk)?;
        }
        for dir in &self.dirs {
            if let Err(error) = self.disk.sync_dir(dir) {
                // The names may be lost with all that is in the files.
                self.segments.iter().for_each(|(segment, _)| segment.mark_failed());
                return Err(JournalError::io("fsync", dir, error));
            }
        }
        self.durable_names.fetch_max(self.names, Ordering::AcqRel);
        for (segment, next_seq) in &self.segments {
            segment.durable_next_seq.fetch_max(*next_seq, Ordering::AcqRel);
        }
        Ok(())
    }
}
