//! One stream to the write door: Open and its answer, frames out, events in.
//!
//! This is plumbing. It turns messages into [`Event`]s and failures into [`TransportError`]s, keeps what waits here bounded
//! in bytes, and believes nothing that is out of bounds; what may be sent when is decided by
//! [`Session`](crate::session::Session).
//!
//! # Who runs it
//! The stream lives in tasks of the caller's tokio runtime. They move only while the caller is inside that runtime, so
//! `rf-send` spends its life in one `block_on`; pings are answered there too.
//!
//! # Two halves
//! [`Connection::outgoing`] and [`Connection::incoming`] are separate fields, so that one `select!` can wait for both. All
//! their waiting is cancel-safe: a call that is dropped has done nothing.
//!
//! # Failure
//! The first error of [`Incoming::next_event`] ends the connection; a failed send only says that it has ended, the reason
//! comes from `next_event`. Dropping a [`Connection`] closes it at once.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::Uri;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tonic::codegen::Service;
use tonic::codegen::tokio_stream::Stream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Endpoint;
use tonic::{Request, Streaming};

use crate::answer::{self, Event, Opened};
use crate::dial::{self, Dial};
use crate::door::Door;
use crate::error::{RetryCause, TransportError, chain};
use crate::hostile;
use crate::proto;
use crate::proto::client_message::Kind as Told;
use crate::proto::ingest_client::IngestClient;
use crate::proto::server_message::Kind as Said;

/// Version of the protocol spoken here.
pub const PROTOCOL: u32 = 1;
/// Most bytes of frames in one message, unless a frame alone is larger.
pub const MESSAGE_BYTES: usize = 1 << 20;
/// Most bytes of frames that wait here for the network.
pub const OUTGOING_BYTES: usize = 2 << 20;
/// Most messages that wait here for the network.
const OUTGOING_MESSAGES: usize = 1_024;
/// Largest message, both ways.
const LARGEST_MESSAGE_BYTES: usize = 16 << 20;
/// HTTP/2 receive windows. The default of 64 KiB would make the server wait for us on a slow link.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 2 << 20;
/// A dead peer is seen after both together, within 30 s.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(8);
/// Messages the server may send before it has answered Open.
const MESSAGES_BEFORE_OPEN_OK: usize = 16;

/// How long to wait for the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For name lookup and TCP, and again for the whole of `GET /api/v1/door`.
    pub connect: Duration,
    /// From the connected socket to the answer to Open.
    pub open: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(10), open: Duration::from_secs(10) }
    }
}

/// What the client says first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenRequest {
    /// The OPEN frame of the journal, whole.
    pub open_frame: Bytes,
    /// Oldest frame that can still be sent; 0: none yet.
    pub first_available_seq: u64,
    /// Number of the next new frame.
    pub next_seq: u64,
    /// Program and version, as `runferry/0.1.0`.
    pub client: String,
    /// As last seen in [`Opened`]; empty: never.
    pub storage_epoch: Vec<u8>,
    /// The writer lives no more, as far as is known: nothing that is sent for it is a sign of life.
    pub replay: bool,
}

/// An open stream.
#[derive(Debug)]
pub struct Connection {
    /// What the client says.
    pub outgoing: Outgoing,
    /// What the server says.
    pub incoming: Incoming,
}

impl Connection {
    /// Connects, sends Open and waits for the answer. The name of the server is resolved anew. `api_key` is sent only here,
    /// to a door that has answered as Runferry.
    ///
    /// # Errors
    /// Any [`TransportError`] but `NotRunferry`. `Retry` with `TimedOut` if a timeout passed.
    pub async fn open<D: Dial>(
        dial: &D,
        door: &Door,
        request: OpenRequest,
        api_key: Option<&str>,
        timeouts: Timeouts,
    ) -> Result<(Self, Opened), TransportError> {
        if door.has_tls != D::IS_SECURE {
            return Err(TransportError::broken("its write door is asked over TLS if and only if it speaks that"));
        }
        let authorization = api_key.map(authorization).transpose()?;
        let endpoint = endpoint(door)?;

        let stream = dial.dial(door.lookup_name(), door.write_port, timeouts.connect).await;
        let stream = stream.map_err(|error| dial::failed(&door.write_address(), &error))?;
        let connecting = tokio::time::timeout(timeouts.connect, endpoint.connect_with_connector(Dialled(Some(stream))));
        let channel = match connecting.await {
            Ok(Ok(channel)) => channel,
            Ok(Err(error)) => {
                return Err(TransportError::retry(RetryCause::Unreachable, hostile::text(&chain(&error))));
            }
            Err(_elapsed) => return Err(too_late("connect", timeouts.connect)),
        };

        let (messages, queue) = mpsc::channel(OUTGOING_MESSAGES);
        let outgoing = Outgoing { messages: Some(messages), room: Arc::new(Semaphore::new(OUTGOING_BYTES)) };
        outgoing.queue(Told::Open(proto::Open {
            protocol: PROTOCOL,
            open_frame: request.open_frame,
            first_available_seq: request.first_available_seq,
            next_seq: request.next_seq,
            client: request.client,
            storage_epoch: request.storage_epoch.into(),
            replay: request.replay,
        }))?;

        let mut call = Request::new(Queue(queue));
        if let Some(authorization) = authorization {
            call.metadata_mut().insert("authorization", authorization);
        }
        let mut client = IngestClient::new(channel)
            .max_decoding_message_size(LARGEST_MESSAGE_BYTES)
            .max_encoding_message_size(LARGEST_MESSAGE_BYTES);
        let answering = async {
            let answer = client.stream(call).await.map_err(|status| TransportError::of_status(&status))?;
            let mut incoming = Incoming { messages: Some(answer.into_inner()) };
            let opened = incoming.opened().await?;
            Ok((incoming, opened))
        };
        match tokio::time::timeout(timeouts.open, answering).await {
            Ok(Ok((incoming, opened))) => Ok((Self { outgoing, incoming }, opened)),
            Ok(Err(error)) => Err(error),
            Err(_elapsed) => Err(too_late("answer to Open", timeouts.open)),
        }
    }
}

/// The client's half of a stream.
#[derive(Debug)]
pub struct Outgoing {
    /// None: Bye was said.
    messages: Option<mpsc::Sender<Queued>>,
    room: Arc<Semaphore>,
}

impl Outgoing {
    /// Hands over whole frames, in order, in as few messages as the protocol allows. Waits while
    /// [`OUTGOING_BYTES`] are already waiting. All of them are handed over or, if the call is dropped or fails, none.
    ///
    /// # Errors
    /// `Retry` with `Lost`: the stream has ended, [`Incoming::next_event`] says why.
    pub async fn send_frames(&self, frames: Vec<Bytes>) -> Result<(), TransportError> {
        let messages = self.messages.as_ref().ok_or_else(ended)?;
        let groups = group(frames);
        let total_bytes: usize = groups.iter().map(|group| group.bytes).sum();

        // A call larger than all the room takes all of it. Either wait may be cancelled: neither has an effect by itself.
        let wanted = total_bytes.min(OUTGOING_BYTES);
        let room = Arc::clone(&self.room).acquire_many_owned(wanted as u32).await;
        let mut room = room.map_err(|_closed| ended())?;
        let slots = messages.reserve_many(groups.len()).await.map_err(|_closed| ended())?;
        for (slot, group) in slots.zip(groups) {
            let share = group.bytes.min(room.num_permits());
            slot.send(Queued { kind: Told::Frames(proto::Frames { frames: group.frames }), _room: room.split(share) });
        }
        Ok(())
    }

    /// Hands over a Beat. While the queue of messages is full it is left out: a beat behind a full queue tells nothing.
    ///
    /// # Errors
    /// `Retry` with `Lost`: the stream has ended, [`Incoming::next_event`] says why.
    pub fn send_beat(&self, beat: proto::Beat) -> Result<(), TransportError> {
        self.queue(Told::Beat(beat))
    }

    /// Says Bye, as the last word; the server answers by ending the stream, after what it still has to say. `has_died`:
    /// the writer, for which somebody else speaks, died without FINISH, and all it left has been durably acked.
    ///
    /// # Errors
    /// `Retry` with `Lost`: the stream has ended before, [`Incoming::next_event`] says why.
    pub fn bye(&mut self, has_died: bool) -> Result<(), TransportError> {
        let said = self.queue(Told::Bye(proto::Bye { died: has_died }));
        self.messages = None;
        said
    }

    /// Queues a message that carries no frames. A full queue swallows it.
    fn queue(&self, kind: Told) -> Result<(), TransportError> {
        let messages = self.messages.as_ref().ok_or_else(ended)?;
        match messages.try_send(Queued { kind, _room: None }) {
            Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => Ok(()),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(ended()),
        }
    }
}

/// The server's half of a stream.
#[derive(Debug)]
pub struct Incoming {
    /// None: the stream has ended.
    messages: Option<Streaming<proto::ServerMessage>>,
}

impl Incoming {
    /// The next thing the server says. Messages of a kind this version does not know are skipped. After
    /// [`Event::Closed`] or an error there is nothing more.
    ///
    /// # Errors
    /// Any [`TransportError`] but `BadAddress` and `NotRunferry`; a Reject of the whole stream is one.
    pub async fn next_event(&mut self) -> Result<Event, TransportError> {
        loop {
            let Some(said) = self.next_message().await? else { return Ok(Event::Closed) };
            match said {
                Said::OpenOk(_) => return Err(self.broken("it answered Open twice")),
                Said::Reject(reject) if reject.seq == 0 => {
                    self.messages = None;
                    return Err(answer::refused(&reject));
                }
                said => {
                    if let Some(event) = answer::event(said) {
                        return Ok(event);
                    }
                }
            }
        }
    }

    /// Waits for the answer to Open.
    async fn opened(&mut self) -> Result<Opened, TransportError> {
        let mut notices = Vec::new();
        for _ in 0..MESSAGES_BEFORE_OPEN_OK {
            let Some(said) = self.next_message().await? else {
                return Err(TransportError::retry(RetryCause::Lost, "the stream ended before Open was answered"));
            };
            match said {
                Said::OpenOk(said) => return answer::opened(&said, notices),
                Said::Reject(reject) => return Err(answer::refused(&reject)),
                Said::Throttle(throttle) => {
                    return Err(TransportError::Retry {
                        cause: RetryCause::Busy,
                        reason: hostile::text(&throttle.reason),
                        after: Some(Duration::from_millis(throttle.retry_after_ms.into())),
                    });
                }
                Said::Drain(drain) => {
                    return Err(TransportError::Retry {
                        cause: RetryCause::Busy,
                        reason: "it is about to close".into(),
                        after: Some(Duration::from_millis(drain.reconnect_after_ms.into())),
                    });
                }
                Said::Notice(notice) => notices.push(hostile::text(&notice.text)),
                Said::Ack(_) | Said::Credit(_) | Said::Rewind(_) => {
                    return Err(self.broken("it did not answer Open first"));
                }
            }
        }
        Err(self.broken("it did not answer Open"))
    }

    /// The next message of a known kind, or nothing if the stream has ended in order.
    async fn next_message(&mut self) -> Result<Option<Said>, TransportError> {
        loop {
            let Some(messages) = self.messages.as_mut() else { return Ok(None) };
            match messages.message().await {
                Ok(Some(proto::ServerMessage { kind: Some(said) })) => {
                    runferry_failpoints::hit!("transport.heard");
                    return Ok(Some(said));
                }
                Ok(Some(proto::ServerMessage { kind: None })) => {} // of a newer server
                Ok(None) => {
                    self.messages = None;
                    return Ok(None);
                }
                Err(status) => {
                    self.messages = None;
                    return Err(TransportError::of_status(&status));
                }
            }
        }
    }

    fn broken(&mut self, reason: &str) -> TransportError {
        self.messages = None;
        TransportError::broken(reason)
    }
}

/// A message on its way to the network, with the room it takes until it is there.
#[derive(Debug)]
struct Queued {
    kind: Told,
    _room: Option<OwnedSemaphorePermit>,
}

/// What the gRPC library pulls messages from; it does so only while HTTP/2 has room for them.
struct Queue(mpsc::Receiver<Queued>);

impl Stream for Queue {
    type Item = proto::ClientMessage;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context).map(|queued| {
            queued.map(|queued| {
                runferry_failpoints::hit!("transport.send");
                proto::ClientMessage { kind: Some(queued.kind) }
            })
        })
    }
}

/// A connection that is made, as the gRPC library asks for one. It is given out once: a stream that is lost is made anew by the
/// caller, from the door on.
struct Dialled<S>(Option<S>);

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Service<Uri> for Dialled<S> {
    type Response = TokioIo<S>;
    type Error = std::io::Error;
    type Future = std::future::Ready<std::io::Result<TokioIo<S>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let stream = self.0.take().ok_or_else(|| std::io::ErrorKind::NotConnected.into());
        std::future::ready(stream.map(TokioIo::new))
    }
}

/// Frames that go in one message.
struct Group {
    frames: Vec<Bytes>,
    bytes: usize,
}

/// Splits frames into messages of at most [`MESSAGE_BYTES`], or one larger frame alone.
fn group(frames: Vec<Bytes>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for frame in frames {
        let bytes = frame.len();
        match groups.last_mut().filter(|group| group.bytes + bytes <= MESSAGE_BYTES) {
            Some(group) => {
                group.bytes += bytes;
                group.frames.push(frame);
            }
            None => groups.push(Group { frames: vec![frame], bytes }),
        }
    }
    groups
}

fn endpoint(door: &Door) -> Result<Endpoint, TransportError> {
    let address = door.write_address();
    let endpoint = Endpoint::from_shared(address.clone())
        .map_err(|error| TransportError::BadAddress { address, reason: hostile::text(&chain(&error)) })?;
    Ok(endpoint
        .http2_keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES))
}

fn authorization(api_key: &str) -> Result<MetadataValue<Ascii>, TransportError> {
    let mut value: MetadataValue<Ascii> = format!("Bearer {api_key}").parse().map_err(|_invalid| {
        // The key itself must not reach a log.
        TransportError::PauseAuth { reason: "the key holds characters that cannot be sent".into() }
    })?;
    value.set_sensitive(true);
    Ok(value)
}

fn ended() -> TransportError {
    TransportError::retry(RetryCause::Lost, "the stream has ended")
}

fn too_late(what: &str, timeout: Duration) -> TransportError {
    TransportError::retry(RetryCause::TimedOut, format!("no {what} within {:.1} s", timeout.as_secs_f64()))
}
