//! How long to wait before the next attempt. Pure: time and randomness are arguments.
//!
//! Ten thousand trainers lose their server in the same second, so every wait is random over its whole length (full jitter)
//! and grows with each failure. A connection counts as a success only after it has been healthy for a while: a
//! server that flaps would otherwise be asked without a pause for ever. There is no limit on attempts; the journal waits.
//!
//! # Hints
//! What a server asks for is obeyed within reason: not less than 50 ms, so that a hint of 0 does not make a busy loop; not
//! more than 10 min, so that an absurd one does not mean never; stretched by up to half, so that all who got the
//! same hint do not come back at once.

use std::time::Duration;

use crate::error::TransportError;

/// Upper bound of the first wait.
pub const FIRST_WAIT: Duration = Duration::from_millis(250);
/// Upper bound of every wait without a hint.
pub const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// How long a connection has to live before failures are forgotten.
pub const HEALTHY_AFTER: Duration = Duration::from_secs(30);
/// A server's hint counts as at least this.
pub const SHORTEST_HINT: Duration = Duration::from_millis(50);
/// A server's hint counts as at most this.
pub const LONGEST_HINT: Duration = Duration::from_secs(10 * 60);
/// Shortest wait before an unaccepted key, or an untrusted server, is tried again.
pub const FIRST_AUTH_WAIT: Duration = Duration::from_secs(30);
/// Longest wait before an unaccepted key, or an untrusted or incompatible server, is tried again.
pub const LONGEST_AUTH_WAIT: Duration = Duration::from_secs(10 * 60);

/// What to do before the next attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pause {
    /// Wait so long, then try again.
    For(Duration),
    /// Do not try again: only the user can change what is wrong.
    Forever,
}

/// The failures so far, and what wait follows from them.
#[derive(Debug, Clone, Default)]
pub struct Backoff {
    failures: u32,
    /// In a row: keys the server refused, certificates we refused.
    refusals: u32,
    opened_at: Option<Duration>,
}

impl Backoff {
    /// No failure yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A stream was opened. `now` is a monotonic time; only differences matter.
    pub fn opened(&mut self, now: Duration) {
        self.opened_at = Some(now);
        self.refusals = 0; // a stream that opens proves the key
    }

    /// An attempt failed, or an open stream was lost: how long to wait. `random` is uniform in `[0, 1)`.
    pub fn failed(&mut self, error: &TransportError, now: Duration, random: f64) -> Pause {
        self.closed(now);
        match error {
            TransportError::BadAddress { .. } | TransportError::Blocked { .. } => Pause::Forever,
            TransportError::Incompatible { .. } => Pause::For(LONGEST_AUTH_WAIT.mul_f64(1.0 + unit(random) / 2.0)),
            TransportError::PauseAuth { .. } | TransportError::Untrusted { .. } => {
                let ceiling = doubled(FIRST_AUTH_WAIT, self.refusals.saturating_add(1), LONGEST_AUTH_WAIT);
                self.refusals = self.refusals.saturating_add(1);
                Pause::For(FIRST_AUTH_WAIT + ceiling.saturating_sub(FIRST_AUTH_WAIT).mul_f64(unit(random)))
            }
            TransportError::Retry { after: Some(hint), .. } => {
                self.failures = self.failures.saturating_add(1);
                Pause::For(obeyed(*hint, random))
            }
            TransportError::Retry { after: None, .. } | TransportError::NotRunferry { .. } => {
                let ceiling = doubled(FIRST_WAIT, self.failures, LONGEST_WAIT);
                self.failures = self.failures.saturating_add(1);
                Pause::For(ceiling.mul_f64(unit(random)))
            }
        }
    }

    /// The stream was closed in order (`Drain`) before it brought anything forward: how long to wait at least. A server that
    /// drains every stream at once would else be asked as fast as it answers.
    pub fn drained(&mut self, now: Duration, random: f64) -> Duration {
        self.closed(now);
        let ceiling = doubled(FIRST_WAIT, self.failures, LONGEST_WAIT);
        self.failures = self.failures.saturating_add(1);
        ceiling.mul_f64(unit(random))
    }

    /// The stream was closed in order (`Drain`): failures before it are forgotten if it had lived long enough.
    pub fn closed(&mut self, now: Duration) {
        if self.opened_at.take().is_some_and(|opened_at| now.saturating_sub(opened_at) >= HEALTHY_AFTER) {
            self.failures = 0;
        }
    }

    /// Failures since the last healthy connection, for `Beat.retries` and the log.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

/// How long a wait the server asked for is: clamped, and stretched by up to half. `random` is uniform in `[0, 1)`.
pub fn obeyed(hint: Duration, random: f64) -> Duration {
    hint.clamp(SHORTEST_HINT, LONGEST_HINT).mul_f64(1.0 + unit(random) / 2.0)
}

/// `first * 2^times`, at most `longest`.
fn doubled(first: Duration, times: u32, longest: Duration) -> Duration {
    first.saturating_mul(1_u32.checked_shl(times).unwrap_or(u32::MAX)).min(longest)
}

/// `random` as it should be: a caller's NaN or 7 must not become a panic in [`Duration::mul_f64`].
fn unit(random: f64) -> f64 {
    if random.is_nan() { 0.0 } else { random.clamp(0.0, 1.0) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::RetryCause;

    const LATEST: f64 = 1.0; // the end of every jitter interval

    fn lost(after: Option<Duration>) -> TransportError {
        TransportError::Retry { cause: RetryCause::Lost, reason: String::new(), after }
    }

    fn wait(pause: Pause) -> Duration {
        match pause {
            Pause::For(wait) => wait,
            Pause::Forever => panic!("forever"),
        }
    }

    // fault: 50
    #[test]
    fn waits_double_up_to_thirty_seconds() {
        let mut backoff = Backoff::new();

        let waits: Vec<u128> =
            (0..10).map(|_| wait(backoff.failed(&lost(None), Duration::ZERO, LATEST)).as_millis()).collect();

        assert_eq!(waits, [250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000]);
    }

    // fault: 49, 50
    #[test]
    fn jitter_is_full() {
        let mut backoff = Backoff { failures: 20, ..Backoff::default() };

        assert_eq!(backoff.failed(&lost(None), Duration::ZERO, 0.0), Pause::For(Duration::ZERO));
        assert_eq!(backoff.failed(&lost(None), Duration::ZERO, 0.5), Pause::For(Duration::from_secs(15)));
    }

    // fault: 50
    #[test]
    fn a_flapping_server_does_not_reset_the_backoff() {
        let mut backoff = Backoff::new();
        let mut now = Duration::ZERO;
        for _ in 0..10 {
            backoff.opened(now);
            now += Duration::from_millis(100);
            backoff.failed(&lost(None), now, LATEST);
        }

        assert_eq!(backoff.failures(), 10);
        assert_eq!(wait(backoff.failed(&lost(None), now, LATEST)), LONGEST_WAIT);
    }

    // fault: 34
    #[test]
    fn a_server_that_drains_every_stream_at_once_is_asked_less_and_less() {
        let mut backoff = Backoff::new();
        let mut waits = Vec::new();
        for second in 0..10 {
            backoff.opened(Duration::from_secs(second));
            waits.push(backoff.drained(Duration::from_secs(second), LATEST).as_millis());
        }

        assert_eq!(waits, [250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000]);
        backoff.opened(Duration::from_secs(100));
        assert_eq!(backoff.drained(Duration::from_secs(130), LATEST), FIRST_WAIT);
    }

    // fault: 50
    #[test]
    fn thirty_seconds_of_health_reset_the_backoff() {
        let mut backoff = Backoff { failures: 20, ..Backoff::default() };
        backoff.opened(Duration::from_secs(100));

        assert_eq!(wait(backoff.failed(&lost(None), Duration::from_secs(130), LATEST)), FIRST_WAIT);
    }

    // fault: 50
    #[test]
    fn time_without_a_connection_is_not_health() {
        let mut backoff = Backoff { failures: 3, ..Backoff::default() };

        backoff.failed(&lost(None), Duration::from_secs(1_000), LATEST);

        assert_eq!(backoff.failures(), 4);
    }

    // fault: 49
    #[test]
    fn absurd_hints_are_clamped_and_all_are_stretched() {
        for (hint_ms, shortest_ms, longest_ms) in [
            (0, 50, 75),
            (1, 50, 75),
            (1_000, 1_000, 1_500),
            (3_600_000, 600_000, 900_000),
            (u64::MAX, 600_000, 900_000),
        ] {
            let hint = Duration::from_millis(hint_ms);

            assert_eq!(obeyed(hint, 0.0), Duration::from_millis(shortest_ms));
            assert_eq!(obeyed(hint, LATEST), Duration::from_millis(longest_ms));
        }
    }

    #[test]
    fn a_refused_key_waits_between_thirty_seconds_and_ten_minutes() {
        let error = TransportError::PauseAuth { reason: String::new() };
        let mut backoff = Backoff::new();

        let longest: Vec<u64> =
            (0..6).map(|_| wait(backoff.failed(&error, Duration::ZERO, LATEST)).as_secs()).collect();

        assert_eq!(longest, [60, 120, 240, 480, 600, 600]);
        assert_eq!(wait(backoff.failed(&error, Duration::ZERO, 0.0)), FIRST_AUTH_WAIT);
    }

    #[test]
    fn a_key_that_worked_starts_again_at_the_shortest_wait() {
        let error = TransportError::PauseAuth { reason: String::new() };
        let mut backoff = Backoff::new();
        for _ in 0..6 {
            backoff.failed(&error, Duration::ZERO, LATEST);
        }
        backoff.opened(Duration::ZERO);

        assert_eq!(wait(backoff.failed(&error, Duration::ZERO, LATEST)), Duration::from_secs(60));
    }

    // fault: 53, 54
    #[test]
    fn what_only_the_user_can_change_is_not_tried_again() {
        let mut backoff = Backoff::new();
        for error in [
            TransportError::BadAddress { address: String::new(), reason: String::new() },
            TransportError::Blocked { reason: String::new() },
        ] {
            assert!(!error.is_retryable());
            assert_eq!(backoff.failed(&error, Duration::ZERO, LATEST), Pause::Forever);
        }
    }

    proptest! {
        #[test]
        fn no_wait_is_longer_than_its_bound(
            failures in any::<u32>(), random in any::<f64>(), hint_ms in proptest::option::of(any::<u64>()),
        ) {
            let mut backoff = Backoff { failures, refusals: failures, opened_at: None };

            let waited = wait(backoff.failed(&lost(hint_ms.map(Duration::from_millis)), Duration::ZERO, random));

            match hint_ms {
                Some(_) => prop_assert!((SHORTEST_HINT..=LONGEST_HINT.mul_f64(1.5)).contains(&waited)),
                None => prop_assert!(waited <= LONGEST_WAIT),
            }
        }
    }
}
