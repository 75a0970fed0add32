//! The crash-surviving hand-off from `log()` to the packer: a ring in shared memory.
//!
//! `log()` must return in tens of nanoseconds and what it took must survive `kill -9` of the process a moment later. So
//! the ring is a file on /dev/shm, mapped `MAP_SHARED`: a store into it belongs to the kernel's page cache, not to the
//! process. One producer (callers take turns under a lock of their own), one consumer (`rf-pack`). When the process dies,
//! another one opens the file as an [`Orphan`] and takes over what the packer had not finished.
//!
//! The ring does not know what an entry means: an entry is a kind and some bytes, a name is some bytes with a number.
//!
//! # Layout
//! Little-endian; the header page is drawn in [`header`], the commit word in [`word`], a name in [`names`].
//! ```text
//! 0 header page 4096 | names, append-only | entries, a ring: commit word 8, payload, zeros to a multiple of 8
//! ```
//! Offsets in the API are absolute: they only grow, and an entry lies at `offset mod size`. An entry never wraps; a PAD
//! word fills a lap's end that is too short for it.
//!
//! # Order
//! `push_with` writes the payload, then the commit word, then the tail, both with Release: a killed process leaves each
//! entry whole or unseen. The consumer reads the tail with Acquire. `head` moves only in [`Consumer::release`], and only
//! a head read with Acquire lets the producer reuse space. `tests/loom.rs` checks these orderings, `tests/kill.rs` the promise.
//!
//! # Failure
//! - /dev/shm missing or full: a file beside the journal, then the heap ([`Placement`]). All space is allocated and touched
//!   at creation, so a full file system is an error there and no SIGBUS later.
//! - Somebody truncates the file of a live ring: the next touch of it is a SIGBUS, and no handler is installed, for the
//!   process is not ours. [`Consumer::is_file_whole`] detects it (and an unlinked file, which is no longer kill-safe).
//! - Stray writes into the mapping: lengths and offsets read from it are checked, so they cost records, counted in
//!   [`Consumer::damaged_bytes`], and never an access outside of the ring.
//! - A forked child does not have the mapping (`MADV_DONTFORK`): there every call answers as if the ring were closed.
//!
//! # Invariants
//! - [`Orphan`] never panics and never maps: it works on a copy, whatever the bytes (`tests/orphan.rs`).
//! - `unsafe` lives in `map.rs` (what the kernel maps) and `region.rs` (who may touch which bytes), nowhere else.

#[cfg(target_endian = "big")]
compile_error!("the ring's words are little-endian and are read in place");

mod advice;
mod consumer;
mod create;
mod error;
pub mod header;
mod map;
pub mod names;
mod orphan;
mod place;
mod producer;
mod region;
pub mod word;

pub use consumer::{Consumer, Entry};
pub use create::{Options, create};
pub use error::{CreateError, RingError};
pub use header::{HeaderError, Identity, Intent};
pub use names::Names;
pub use orphan::{Entries, Orphan, OrphanEntry};
pub use place::{FailedPlace, Placement};
pub use producer::{Producer, Pushed};

/// The longest payload of one entry; a ring smaller than twice this takes less ([`Producer::max_payload_bytes`]).
pub const MAX_PAYLOAD_BYTES: usize = 1 << 20;
/// The usual size of the entries' area.
pub const DEFAULT_ENTRY_BYTES: usize = 4 << 20;
/// The usual size of the names' area.
pub const DEFAULT_NAMES_BYTES: usize = 1 << 20;
