//! The clocks of this machine: the one place that reads them. Everything else gets time as an argument.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

/// The clocks the packer and the sender go by; [`Clock::MACHINE`] but in a simulation.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// As [`mono`].
    pub mono: fn() -> Duration,
    /// As [`wall_us`].
    pub wall_us: fn() -> i64,
}

impl Clock {
    /// The clocks of this machine.
    pub const MACHINE: Self = Self { mono, wall_us };
}

/// Time since some moment at the start of the process; never goes back.
pub fn mono() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

/// Microseconds since 1970 UTC.
pub fn wall_us() -> i64 {
    // Each `log()` asks: half of what `SystemTime` costs is arithmetic.
    clock_gettime(ClockId::CLOCK_REALTIME).map_or(0, |now| now.tv_sec() * 1_000_000 + now.tv_nsec() / 1_000)
}
