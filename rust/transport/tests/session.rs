//! The sending side of the protocol, without a network: single rules first, then any order of events.

use std::num::NonZeroU64;
use std::time::Duration;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use runferry_transport::session::{BEAT_EVERY, CHECKSUM_RESENDS, FIRST_ACK_TIMEOUT};
use runferry_transport::window::{FIRST_WINDOW_BYTES, LARGEST_WINDOW_BYTES};
use runferry_transport::{
    Due, Durability, Event, FrameSize, GapCause, OpenRequest, Opened, Reaction, Resume, RetryCause, Session,
    TransportError, Verdict,
};

const NOW: Duration = Duration::from_secs(1_000);
const FRAME_BYTES: u64 = 1_000;

fn request(first_available_seq: u64, next_seq: u64) -> OpenRequest {
    OpenRequest {
        open_frame: Bytes::new(),
        first_available_seq,
        next_seq,
        client: String::new(),
        storage_epoch: Vec::new(),
        replay: false,
    }
}

fn answer(next_seq: u64, credit_bytes: u64) -> Opened {
    Opened {
        next_seq,
        storage_epoch: Vec::new(),
        run_url: None,
        credit_bytes,
        run_existed: false,
        last_step: None,
        last_frame_hash: None,
        durability: Durability::Disk,
        max_frame_bytes: Some(9 << 20),
        notices: Vec::new(),
    }
}

fn frame(seq: u64) -> FrameSize {
    FrameSize { seq, next_seq: seq + 1, bytes: FRAME_BYTES }
}

fn ack(received_next_seq: u64, durable_next_seq: u64) -> Event {
    Event::Ack { received_next_seq, durable_next_seq }
}

fn rewind(next_seq: u64, reason: &str) -> Event {
    Event::Rewind { next_seq, reason: reason.into() }
}

fn throttle(retry_after: Duration, bytes_per_s: u64) -> Event {
    Event::Throttle { retry_after, bytes_per_s: NonZeroU64::new(bytes_per_s), linger: None, reason: String::new() }
}

fn new_session() -> Session {
    Session::new(1, fastrand::Rng::with_seed(7))
}

/// A session with plenty of credit whose frames 1 to `sent` are in flight.
fn session_with_sent(sent: u64) -> Session {
    let mut session = new_session();
    session.opened(&request(1, sent + 100), &answer(1, u64::MAX), NOW);
    for seq in 1..=sent {
        assert_eq!(session.offer(frame(seq), NOW), Verdict::Send);
    }
    session
}

fn is_broken(result: &Result<Reaction, TransportError>) -> bool {
    matches!(result, Err(TransportError::Retry { cause: RetryCause::Broken, .. }))
}

#[test]
fn the_server_resumes_from_what_the_client_has() {
    for (first, next, expected) in [(1, 1, 1), (0, 1, 1), (1, 10, 1), (1, 10, 5), (5, 10, 5), (5, 10, 10), (0, 10, 10)]
    {
        let mut session = new_session();

        let resume = session.opened(&request(first, next), &answer(expected, 1), NOW);

        assert_eq!(resume, Resume::From { next_seq: expected, lost: 0 });
        assert_eq!(session.next_seq(), expected);
    }
}

// fault: 38
#[test]
fn a_server_that_knows_more_makes_a_new_writer() {
    let mut session = new_session();

    let resume = session.opened(&request(1, 10), &answer(11, 1), NOW);

    assert_eq!(resume, Resume::NewWriter { server_next_seq: 11, client_next_seq: 10 });
    assert_eq!(session.offer(frame(10), NOW), Verdict::Closed);
}

// fault: 36
#[test]
fn a_server_that_lost_what_the_client_dropped_gets_a_gap_and_then_all_there_is() {
    let mut session = new_session();

    let resume = session.opened(&request(40, 50), &answer(1, u64::MAX), NOW);

    assert_eq!(resume, Resume::Regressed { gap_seq: 1, first_available_seq: 40 });
    assert_eq!(session.offer(frame(40), NOW), Verdict::NotNext { next_seq: 1 });
    assert_eq!(session.offer(FrameSize { seq: 1, next_seq: 40, bytes: 100 }, NOW), Verdict::Send);
    assert_eq!(session.offer(frame(40), NOW), Verdict::Send);
}

// fault: 36
#[test]
fn a_client_that_has_nothing_left_gives_a_gap_for_all() {
    let resume = new_session().opened(&request(0, 50), &answer(20, 1), NOW);

    assert_eq!(resume, Resume::Regressed { gap_seq: 20, first_available_seq: 50 });
}

// fault: 37
#[test]
fn a_restored_backup_is_refilled_and_counted() {
    let mut session = session_with_sent(20);
    session.told(ack(21, 21), NOW).expect("an ack");
    session.disconnected(None);

    let resume = session.opened(&request(5, 21), &answer(15, 1), NOW);

    assert_eq!(resume, Resume::From { next_seq: 15, lost: 6 });
    assert_eq!(session.durable_next_seq(), 15);
}

#[test]
fn only_the_next_frame_goes() {
    let mut session = session_with_sent(2);

    for other in [1, 2, 4] {
        assert_eq!(session.offer(frame(other), NOW), Verdict::NotNext { next_seq: 3 });
    }
    let empty = FrameSize { seq: 3, next_seq: 3, bytes: 1 };
    assert_eq!(session.offer(empty, NOW), Verdict::NotNext { next_seq: 3 });
    assert_eq!(session.offer(frame(3), NOW), Verdict::Send);
}

#[test]
fn without_a_connection_nothing_goes() {
    let mut session = new_session();
    assert_eq!(session.offer(frame(1), NOW), Verdict::Closed);
    assert_eq!(session.next_deadline(NOW), None);
    assert_eq!(session.due(NOW), Ok(Due::Nothing));
}

// fault: 55
#[test]
fn a_frame_larger_than_the_server_takes_is_not_sent() {
    let mut session = session_with_sent(0);

    let verdict = session.offer(FrameSize { seq: 1, next_seq: 2, bytes: (9 << 20) + 1 }, NOW);

    assert_eq!(verdict, Verdict::TooLarge { max_bytes: 9 << 20 });
    assert_eq!(session.next_seq(), 1);
}

#[test]
fn durable_acks_are_told_once() {
    let mut session = session_with_sent(5);

    assert_eq!(session.told(ack(6, 1), NOW), Ok(Reaction::Nothing));
    assert_eq!(session.told(ack(6, 4), NOW), Ok(Reaction::Durable { next_seq: 4 }));
    assert_eq!(session.told(ack(6, 4), NOW), Ok(Reaction::Nothing));
    assert_eq!(session.durable_next_seq(), 4);
}

// fault: 58
#[test]
fn acks_beyond_what_was_sent_or_going_back_break_the_connection() {
    assert!(is_broken(&session_with_sent(5).told(ack(7, 1), NOW)));
    assert!(is_broken(&session_with_sent(5).told(ack(6, 7), NOW)));
    assert!(is_broken(&session_with_sent(5).told(ack(u64::MAX, u64::MAX), NOW)));

    let mut session = session_with_sent(5);
    session.told(ack(5, 4), NOW).expect("an ack");
    assert!(is_broken(&session.told(ack(5, 3), NOW)));
    assert!(is_broken(&session.told(ack(4, 4), NOW)));
    assert_eq!(session.durable_next_seq(), 4, "what a broken server says changes nothing");
}

#[test]
fn a_rewind_resends_from_the_frame_it_names() {
    let mut session = session_with_sent(9);

    let reaction = session.told(rewind(4, "gap"), NOW);

    assert_eq!(reaction, Ok(Reaction::Resume(Resume::From { next_seq: 4, lost: 0 })));
    assert_eq!(session.offer(frame(4), NOW), Verdict::Send);
}

// fault: 40
#[test]
fn acks_from_before_a_rewind_do_not_skip_frames() {
    let mut session = session_with_sent(9);
    session.told(ack(8, 1), NOW).expect("an ack");
    session.told(rewind(4, "unknown outcome"), NOW).expect("a rewind");

    session.told(ack(8, 3), NOW).expect("an ack with an old number");

    assert_eq!(session.next_seq(), 4);
}

#[test]
fn acks_of_what_lies_below_a_rewind_may_come_after_it() {
    let mut session = session_with_sent(9);
    session.told(ack(3, 1), NOW).expect("an ack");
    session.told(rewind(7, "gap"), NOW).expect("a rewind");

    assert_eq!(session.told(ack(5, 5), NOW), Ok(Reaction::Durable { next_seq: 5 }));
    assert_eq!(session.next_seq(), 7);
}

#[test]
fn what_became_durable_in_the_meantime_is_not_resent() {
    let mut session = session_with_sent(9);
    session.told(rewind(4, "gap"), NOW).expect("a rewind");

    session.told(ack(7, 7), NOW).expect("an ack");

    assert_eq!(session.next_seq(), 7);
}

// fault: 58
#[test]
fn rewinds_beyond_what_was_sent_break_the_connection() {
    assert!(is_broken(&session_with_sent(5).told(rewind(7, "gap"), NOW)));
    assert!(is_broken(&session_with_sent(5).told(rewind(0, "gap"), NOW)));
}

#[test]
fn a_rewind_below_what_is_left_is_a_regression() {
    let mut session = session_with_sent(9);
    session.told(ack(10, 10), NOW).expect("an ack");
    session.trimmed(8);

    let reaction = session.told(rewind(2, "unknown outcome"), NOW);

    assert_eq!(reaction, Ok(Reaction::Resume(Resume::Regressed { gap_seq: 2, first_available_seq: 8 })));
    assert_eq!(session.durable_next_seq(), 2);
}

#[test]
fn a_frame_with_a_refused_checksum_is_resent_three_times_and_then_given_up() {
    let mut session = session_with_sent(9);

    for _ in 0..CHECKSUM_RESENDS {
        let reaction = session.told(rewind(4, "checksum"), NOW);
        assert_eq!(reaction, Ok(Reaction::Resume(Resume::From { next_seq: 4, lost: 0 })));
        session.disconnected(None); // a new connection does not start the count again
        session.opened(&request(1, 100), &answer(4, u64::MAX), NOW);
        assert_eq!(session.offer(frame(4), NOW), Verdict::Send);
    }
    let reaction = session.told(rewind(4, "checksum"), NOW);

    assert_eq!(reaction, Ok(Reaction::ReplaceWithGap { seq: 4, cause: GapCause::Corrupt }));
    assert_eq!(session.offer(frame(4), NOW), Verdict::Send, "the GAP in its place");
}

// fault: 58
#[test]
fn a_server_that_rewinds_in_circles_is_broken() {
    let mut session = session_with_sent(9);

    let end = (0..1_000).map(|_| session.told(rewind(4, "gap"), NOW)).find(Result::is_err);

    assert!(is_broken(&end.expect("an end")));
}

#[test]
fn a_rejected_frame_is_replaced_by_a_gap_sent_next() {
    let mut session = session_with_sent(9);

    let reaction = session.told(Event::Reject { seq: 4, reason: "too large".into() }, NOW);

    let cause = GapCause::Rejected { reason: "too large".into() };
    assert_eq!(reaction, Ok(Reaction::ReplaceWithGap { seq: 4, cause }));
    assert_eq!(session.next_seq(), 4);
}

#[test]
fn the_second_of_two_rejected_frames_does_not_skip_what_lies_between() {
    let mut session = session_with_sent(9);
    session.told(Event::Reject { seq: 4, reason: String::new() }, NOW).expect("a reject");

    let reaction = session.told(Event::Reject { seq: 6, reason: String::new() }, NOW);

    assert!(matches!(reaction, Ok(Reaction::ReplaceWithGap { seq: 6, .. })));
    assert_eq!(session.next_seq(), 4);
}

// fault: 58
#[test]
fn a_server_that_refuses_the_gap_in_place_of_a_frame_as_well_is_broken() {
    let mut session = session_with_sent(9);

    let end = (0..1_000)
        .map(|_| {
            session.offer(frame(4), NOW);
            session.told(Event::Reject { seq: 4, reason: String::new() }, NOW)
        })
        .find(Result::is_err);

    assert!(is_broken(&end.expect("an end")));
}

// fault: 58
#[test]
fn a_server_that_never_stops_talking_is_broken_and_one_that_talks_much_is_not() {
    let mut session = new_session();
    session.opened(&request(1, 100), &answer(1, u64::MAX), NOW);
    let credit = || Event::Credit { total_bytes: u64::MAX };

    for second in 0..60 {
        let now = NOW + Duration::from_secs(second);
        session.due(now).expect("in time");
        session.told(ack(1, 1), now).expect("the beat's answer");
        for _ in 0..9_000 {
            session.told(credit(), now).expect("much, and not too much");
        }
    }
    let end = (0..1_000_000).map(|_| session.told(credit(), NOW + Duration::from_secs(60))).find(Result::is_err);

    assert!(is_broken(&end.expect("an end")));
}

#[test]
fn a_reject_of_what_was_not_sent_breaks_the_connection() {
    assert!(is_broken(&session_with_sent(5).told(Event::Reject { seq: 6, reason: String::new() }, NOW)));
}

#[test]
fn credit_stops_and_starts_the_sending() {
    let mut session = new_session();
    session.opened(&request(1, 100), &answer(1, 2 * FRAME_BYTES), NOW);
    assert_eq!(session.offer(frame(1), NOW), Verdict::Send);
    assert_eq!(session.offer(frame(2), NOW), Verdict::Send);
    assert_eq!(session.offer(frame(3), NOW), Verdict::Full);

    session.told(Event::Credit { total_bytes: 0 }, NOW).expect("credit that goes back is ignored");
    assert_eq!(session.offer(frame(3), NOW), Verdict::Full);
    session.told(Event::Credit { total_bytes: 3 * FRAME_BYTES }, NOW).expect("credit");

    assert_eq!(session.offer(frame(3), NOW), Verdict::Send);
}

// fault: 49
#[test]
fn a_throttle_stops_frames_for_a_clamped_and_stretched_time() {
    for (hint, shortest, longest) in [
        (Duration::ZERO, Duration::from_millis(50), Duration::from_millis(75)),
        (Duration::from_secs(2), Duration::from_secs(2), Duration::from_secs(3)),
        (Duration::from_secs(3_600), Duration::from_secs(600), Duration::from_secs(900)),
        (Duration::MAX, Duration::from_secs(600), Duration::from_secs(900)),
    ] {
        let mut session = session_with_sent(0);
        session.told(throttle(hint, 0), NOW).expect("a throttle");

        let Verdict::NotBefore(at) = session.offer(frame(1), NOW) else { panic!("it was not stopped") };

        assert!((NOW + shortest..=NOW + longest).contains(&at), "{hint:?}: {at:?}");
        assert_eq!(session.offer(frame(1), at), Verdict::Send);
    }
}

// fault: 49
#[test]
fn a_throttle_outlives_the_connection_and_halves_the_window() {
    let mut session = session_with_sent(0);
    session.told(throttle(Duration::from_secs(60), 0), NOW).expect("a throttle");
    session.disconnected(None);

    session.opened(&request(1, 100), &answer(1, u64::MAX), NOW);

    assert!(matches!(session.offer(frame(1), NOW), Verdict::NotBefore(_)));
    assert_eq!(session.window().window_bytes(), FIRST_WINDOW_BYTES / 2);
}

#[test]
fn a_wish_for_larger_frames_alone_stops_nothing_and_leaves_window_and_rate() {
    let mut session = session_with_sent(0);
    session.told(throttle(Duration::ZERO, 2 * FRAME_BYTES), NOW).expect("a throttle");
    let (later, window_bytes) = (NOW + Duration::from_secs(1), session.window().window_bytes());
    let linger = Duration::from_secs(2);
    let wish =
        Event::Throttle { retry_after: Duration::ZERO, bytes_per_s: None, linger: Some(linger), reason: String::new() };

    let reaction = session.told(wish, later).expect("a wish");

    assert_eq!(reaction, Reaction::Linger(linger));
    assert_eq!(session.window().window_bytes(), window_bytes);
    assert_eq!(session.offer(frame(1), later), Verdict::Send);
    assert_eq!(session.offer(frame(2), later), Verdict::NotBefore(later + Duration::from_millis(500)));
}

#[test]
fn a_rate_paces_the_frames() {
    let mut session = session_with_sent(0);
    session.told(throttle(Duration::ZERO, 2 * FRAME_BYTES), NOW).expect("a throttle");
    let later = NOW + Duration::from_secs(1);

    assert_eq!(session.offer(frame(1), later), Verdict::Send);

    assert_eq!(session.offer(frame(2), later), Verdict::NotBefore(later + Duration::from_millis(500)));
}

// fault: 46
#[test]
fn silence_about_what_was_sent_is_a_failure_that_takes_longer_each_time() {
    let mut session = new_session();
    let mut timeouts = Vec::new();
    for _ in 0..6 {
        session.opened(&request(1, 100), &answer(1, u64::MAX), NOW);
        session.offer(frame(1), NOW);
        let mut now = NOW;
        let error = loop {
            now = session.next_deadline(now).expect("a deadline").max(now);
            if let Err(error) = session.due(now) {
                break error;
            }
        };
        assert!(matches!(error, TransportError::Retry { cause: RetryCause::TimedOut, .. }));
        session.disconnected(Some(&error));
        timeouts.push(now.saturating_sub(NOW).as_secs());
    }

    assert_eq!(timeouts, [30, 60, 120, 240, 300, 300]);
    assert_eq!(session.window().window_bytes(), 64 << 10, "each timeout halves the window");
}

#[test]
fn progress_starts_the_ack_timeout_again_at_its_shortest() {
    let mut session = session_with_sent(2);
    assert!(session.due(NOW + FIRST_ACK_TIMEOUT).is_err());
    session.opened(&request(1, 100), &answer(1, u64::MAX), NOW);
    session.offer(frame(1), NOW);
    session.offer(frame(2), NOW);

    session.told(ack(2, 2), NOW + Duration::from_secs(20)).expect("an ack");

    assert!(session.due(NOW + Duration::from_secs(49)).is_ok());
    assert!(session.due(NOW + Duration::from_secs(50)).is_err());
}

#[test]
fn received_without_durable_is_not_enough_for_ever() {
    let mut session = session_with_sent(2);
    session.told(ack(3, 1), NOW).expect("an ack");

    assert!(session.due(NOW + FIRST_ACK_TIMEOUT).is_err());
}

// fault: 42
#[test]
fn when_all_is_durable_silence_is_allowed_until_the_next_beat_goes_unanswered() {
    let mut session = session_with_sent(2);
    assert_eq!(session.due(NOW), Ok(Due::Beat));
    session.told(ack(3, 3), NOW).expect("an ack");
    assert_eq!(session.due(NOW + BEAT_EVERY), Ok(Due::Beat));

    assert!(session.due(NOW + BEAT_EVERY + FIRST_ACK_TIMEOUT.mul_f64(0.99)).is_ok());
    assert!(session.due(NOW + BEAT_EVERY + FIRST_ACK_TIMEOUT).is_err());
}

#[test]
fn a_beat_is_due_at_once_and_then_every_ten_seconds() {
    let mut session = session_with_sent(0);

    assert_eq!(session.due(NOW), Ok(Due::Beat));
    assert_eq!(session.due(NOW), Ok(Due::Nothing));
    session.told(ack(1, 1), NOW).expect("an ack");

    assert_eq!(session.next_deadline(NOW), Some(NOW + BEAT_EVERY));
    assert_eq!(session.due(NOW + BEAT_EVERY.mul_f64(0.99)), Ok(Due::Nothing));
    assert_eq!(session.due(NOW + BEAT_EVERY), Ok(Due::Beat));
}

// fault: 34
#[test]
fn a_draining_server_gets_no_more_frames_and_is_left_when_it_says() {
    let mut session = session_with_sent(2);

    let reaction = session.told(Event::Drain { reconnect_after: Duration::from_secs(4) }, NOW);

    assert_eq!(reaction, Ok(Reaction::Draining));
    assert_eq!(session.offer(frame(3), NOW), Verdict::Closed);
    assert_eq!(session.told(ack(3, 3), NOW), Ok(Reaction::Durable { next_seq: 3 }), "acks still come");
    let at = session.reconnect_at().expect("a time");
    assert!((NOW + Duration::from_secs(4)..=NOW + Duration::from_secs(6)).contains(&at));
    assert_eq!(session.due(at), Ok(Due::Reconnect));
    assert_eq!(session.told(Event::Closed, NOW), Ok(Reaction::Closed));
    session.disconnected(None);
    assert_eq!(session.reconnect_at(), Some(at), "the wish outlives the connection");
    session.opened(&request(1, 100), &answer(3, 1), NOW);
    assert_eq!(session.reconnect_at(), None);
}

#[test]
fn a_stream_that_ends_out_of_the_blue_is_lost() {
    let end = session_with_sent(2).told(Event::Closed, NOW);

    assert!(matches!(end, Err(TransportError::Retry { cause: RetryCause::Lost, .. })));
}

#[test]
fn signs_of_overload_halve_the_window_and_others_do_not() {
    for (cause, window_bytes) in [
        (RetryCause::Lost, FIRST_WINDOW_BYTES / 2),
        (RetryCause::Busy, FIRST_WINDOW_BYTES / 2),
        (RetryCause::TimedOut, FIRST_WINDOW_BYTES / 2),
        (RetryCause::Unreachable, FIRST_WINDOW_BYTES),
        (RetryCause::Broken, FIRST_WINDOW_BYTES),
    ] {
        let mut session = new_session();

        session.disconnected(Some(&TransportError::Retry { cause, reason: String::new(), after: None }));

        assert_eq!(session.window().window_bytes(), window_bytes, "{cause:?}");
    }
}

/// One thing that happens to a writer. Numbers are taken modulo a little more than what is possible, so that some are the
/// nonsense of a broken server.
#[derive(Debug, Clone)]
enum Happening {
    Offer { bytes: u64 },
    Ack { received: u64, durable: u64 },
    Credit { more_bytes: u64 },
    Rewind { to: u64, is_checksum: bool },
    Reject { seq: u64 },
    Throttle { ms: u64, bytes_per_s: u64 },
    Drain,
    Time { ms: u64 },
    Reconnect { expected: u64, credit_bytes: u64 },
}

fn happening() -> impl Strategy<Value = Happening> {
    let seq = any::<u64>();
    let bytes = prop_oneof![64_u64..4_000, 100_000_u64..400_000, Just(8_u64 << 20)];
    prop_oneof![
        12 => bytes.clone().prop_map(|bytes| Happening::Offer { bytes }),
        4 => (seq, seq).prop_map(|(received, durable)| Happening::Ack { received, durable }),
        4 => bytes.clone().prop_map(|more_bytes| Happening::Credit { more_bytes }),
        2 => (seq, any::<bool>()).prop_map(|(to, is_checksum)| Happening::Rewind { to, is_checksum }),
        1 => seq.prop_map(|seq| Happening::Reject { seq }),
        1 => (0_u64..2_000, prop_oneof![Just(0_u64), 1_u64..1_000_000])
            .prop_map(|(ms, bytes_per_s)| Happening::Throttle { ms, bytes_per_s }),
        1 => Just(Happening::Drain),
        4 => (0_u64..40_000).prop_map(|ms| Happening::Time { ms }),
        3 => (seq, bytes).prop_map(|(expected, credit_bytes)| Happening::Reconnect { expected, credit_bytes }),
    ]
}

/// What an onlooker knows who only counts what goes over the wire.
#[derive(Debug, Default)]
struct Onlooker {
    in_flight: Vec<FrameSize>,
    sent_bytes: u64,
    credit_bytes: u64,
    next_seq: u64,
    durable_next_seq: u64,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    /// Whatever the server says in whatever order: limits hold, no number is skipped, the durable mark stays.
    // fault: 58
    #[test]
    fn no_order_of_events_breaks_a_rule(happenings in vec(happening(), 1..120)) {
        let mut session = new_session();
        let mut seen = Onlooker { next_seq: 1, durable_next_seq: 1, ..Onlooker::default() };
        let mut now = NOW;
        let mut client_next_seq = 1;
        for happening in happenings {
            let mut may_go_back = false;
            let near = |number: u64| number % (client_next_seq + 2);
            let told = match happening {
                Happening::Offer { bytes } => {
                    let frame = FrameSize { seq: session.next_seq(), next_seq: session.next_seq() + 1, bytes };
                    if session.offer(frame, now) == Verdict::Send {
                        prop_assert_eq!(frame.seq, seen.next_seq, "a frame was skipped or repeated unasked");
                        let in_flight_bytes: u64 = seen.in_flight.iter().map(|frame| frame.bytes).sum();
                        prop_assert!(seen.sent_bytes < seen.credit_bytes, "sent without any credit");
                        if !seen.in_flight.is_empty() {
                            prop_assert!(in_flight_bytes + bytes <= LARGEST_WINDOW_BYTES);
                            prop_assert!(in_flight_bytes + bytes <= session.window().window_bytes());
                            prop_assert!(seen.sent_bytes + bytes <= seen.credit_bytes);
                        }
                        seen.in_flight.push(frame);
                        seen.sent_bytes += bytes;
                        seen.next_seq = frame.next_seq;
                        client_next_seq = client_next_seq.max(frame.next_seq);
                    }
                    None
                }
                Happening::Ack { received, durable } => {
                    let durable = near(durable);
                    Some(ack(durable.max(near(received)), durable))
                }
                Happening::Credit { more_bytes } => {
                    Some(Event::Credit { total_bytes: seen.credit_bytes.saturating_add(more_bytes) })
                }
                Happening::Rewind { to, is_checksum } => {
                    may_go_back = true;
                    Some(rewind(near(to), if is_checksum { "checksum" } else { "gap" }))
                }
                Happening::Reject { seq } => Some(Event::Reject { seq: near(seq), reason: String::new() }),
                Happening::Throttle { ms, bytes_per_s } => Some(throttle(Duration::from_millis(ms), bytes_per_s)),
                Happening::Drain => Some(Event::Drain { reconnect_after: Duration::ZERO }),
                Happening::Time { ms } => {
                    now += Duration::from_millis(ms);
                    if session.due(now).is_err() {
                        session.disconnected(None);
                    }
                    None
                }
                Happening::Reconnect { expected, credit_bytes } => {
                    let expected = near(expected).max(1);
                    session.disconnected(None);
                    let open = request(1, client_next_seq);
                    let resume = session.opened(&open, &answer(expected, credit_bytes), now);
                    if expected > client_next_seq {
                        let is_new_writer = matches!(resume, Resume::NewWriter { .. });
                        prop_assert!(is_new_writer);
                    } else {
                        seen.in_flight.clear();
                        (seen.sent_bytes, seen.credit_bytes, seen.next_seq) = (0, credit_bytes, expected);
                        may_go_back = true;
                    }
                    None
                }
            };
            if let Some(event) = told {
                let before = session.next_seq();
                match session.told(event.clone(), now) {
                    Err(_) => {
                        prop_assert_eq!(session.next_seq(), before, "nonsense moved the next frame");
                        session.disconnected(None);
                    }
                    Ok(_) if session.next_deadline(now).is_none() => {} // no connection: nothing was heard
                    Ok(_) => match event {
                        Event::Ack { received_next_seq, durable_next_seq } => {
                            let received = received_next_seq.max(durable_next_seq);
                            seen.in_flight.retain(|frame| frame.next_seq > received);
                            seen.next_seq = seen.next_seq.max(durable_next_seq);
                        }
                        Event::Credit { total_bytes } => seen.credit_bytes = total_bytes,
                        Event::Rewind { next_seq, .. } => {
                            seen.in_flight.retain(|frame| frame.next_seq <= next_seq);
                            seen.next_seq = next_seq;
                        }
                        Event::Reject { seq, .. } if seq < seen.next_seq => {
                            seen.in_flight.retain(|frame| frame.next_seq <= seq);
                            seen.next_seq = seq;
                        }
                        _ => {}
                    },
                }
            }
            prop_assert!(may_go_back || session.durable_next_seq() >= seen.durable_next_seq);
            prop_assert!(session.durable_next_seq() <= client_next_seq, "durable beyond what was ever sent");
            seen.durable_next_seq = session.durable_next_seq();
        }
    }

    /// With a server that keeps to the protocol, over any frame sizes: everything arrives, in order, once.
    // fault: 45
    #[test]
    fn an_honest_server_gets_every_frame(sizes in vec(prop_oneof![64_u64..2_000, 200_000_u64..9_000_000], 1..60)) {
        const SERVER_WINDOW_BYTES: u64 = 256 << 10;
        let mut session = new_session();
        let last = sizes.len() as u64 + 1;
        session.opened(&request(1, last), &answer(1, SERVER_WINDOW_BYTES), NOW);
        let (mut arrived, mut arrived_bytes) = (Vec::new(), 0);
        let mut now = NOW;
        while session.durable_next_seq() < last {
            let before = arrived.len();
            while let Some(bytes) = sizes.get(arrived.len()) {
                let seq = arrived.len() as u64 + 1;
                if session.offer(FrameSize { seq, next_seq: seq + 1, bytes: *bytes }, now) != Verdict::Send {
                    break;
                }
                arrived.push(seq);
                arrived_bytes += bytes;
            }
            prop_assert!(arrived.len() > before, "the sender is stuck");

            now += Duration::from_millis(10);
            let next_seq = arrived.len() as u64 + 1;
            session.told(ack(next_seq, next_seq), now).expect("an ack");
            session.told(Event::Credit { total_bytes: arrived_bytes + SERVER_WINDOW_BYTES }, now).expect("credit");
        }
        prop_assert_eq!(arrived, (1..last).collect::<Vec<_>>());
    }
}
