//! Frames on a disk: segments, recovery scan, locks. No network, no threads.
//!
//! The journal is the queue between packing and sending, and what is left of a training run when its process is gone.
//! It knows frames by their headers and has no idea what a payload holds.
//!
//! # Layout
//! One directory a writer, `<root>/<run>/<writer, 16 hex digits>`, with segments (`seg-….rfj`, frames one behind the
//! other, the first one OPEN), `ACK` (a hint), `LOCK` (who is alive) and, seldom, `SUCCESSOR` (who goes on for the writer).
//!
//! # Who does what
//! [`Journal`] writes, [`Reader`] follows, [`scan`](scan::scan) recovers, [`Lock`] decides who may write. All of it goes
//! through [`Disk`], so a test can make any of it fail; the lock alone needs a real file.

pub mod ack;
mod active;
pub mod disk;
mod error;
pub mod lock;
mod reader;
pub mod scan;
mod segment;
pub mod successor;
mod sync;
mod walk;
mod writer;

pub use disk::{Disk, DiskFile, RealDisk};
pub use error::{JournalError, Shortage};
pub use lock::{Lock, LockError, LockInfo};
pub use reader::{Next, Reader};
pub use scan::{Gap, GapReason, Note, Piece, Scan, Segment, WriterDir, scan_bytes, writers};
pub use successor::Successor;
pub use sync::SyncTicket;
pub use walk::DamageKind;
pub use writer::{Doubt, Droppable, Journal, JournalOptions, Room, remove};
