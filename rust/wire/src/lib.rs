//! Values, records, blocks and frames: the bytes of Runferry.
//!
//! Everything that crosses a boundary (ring to packer, packer to journal, client to server, server to store) is defined
//! here once, so that no two parts can disagree about a byte. `docs/format.md` is the reference.
//!
//! # Invariants
//! - No I/O, no clock, no threads, no randomness.
//! - No function here panics or allocates without bound, whatever bytes it is given.
//! - A released version stays readable for ever (`tests/compat/`).

pub mod block;
pub mod builder;
pub mod doc;
pub mod frame;
pub mod histogram;
pub mod msgpack;
pub mod payload;
pub mod receipt;
pub mod record;
pub mod rows;
pub mod varint;

pub use block::Block;
pub use doc::Doc;
pub use frame::{Codec, Draft, Frame, FrameError, Header, Kind, flags};
pub use rows::{Column, Rows, Values};
