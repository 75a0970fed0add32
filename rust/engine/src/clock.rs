//! The clocks of this machine: the one place that reads them. Everything else gets time as an argument.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

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
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64)
}
