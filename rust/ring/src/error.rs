//! What can fail, by what the caller can do: create a ring elsewhere, or leave an orphan alone.

use std::io;
use std::path::PathBuf;

use crate::header::HeaderError;

/// No ring can be had at all, not even on the heap.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The file name would leave its folder: a mistake in the program.
    #[error("{name:?} is not a file name")]
    InvalidName {
        /// What was asked for.
        name: String,
    },
    /// The machine has no memory left for it.
    #[error("no memory for a ring of {ring_bytes} bytes")]
    NoMemory {
        /// Size of the whole ring.
        ring_bytes: u64,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// An orphan cannot be read, changed or removed.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// The operating system refused. `NotFound` means another adopter was faster.
    #[error("{action} ring {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The ring's file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Not a plain file of this user: /dev/shm is open to everyone, and nobody's bytes but our own are adopted.
    #[error("ring {path} is not ours: {what}")]
    Foreign {
        /// The ring's file.
        path: PathBuf,
        /// Expected and found.
        what: String,
    },
    /// The header says that this is no ring, or none that can be read here.
    #[error("ring {path}")]
    Header {
        /// The ring's file.
        path: PathBuf,
        /// What is wrong with it, and so whether it may be removed.
        source: HeaderError,
    },
}
