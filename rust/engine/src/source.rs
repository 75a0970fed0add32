//! Where a sender's frames come from: the outbox of a living writer, or a journal alone.
//!
//! The journal is the queue. A living writer keeps the newest frames in memory as well, so that they are sent without being read
//! back, and even when the disk is failing; whatever is older is read from the segments. A damaged place in a journal comes out as
//! the GAP frame that stands for it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use runferry_journal::{Disk, Gap, GapReason, Next, Reader, Successor, ack, successor};
use runferry_wire::Header;
use runferry_wire::record::Dropped;

use crate::batch::{Identity, gap_frame};
use crate::pack::chain;
use crate::rejected::Rejected;
use crate::shared::Shared;

/// How often a journal that another process writes is looked at.
const TAIL_POLL: Duration = Duration::from_millis(100);

/// Frames by number.
pub(crate) trait Source {
    /// Who they belong to.
    fn identity(&self) -> Identity;

    /// The OPEN frame.
    fn open_frame(&self) -> Bytes;

    /// The lowest number there is, and the number behind the highest.
    fn bounds(&mut self) -> (u64, u64);

    /// Frames below were durably on the server at some time, as far as is known here.
    fn acked_below(&self) -> u64;

    /// The frame that covers exactly from `seq` on; `None`: not there yet.
    fn frame(&mut self, seq: u64) -> Result<Option<Bytes>, String>;

    /// Returns when there may be more frames.
    fn more(&self) -> impl Future<Output = ()>;

    /// Whether no frame will follow those there are.
    fn is_over(&self) -> bool;

    /// Keeps a copy of a frame that the server refuses for good; the folder it lies in, or why there is none.
    fn set_aside(&mut self, header: &Header, frame: &Bytes) -> Result<&Path, String>;

    /// Who goes on for the writer, if it does not itself any more.
    fn successor(&self) -> Result<Option<Successor>, String>;

    /// Notes who goes on, for whoever sends this journal later; on the device on return.
    fn note_successor(&mut self, successor: &Successor) -> Result<(), String>;
}

/// The journal of one writer, read by number.
#[derive(Debug)]
struct JournalFrames {
    identity: Identity,
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    reader: Reader,
    /// A gap longer than one frame can cover is handed out in pieces.
    pending_gap: Option<Gap>,
    rejected: Rejected,
}

impl JournalFrames {
    fn new(disk: Arc<dyn Disk>, dir: &Path, from_seq: u64, identity: Identity) -> Self {
        let rejected = Rejected::new(disk.clone(), dir);
        let reader = Reader::open(disk.clone(), dir, from_seq);
        Self { identity, disk, dir: dir.to_owned(), reader, pending_gap: None, rejected }
    }

    fn successor(&self) -> Result<Option<Successor>, String> {
        successor::read(&*self.disk, &self.dir, self.identity.writer_id).map_err(|error| chain(&error))
    }

    fn note_successor(&self, successor: &Successor) -> Result<(), String> {
        successor::add(&*self.disk, &self.dir, self.identity.writer_id, successor).map_err(|error| chain(&error))
    }

    fn frame(&mut self, seq: u64) -> Result<Option<Bytes>, String> {
        if self.pending_gap.as_ref().is_none_or(|gap| gap.seq != seq) {
            self.pending_gap = None;
            if self.reader.next_seq() != seq {
                self.reader.seek(seq);
            }
            match self.reader.next().map_err(|error| chain(&error))? {
                Next::Frame(frame) => return Ok(Some(frame.into())),
                Next::CaughtUp => return Ok(None),
                Next::Gap(gap) => self.pending_gap = Some(gap),
            }
        }
        let Some(gap) = self.pending_gap.take() else { return Ok(None) };
        let reason = match gap.reason {
            GapReason::Corrupt => "corrupt",
            GapReason::Missing => "missing",
        };
        let covered = gap.count.min(u64::from(u32::MAX));
        // Documents are among the records; what is not known is 0.
        let counts = Dropped { rows: gap.records, ..Dropped::default() };
        let frame = gap_frame(self.identity, gap.seq, covered as u32, 0, reason, counts, &gap.detail);
        if gap.count > covered {
            self.pending_gap = Some(Gap { seq: gap.seq + covered, count: gap.count - covered, records: 0, ..gap });
        }
        Ok(Some(frame.into()))
    }
}

/// The frames of a living writer.
#[derive(Debug)]
pub(crate) struct LiveSource {
    shared: Arc<Shared>,
    journal: JournalFrames,
    open_frame: Bytes,
}

impl LiveSource {
    pub(crate) fn new(
        shared: Arc<Shared>,
        disk: Arc<dyn Disk>,
        dir: &Path,
        open_frame: Bytes,
        identity: Identity,
    ) -> Self {
        Self { shared, journal: JournalFrames::new(disk, dir, 1, identity), open_frame }
    }
}

impl Source for LiveSource {
    fn identity(&self) -> Identity {
        self.journal.identity
    }

    fn open_frame(&self) -> Bytes {
        self.open_frame.clone()
    }

    fn bounds(&mut self) -> (u64, u64) {
        let state = self.shared.state();
        (state.first_seq, state.next_seq)
    }

    fn acked_below(&self) -> u64 {
        let state = self.shared.state();
        // Nothing leaves the journal of a living writer but what was acked.
        state.durable_next_seq.max(state.first_seq)
    }

    fn frame(&mut self, seq: u64) -> Result<Option<Bytes>, String> {
        {
            let mut state = self.shared.state();
            let is_hidden = state.hidden.is_some_and(|hidden| (hidden.seq..hidden.until_seq).contains(&seq));
            if seq >= state.next_seq || is_hidden {
                return Ok(None);
            }
            state.asked_next_seq = state.asked_next_seq.max(seq + 1);
            let place = state.items.partition_point(|item| item.seq < seq);
            if let Some(item) = state.items.get(place).filter(|item| item.seq == seq) {
                return Ok(Some(item.frame.clone()));
            }
        }
        self.journal.frame(seq)
    }

    async fn more(&self) {
        self.shared.frames.notified().await;
    }

    fn is_over(&self) -> bool {
        self.shared.state().is_finished
    }

    fn set_aside(&mut self, header: &Header, frame: &Bytes) -> Result<&Path, String> {
        self.journal.rejected.keep(&self.open_frame, header, frame)
    }

    fn successor(&self) -> Result<Option<Successor>, String> {
        self.journal.successor()
    }

    fn note_successor(&mut self, successor: &Successor) -> Result<(), String> {
        self.journal.note_successor(successor)
    }
}

/// The frames of a journal: of a dead writer, or of one in another process.
#[derive(Debug)]
pub(crate) struct JournalSource {
    frames: JournalFrames,
    open_frame: Bytes,
    first_seq: u64,
    next_seq: u64,
    acked_below: u64,
    is_live: bool,
}

impl JournalSource {
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        dir: &Path,
        identity: Identity,
        open_frame: Bytes,
        bounds: (u64, u64),
        is_live: bool,
    ) -> Self {
        let (first_seq, next_seq) = bounds;
        let acked_below = ack::read_hint(&*disk, dir, identity.writer_id).unwrap_or(1);
        let mut frames = JournalFrames::new(disk, dir, first_seq, identity);
        frames.reader.live(is_live);
        Self { frames, open_frame, first_seq, next_seq, acked_below, is_live }
    }
}

impl Source for JournalSource {
    fn identity(&self) -> Identity {
        self.frames.identity
    }

    fn open_frame(&self) -> Bytes {
        self.open_frame.clone()
    }

    fn bounds(&mut self) -> (u64, u64) {
        (self.first_seq, self.next_seq)
    }

    fn acked_below(&self) -> u64 {
        self.acked_below
    }

    fn frame(&mut self, seq: u64) -> Result<Option<Bytes>, String> {
        if !self.is_live && seq >= self.next_seq {
            return Ok(None);
        }
        let frame = self.frames.frame(seq)?;
        if let Some(header) = frame.as_deref().and_then(|frame| Header::decode(frame).ok()) {
            self.next_seq = self.next_seq.max(header.next_seq());
        }
        Ok(frame)
    }

    async fn more(&self) {
        if self.is_live {
            tokio::time::sleep(TAIL_POLL).await;
        } else {
            std::future::pending::<()>().await;
        }
    }

    fn is_over(&self) -> bool {
        !self.is_live
    }

    fn set_aside(&mut self, header: &Header, frame: &Bytes) -> Result<&Path, String> {
        self.frames.rejected.keep(&self.open_frame, header, frame)
    }

    fn successor(&self) -> Result<Option<Successor>, String> {
        self.frames.successor()
    }

    fn note_successor(&mut self, successor: &Successor) -> Result<(), String> {
        self.frames.note_successor(successor)
    }
}
