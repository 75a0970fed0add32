//! The stream against a scripted server, over real sockets: what arrives, what the answers become, what survives.

mod fake_server;

use std::num::NonZeroU64;
use std::time::Duration;

use bytes::Bytes;
use fake_server::{FakeServer, door, open_ok, raw_server};
use runferry_transport::proto::client_message::Kind as Told;
use runferry_transport::proto::reject::Code;
use runferry_transport::proto::server_message::Kind as Said;
use runferry_transport::proto::{Beat, Bye, Credit, Drain, Notice, Reject, Rewind, Throttle};
use runferry_transport::{
    Connection, Durability, Event, FrameSize, OpenRequest, Opened, Reaction, Resume, RetryCause, Session, Tcp,
    Timeouts, TransportError, Verdict,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tonic::{Code as Grpc, Status};

const NOW: Duration = Duration::ZERO;
/// For what must fail by timeout; everything else has the patience of [`Timeouts::default`].
const SHORT: Timeouts = Timeouts { connect: Duration::from_millis(200), open: Duration::from_millis(200) };

fn request() -> OpenRequest {
    OpenRequest {
        open_frame: Bytes::from_static(b"open frame"),
        first_available_seq: 1,
        next_seq: 1_000,
        client: "runferry/test".into(),
        storage_epoch: vec![9],
        replay: false,
    }
}

/// Opens while the script runs, and fails if either does.
async fn connect(server: &mut FakeServer, credit_bytes: u64) -> (Connection, Opened, fake_server::FakeStream) {
    let door = server.door();
    let accepting = async {
        let mut stream = server.next_stream().await;
        stream.accept(1, credit_bytes).await;
        stream
    };
    let opening = Connection::open(&Tcp, &door, request(), None, Timeouts::default());
    let (opened, stream) = tokio::join!(opening, accepting);
    let (connection, opened) = opened.expect("an open stream");
    (connection, opened, stream)
}

/// How Open fails when the server answers like this.
async fn refused_by(script: impl AsyncFnOnce(&mut fake_server::FakeStream)) -> TransportError {
    let mut server = FakeServer::start().await;
    let door = server.door();
    let answering = async {
        let mut stream = server.next_stream().await;
        stream.hear_open().await;
        script(&mut stream).await;
        stream
    };
    let opening = Connection::open(&Tcp, &door, request(), None, Timeouts::default());
    let (opened, _stream) = tokio::join!(opening, answering);
    opened.expect_err("it was refused")
}

fn frames(count: u8, bytes: usize) -> Vec<Bytes> {
    (0..count).map(|number| Bytes::from(vec![number; bytes])).collect()
}

fn retry_cause(error: &TransportError) -> Option<RetryCause> {
    match error {
        TransportError::Retry { cause, .. } => Some(*cause),
        _ => None,
    }
}

#[tokio::test]
async fn open_carries_everything_and_brings_the_answer() {
    let mut server = FakeServer::start().await;
    let door = server.door();
    let serving = async {
        let mut stream = server.next_stream().await;
        let open = stream.accept(7, 4_096).await;
        (open, stream.authorization.clone(), stream)
    };

    let opening = Connection::open(&Tcp, &door, request(), Some("key-1"), Timeouts::default());
    let (opened, (open, authorization, _stream)) = tokio::join!(opening, serving);

    let (_connection, opened) = opened.expect("an open stream");
    assert_eq!((open.protocol, open.open_frame.as_ref()), (1, b"open frame".as_slice()));
    assert_eq!((open.first_available_seq, open.next_seq, open.replay), (1, 1_000, false));
    assert_eq!((open.client.as_str(), open.storage_epoch.as_ref()), ("runferry/test", [9].as_slice()));
    assert_eq!(authorization.as_deref(), Some("Bearer key-1"));
    let expected = Opened {
        next_seq: 7,
        storage_epoch: vec![1, 2, 3],
        run_url: Some("/runs/entity/project/id".into()),
        credit_bytes: 4_096,
        run_existed: true,
        last_step: Some(41),
        last_frame_hash: Some([7; 8]),
        durability: Durability::Disk,
        max_frame_bytes: Some(9 << 20),
        notices: vec![],
    };
    assert_eq!(opened, expected);
}

#[tokio::test]
async fn without_a_key_none_is_sent() {
    let mut server = FakeServer::start().await;

    let (_connection, _, stream) = connect(&mut server, 0).await;

    assert_eq!(stream.authorization, None);
}

#[tokio::test]
async fn a_key_that_cannot_be_sent_pauses_without_showing_it() {
    let error = Connection::open(&Tcp, &door(1), request(), Some("secret\n"), SHORT).await.expect_err("no header");

    assert!(matches!(&error, TransportError::PauseAuth { .. }));
    assert!(!format!("{error} {error:?}").contains("secret"));
}

#[tokio::test]
async fn frames_arrive_unchanged_and_in_order_and_acks_come_back() {
    let mut server = FakeServer::start().await;
    let (mut connection, _, mut stream) = connect(&mut server, u64::MAX).await;

    connection.outgoing.send_frames(frames(3, 1_000)).await.expect("sent");
    connection.outgoing.send_frames(frames(1, 10)).await.expect("sent");
    connection.outgoing.send_beat(Beat { backlog_frames: 5, ..Beat::default() }).expect("sent");

    assert_eq!(stream.hear_frames().await.frames, frames(3, 1_000));
    assert_eq!(stream.hear_frames().await.frames, frames(1, 10));
    assert_eq!(stream.hear().await, Some(Told::Beat(Beat { backlog_frames: 5, ..Beat::default() })));
    stream.ack(4, 2).await;
    stream.ack(5, 5).await;
    for (received_next_seq, durable_next_seq) in [(4, 2), (5, 5)] {
        let event = connection.incoming.next_event().await;
        assert_eq!(event, Ok(Event::Ack { received_next_seq, durable_next_seq }));
    }
}

#[tokio::test]
async fn frames_are_grouped_into_messages_of_a_mebibyte() {
    let mut server = FakeServer::start().await;
    let (connection, _, mut stream) = connect(&mut server, u64::MAX).await;
    let sizes = [400 << 10, 400 << 10, 400 << 10, 2 << 20, 1, 1];
    let all: Vec<Bytes> = sizes.iter().map(|size| Bytes::from(vec![7; *size])).collect();

    let hearing = async {
        let mut heard = Vec::new();
        while heard.iter().flatten().count() < sizes.len() {
            heard.push(stream_sizes(&mut stream).await);
        }
        heard
    };
    let (sent, heard) = tokio::join!(connection.outgoing.send_frames(all), hearing);

    sent.expect("sent");
    assert_eq!(heard, [vec![400 << 10, 400 << 10], vec![400 << 10], vec![2 << 20], vec![1, 1]]);
}

async fn stream_sizes(stream: &mut fake_server::FakeStream) -> Vec<usize> {
    stream.hear_frames().await.frames.iter().map(Bytes::len).collect()
}

#[tokio::test]
async fn bye_is_the_last_word_and_is_answered_by_the_end() {
    let mut server = FakeServer::start().await;
    let (mut connection, _, mut stream) = connect(&mut server, u64::MAX).await;

    connection.outgoing.bye(false).expect("said");

    assert_eq!(stream.hear().await, Some(Told::Bye(Bye { died: false })));
    assert_eq!(stream.hear().await, None, "the client has closed its half");
    stream.ack(1, 1).await;
    stream.end();
    assert!(matches!(connection.incoming.next_event().await, Ok(Event::Ack { .. })));
    assert_eq!(connection.incoming.next_event().await, Ok(Event::Closed));
    assert_eq!(connection.incoming.next_event().await, Ok(Event::Closed), "and stays so");
    assert!(connection.outgoing.send_frames(frames(1, 1)).await.is_err());
    assert!(connection.outgoing.bye(false).is_err());
}

#[tokio::test]
async fn every_message_becomes_its_event() {
    let mut server = FakeServer::start().await;
    let (mut connection, _, stream) = connect(&mut server, 0).await;
    let said = [
        Said::Credit(Credit { total_bytes: 77 }),
        Said::Throttle(Throttle { retry_after_ms: 20, bytes_per_s: 5, linger_ms: 9_999, reason: "full".into() }),
        Said::Throttle(Throttle::default()),
        Said::Reject(Reject { code: Code::FrameTooLarge.into(), reason: "big".into(), seq: 3 }),
        Said::Reject(Reject { code: 99, reason: String::new(), seq: 4 }),
        Said::Rewind(Rewind { next_seq: 2, reason: "gap".into() }),
        Said::Drain(Drain { reconnect_after_ms: 1_500 }),
        Said::Notice(Notice { text: "hello\x1b[31m\nworld".into() }),
    ];
    let expected = [
        Event::Credit { total_bytes: 77 },
        Event::Throttle {
            retry_after: Duration::from_millis(20),
            bytes_per_s: NonZeroU64::new(5),
            linger: Some(Duration::from_secs(5)),
            reason: "full".into(),
        },
        Event::Throttle { retry_after: Duration::ZERO, bytes_per_s: None, linger: None, reason: String::new() },
        Event::Reject { seq: 3, reason: "FRAME_TOO_LARGE: big".into() },
        Event::Reject { seq: 4, reason: "unknown code: ".into() },
        Event::Rewind { next_seq: 2, reason: "gap".into() },
        Event::Drain { reconnect_after: Duration::from_millis(1_500) },
        Event::Notice("hello [31m world".into()),
    ];

    for (message, event) in said.into_iter().zip(expected) {
        stream.say(message).await;

        assert_eq!(connection.incoming.next_event().await, Ok(event));
    }
}

// fault: 46
#[tokio::test]
async fn credit_stops_the_sender_and_lets_it_go_on() {
    let mut server = FakeServer::start().await;
    let (mut connection, opened, mut stream) = connect(&mut server, 2_000).await;
    let mut session = Session::new(1, fastrand::Rng::with_seed(1));
    session.opened(&request(), &opened, NOW);
    let offer =
        |session: &mut Session, seq: u64| session.offer(FrameSize { seq, next_seq: seq + 1, bytes: 1_000 }, NOW);

    assert_eq!([1, 2, 3].map(|seq| offer(&mut session, seq)), [Verdict::Send, Verdict::Send, Verdict::Full]);
    connection.outgoing.send_frames(frames(2, 1_000)).await.expect("sent");
    assert_eq!(stream.hear_frames().await.frames.len(), 2);
    stream.ack(3, 3).await;
    let reaction = session.told(connection.incoming.next_event().await.expect("an ack"), NOW);
    assert_eq!(reaction, Ok(Reaction::Durable { next_seq: 3 }));
    assert_eq!(offer(&mut session, 3), Verdict::Full, "acked, yet without credit");
    stream.say(Said::Credit(Credit { total_bytes: 3_000 })).await;
    session.told(connection.incoming.next_event().await.expect("credit"), NOW).expect("taken");

    assert_eq!(offer(&mut session, 3), Verdict::Send);
}

#[tokio::test]
async fn a_rewind_over_the_wire_resends_from_its_frame() {
    let mut server = FakeServer::start().await;
    let (mut connection, opened, mut stream) = connect(&mut server, u64::MAX).await;
    let mut session = Session::new(1, fastrand::Rng::with_seed(1));
    session.opened(&request(), &opened, NOW);
    let all = frames(6, 100);
    for seq in 1..=6 {
        assert_eq!(session.offer(FrameSize { seq, next_seq: seq + 1, bytes: 100 }, NOW), Verdict::Send);
    }
    connection.outgoing.send_frames(all.clone()).await.expect("sent");
    stream.hear_frames().await;

    stream.say(Said::Rewind(Rewind { next_seq: 4, reason: "gap".into() })).await;
    let reaction = session.told(connection.incoming.next_event().await.expect("a rewind"), NOW);

    assert_eq!(reaction, Ok(Reaction::Resume(Resume::From { next_seq: 4, lost: 0 })));
    connection.outgoing.send_frames(all[3..].to_vec()).await.expect("sent");
    assert_eq!(stream.hear_frames().await.frames, all[3..]);
}

// fault: 58
#[tokio::test]
async fn acks_beyond_what_was_sent_are_found() {
    let mut server = FakeServer::start().await;
    let (mut connection, opened, stream) = connect(&mut server, u64::MAX).await;
    let mut session = Session::new(1, fastrand::Rng::with_seed(1));
    session.opened(&request(), &opened, NOW);

    stream.ack(500, 500).await;
    let result = session.told(connection.incoming.next_event().await.expect("an event"), NOW);

    assert_eq!(retry_cause(&result.expect_err("nonsense")), Some(RetryCause::Broken));
    assert_eq!(session.durable_next_seq(), 1);
}

// fault: 53, 54
#[tokio::test]
async fn a_refused_stream_says_what_to_do_next() {
    for (code, is_expected) in [
        (Code::BadOpen, (|error| matches!(error, TransportError::Blocked { .. })) as fn(&TransportError) -> bool),
        (Code::Forbidden, |error| matches!(error, TransportError::Blocked { .. })),
        (Code::RunDeleted, |error| matches!(error, TransportError::Blocked { .. })),
        (Code::Incompatible, |error| matches!(error, TransportError::Incompatible { .. })),
        (Code::Unauthenticated, |error| matches!(error, TransportError::PauseAuth { .. })),
    ] {
        let reject = Said::Reject(Reject { code: code.into(), reason: "words".into(), seq: 0 });

        let at_open = refused_by(async |stream| stream.say(reject.clone()).await).await;
        let mut server = FakeServer::start().await;
        let (mut connection, _, stream) = connect(&mut server, 0).await;
        stream.say(reject).await;
        let in_mid_stream = connection.incoming.next_event().await.expect_err("refused");

        assert!(is_expected(&at_open), "{code:?}: {at_open:?}");
        assert!(at_open.to_string().contains("words"));
        assert_eq!(at_open, in_mid_stream);
        assert_eq!(connection.incoming.next_event().await, Ok(Event::Closed));
    }
}

// fault: 49
#[tokio::test]
async fn a_busy_server_is_obeyed_at_open() {
    let throttled = refused_by(async |stream| {
        stream.say(Said::Throttle(Throttle { retry_after_ms: 700, ..Throttle::default() })).await;
    });
    let exhausted = refused_by(async |stream| stream.fail(with_retry_info(Grpc::ResourceExhausted)).await);
    let without_a_hint = refused_by(async |stream| stream.fail(Status::resource_exhausted("full")).await);
    let unavailable = refused_by(async |stream| stream.fail(with_retry_info(Grpc::Unavailable)).await);

    for (error, cause, after_ms) in [
        (throttled.await, RetryCause::Busy, Some(700)),
        (exhausted.await, RetryCause::Busy, Some(3_000)),
        (without_a_hint.await, RetryCause::Busy, None),
        (unavailable.await, RetryCause::Lost, Some(3_000)),
    ] {
        let TransportError::Retry { cause: found, after, .. } = &error else { panic!("{error:?}") };
        assert_eq!((*found, *after), (cause, after_ms.map(Duration::from_millis)), "{error:?}");
    }
}

/// `google.rpc.Status` with a `RetryInfo` of 3 s, as any gRPC server writes it.
fn with_retry_info(code: Grpc) -> Status {
    let url = b"type.googleapis.com/google.rpc.RetryInfo";
    let info = [0x0a, 2, 0x08, 3]; // retry_delay { seconds: 3 }
    let mut any = vec![0x0a, u8::try_from(url.len()).expect("short")];
    any.extend_from_slice(url);
    any.extend_from_slice(&[0x12, 4]);
    any.extend_from_slice(&info);
    let mut details = vec![0x08, 8, 0x1a, u8::try_from(any.len()).expect("short")];
    details.extend_from_slice(&any);
    Status::with_details(code, "later", details.into())
}

#[tokio::test]
async fn a_status_in_mid_stream_ends_it_with_what_to_do_next() {
    let mut server = FakeServer::start().await;
    let (mut connection, _, mut stream) = connect(&mut server, 0).await;

    stream.ack(1, 1).await;
    stream.fail(Status::unauthenticated("revoked")).await;

    assert!(matches!(connection.incoming.next_event().await, Ok(Event::Ack { .. })));
    assert!(matches!(connection.incoming.next_event().await, Err(TransportError::PauseAuth { .. })));
}

// fault: 58
#[tokio::test]
async fn what_comes_before_the_answer_to_open_is_bounded_and_in_order() {
    let ended = refused_by(async |stream| stream.end()).await;
    let acked = refused_by(async |stream| stream.ack(1, 1).await).await;
    let chatty = refused_by(async |stream| {
        for _ in 0..50 {
            stream.say(Said::Notice(Notice { text: "wait".into() })).await;
        }
    })
    .await;
    let zero = refused_by(async |stream| stream.say(Said::OpenOk(open_ok(0, 1))).await).await;
    let mut tiny = open_ok(1, 1);
    tiny.max_frame_bytes = 10;
    let tiny = refused_by(async |stream| stream.say(Said::OpenOk(tiny.clone())).await).await;
    let mut epoch = open_ok(1, 1);
    epoch.storage_epoch = vec![0; 1_000].into();
    let epoch = refused_by(async |stream| stream.say(Said::OpenOk(epoch.clone())).await).await;

    assert_eq!(retry_cause(&ended), Some(RetryCause::Lost));
    for error in [acked, chatty, zero, epoch] {
        assert_eq!(retry_cause(&error), Some(RetryCause::Broken), "{error:?}");
    }
    assert!(matches!(tiny, TransportError::Incompatible { .. }));
}

// fault: 58
#[tokio::test]
async fn a_second_answer_to_open_breaks_the_connection() {
    let mut server = FakeServer::start().await;
    let (mut connection, _, stream) = connect(&mut server, 0).await;

    stream.say(Said::OpenOk(open_ok(1, 1))).await;

    let error = connection.incoming.next_event().await.expect_err("twice");
    assert_eq!(retry_cause(&error), Some(RetryCause::Broken));
}

// fault: 58
#[tokio::test]
async fn a_message_over_the_limit_is_an_error_and_not_memory() {
    let mut server = FakeServer::start().await;
    let (mut connection, _, stream) = connect(&mut server, 0).await;

    let text = "x".repeat(17 << 20);
    let saying = stream.say(Said::Notice(Notice { text }));
    let (error, ()) = tokio::join!(connection.incoming.next_event(), saying);

    assert_eq!(retry_cause(&error.expect_err("too large")), Some(RetryCause::Lost));
}

// fault: 35
#[tokio::test]
async fn a_killed_server_is_a_lost_connection() {
    let mut server = FakeServer::start().await;
    let (mut connection, _, stream) = connect(&mut server, 0).await;

    server.kill().await;
    drop(stream);

    let error = connection.incoming.next_event().await.expect_err("lost");
    assert_eq!(retry_cause(&error), Some(RetryCause::Lost), "{error:?}");
    let error = connection.outgoing.send_frames(frames(1, 1)).await;
    assert_eq!(error.as_ref().err().and_then(retry_cause), Some(RetryCause::Lost));
}

#[tokio::test]
async fn a_closed_port_is_unreachable() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    drop(listener);

    let error = Connection::open(&Tcp, &door(port), request(), None, Timeouts::default()).await.expect_err("closed");

    assert_eq!(retry_cause(&error), Some(RetryCause::Unreachable), "{error:?}");
}

// fault: 48
#[tokio::test]
async fn a_name_that_does_not_resolve_is_unreachable() {
    let mut nowhere = door(1);
    nowhere.write_host = "nowhere.invalid".into();

    let error = Connection::open(&Tcp, &nowhere, request(), None, Timeouts::default()).await.expect_err("no such name");

    // A resolver that is itself out of reach may take its time instead of answering.
    let cause = retry_cause(&error);
    assert!(matches!(cause, Some(RetryCause::Unreachable | RetryCause::TimedOut)), "{error:?}");
}

// fault: 58
#[tokio::test]
async fn garbage_is_a_lost_connection() {
    for garbage in [
        b"SSH-2.0-OpenSSH_9.6\r\n".to_vec(),
        b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n".to_vec(),
        vec![0; 100_000],
        (0..100_000_u32).map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect(),
    ] {
        let port = raw_server(move |mut socket| {
            let garbage = garbage.clone();
            async move {
                socket.write_all(&garbage).await.ok(); // the client may hang up early
                let mut rest = Vec::new();
                socket.read_to_end(&mut rest).await.ok(); // until it does
            }
        })
        .await;

        let error =
            Connection::open(&Tcp, &door(port), request(), None, Timeouts::default()).await.expect_err("garbage");

        assert_eq!(retry_cause(&error), Some(RetryCause::Lost), "{error:?}");
    }
}

// fault: 47
#[tokio::test]
async fn silence_after_accept_is_given_up() {
    let port = raw_server(|mut socket| async move {
        let mut rest = Vec::new();
        socket.read_to_end(&mut rest).await.ok(); // hears everything, says nothing
    })
    .await;

    let error = Connection::open(&Tcp, &door(port), request(), None, SHORT).await.expect_err("silence");

    assert_eq!(retry_cause(&error), Some(RetryCause::TimedOut), "{error:?}");
}

// fault: 47
#[tokio::test]
async fn silence_after_open_is_given_up() {
    let mut server = FakeServer::start().await;
    let door = server.door();

    let opening = Connection::open(&Tcp, &door, request(), None, SHORT);
    let (opened, _stream) = tokio::join!(opening, server.next_stream());

    assert_eq!(retry_cause(&opened.expect_err("silence")), Some(RetryCause::TimedOut));
}

/// The queue towards a server that does not read is bounded, and a send that is given up has sent nothing.
// fault: 46
#[tokio::test]
async fn a_server_that_does_not_read_stops_the_sender_within_bounds() {
    const FRAME_BYTES: usize = 256 << 10;
    let mut server = FakeServer::start().await;
    let (connection, _, mut stream) = connect(&mut server, u64::MAX).await;

    let mut sent = 0_usize;
    let patience = Duration::from_millis(300);
    while tokio::time::timeout(patience, connection.outgoing.send_frames(frames(1, FRAME_BYTES))).await.is_ok() {
        sent += 1;
        assert!(sent < 20, "there is no bound");
    }
    connection.outgoing.send_beat(Beat::default()).expect("beats have room of their own");

    assert!(sent >= 8, "{sent}");
    for _ in 0..sent {
        assert_eq!(stream.hear_frames().await.frames.len(), 1);
    }
    assert!(matches!(stream.hear().await, Some(Told::Beat(_))), "the frame that was given up never went");
}

/// A connection cut after any number of bytes from the server ends in an error or an end, never in a panic or a hang.
// fault: 44
#[tokio::test]
async fn a_cut_after_any_byte_is_survived() {
    let mut server = FakeServer::start().await;
    let server_port = server.port;
    tokio::spawn(async move {
        loop {
            let mut stream = server.next_stream().await;
            stream.accept(1, 1_000).await;
            stream.ack(1, 1).await;
            stream.end();
        }
    });
    let mut whole = 0;
    for cut_after_bytes in 0..600_u64 {
        let port = raw_server(move |client| cut_after(client, server_port, cut_after_bytes)).await;

        let talking = async {
            let (mut connection, _) = Connection::open(&Tcp, &door(port), request(), None, Timeouts::default()).await?;
            while connection.incoming.next_event().await? != Event::Closed {}
            Ok(())
        };
        match tokio::time::timeout(Duration::from_secs(5), talking).await.expect("it hangs") {
            Ok(()) => whole += 1,
            Err(error) => {
                let cause = retry_cause(&error);
                assert!(matches!(cause, Some(RetryCause::Lost | RetryCause::Unreachable)), "{error:?}");
            }
        }
    }
    assert!((1..600).contains(&whole), "cuts before and behind the last byte are both in the range: {whole}");
}

/// Passes everything from the client on, and so many bytes from the server.
async fn cut_after(client: TcpStream, server_port: u16, bytes: u64) {
    let server = TcpStream::connect(("127.0.0.1", server_port)).await.expect("the server");
    let (mut from_client, mut to_client) = client.into_split();
    let (from_server, mut to_server) = server.into_split();
    let mut first_bytes = from_server.take(bytes);
    tokio::select! {
        _ = tokio::io::copy(&mut from_client, &mut to_server) => {}
        _ = tokio::io::copy(&mut first_bytes, &mut to_client) => {}
    }
}
