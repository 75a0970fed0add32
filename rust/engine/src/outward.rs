//! The frames of a source as the server knows them: under the writer's own id and numbers, or under those of its successor.
//!
//! A process that was set back (a virtual machine restored from a snapshot) packs other records under numbers that the server has already.
//! The server says so when the stream is opened: it expects a frame that was never made here. From then on the frames that it has not
//! acked go out as those of a new writer, numbered from 1; in the journal, in the ring and in `status()` the numbers stay as they are.
//! A note in the journal's folder tells adopters ([`runferry_journal::successor`]).
//!
//! What the server has of such a frame already, because only its ack was lost, it then has twice: the same values at the same steps,
//! shown once.

use std::path::Path;

use bytes::Bytes;
use runferry_journal::Successor;
use runferry_transport::TransportError;
use runferry_wire::frame::renumbered;
use runferry_wire::{Doc, Frame, Header, Kind, payload};

use crate::adopt::read_open;
use crate::batch::{Identity, map_frame};
use crate::send::local_trouble;
use crate::source::Source;
use crate::writer::Writer;

/// What an OPEN frame says of the run is said once; only who writes is new.
const OF_THE_RUN: [&str; 6] = ["config", "name", "group", "job_type", "notes", "tags"];

/// A source that may go out under other numbers. As a [`Source`] it has the server's.
#[derive(Debug)]
pub(crate) struct Outward<S> {
    source: S,
    successor: Option<Successor>,
}

impl<S: Source> Outward<S> {
    /// Goes on as the latest successor noted in the journal's folder.
    ///
    /// # Errors
    /// The note cannot be read: nothing may be sent.
    pub(crate) fn new(source: S) -> Result<Self, TransportError> {
        let successor = source.successor().map_err(|reason| local_trouble(&reason))?;
        Ok(Self { source, successor })
    }

    /// The number here of what the server calls `seq`.
    pub(crate) fn local(&self, seq: u64) -> u64 {
        seq.saturating_add(self.offset())
    }

    /// The number there of what is `seq` here; what lies before the successor's first frame is long behind it.
    pub(crate) fn outward(&self, seq: u64) -> u64 {
        seq.saturating_sub(self.offset()).max(1)
    }

    /// Frames below are the predecessor's, and durably acked; 1: there is none.
    pub(crate) fn first_seq(&self) -> u64 {
        self.successor.map_or(1, |successor| successor.first_seq)
    }

    /// Goes on as a new writer from the frame that is the first the server has not acked.
    ///
    /// # Errors
    /// `Blocked`: not a frame of the last successor was ever acked, so this server claims whatever it is asked about. `Retry`: it
    /// cannot be noted.
    pub(crate) fn succeed(&mut self, first_seq: u64, since_us: i64) -> Result<(), TransportError> {
        if self.successor.is_some_and(|last| last.first_seq == first_seq) {
            return Err(TransportError::Blocked {
                reason: "it claims to have frames of a writer that has sent none".to_owned(),
            });
        }
        let successor = Successor { writer_id: Writer::new_writer_id(), first_seq, since_us };
        self.source.note_successor(&successor).map_err(|reason| local_trouble(&reason))?;
        self.successor = Some(successor);
        Ok(())
    }

    fn offset(&self) -> u64 {
        self.first_seq() - 1
    }
}

impl<S: Source> Source for Outward<S> {
    fn identity(&self) -> Identity {
        let identity = self.source.identity();
        Identity { writer_id: self.successor.map_or(identity.writer_id, |successor| successor.writer_id), ..identity }
    }

    fn open_frame(&self) -> Bytes {
        let own = self.source.open_frame();
        let Some(successor) = self.successor else { return own };
        let Some((predecessor, mut map)) = read_open(&own) else { return own };
        if let Doc::Map(pairs) = &mut map {
            pairs.retain(|(name, _)| !OF_THE_RUN.contains(&name.as_str()));
        }
        map.set("started_us", Doc::Int(successor.since_us));
        map.set("predecessor", Doc::Int(predecessor.writer_id as i64));
        map_frame(self.identity(), Kind::Open, 1, 0, 0, &map).into()
    }

    fn bounds(&mut self) -> (u64, u64) {
        let (first_seq, next_seq) = self.source.bounds();
        (self.outward(first_seq), self.outward(next_seq))
    }

    fn acked_below(&self) -> u64 {
        self.outward(self.source.acked_below())
    }

    fn frame(&mut self, seq: u64) -> Result<Option<Bytes>, String> {
        let frame = self.source.frame(self.local(seq))?;
        let (Some(frame), Some(_)) = (&frame, self.successor) else { return Ok(frame) };
        let identity = self.identity();
        let renumbered = match finish_without_receipt(frame, identity, seq) {
            Some(finish) => finish,
            None => renumbered(frame, identity.writer_id, seq).map_err(|error| error.to_string())?,
        };
        Ok(Some(renumbered.into()))
    }

    async fn more(&self) {
        self.source.more().await;
    }

    fn is_over(&self) -> bool {
        self.source.is_over()
    }

    fn set_aside(&mut self, header: &Header, frame: &Bytes) -> Result<&Path, String> {
        let (writer_id, seq) = (self.source.identity().writer_id, self.local(header.seq));
        // What is kept here has the numbers it has here.
        let own = renumbered(frame, writer_id, seq).map_err(|error| error.to_string())?;
        self.source.set_aside(&Header { writer_id, seq, ..*header }, &own.into())
    }

    fn successor(&self) -> Result<Option<Successor>, String> {
        Ok(self.successor)
    }

    fn note_successor(&mut self, successor: &Successor) -> Result<(), String> {
        self.source.note_successor(successor)
    }
}

/// A FINISH frame whose receipt is left out: it sums up what predecessor and successor packed together, and would fit neither. `None`: the
/// frame is no FINISH.
fn finish_without_receipt(frame: &[u8], identity: Identity, seq: u64) -> Option<Vec<u8>> {
    let Frame { header, payload, .. } = Frame::read(frame).ok().filter(|frame| frame.header.kind == Kind::Finish)?;
    let mut map = Doc::decode(&payload::decompress(&header, payload).ok()?).ok()?;
    if let Doc::Map(pairs) = &mut map {
        pairs.retain(|(name, _)| name != "receipt");
    }
    Some(map_frame(identity, Kind::Finish, seq, header.record_count, header.flags, &map))
}
