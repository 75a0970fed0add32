//! One stream of the model of the server, from Open to its end.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use runferry_transport::proto::client_message::Kind as Told;
use runferry_transport::proto::ingest_server::Ingest;
use runferry_transport::proto::reject::Code;
use runferry_transport::proto::server_message::Kind as Said;
use runferry_transport::proto::{
    Ack, ClientMessage, Credit, Drain, Open, OpenOk, Reject, Rewind, ServerMessage, Throttle,
};
use runferry_wire::{Frame, Header, Kind};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tonic::codegen::tokio_stream::Stream;
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::broken::Broken;
use crate::net::lock;
use crate::server::{Answer, Misfortune, Refusal, Server};

/// Serves one stream.
async fn talk(
    server: Server,
    mut hearing: Streaming<ClientMessage>,
    saying: mpsc::Sender<Result<ServerMessage, Status>>,
) {
    let Ok(Some(ClientMessage { kind: Some(Told::Open(open)) })) = hearing.message().await else { return };
    let Ok(header) = Header::decode(&open.open_frame) else { return };
    let mut call = Call { writer_id: header.writer_id, expected: 0, granted: 0, settled: 0, server, saying };
    if call.open(&open).await.is_some() {
        while let Ok(Some(ClientMessage { kind: Some(told) })) = hearing.message().await {
            let goes_on = match told {
                Told::Frames(frames) => call.take(frames.frames).await,
                Told::Beat(_) => call.ack().await,
                Told::Open(_) | Told::Bye(_) => None,
            };
            if goes_on.is_none() {
                return;
            }
        }
    }
}

/// One stream; its methods return nothing once it is to end.
struct Call {
    server: Server,
    saying: mpsc::Sender<Result<ServerMessage, Status>>,
    writer_id: u64,
    expected: u64,
    granted: u64,
    settled: u64,
}

impl Call {
    async fn say(&self, kind: Said) -> Option<()> {
        self.saying.send(Ok(ServerMessage { kind: Some(kind) })).await.ok()
    }

    async fn open(&mut self, open: &Open) -> Option<()> {
        let (refusal, epoch) = {
            let state = lock(&self.server.state);
            self.granted = state.manners.credit_bytes;
            (state.manners.refusal, state.store.epoch)
        };
        self.expected = self.server.next_seq(self.writer_id);
        let (writer, expected) = (self.writer_id, self.expected);
        let has = (open.first_available_seq, open.next_seq);
        self.server.trace.note(|| format!("open {writer:x} expects {expected} has {has:?} {refusal:?}"));
        match refusal {
            None => {
                let next_seq = self.expected;
                let storage_epoch = epoch.to_le_bytes().to_vec().into();
                let (credit_bytes, durability) = (self.granted, "disk".to_owned());
                self.say(Said::OpenOk(OpenOk {
                    next_seq,
                    storage_epoch,
                    credit_bytes,
                    durability,
                    last_step: -1,
                    ..OpenOk::default()
                }))
                .await
            }
            Some(Refusal::Busy(retry_after_ms)) => {
                self.say(Said::Throttle(Throttle { retry_after_ms, ..Throttle::default() })).await;
                None
            }
            Some(Refusal::Unavailable) => {
                self.saying.send(Err(Status::unavailable("flapping"))).await.ok();
                None
            }
            Some(Refusal::Exhausted) => {
                self.saying.send(Err(Status::resource_exhausted("full"))).await.ok();
                None
            }
        }
    }

    async fn ack(&self) -> Option<()> {
        let stored = self.server.next_seq(self.writer_id);
        let received_next_seq = self.expected.max(stored);
        let is_rash = self.server.broken == Some(Broken::AckBeforeCommit);
        let durable_next_seq = if is_rash { received_next_seq } else { stored };
        self.say(Said::Ack(Ack { received_next_seq, durable_next_seq })).await
    }

    async fn rewind(&self, reason: &str) -> Option<()> {
        let (writer, next_seq) = (self.writer_id, self.expected);
        self.server.trace.note(|| format!("rewind {writer:x} to {next_seq}: {reason}"));
        self.say(Said::Rewind(Rewind { next_seq, reason: reason.to_owned() })).await
    }

    /// Judges the frames of a message, stores what is next, and answers.
    async fn take(&mut self, frames: Vec<Bytes>) -> Option<()> {
        let answer = lock(&self.server.state).manners.answers.pop();
        if let Some(answer) = answer {
            let first = frames.first().and_then(|frame| Header::decode(frame).ok());
            self.answer(&answer, first).await?;
        }
        self.settled += frames.iter().map(|frame| frame.len() as u64).sum::<u64>();
        let mut batch = Vec::new();
        let mut wrong = None;
        for frame in frames {
            let Ok(Frame { header, .. }) = Frame::read(&frame) else {
                wrong = wrong.or(Some("checksum"));
                continue;
            };
            self.remember(&header, &frame);
            if header.writer_id != self.writer_id {
                self.say(Said::Reject(Reject { code: Code::Forbidden.into(), ..Reject::default() })).await;
                return None;
            }
            if header.kind != Kind::Gap
                && lock(&self.server.state).memory.refused.contains(&(self.writer_id, header.seq))
            {
                let reject = Reject { code: Code::FrameTooLarge.into(), seq: header.seq, reason: String::new() };
                if header.seq >= self.expected {
                    self.say(Said::Reject(reject)).await?;
                }
                break;
            }
            if header.seq == self.expected {
                self.expected = header.next_seq();
                batch.push(frame);
            } else if header.next_seq() <= self.expected {
                let mut state = lock(&self.server.state);
                state.memory.duplicates += 1;
                if self.server.broken == Some(Broken::DuplicatesStored) {
                    state.store.writer(self.writer_id).frames.push(frame);
                }
            } else {
                wrong = wrong.or(Some("gap"));
            }
        }
        if let Some(first) = batch.first().and_then(|frame| Header::decode(frame).ok()) {
            self.ack().await?;
            self.commit(first.seq, batch).await?;
        }
        if let Some(reason) = wrong {
            self.rewind(reason).await?;
        }
        self.ack().await?;
        let credit_bytes = lock(&self.server.state).manners.credit_bytes;
        if self.settled + credit_bytes > self.granted {
            self.granted = self.settled + credit_bytes;
            self.say(Said::Credit(Credit { total_bytes: self.granted })).await?;
        }
        Some(())
    }

    async fn answer(&mut self, answer: &Answer, first: Option<Header>) -> Option<()> {
        match *answer {
            Answer::Throttle(retry_after_ms, bytes_per_s) => {
                self.say(Said::Throttle(Throttle { retry_after_ms, bytes_per_s, ..Throttle::default() })).await
            }
            Answer::Drain(reconnect_after_ms) => self.say(Said::Drain(Drain { reconnect_after_ms })).await,
            Answer::Checksum => {
                lock(&self.server.state).memory.checksums += 1;
                self.rewind("checksum").await
            }
            Answer::Refuse => {
                if let Some(header) = first.filter(|header| header.kind == Kind::Data && header.seq >= self.expected) {
                    lock(&self.server.state).memory.refused.insert((self.writer_id, header.seq));
                }
                Some(())
            }
        }
    }

    fn remember(&self, header: &Header, frame: &Bytes) {
        let mut state = lock(&self.server.state);
        let key = (header.writer_id, header.seq);
        let before =
            state.memory.seen.get(&key).and_then(|before| Frame::read(before).ok()).map(|before| before.header);
        if let Some(before) = before
            && before.kind == Kind::Data
            && header.kind == Kind::Data
            && (before.raw_len, before.record_count, before.payload_crc32c)
                != (header.raw_len, header.record_count, header.payload_crc32c)
        {
            state
                .memory
                .alarms
                .push(format!("frame {} of {:x} came with other contents", header.seq, header.writer_id));
        }
        if header.kind != Kind::Gap || before.is_none() {
            state.memory.seen.insert(key, frame.clone());
        }
    }

    /// The transaction: stores the frames if they are still next.
    async fn commit(&mut self, first_seq: u64, batch: Vec<Bytes>) -> Option<()> {
        let wait = {
            let mut state = lock(&self.server.state);
            let slowest = state.manners.slowest_commit.as_micros() as u64;
            Duration::from_micros(state.random.u64(..=slowest))
        };
        let misfortune = self.server.dies_before();
        tokio::time::sleep(wait).await;
        {
            let mut state = lock(&self.server.state);
            if state.is_dying {
                return None;
            }
            let writer_id = self.writer_id;
            let writer = state.store.writer(writer_id);
            let is_next = writer.next_seq == first_seq;
            if is_next && misfortune != Some(Misfortune::UnknownAndLost) {
                writer.next_seq = self.expected;
                writer.frames.extend(batch);
                let next_seq = self.expected;
                let highest = state.memory.highest.entry(writer_id).or_default();
                *highest = next_seq.max(*highest);
                self.server.trace.note(|| format!("stored {writer_id:x} {first_seq} to {next_seq}"));
            }
            if misfortune == Some(Misfortune::DeathAfter) {
                state.is_dying = true;
                self.server.death.notify_one();
                return None;
            }
            if is_next && !matches!(misfortune, Some(Misfortune::UnknownAndLost | Misfortune::UnknownButStored)) {
                return Some(());
            }
        }
        // Somebody else was faster, or nobody knows: the store is asked.
        self.expected = self.server.next_seq(self.writer_id);
        self.rewind(if misfortune.is_some() { "unknown outcome" } else { "gap" }).await
    }
}

/// Takes calls for a server; what it began ends with `calls`.
pub(crate) struct Handover {
    pub(crate) server: Server,
    pub(crate) calls: Arc<Mutex<JoinSet<()>>>,
}

#[tonic::async_trait]
impl Ingest for Handover {
    type StreamStream = Pin<Box<dyn Stream<Item = Result<ServerMessage, Status>> + Send>>;

    async fn stream(&self, request: Request<Streaming<ClientMessage>>) -> Result<Response<Self::StreamStream>, Status> {
        let (saying, messages) = mpsc::channel(64);
        lock(&self.calls).spawn(talk(self.server.clone(), request.into_inner(), saying));
        Ok(Response::new(Box::pin(ReceiverStream::new(messages))))
    }
}
