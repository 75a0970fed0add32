//! What went wrong between here and the server, named by what the caller can do next.
//!
//! The server's answers are many (gRPC codes, HTTP statuses, messages, hints in status details); what can be done about
//! them is little: wait and try again, get another key, or stop and say why. So the mapping happens once, here, and the
//! engine matches on [`TransportError`] alone. No variant means that a frame is lost.

use std::error::Error as _;
use std::time::Duration;

use prost::Message as _;
use tonic::{Code, Status};

use crate::hostile;

/// A failure to reach the server or to go on with it.
///
/// Not `non_exhaustive`: the engine matches every variant, so a new one needs a decision before it compiles.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// The address cannot be used as it is written. No attempt makes sense before the user changes it.
    #[error("bad server address {address:?}: {reason}")]
    BadAddress {
        /// As the user gave it.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Something answers at the address, and it is not Runferry. It has been sent no key. It may be replaced by
    /// Runferry later, so the caller tries again with backoff, and tells the user meanwhile.
    #[error("{address} is not a Runferry server: {reason}")]
    NotRunferry {
        /// As the user gave it.
        address: String,
        /// What the answer was like.
        reason: String,
    },
    /// The connection cannot be made or was lost; the same request may work later. Wait as
    /// [`Backoff`](crate::retry::Backoff) says.
    #[error("{cause}: {reason}")]
    Retry {
        /// What kind of trouble it was.
        cause: RetryCause,
        /// In words, for the log.
        reason: String,
        /// How long the server asked to be left alone; as it said, neither clamped nor spread.
        after: Option<Duration>,
    },
    /// The server does not know the key. Keep journaling, read the credentials again, try in 30 s to 10 min.
    #[error("the server does not accept the API key: {reason}")]
    PauseAuth {
        /// The server's words.
        reason: String,
    },
    /// The server's certificate cannot be believed. No key and no frame was sent. Read the authorities again, try in 30 s to 10 min.
    #[error("the certificate of {address} is not trusted: {reason}")]
    Untrusted {
        /// Who was asked.
        address: String,
        /// What is wrong with it, in words.
        reason: String,
    },
    /// The server refuses this run for good (deleted, forbidden). Stop sending it, keep its journal.
    #[error("the server refuses this run: {reason}")]
    Blocked {
        /// The server's words.
        reason: String,
    },
    /// Server and client speak different versions. Keep the journal; only an upgrade of either side helps.
    #[error("server and client versions do not fit: {reason}")]
    Incompatible {
        /// What either side said.
        reason: String,
    },
}

/// What kind of trouble a [`TransportError::Retry`] was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RetryCause {
    /// No connection: the name does not resolve, the port is closed, the network is down.
    #[error("cannot reach the server")]
    Unreachable,
    /// Nothing came back in time, though there was a connection.
    #[error("the server does not answer")]
    TimedOut,
    /// The connection or the server went away.
    #[error("the connection to the server was lost")]
    Lost,
    /// The server has too much to do.
    #[error("the server is busy")]
    Busy,
    /// The server broke the protocol, or what answered does not speak it. Nothing it said since is to be believed.
    #[error("the server broke the protocol")]
    Broken,
}

impl RetryCause {
    /// Whether it tells of an overloaded server or path, so that the window is halved. Nothing that happens before the
    /// first frame does.
    pub fn is_congestion(self) -> bool {
        match self {
            Self::TimedOut | Self::Lost | Self::Busy => true,
            Self::Unreachable | Self::Broken => false,
        }
    }
}

impl TransportError {
    /// A [`TransportError::Retry`] without a hint.
    pub(crate) fn retry(cause: RetryCause, reason: impl Into<String>) -> Self {
        Self::Retry { cause, reason: reason.into(), after: None }
    }

    /// The server did what the protocol forbids.
    pub(crate) fn broken(reason: impl Into<String>) -> Self {
        Self::retry(RetryCause::Broken, reason)
    }

    /// Whether trying again, later and unchanged, can help.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::NotRunferry { .. }
            | Self::Retry { .. }
            | Self::PauseAuth { .. }
            | Self::Untrusted { .. }
            | Self::Incompatible { .. } => true,
            Self::BadAddress { .. } | Self::Blocked { .. } => false,
        }
    }

    /// Reads how a gRPC call ended.
    ///
    /// A status with a source was made on this side, from an HTTP/2 or socket error: whatever code the gRPC library
    /// chose for it, no server has spoken, so it never stops a run.
    pub(crate) fn of_status(status: &Status) -> Self {
        let reason = format!("{:?}: {}", status.code(), hostile::text(status.message()));
        if let Some(source) = status.source() {
            let cause = if has_connect_error(status) { RetryCause::Unreachable } else { RetryCause::Lost };
            return Self::retry(cause, format!("{reason} ({})", hostile::text(&chain(source))));
        }
        let after = retry_info(status.details());
        match status.code() {
            Code::ResourceExhausted => Self::Retry { cause: RetryCause::Busy, reason, after },
            Code::Unauthenticated => Self::PauseAuth { reason },
            Code::PermissionDenied | Code::NotFound => Self::Blocked { reason },
            Code::FailedPrecondition | Code::Unimplemented | Code::InvalidArgument => Self::Incompatible { reason },
            Code::DeadlineExceeded => Self::Retry { cause: RetryCause::TimedOut, reason, after },
            Code::Unavailable
            | Code::Aborted
            | Code::Cancelled
            | Code::Internal
            | Code::Unknown
            | Code::AlreadyExists
            | Code::OutOfRange
            | Code::DataLoss
            | Code::Ok => Self::Retry { cause: RetryCause::Lost, reason, after },
        }
    }
}

/// The messages of an error and its causes; a cause that repeats what stands before it is left out.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.ends_with(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = error.source();
    }
    text
}

/// Whether the status stems from a connection that was never made.
fn has_connect_error(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// `google.rpc.Status`, as it lies in the trailer `grpc-status-details-bin`; the fields that matter here.
#[derive(Clone, PartialEq, prost::Message)]
struct StatusDetails {
    #[prost(message, repeated, tag = "3")]
    details: Vec<AnyDetail>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, prost::Message)]
struct AnyDetail {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "bytes", tag = "2")]
    value: bytes::Bytes,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, prost::Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<RetryDelay>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, PartialEq, prost::Message)]
struct RetryDelay {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

/// The delay asked for in the details of a status, if they hold one. Details that cannot be read count as absent; a
/// negative delay is none.
fn retry_info(details: &[u8]) -> Option<Duration> {
    let details = StatusDetails::decode(details).ok()?.details;
    let info = details.iter().find(|detail| detail.type_url.ends_with("/google.rpc.RetryInfo"))?;
    let delay = RetryInfo::decode(info.value.clone()).ok()?.retry_delay?;
    let whole = Duration::from_secs(u64::try_from(delay.seconds).ok()?);
    Some(whole.saturating_add(Duration::from_nanos(u64::try_from(delay.nanos).ok()?)))
}

/// The details of a status with this delay: what [`retry_info`] reads.
#[cfg(test)]
pub(crate) fn retry_details(seconds: i64, nanos: i32) -> bytes::Bytes {
    let info = RetryInfo { retry_delay: Some(RetryDelay { seconds, nanos }) };
    let detail =
        AnyDetail { type_url: "type.googleapis.com/google.rpc.RetryInfo".into(), value: info.encode_to_vec().into() };
    StatusDetails { details: vec![detail] }.encode_to_vec().into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(code: Code) -> TransportError {
        TransportError::of_status(&Status::new(code, "words"))
    }

    #[test]
    fn every_grpc_code_names_what_to_do_next() {
        use Code::{
            Aborted, AlreadyExists, Cancelled, DataLoss, DeadlineExceeded, FailedPrecondition, Internal,
            InvalidArgument, NotFound, Ok, OutOfRange, PermissionDenied, ResourceExhausted, Unauthenticated,
            Unavailable, Unimplemented, Unknown,
        };
        for code in [
            Ok,
            Unavailable,
            Aborted,
            DeadlineExceeded,
            Cancelled,
            Internal,
            Unknown,
            DataLoss,
            OutOfRange,
            AlreadyExists,
            ResourceExhausted,
        ] {
            assert!(matches!(read(code), TransportError::Retry { after: None, .. }), "{code:?}");
        }
        assert!(matches!(read(ResourceExhausted), TransportError::Retry { cause: RetryCause::Busy, .. }));
        assert!(matches!(read(Unauthenticated), TransportError::PauseAuth { .. }));
        for code in [PermissionDenied, NotFound] {
            assert!(matches!(read(code), TransportError::Blocked { .. }), "{code:?}");
        }
        for code in [FailedPrecondition, Unimplemented, InvalidArgument] {
            assert!(matches!(read(code), TransportError::Incompatible { .. }), "{code:?}");
        }
    }

    #[test]
    fn a_status_made_on_this_side_never_stops_a_run() {
        let local = Status::from_error(Box::new(std::io::Error::from(std::io::ErrorKind::ConnectionReset)));
        let mut forbidden = Status::permission_denied("inadequate security");
        forbidden.set_source(std::sync::Arc::new(std::io::Error::other("h2")));

        for status in [local, forbidden] {
            let error = TransportError::of_status(&status);

            assert!(matches!(error, TransportError::Retry { cause: RetryCause::Lost, .. }), "{error:?}");
        }
    }

    #[test]
    fn the_delay_of_retry_info_is_read_whatever_the_code() {
        for code in [Code::ResourceExhausted, Code::Unavailable] {
            let status = Status::with_details(code, "later", retry_details(2, 500_000_000));

            let TransportError::Retry { after, .. } = TransportError::of_status(&status) else { panic!("not a retry") };

            assert_eq!(after, Some(Duration::from_millis(2_500)));
        }
    }

    #[test]
    fn a_negative_delay_is_none() {
        for (seconds, nanos) in [(-1, 0), (0, -1)] {
            assert_eq!(retry_info(&retry_details(seconds, nanos)), None);
        }
    }

    #[test]
    fn the_largest_delay_does_not_overflow() {
        let delay = retry_info(&retry_details(i64::MAX, i32::MAX)).expect("a delay");

        assert!(delay >= Duration::from_secs(i64::MAX as u64));
    }

    proptest! {
        #[test]
        fn details_of_any_bytes_are_read_or_ignored(details in proptest::collection::vec(any::<u8>(), 0..200)) {
            // No panic is what is asked; an accidental RetryInfo in random bytes is as good as any.
            let delay = retry_info(&details);
            prop_assert!(delay.is_none() || details.len() > 20);
        }
    }
}
