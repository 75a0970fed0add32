//! Chunk codec of the store: frames to per-metric chunks, merge, statistics, downsampling, scans. Pure.
//!
//! The server keeps a run as chunks (a stretch of one metric) over shared axes (the steps and times of a stretch of
//! rows), and as frames that are not merged into chunks yet. This crate turns one into the other and reads both
//! together; which rows to fetch and when to commit is the business of `python/runferry/server/store`.
//!
//! # Invariants
//! - No I/O, no clock, no threads.
//! - Values keep every bit, and `1` stays different from `1.0`.
//! - Reading frames and chunks together gives the same before a merge as after it.

pub mod axis;
pub mod buckets;
pub mod cells;
pub mod chunk;
pub mod json;
pub mod merge;
pub mod pack;
pub mod pieces;
pub mod scan;
pub mod stats;
pub mod summary;
pub mod sums;
pub mod table;
