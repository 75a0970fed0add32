//! The sending side of the protocol: which frame may go now, which goes again, when silence is a failure. Pure.
//!
//! The engine's loop owns a connection, a journal and a clock; the order of things is decided here, where it can be tested
//! without any of them. It is told what happens ([`opened`](Session::opened), [`told`](Session::told),
//! [`disconnected`](Session::disconnected)) and asked what may happen ([`offer`](Session::offer), [`due`](Session::due)).
//! Times are monotonic, as a duration since any fixed moment.
//!
//! One value serves a writer for its whole life, over many connections: window, ack timeout, throttle and the durable mark
//! outlive each of them.
//!
//! # Invariants
//! - Frames go in sequence. The next one is [`next_seq`](Session::next_seq); it goes forward by sending and by what the
//!   server says it has, back by Rewind, Reject and the answer to Open.
//! - Nothing is sent beyond window and credit but one overdrawing frame ([`crate::window`]).
//! - [`durable_next_seq`](Session::durable_next_seq) goes back only when the server says that it has lost frames.
//! - Numbers beyond what was sent, and acks that go back, are a broken server: the connection ends, the frames stay.
//!
//! # Waiting
//! Events that have arrived are told before [`due`](Session::due) is asked: after a suspended laptop wakes, the acks
//! in the socket come before the judgement that none came.

use std::num::NonZeroU64;
use std::time::Duration;

use bytes::Bytes;
use runferry_wire::frame::{FrameError, Header};

use crate::answer::{Event, Opened};
use crate::connection::OpenRequest;
use crate::error::{RetryCause, TransportError};
use crate::retry::{LONGEST_HINT, obeyed};
use crate::window::Window;

/// A beat goes out this often, frames or not.
pub const BEAT_EVERY: Duration = Duration::from_secs(10);
/// Silence of the server about what was sent is a failure after this, the first time.
pub const FIRST_ACK_TIMEOUT: Duration = Duration::from_secs(30);
/// And never later than this.
pub const LONGEST_ACK_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// A frame whose checksum the server refuses is sent so many times more.
pub const CHECKSUM_RESENDS: u32 = 3;
/// More rewinds and refused frames than this without a newly durable frame are a server that goes in circles.
const MAX_IDLE_REWINDS: u32 = 100;
/// More words than this from one beat to the next are a server that keeps us busy with listening.
const MAX_EVENTS_A_BEAT: u32 = 100_000;
/// How a [`Event::Rewind`] names a frame whose checksum did not fit.
const CHECKSUM: &str = "checksum";

/// What the session needs to know of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameSize {
    /// Its number; of a GAP the first it covers.
    pub seq: u64,
    /// Number of the frame behind it; above `seq`.
    pub next_seq: u64,
    /// Its length, header and padding included.
    pub bytes: u64,
}

impl FrameSize {
    /// Reads the header of a whole frame.
    ///
    /// # Errors
    /// The header cannot be read.
    pub fn of(frame: &Bytes) -> Result<Self, FrameError> {
        let header = Header::decode(frame)?;
        Ok(Self { seq: header.seq, next_seq: header.next_seq(), bytes: frame.len() as u64 })
    }
}

/// How to go on once the server has said which frame it expects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resume {
    /// Send from here on; the client has it all.
    From {
        /// The frame to send next.
        next_seq: u64,
        /// How many numbers the server had acked `durable` and lost; they are refilled. Above 0 it is worth an alarm.
        lost: u64,
    },
    /// The server has lost frames that the client no longer has. Send a GAP(SERVER_REGRESSED) for the numbers from
    /// `gap_seq` up to `first_available_seq`, then all there is.
    Regressed {
        /// First number of the GAP: the one the server expects.
        gap_seq: u64,
        /// First frame behind the GAP.
        first_available_seq: u64,
    },
    /// The server has frames of this writer that the client never made: its disk was restored. Going on under the same
    /// numbers would overwrite them, so go on as a new writer.
    NewWriter {
        /// What the server expects.
        server_next_seq: u64,
        /// What the client would have given its next frame.
        client_next_seq: u64,
    },
}

/// Whether an offered frame goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Yes, and it counts as sent: hand it to the connection.
    Send,
    /// Not before this time: the server throttles.
    NotBefore(Duration),
    /// Not before an event: window or credit are used up.
    Full,
    /// No frames on this connection: none is open, or it is about to be closed.
    Closed,
    /// Never: the server takes no frames of this size. Offer a GAP(REJECTED) in its place.
    TooLarge {
        /// The largest it takes.
        max_bytes: u64,
    },
    /// Another frame is next.
    NotNext {
        /// Its number.
        next_seq: u64,
    },
}

/// Why a frame must be replaced by a GAP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GapCause {
    /// The server refuses it for good.
    Rejected {
        /// The server's words.
        reason: String,
    },
    /// Its checksum does not fit, however often it is sent.
    Corrupt,
}

/// What the engine has to do about an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reaction {
    /// Nothing. More may be sent now; ask.
    Nothing,
    /// Every frame below is durable and may be trimmed.
    Durable {
        /// First number that is not.
        next_seq: u64,
    },
    /// Go on from another frame.
    Resume(Resume),
    /// Put a GAP in the place of this frame, and send it next.
    ReplaceWithGap {
        /// Number of the frame.
        seq: u64,
        /// Why.
        cause: GapCause,
    },
    /// Let frames fill for so long while this stream is open.
    Linger(Duration),
    /// The server is about to close. No frame goes any more; acks still come. [`Due::Reconnect`] follows.
    Draining,
    /// Tell the user.
    Notice(String),
    /// The server has ended the stream, after it had said so. Connect again at [`Session::reconnect_at`].
    Closed,
}

/// What time has brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Nothing yet.
    Nothing,
    /// A Beat; it counts as sent.
    Beat,
    /// Close this connection and open the next, as the server asked.
    Reconnect,
}

/// The protocol state of one writer.
#[derive(Debug)]
pub struct Session {
    window: Window,
    random: fastrand::Rng,
    stream: Option<Stream>,
    next_seq: u64,
    durable_next_seq: u64,
    ack_timeout: Duration,
    not_before: Duration,
    reconnect_at: Option<Duration>,
    refused: Option<RefusedChecksum>,
    idle_rewinds: u32,
}

/// What holds for one connection.
#[derive(Debug)]
struct Stream {
    /// What the client could send when it opened.
    first_available_seq: u64,
    max_frame_bytes: u64,
    /// Acks may not go beyond this.
    highest_sent_seq: u64,
    received_next_seq: u64,
    /// As last acked here; 0: not yet.
    durable_next_seq: u64,
    bytes_per_s: Option<NonZeroU64>,
    /// When the next beat is due.
    beat_at: Duration,
    /// When the oldest question without an answer was asked, or the last progress after it.
    waiting_since: Option<Duration>,
    is_draining: bool,
    /// Since the last beat.
    events: u32,
}

/// A frame whose checksum the server refused.
#[derive(Debug, Clone, Copy)]
struct RefusedChecksum {
    seq: u64,
    times: u32,
}

impl Session {
    /// A writer of which every frame below `durable_next_seq` is known to be durable; 1: none. `random` spreads waits.
    pub fn new(durable_next_seq: u64, random: fastrand::Rng) -> Self {
        Self {
            window: Window::default(),
            random,
            stream: None,
            next_seq: durable_next_seq,
            durable_next_seq,
            ack_timeout: FIRST_ACK_TIMEOUT,
            not_before: Duration::ZERO,
            reconnect_at: None,
            refused: None,
            idle_rewinds: 0,
        }
    }

    /// Number of the frame to send next.
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Every frame below is durable, as far as is known.
    pub fn durable_next_seq(&self) -> u64 {
        self.durable_next_seq
    }

    /// When to connect again, if the server has asked for a time (Drain) and no stream was opened since.
    pub fn reconnect_at(&self) -> Option<Duration> {
        self.reconnect_at
    }

    /// Window, credit and what is in flight, for `status()`.
    pub fn window(&self) -> &Window {
        &self.window
    }

    /// A stream was opened with `request` and answered by `opened`.
    pub fn opened(&mut self, request: &OpenRequest, opened: &Opened, now: Duration) -> Resume {
        // Numbers the client has made since do not count: they are not what the server has.
        let client_next_seq = request.next_seq;
        let first_available_seq = match request.first_available_seq {
            0 => client_next_seq,
            first => first.min(client_next_seq),
        };
        if opened.next_seq > client_next_seq {
            self.stream = None;
            return Resume::NewWriter { server_next_seq: opened.next_seq, client_next_seq };
        }
        self.reconnect_at = None;
        self.window.opened(opened.credit_bytes, opened.next_seq);
        self.stream = Some(Stream {
            first_available_seq,
            max_frame_bytes: opened.max_frame_bytes.unwrap_or(u64::MAX),
            highest_sent_seq: opened.next_seq,
            received_next_seq: opened.next_seq,
            durable_next_seq: 0,
            bytes_per_s: None,
            beat_at: now, // at once: its answer says what is durable
            waiting_since: None,
            is_draining: false,
            events: 0,
        });
        self.go_back(opened.next_seq, first_available_seq)
    }

    /// Whether this frame may be sent now. On [`Verdict::Send`] it counts as sent.
    pub fn offer(&mut self, frame: FrameSize, now: Duration) -> Verdict {
        let Some(stream) = self.stream.as_mut().filter(|stream| !stream.is_draining) else {
            return Verdict::Closed;
        };
        if frame.seq != self.next_seq || frame.next_seq <= frame.seq {
            return Verdict::NotNext { next_seq: self.next_seq };
        }
        if frame.bytes > stream.max_frame_bytes {
            return Verdict::TooLarge { max_bytes: stream.max_frame_bytes };
        }
        if now < self.not_before {
            return Verdict::NotBefore(self.not_before);
        }
        if !self.window.has_room(frame.bytes) {
            return Verdict::Full;
        }

        self.window.sent(frame.next_seq, frame.bytes, now);
        self.next_seq = frame.next_seq;
        stream.highest_sent_seq = stream.highest_sent_seq.max(frame.next_seq);
        stream.waiting_since.get_or_insert(now);
        if let Some(bytes_per_s) = stream.bytes_per_s {
            let pace =
                Duration::from_secs(frame.bytes).checked_div(u32::try_from(bytes_per_s.get()).unwrap_or(u32::MAX));
            self.not_before = now.saturating_add(pace.unwrap_or_default().min(LONGEST_HINT));
        }
        Verdict::Send
    }

    /// The server said something.
    ///
    /// # Errors
    /// `Retry` with `Broken`: it said what cannot be. `Retry` with `Lost`: it ended the stream out of the blue, or in answer
    /// to Bye, after which the caller needs no session. Close the connection.
    pub fn told(&mut self, event: Event, now: Duration) -> Result<Reaction, TransportError> {
        let Some(stream) = self.stream.as_mut() else { return Ok(Reaction::Nothing) };
        stream.events += 1;
        if stream.events > MAX_EVENTS_A_BEAT {
            return Err(TransportError::broken(format!("it said {MAX_EVENTS_A_BEAT} things within one beat")));
        }
        match event {
            Event::Ack { received_next_seq, durable_next_seq } => self.acked(received_next_seq, durable_next_seq, now),
            Event::Credit { total_bytes } => {
                self.window.credited(total_bytes);
                Ok(Reaction::Nothing)
            }
            Event::Throttle { retry_after, bytes_per_s, linger, reason: _ } => {
                // A wish for larger frames alone stops nothing, and is no sign of overload; without any word it is one.
                if linger.is_none() || bytes_per_s.is_some() || !retry_after.is_zero() {
                    stream.bytes_per_s = bytes_per_s;
                    let wait = obeyed(retry_after, self.random.f64());
                    self.not_before = self.not_before.max(now.saturating_add(wait));
                    self.window.halve();
                }
                Ok(linger.map_or(Reaction::Nothing, Reaction::Linger))
            }
            Event::Reject { seq, reason } => {
                if seq < stream.durable_next_seq || seq >= stream.highest_sent_seq {
                    return Err(out_of_bounds("rejects frame", seq, stream));
                }
                // The GAP in a frame's place can be refused as well, and then again.
                self.turned_back()?;
                // The second of two refused frames is reached again anyway; going there now would skip what lies between.
                if seq < self.next_seq {
                    self.resend_from(seq, now);
                }
                Ok(Reaction::ReplaceWithGap { seq, cause: GapCause::Rejected { reason } })
            }
            Event::Rewind { next_seq, reason } => self.rewound(next_seq, &reason, now),
            Event::Drain { reconnect_after } => {
                let wait = obeyed(reconnect_after, self.random.f64());
                stream.is_draining = true;
                self.reconnect_at.get_or_insert(now.saturating_add(wait));
                Ok(Reaction::Draining)
            }
            Event::Notice(text) => Ok(Reaction::Notice(text)),
            Event::Closed if stream.is_draining => Ok(Reaction::Closed),
            Event::Closed => Err(TransportError::retry(RetryCause::Lost, "the server ended the stream")),
        }
    }

    /// The journal has dropped every frame below: a Rewind to one of them is then a [`Resume::Regressed`].
    pub fn trimmed(&mut self, first_available_seq: u64) {
        if let Some(stream) = self.stream.as_mut() {
            stream.first_available_seq = stream.first_available_seq.max(first_available_seq);
        }
    }

    /// What is due at this time. Tell events that have arrived first.
    ///
    /// # Errors
    /// `Retry` with `TimedOut`: the server is silent about what it was sent. Close the connection; next time it gets
    /// twice as long.
    pub fn due(&mut self, now: Duration) -> Result<Due, TransportError> {
        let Some(stream) = self.stream.as_mut() else { return Ok(Due::Nothing) };
        if self.reconnect_at.is_some_and(|at| now >= at) {
            return Ok(Due::Reconnect);
        }
        if let Some(since) = stream.waiting_since
            && now.saturating_sub(since) >= self.ack_timeout
        {
            let reason = format!(
                "no ack for {:.0} s, frames {} to {} wait for one",
                self.ack_timeout.as_secs_f64(),
                self.durable_next_seq,
                stream.highest_sent_seq.saturating_sub(1),
            );
            self.ack_timeout = (self.ack_timeout * 2).min(LONGEST_ACK_TIMEOUT);
            return Err(TransportError::retry(RetryCause::TimedOut, reason));
        }
        if now >= stream.beat_at {
            stream.beat_at = now.saturating_add(BEAT_EVERY);
            stream.events = 0;
            stream.waiting_since.get_or_insert(now);
            return Ok(Due::Beat);
        }
        Ok(Due::Nothing)
    }

    /// When [`due`](Self::due) will have something to say, or a throttle ends; nothing without a connection.
    pub fn next_deadline(&self, now: Duration) -> Option<Duration> {
        let stream = self.stream.as_ref()?;
        let ack_timeout = stream.waiting_since.map(|since| since.saturating_add(self.ack_timeout));
        let throttle = Some(self.not_before).filter(|at| *at > now && !stream.is_draining);
        [Some(stream.beat_at), ack_timeout, throttle, self.reconnect_at].into_iter().flatten().min()
    }

    /// The connection has ended, by an error or in order. Signs of overload halve the window.
    pub fn disconnected(&mut self, error: Option<&TransportError>) {
        self.stream = None;
        if let Some(TransportError::Retry { cause, .. }) = error
            && cause.is_congestion()
        {
            self.window.halve();
        }
    }

    fn acked(&mut self, received: u64, durable: u64, now: Duration) -> Result<Reaction, TransportError> {
        let Some(stream) = self.stream.as_mut() else { return Ok(Reaction::Nothing) };
        let received = received.max(durable); // what is stored has been received
        if received > stream.highest_sent_seq {
            return Err(out_of_bounds("acks up to", received, stream));
        }
        if received < stream.received_next_seq || durable < stream.durable_next_seq {
            return Err(out_of_bounds("takes back its acks to", received.min(durable), stream));
        }
        let has_progress = received > stream.received_next_seq || durable > self.durable_next_seq;
        stream.received_next_seq = received;
        stream.durable_next_seq = durable;
        self.window.received(received);
        // What the store has by now is not sent again. `received` says nothing here: after a rewind it may be an old number.
        self.next_seq = self.next_seq.max(durable);

        if has_progress {
            self.ack_timeout = FIRST_ACK_TIMEOUT;
        }
        if stream.highest_sent_seq <= self.durable_next_seq.max(durable) {
            stream.waiting_since = None; // whatever was asked, a beat included, is answered
        } else if has_progress {
            stream.waiting_since = Some(now);
        }

        if durable <= self.durable_next_seq {
            return Ok(Reaction::Nothing);
        }
        self.durable_next_seq = durable;
        self.idle_rewinds = 0;
        if self.refused.is_some_and(|refused| refused.seq < durable) {
            self.refused = None;
        }
        Ok(Reaction::Durable { next_seq: durable })
    }

    fn rewound(&mut self, next_seq: u64, reason: &str, now: Duration) -> Result<Reaction, TransportError> {
        let Some(stream) = self.stream.as_mut() else { return Ok(Reaction::Nothing) };
        if next_seq == 0 || next_seq > stream.highest_sent_seq {
            return Err(out_of_bounds("rewinds to", next_seq, stream));
        }
        let first_available_seq = stream.first_available_seq;
        self.turned_back()?;
        self.resend_from(next_seq, now);
        if reason == CHECKSUM {
            let times = self.refused.filter(|refused| refused.seq == next_seq).map_or(0, |refused| refused.times) + 1;
            self.refused = Some(RefusedChecksum { seq: next_seq, times });
            if times > CHECKSUM_RESENDS {
                self.refused = None;
                return Ok(Reaction::ReplaceWithGap { seq: next_seq, cause: GapCause::Corrupt });
            }
        }
        Ok(Reaction::Resume(self.go_back(next_seq, first_available_seq)))
    }

    /// The server wants something again.
    fn turned_back(&mut self) -> Result<(), TransportError> {
        self.idle_rewinds += 1;
        if self.idle_rewinds > MAX_IDLE_REWINDS {
            self.idle_rewinds = 0;
            return Err(TransportError::broken(format!(
                "it sent us back {MAX_IDLE_REWINDS} times without storing anything"
            )));
        }
        Ok(())
    }

    /// The server ignores what is in flight from `seq` on, and expects that.
    fn resend_from(&mut self, seq: u64, now: Duration) {
        self.window.rewound(seq);
        self.next_seq = seq;
        if let Some(stream) = self.stream.as_mut() {
            // Down only: acks of what lies below may still be on their way.
            stream.received_next_seq = stream.received_next_seq.min(seq);
            stream.durable_next_seq = stream.durable_next_seq.min(seq);
            // A rewind is an answer, but no progress: the clock starts again without forgetting that it was slow.
            stream.waiting_since = stream.waiting_since.map(|_| now);
        }
    }

    /// The server expects `next_seq`, which is not beyond what the client has.
    fn go_back(&mut self, next_seq: u64, first_available_seq: u64) -> Resume {
        self.next_seq = next_seq;
        let lost = self.durable_next_seq.saturating_sub(next_seq);
        self.durable_next_seq = self.durable_next_seq.min(next_seq);
        if next_seq < first_available_seq {
            return Resume::Regressed { gap_seq: next_seq, first_available_seq };
        }
        Resume::From { next_seq, lost }
    }
}

fn out_of_bounds(does: &str, seq: u64, stream: &Stream) -> TransportError {
    TransportError::broken(format!(
        "it {does} {seq}, of frames {} to {} on their way",
        stream.received_next_seq,
        stream.highest_sent_seq.saturating_sub(1),
    ))
}
