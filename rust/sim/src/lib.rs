//! The client in a simulated world: time, chance, network, disk and server are made up, the code is the one that ships.
//!
//! A world is a number. The seed decides how many machines train, what they log, and what goes wrong when: links are cut, slowed,
//! reset; connections stand still and come back late; processes die between two steps or in the middle of a write; machines lose
//! power, and their disks what was not synced; disks refuse; the server dies before and after its commits, loses its store, gets
//! it back from an old backup, throttles, refuses, drains. Then everything heals, and [`check`](check::check) compares what the callers
//! of `log()` know with what the server has.
//!
//! # Why not threads
//! One thread, tokio's paused clock, and randomness from one seed: a world runs the same way each time, as fast as its events can be
//! computed. What cannot be found this way is in docs/decisions/0006-simulation.md.

#![allow(clippy::indexing_slicing, reason = "a simulation may panic: the seed that makes it do so is printed")]

use std::time::Duration;

use runferry_engine::clock::Clock;

mod adopting;
pub mod broken;
mod call;
pub mod check;
pub mod ledger;
pub mod machine;
pub mod net;
pub mod server;
pub mod trace;
pub mod world;

/// The clocks of a simulated world: tokio's, which stands still while nothing waits.
pub const CLOCK: Clock = Clock { mono: since_start, wall_us: || since_start().as_micros() as i64 };

thread_local! {
    static START: std::cell::Cell<Option<tokio::time::Instant>> = const { std::cell::Cell::new(None) };
}

fn since_start() -> Duration {
    START.get().map_or(Duration::ZERO, |start| start.elapsed())
}

/// Begins the time of a world; to be called within its runtime.
fn begin_time() {
    START.set(Some(tokio::time::Instant::now()));
}
