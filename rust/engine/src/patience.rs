//! When a sender that has an end stops trying (`runferry sync`; a living writer never does). Pure: time is an argument.
//!
//! Somebody waits for the command. So a server that says nothing at all is given seconds, one that answers but is busy or goes away
//! now and then is given a minute without progress, and an answer that only a person can change is final at once.

use std::time::Duration;

use runferry_transport::retry::Pause;
use runferry_transport::{RetryCause, TransportError};

/// For a server that answers, but takes nothing.
const BUSY: Duration = Duration::from_secs(60);
/// Longest wait between two attempts to reach a server that says nothing.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// How long is left.
#[derive(Debug)]
pub(crate) struct Patience {
    silence: Duration,
    silent_since: Option<Duration>,
    stuck_since: Option<Duration>,
}

/// A failed attempt.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attempt<'a> {
    pub(crate) error: &'a TransportError,
    /// What the backoff says.
    pub(crate) pause: Pause,
    pub(crate) began_at: Duration,
    pub(crate) now: Duration,
    /// A Runferry server has answered in the course of it.
    pub(crate) has_answered: bool,
    /// Frames have become durable in the course of it.
    pub(crate) has_progressed: bool,
}

impl Patience {
    /// `silence`: for a server that cannot be reached, or does not answer.
    pub(crate) fn new(silence: Duration) -> Self {
        Self { silence, silent_since: None, stuck_since: None }
    }

    /// How long to wait before the next attempt; `None`: this was the last.
    pub(crate) fn after(&mut self, attempt: Attempt<'_>) -> Option<Duration> {
        let TransportError::Retry { cause, after, .. } = attempt.error else { return None };
        let Pause::For(pause) = attempt.pause else { return None };
        if attempt.has_progressed {
            self.stuck_since = None;
        }
        let is_silent = !attempt.has_answered && matches!(cause, RetryCause::Unreachable | RetryCause::TimedOut);
        if !is_silent {
            self.silent_since = None;
        }
        let stuck_since = *self.stuck_since.get_or_insert(attempt.began_at);
        let (limit, since) = if is_silent {
            (self.silence, *self.silent_since.get_or_insert(attempt.began_at))
        } else {
            (BUSY, stuck_since)
        };
        let left = limit.saturating_sub(attempt.now.saturating_sub(since));
        if left.is_zero() {
            return None;
        }
        match after {
            Some(_) => Some(pause).filter(|pause| *pause <= left), // what the server asks for is not cut short
            None => Some(pause.min(left).min(if is_silent { LONGEST_WAIT } else { limit })),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN_MINUTES: Duration = Duration::from_secs(600);

    fn retry(cause: RetryCause, after: Option<Duration>) -> TransportError {
        TransportError::Retry { cause, reason: String::new(), after }
    }

    fn attempt(error: &TransportError, now_s: u64) -> Attempt<'_> {
        let now = Duration::from_secs(now_s);
        let pause = Pause::For(Duration::from_secs(30));
        Attempt { error, pause, began_at: now, now, has_answered: false, has_progressed: false }
    }

    #[test]
    fn a_server_that_cannot_be_reached_is_asked_each_second_until_the_time_is_over() {
        let refused = retry(RetryCause::Unreachable, None);
        let mut patience = Patience::new(Duration::from_secs(5));

        let waits: Vec<_> = (100..106).map(|now_s| patience.after(attempt(&refused, now_s))).collect();

        let second = Some(Duration::from_secs(1));
        assert_eq!(waits, [second, second, second, second, second, None]);
    }

    #[test]
    fn one_attempt_that_took_all_the_time_is_the_last() {
        let silent = retry(RetryCause::TimedOut, None);
        let mut patience = Patience::new(Duration::from_secs(5));

        assert_eq!(patience.after(Attempt { began_at: Duration::from_secs(95), ..attempt(&silent, 100) }), None);
    }

    #[test]
    fn a_server_that_answers_but_is_busy_is_given_a_minute() {
        let busy = retry(RetryCause::Busy, Some(Duration::from_secs(2)));
        let mut patience = Patience::new(Duration::from_secs(5));
        let mut ask = |now_s| {
            let pause = Pause::For(Duration::from_secs(3));
            patience.after(Attempt { pause, has_answered: true, ..attempt(&busy, now_s) })
        };

        assert_eq!(ask(0), Some(Duration::from_secs(3)));
        assert_eq!(ask(57), Some(Duration::from_secs(3)));
        assert_eq!(ask(58), None, "it wants to be left alone for longer than anybody waits");
        assert_eq!(ask(61), None);
    }

    #[test]
    fn silence_behind_the_door_is_a_busy_server() {
        let silent = retry(RetryCause::TimedOut, None);
        let mut patience = Patience::new(Duration::from_secs(5));

        for now_s in [0, 20, 40] {
            assert!(patience.after(Attempt { has_answered: true, ..attempt(&silent, now_s) }).is_some());
        }
    }

    #[test]
    fn progress_starts_the_minute_again() {
        let lost = retry(RetryCause::Lost, None);
        let mut patience = Patience::new(Duration::from_secs(5));

        for now_s in (0..600).step_by(50) {
            let attempt = Attempt { has_answered: true, has_progressed: true, ..attempt(&lost, now_s) };
            assert!(patience.after(attempt).is_some());
        }
        assert!(patience.after(Attempt { has_answered: true, ..attempt(&lost, 599) }).is_some());
        assert!(patience.after(Attempt { has_answered: true, ..attempt(&lost, 620) }).is_none());
    }

    #[test]
    fn what_only_a_person_can_change_is_final_at_once() {
        let reason = String::new;
        for error in [
            TransportError::NotRunferry { address: String::new(), reason: reason() },
            TransportError::PauseAuth { reason: reason() },
            TransportError::Incompatible { reason: reason() },
            TransportError::Blocked { reason: reason() },
        ] {
            let mut patience = Patience::new(TEN_MINUTES);

            assert_eq!(patience.after(Attempt { pause: Pause::For(Duration::ZERO), ..attempt(&error, 0) }), None);
        }
    }
}
