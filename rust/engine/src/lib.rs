//! Threads, time and order: ring to frames to journal to transport. No Python.
//!
//! One [`Writer`] is one start of one process writing to a run. Three threads serve it: `rf-pack` (ring to journal),
//! `rf-sync` (fdatasync) and `rf-send` (journal to server). Only here do "written" and "acked" meet.

pub mod adopt;
pub mod ask;
pub mod batch;
pub mod clock;
mod credentials;
mod held;
pub mod inspect;
pub mod intake;
pub mod machine;
mod outward;
mod pack;
mod patience;
mod pressure;
pub mod receipt;
mod rejected;
pub mod rowspool;
mod send;
mod shared;
mod source;
#[cfg(feature = "steps")]
pub mod steps;
mod sync_disk;
mod thin;
mod thread;
pub mod upload;
mod writer;

pub use credentials::Access;
pub use pack::Fsync;
pub use pressure::Policy;
pub use shared::LossReason;
pub use writer::{Flushed, Options, Reach, StartError, Status, Writer};
