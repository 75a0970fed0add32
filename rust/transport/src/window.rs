//! How many bytes may be on their way. Pure: it is told what was sent and acked, and answers whether more may go.
//!
//! Three limits hold at once, and HTTP/2 adds a fourth below. *Credit* is the server's: bytes it has room for, cumulative
//! over the stream, so that a lost or doubled message cannot leak any. The *window* is ours: it grows by a step per acked
//! round trip and is halved at each sign of overload (AIMD), so that many clients share a link or a server fairly. And
//! bytes wait here only until they are acked `received`: what the server keeps in memory after that is its own affair.
//!
//! # Overdraw
//! A frame can be larger than what is left of either limit. With nothing in flight one such frame may go, else it would wait
//! for ever. It needs credit left: when the last byte is spent, the server has said stop and is obeyed.
//!
//! # Invariants
//! - Bytes in flight exceed the window only by an overdrawing frame, which was then alone.
//! - Bytes sent exceed the credit only by the part of one frame.

use std::collections::VecDeque;
use std::time::Duration;

/// Window of a new writer.
pub const FIRST_WINDOW_BYTES: u64 = 1 << 20;
/// What an acked round trip adds.
pub const WINDOW_STEP_BYTES: u64 = 64 << 10;
/// The window never shrinks below this.
pub const SMALLEST_WINDOW_BYTES: u64 = 64 << 10;
/// The window never grows beyond this.
pub const LARGEST_WINDOW_BYTES: u64 = 8 << 20;

/// Sending window and credit of one writer.
#[derive(Debug, Clone)]
pub struct Window {
    limit_bytes: u64,
    credit_bytes: u64,
    sent_bytes: u64,
    in_flight_bytes: u64,
    in_flight: VecDeque<InFlight>,
    /// Acks up to here end the round trip that is being watched.
    round_ends_at_seq: u64,
    /// Most bytes in flight during that round trip.
    round_peak_bytes: u64,
}

/// A frame sent and not acked `received`.
#[derive(Debug, Clone, Copy)]
struct InFlight {
    next_seq: u64,
    bytes: u64,
    sent_at: Duration,
}

impl Default for Window {
    fn default() -> Self {
        Self {
            limit_bytes: FIRST_WINDOW_BYTES,
            credit_bytes: 0,
            sent_bytes: 0,
            in_flight_bytes: 0,
            in_flight: VecDeque::new(),
            round_ends_at_seq: 0,
            round_peak_bytes: 0,
        }
    }
}

impl Window {
    /// A new stream: nothing sent on it, nothing in flight. The window stays what it was, it knows the path.
    pub fn opened(&mut self, credit_bytes: u64, next_seq: u64) {
        self.credit_bytes = credit_bytes;
        self.sent_bytes = 0;
        self.in_flight.clear();
        self.in_flight_bytes = 0;
        self.round_ends_at_seq = next_seq;
        self.round_peak_bytes = 0;
    }

    /// Whether a frame of so many bytes may be sent now.
    pub fn has_room(&self, frame_bytes: u64) -> bool {
        let credit_left_bytes = self.credit_bytes.saturating_sub(self.sent_bytes);
        if credit_left_bytes == 0 {
            return false;
        }
        let fits =
            frame_bytes <= credit_left_bytes && self.in_flight_bytes.saturating_add(frame_bytes) <= self.limit_bytes;
        fits || self.in_flight.is_empty()
    }

    /// A frame was sent; `next_seq` is the number after it.
    pub fn sent(&mut self, next_seq: u64, frame_bytes: u64, now: Duration) {
        self.sent_bytes = self.sent_bytes.saturating_add(frame_bytes);
        self.in_flight_bytes = self.in_flight_bytes.saturating_add(frame_bytes);
        self.in_flight.push_back(InFlight { next_seq, bytes: frame_bytes, sent_at: now });
        self.round_peak_bytes = self.round_peak_bytes.max(self.in_flight_bytes);
    }

    /// The server has received every frame below. The window grows once per round trip, and only if at least half of it
    /// was in use: a window that was not tried proves nothing.
    pub fn received(&mut self, received_next_seq: u64) {
        while let Some(frame) = self.in_flight.front().filter(|frame| frame.next_seq <= received_next_seq) {
            self.in_flight_bytes = self.in_flight_bytes.saturating_sub(frame.bytes);
            self.in_flight.pop_front();
        }
        if received_next_seq > self.round_ends_at_seq {
            if self.round_peak_bytes >= self.limit_bytes / 2 {
                self.limit_bytes = (self.limit_bytes + WINDOW_STEP_BYTES).min(LARGEST_WINDOW_BYTES);
            }
            self.round_ends_at_seq =
                self.in_flight.back().map_or(received_next_seq, |frame| frame.next_seq.saturating_sub(1));
            self.round_peak_bytes = self.in_flight_bytes;
        }
    }

    /// The server ignores what is in flight from `next_seq` on. What was sent stays spent.
    pub fn rewound(&mut self, next_seq: u64) {
        while let Some(frame) = self.in_flight.back().filter(|frame| frame.next_seq > next_seq) {
            self.in_flight_bytes = self.in_flight_bytes.saturating_sub(frame.bytes);
            self.in_flight.pop_back();
        }
        self.round_ends_at_seq = self.round_ends_at_seq.min(next_seq);
        self.round_peak_bytes = self.in_flight_bytes;
    }

    /// The server granted credit. Credit never goes back: a smaller total is an old message, or a mistake, and ignored.
    pub fn credited(&mut self, total_bytes: u64) {
        self.credit_bytes = self.credit_bytes.max(total_bytes);
    }

    /// Overload somewhere: half as much from now on.
    pub fn halve(&mut self) {
        self.limit_bytes = (self.limit_bytes / 2).max(SMALLEST_WINDOW_BYTES);
    }

    /// Bytes sent and not acked `received`.
    pub fn in_flight_bytes(&self) -> u64 {
        self.in_flight_bytes
    }

    /// Frames sent and not acked `received`.
    pub fn in_flight_frames(&self) -> usize {
        self.in_flight.len()
    }

    /// When the oldest frame in flight was sent.
    pub fn oldest_sent_at(&self) -> Option<Duration> {
        self.in_flight.front().map(|frame| frame.sent_at)
    }

    /// The window as it is now, without credit.
    pub fn window_bytes(&self) -> u64 {
        self.limit_bytes
    }

    /// What the server has room for beyond what was sent.
    pub fn credit_left_bytes(&self) -> u64 {
        self.credit_bytes.saturating_sub(self.sent_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME_BYTES: u64 = 256 << 10;
    const NOW: Duration = Duration::ZERO;

    fn opened(credit_bytes: u64) -> Window {
        let mut window = Window::default();
        window.opened(credit_bytes, 1);
        window
    }

    /// Sends frames of `FRAME_BYTES` while there is room; returns the number after the last.
    fn fill(window: &mut Window, mut seq: u64) -> u64 {
        while window.has_room(FRAME_BYTES) {
            seq += 1;
            window.sent(seq, FRAME_BYTES, NOW);
        }
        seq
    }

    #[test]
    fn a_new_window_holds_one_mebibyte() {
        let mut window = opened(u64::MAX);

        fill(&mut window, 1);

        assert_eq!(window.in_flight_bytes(), FIRST_WINDOW_BYTES);
    }

    #[test]
    fn credit_stops_before_the_window_does() {
        let mut window = opened(2 * FRAME_BYTES);

        let next_seq = fill(&mut window, 1);

        assert_eq!(next_seq, 3);
        window.received(3);
        assert!(!window.has_room(1), "all credit is spent");
        window.credited(3 * FRAME_BYTES);
        assert!(window.has_room(FRAME_BYTES));
    }

    #[test]
    fn credit_never_goes_back() {
        let mut window = opened(FRAME_BYTES);

        window.credited(0);

        assert!(window.has_room(FRAME_BYTES));
    }

    #[test]
    fn one_frame_may_overdraw_when_nothing_is_in_flight() {
        let mut window = opened(100);
        assert!(window.has_room(8 << 20));

        window.sent(2, 8 << 20, NOW);

        assert!(!window.has_room(1));
        window.received(2);
        assert!(!window.has_room(1), "overdrawn once is enough: the server has not granted more");
        window.credited((8 << 20) + 1);
        assert!(window.has_room(8 << 20));
    }

    #[test]
    fn nothing_overdraws_while_something_is_in_flight() {
        let mut window = opened(FRAME_BYTES + 100);
        window.sent(2, FRAME_BYTES, NOW);

        assert!(!window.has_room(FRAME_BYTES));
        assert!(window.has_room(100));
    }

    #[test]
    fn a_round_trip_adds_one_step_however_many_acks_it_has() {
        let mut window = opened(u64::MAX);
        let next_seq = fill(&mut window, 1);

        window.received(2); // ends the first round: what is in flight now is the second
        assert_eq!(window.window_bytes(), FIRST_WINDOW_BYTES + WINDOW_STEP_BYTES);
        for seq in 3..next_seq {
            window.received(seq);
        }
        assert_eq!(window.window_bytes(), FIRST_WINDOW_BYTES + WINDOW_STEP_BYTES);
        window.received(next_seq);
        assert_eq!(window.window_bytes(), FIRST_WINDOW_BYTES + 2 * WINDOW_STEP_BYTES);
    }

    #[test]
    fn a_window_that_is_not_used_does_not_grow() {
        let mut window = opened(u64::MAX);
        for seq in 2..1_000 {
            window.sent(seq, 1_000, NOW);
            window.received(seq);
        }

        assert_eq!(window.window_bytes(), FIRST_WINDOW_BYTES);
    }

    #[test]
    fn the_window_stays_between_its_bounds() {
        let mut window = opened(u64::MAX);
        let mut seq = 1;
        for _ in 0..1_000 {
            seq = fill(&mut window, seq);
            window.received(seq);
        }
        assert_eq!(window.window_bytes(), LARGEST_WINDOW_BYTES);

        for _ in 0..100 {
            window.halve();
        }
        assert_eq!(window.window_bytes(), SMALLEST_WINDOW_BYTES);
    }

    #[test]
    fn a_rewind_takes_back_what_it_names_and_keeps_all_of_it_spent() {
        let mut window = opened(2 * FRAME_BYTES);
        fill(&mut window, 1);

        window.rewound(2);
        assert_eq!((window.in_flight_frames(), window.in_flight_bytes()), (1, FRAME_BYTES));
        window.rewound(1);
        assert_eq!((window.in_flight_frames(), window.in_flight_bytes()), (0, 0));

        assert_eq!(window.credit_left_bytes(), 0);
    }

    #[test]
    fn a_new_stream_keeps_the_window_and_takes_the_new_credit() {
        let mut window = opened(FRAME_BYTES);
        fill(&mut window, 1);
        window.halve();

        window.opened(10, 1);

        assert_eq!(window.window_bytes(), FIRST_WINDOW_BYTES / 2);
        assert_eq!((window.credit_left_bytes(), window.in_flight_frames()), (10, 0));
    }
}
