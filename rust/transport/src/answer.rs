//! What the server says, as values that can be relied on.
//!
//! Between the generated messages and the rest of the client stands this one reading: numbers that cannot be are errors,
//! texts are cut and cleaned, absent is `None`, codes are named by what they mean to the caller. What a number means in the
//! order of things (an ack beyond what was sent) is judged by [`Session`](crate::session::Session).

use std::num::NonZeroU64;
use std::time::Duration;

use crate::error::TransportError;
use crate::hostile;
use crate::proto;
use crate::proto::reject::Code as RejectCode;
use crate::proto::server_message::Kind as Said;

/// A server that takes only frames smaller than this could make us replace every frame by a GAP.
const SMALLEST_FRAME_LIMIT_BYTES: u64 = 64 << 10;
/// Longest linger that is believed.
const LONGEST_LINGER: Duration = Duration::from_secs(5);

/// What an ack called `durable` survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Power loss of the server.
    Disk,
    /// The death of the server's process, no more.
    Os,
}

/// The server's answer to Open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// Number of the frame the server expects next; at least 1.
    pub next_seq: u64,
    /// Names the database: another value than last time means that it was created or restored since.
    pub storage_epoch: Vec<u8>,
    /// Page of the run as a path of the server's address.
    pub run_url: Option<String>,
    /// Bytes of frames that may be sent, cumulative as in [`Event::Credit`].
    pub credit_bytes: u64,
    /// Whether the run was there before this writer.
    pub run_existed: bool,
    /// Highest stored step of the run.
    pub last_step: Option<i64>,
    /// What an ack called `durable` survives.
    pub durability: Durability,
    /// Larger frames are refused.
    pub max_frame_bytes: Option<u64>,
    /// Both checksums of the frame below `next_seq`, as its header says them.
    pub last_frame_hash: Option<[u8; 8]>,
    /// What the server wished to tell before.
    pub notices: Vec<String>,
}

/// What the server said. Texts are cut and free of control characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Cumulative: every frame below is covered.
    Ack {
        /// The server has it in memory: flow control only.
        received_next_seq: u64,
        /// The server has stored it: may be trimmed.
        durable_next_seq: u64,
    },
    /// More frames may be sent.
    Credit {
        /// Bytes of frames since the stream was opened.
        total_bytes: u64,
    },
    /// The server has too much to do.
    Throttle {
        /// Send no frames for so long; as the server said, neither clamped nor spread.
        retry_after: Duration,
        /// And then not faster than this.
        bytes_per_s: Option<NonZeroU64>,
        /// Wait so long for a frame to fill; alone it stops nothing.
        linger: Option<Duration>,
        /// In words.
        reason: String,
    },
    /// One frame is refused for good. The stream goes on, and the server expects a GAP under this number.
    Reject {
        /// Of the frame; never 0.
        seq: u64,
        /// In words.
        reason: String,
    },
    /// The server expects this frame and ignores all others.
    Rewind {
        /// Number of the frame.
        next_seq: u64,
        /// "gap", "checksum" or "unknown outcome".
        reason: String,
    },
    /// The server is about to close.
    Drain {
        /// Come back after this; as the server said, neither clamped nor spread.
        reconnect_after: Duration,
    },
    /// Something the user should read.
    Notice(String),
    /// The server has ended the stream in order. Nothing comes after it.
    Closed,
}

/// Reads the answer to Open.
pub(crate) fn opened(answer: &proto::OpenOk, notices: Vec<String>) -> Result<Opened, TransportError> {
    if answer.next_seq == 0 {
        return Err(TransportError::broken("it expects frame 0, numbers begin at 1"));
    }
    if answer.storage_epoch.len() > hostile::EPOCH_BYTES {
        return Err(TransportError::broken(format!("its storage epoch has {} bytes", answer.storage_epoch.len())));
    }
    if (1..SMALLEST_FRAME_LIMIT_BYTES).contains(&answer.max_frame_bytes) {
        return Err(TransportError::Incompatible {
            reason: format!("it takes no frames over {} bytes", answer.max_frame_bytes),
        });
    }
    Ok(Opened {
        next_seq: answer.next_seq,
        storage_epoch: answer.storage_epoch.to_vec(),
        run_url: hostile::page(&answer.run_url),
        credit_bytes: answer.credit_bytes,
        run_existed: answer.run_existed,
        last_step: (answer.last_step >= 0).then_some(answer.last_step),
        last_frame_hash: answer.last_frame_hash.as_ref().try_into().ok(),
        // What is not known to survive power loss is not promised to.
        durability: if answer.durability == "disk" { Durability::Disk } else { Durability::Os },
        max_frame_bytes: (answer.max_frame_bytes > 0).then_some(answer.max_frame_bytes),
        notices,
    })
}

/// The message as an event; nothing for those that are not events.
pub(crate) fn event(said: Said) -> Option<Event> {
    match said {
        Said::Ack(proto::Ack { received_next_seq, durable_next_seq }) => {
            Some(Event::Ack { received_next_seq, durable_next_seq })
        }
        Said::Credit(proto::Credit { total_bytes }) => Some(Event::Credit { total_bytes }),
        Said::Throttle(throttle) => Some(Event::Throttle {
            retry_after: Duration::from_millis(throttle.retry_after_ms.into()),
            bytes_per_s: NonZeroU64::new(throttle.bytes_per_s),
            linger: (throttle.linger_ms > 0)
                .then(|| Duration::from_millis(throttle.linger_ms.into()).min(LONGEST_LINGER)),
            reason: hostile::text(&throttle.reason),
        }),
        Said::Reject(reject) => Some(Event::Reject { seq: reject.seq, reason: reject_reason(&reject) }),
        Said::Rewind(rewind) => {
            Some(Event::Rewind { next_seq: rewind.next_seq, reason: hostile::text(&rewind.reason) })
        }
        Said::Drain(drain) => {
            Some(Event::Drain { reconnect_after: Duration::from_millis(drain.reconnect_after_ms.into()) })
        }
        Said::Notice(notice) => Some(Event::Notice(hostile::text(&notice.text))),
        Said::OpenOk(_) => None,
    }
}

/// A Reject of the whole stream. Codes of a newer server stop the run: going on could lose something.
pub(crate) fn refused(reject: &proto::Reject) -> TransportError {
    let reason = reject_reason(reject);
    match RejectCode::try_from(reject.code) {
        Ok(RejectCode::Incompatible) => TransportError::Incompatible { reason },
        Ok(RejectCode::Unauthenticated) => TransportError::PauseAuth { reason },
        Ok(
            RejectCode::Unspecified
            | RejectCode::BadOpen
            | RejectCode::Forbidden
            | RejectCode::RunDeleted
            | RejectCode::FrameTooLarge
            | RejectCode::UnknownKind,
        )
        | Err(_) => TransportError::Blocked { reason },
    }
}

fn reject_reason(reject: &proto::Reject) -> String {
    let code = RejectCode::try_from(reject.code).map_or("unknown code", |code| code.as_str_name());
    format!("{code}: {}", hostile::text(&reject.reason))
}
