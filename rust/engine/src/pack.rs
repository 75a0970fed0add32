//! Thread `rf-pack`: ring -> batch -> frame -> journal -> outbox.
//!
//! # Who owns what
//! The thread owns the batch and the journal, so neither has a lock; the ring alone is shared with the callers of `log()`.
//!
//! # Order
//! Commit order of the ring: program order within a calling thread, none between threads. Before frame N is written anywhere the
//! ring's header says where its records end, so an adopter gives number N to the same records.
//!
//! # Waiting
//! The thread sleeps in its inbox and polls the ring: 5 ms while busy, up to 250 ms idle. A flush wakes it, a caller that finds the
//! ring full wakes it; an ordinary `log()` never does.
//!
//! # Shutdown
//! `Finish` drains the ring and writes the last frame; `Stop` ends the thread. A closed inbox is a `Stop`.
//!
//! # Failure
//! A frame that the journal cannot take stays in the outbox (8 MiB), its records stay in the ring, and both are tried again each
//! second (`again`). Beyond that the ring fills, and callers drop with a count. Sending goes on all the while. What a journal at
//! its cap means for new frames is `full`.

mod again;
mod full;

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::Duration;

use bytes::Bytes;
use runferry_journal::{Disk, Journal, JournalError, JournalOptions, ack};
use runferry_ring::{Consumer, Names as RingNames};
use runferry_wire::record::{Dropped, SPOOLED};
use runferry_wire::{Doc, Header, Kind, flags};

use crate::batch::{Batch, Closed, Identity, Last, Names, Packed, map_frame};
use crate::clock::Clock;
use crate::held::Held;
use crate::pressure::{Policy, Pressure};
use crate::receipt::Covered;
use crate::rowspool;
use crate::shared::{Counters, Item, LossReason, REFUSED_BYTES, Shared};
use crate::sync_disk::{Done, SyncJob, SyncQueue};
use again::Waiting;
use full::Tally;

const BUSY_POLL: Duration = Duration::from_millis(5);
const IDLE_POLL: Duration = Duration::from_millis(250);
/// How often the journal is trimmed, the hint written, a failing disk tried again.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// Entries taken from the ring before frames are written and the inbox is looked at.
const ENTRIES_A_ROUND: usize = 20_000;

/// When the journal is forced to the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fsync {
    /// Only on `flush(durable)` and `finish`.
    Never,
    /// At most once a second, and only while the oldest frame that is not durably acked is older than a second.
    Adaptive,
    /// Once a second.
    Interval,
    /// Behind every frame.
    Always,
}

/// What the packer is asked to do.
#[derive(Debug)]
pub(crate) enum Command {
    /// The ring is full.
    Wake,
    /// Everything logged so far goes to the journal; `durable`: and to the device.
    Flush { durable: bool, done: Done },
    /// Nothing more is logged: write the last frame. Answers its number.
    Finish { map: Doc, done: SyncSender<Result<u64, String>> },
    /// The last values of all metrics.
    LastValues { done: SyncSender<Vec<(String, Last)>> },
    /// End.
    Stop,
}

/// What the thread is made from.
pub(crate) struct Packer {
    pub(crate) identity: Identity,
    pub(crate) shared: Arc<Shared>,
    pub(crate) consumer: Consumer,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) dir: PathBuf,
    pub(crate) journal: Journal,
    pub(crate) open: Doc,
    pub(crate) covered: Covered,
    pub(crate) options: JournalOptions,
    pub(crate) is_online: bool,
    pub(crate) fsync: Fsync,
    pub(crate) policy: Policy,
    pub(crate) to_sync: SyncQueue,
    pub(crate) clock: Clock,
}

struct InterimNames(RingNames);

impl Names for InterimNames {
    fn item(&self, id: u32) -> Option<&[u8]> {
        self.0.lookup(id)
    }
}

/// The packer between two looks at its inbox.
pub(crate) struct Loop {
    it: Packer,
    batch: Batch,
    names: InterimNames,
    waiting: VecDeque<Waiting>,
    next_seq: u64,
    /// Ring offset behind the last record that has a frame.
    packed_end: u64,
    pressure: Pressure,
    was_pressed: bool,
    held: Held,
    /// What the segments hold, by their first number; kept where they may have to go.
    tallies: BTreeMap<u64, Tally>,
    /// Spooled entries to be removed once the ring up to `end` is journaled.
    spooled: VecDeque<(u64, PathBuf)>,
    last_housekeeping: Duration,
    last_sync: Duration,
    synced_next_seq: u64,
    acked_hint: u64,
    finished: Option<u64>,
    /// How long to sleep in the inbox before the next turn.
    wait: Duration,
}

/// The thread's body.
pub(crate) fn run(packer: Packer, inbox: &Receiver<Command>) {
    let mut this = Loop::new(packer);
    loop {
        let told = match inbox.recv_timeout(this.wait) {
            Ok(command) => Some(command),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(Command::Stop),
        };
        if this.turn(told).is_break() {
            break;
        }
    }
    this.end();
}

impl Loop {
    pub(crate) fn new(packer: Packer) -> Self {
        let names = InterimNames(packer.consumer.names());
        let next_seq = packer.journal.next_seq();
        let now = (packer.clock.mono)();
        let batch = Batch::covering(packer.covered.clone());
        Self {
            it: packer,
            batch,
            names,
            waiting: VecDeque::new(),
            next_seq,
            packed_end: 0,
            pressure: Pressure::default(),
            was_pressed: false,
            held: Held::default(),
            tallies: BTreeMap::new(),
            spooled: VecDeque::new(),
            last_housekeeping: now,
            last_sync: now,
            synced_next_seq: next_seq,
            acked_hint: 0,
            finished: None,
            wait: BUSY_POLL,
        }
    }

    /// One round: what is in the ring, what is due, what was asked. Afterwards [`Loop::wait`] says how long there is nothing to do.
    pub(crate) fn turn(&mut self, told: Option<Command>) -> ControlFlow<()> {
        let entries = self.drain(ENTRIES_A_ROUND);
        runferry_failpoints::hit!("pack.round");
        // A round that came back full has more to fetch; an idle ring is asked less and less often.
        self.wait = match entries {
            ENTRIES_A_ROUND => Duration::ZERO,
            0 => (self.wait.max(BUSY_POLL) * 2).min(IDLE_POLL),
            _ => BUSY_POLL,
        };
        if !self.batch.is_empty() {
            self.wait = self.wait.min(BUSY_POLL * 4);
        }
        if self.batch.is_due(self.now(), self.linger()) || self.is_ring_half_packed() {
            self.batch.close();
        }
        self.write_ready();
        self.release_acked();
        self.keep_house();
        self.it.to_sync.offer();
        match told {
            Some(Command::Wake) => self.wait = Duration::ZERO,
            Some(Command::Flush { durable, done }) => self.flush(durable, done),
            // `.ok()`, here and below: a caller may have stopped waiting; that is its right.
            Some(Command::Finish { map, done }) => {
                let result = self.finish(&map);
                done.send(result).ok();
            }
            Some(Command::LastValues { done }) => {
                self.write_all();
                let values = self.batch.last_values().iter().map(|(name, last)| (name.clone(), last.clone()));
                done.send(values.collect()).ok();
            }
            Some(Command::Stop) => return ControlFlow::Break(()),
            None => {}
        }
        ControlFlow::Continue(())
    }

    /// How long the inbox may be slept in before the next turn.
    #[cfg(feature = "steps")]
    pub(crate) fn wait(&self) -> Duration {
        self.wait
    }

    fn now(&self) -> Duration {
        (self.it.clock.mono)()
    }

    fn linger(&self) -> Duration {
        self.it.shared.linger().max(self.pressure.linger())
    }

    /// Under pressure rows gather for long; they keep their place in the ring, which must not fill by that.
    fn is_ring_half_packed(&self) -> bool {
        self.it.consumer.unreleased_bytes() > self.it.consumer.capacity_bytes() / 2 && self.waiting.is_empty()
    }

    /// Takes at most `limit` entries out of the ring; how many.
    fn drain(&mut self, limit: usize) -> usize {
        let now = self.now();
        let mut count = 0;
        let mut has_more = true;
        while has_more && count < limit && self.waiting_bytes() < REFUSED_BYTES {
            // What is closed is written before more is taken: a call of very many metrics unfolds to many times its bytes.
            while has_more && count < limit && !self.batch.has_ready() {
                has_more = false;
                if let Some(entry) = self.it.consumer.next() {
                    (has_more, count) = (true, count + 1);
                    if entry.kind == SPOOLED
                        && let Ok((kind, payload, path)) = rowspool::read(entry.payload)
                    {
                        self.batch.push(kind, &payload, entry.end, &self.names, now);
                        self.spooled.push_back((entry.end, path));
                    } else {
                        self.batch.push(entry.kind, entry.payload, entry.end, &self.names, now);
                    }
                }
            }
            self.write_ready();
        }
        let damaged = self.batch.damaged() + u64::from(self.it.consumer.damaged_bytes() > 0);
        self.it.shared.counters.damaged_records.store(damaged, Ordering::Relaxed);
        count
    }

    /// Everything that is in the ring now goes to the journal, whether it is due or not. What comes in meanwhile does not prolong it.
    fn write_all(&mut self) {
        let end = self.it.consumer.cursor() + self.it.consumer.unread_bytes();
        while self.it.consumer.cursor() < end && self.drain(ENTRIES_A_ROUND) > 0 {}
        self.batch.close();
        self.write_ready();
    }

    fn write(&mut self, packed: Packed) {
        self.write_as(packed, false);
    }

    /// `past_limits`: the little that must not be lost, whatever the cap.
    fn write_as(&mut self, packed: Packed, past_limits: bool) {
        runferry_failpoints::hit!("pack.packed");
        self.it.consumer.set_intent(packed.seq, packed.end);
        let is_journaled = self.append_next(packed.seq, &packed.frame, past_limits);
        self.written(packed, is_journaled);
    }

    /// Whether the journal took the frame as its next one. Behind frames that went to the server alone it goes on in a new segment,
    /// see `retry_waiting`.
    fn append_next(&mut self, seq: u64, frame: &[u8], past_limits: bool) -> bool {
        let is_next = self.waiting.is_empty() && self.it.journal.next_seq() == seq;
        runferry_failpoints::hit!("pack.before_write");
        let is_journaled = is_next && self.append(frame, past_limits);
        runferry_failpoints::hit!("pack.after_write");
        is_journaled
    }

    fn written(&mut self, packed: Packed, is_journaled: bool) {
        let counters = &self.it.shared.counters;
        Counters::add(&counters.packed_frames, 1);
        Counters::add(&counters.packed_rows, packed.rows);
        Counters::add(&counters.packed_points, packed.points);
        self.next_seq = packed.next_seq;
        self.packed_end = packed.end;
        let Packed { seq, next_seq, end, rows, points, gone, .. } = packed;
        let frame = Bytes::from(packed.frame);
        if Header::decode(&frame).is_ok_and(|header| header.kind == Kind::Gap) {
            Counters::add(&counters.gaps, 1);
        }
        if is_journaled {
            self.journaled(end, next_seq, frame.len());
            self.tally(rows, points, gone);
        } else {
            self.waiting.push_back(Waiting { seq, next_seq, end, frame: frame.clone(), rows, points, gone });
        }
        runferry_failpoints::hit!("pack.offer");
        self.it.shared.offer(Item { seq, next_seq, frame, is_journaled, packed_at: self.now() });
        if is_journaled && self.it.fsync == Fsync::Always {
            self.request_sync(None);
        }
    }

    /// Whether the journal took the frame. The error is kept for `status()`.
    fn append(&mut self, frame: &[u8], past_limits: bool) -> bool {
        let journal = &mut self.it.journal;
        let appended = if past_limits { journal.append_past_limits(frame) } else { journal.append(frame) };
        let Err(error) = appended else { return true };
        let is_full = matches!(error, JournalError::Full { .. });
        let journal = if is_full { "full" } else { "degraded" };
        if is_full && self.it.policy.holds() {
            self.it.shared.set_holding(true);
        }
        let text = chain(&error);
        self.it.shared.change(|state| {
            state.journal = journal;
            state.last_error = text;
        });
        false
    }

    fn journaled(&mut self, end: u64, next_seq: u64, frame_bytes: usize) {
        let counters = &self.it.shared.counters;
        Counters::add(&counters.journaled_frames, 1);
        Counters::add(&counters.journaled_bytes, frame_bytes as u64);
        self.release(end);
        let bytes = self.it.journal.bytes();
        self.it.shared.change(|state| {
            state.journaled_next_seq = next_seq;
            state.journal_bytes = bytes;
        });
    }

    /// Records that are in the journal, or durably on the server, leave the ring.
    fn release(&mut self, end: u64) {
        self.it.consumer.release(end);
        while self.spooled.front().is_some_and(|(spooled_end, _)| *spooled_end <= end) {
            if let Some((_, path)) = self.spooled.pop_front() {
                // Left behind it is only litter.
                std::fs::remove_file(path).ok();
            }
        }
    }

    fn keep_house(&mut self) {
        let now = self.now();
        let pause_ms = runferry_failpoints::value!("pack.housekeeping_ms", HOUSEKEEPING.as_millis() as u64);
        if now.saturating_sub(self.last_housekeeping) < Duration::from_millis(pause_ms) {
            return;
        }
        self.last_housekeeping = now;
        if !self.it.consumer.is_file_whole() {
            self.it.shared.change(|state| {
                state.is_ring_lost = true;
                "the ring's file was removed or cut: kill -9 costs what is not in the journal"
                    .clone_into(&mut state.last_error);
            });
        }
        let synced = self.it.journal.durable_next_seq();
        self.it.shared.change(|state| state.synced_next_seq = state.synced_next_seq.max(synced));
        self.it.journal.look_after_active();
        self.retry_waiting();
        self.rewrite_doubtful().ok(); // told in `last_error`
        self.trim_acked();
        self.look_at_room();
        let (oldest, is_behind) = {
            let state = self.it.shared.state();
            (state.items.front().map(|item| item.packed_at), self.synced_next_seq < state.journaled_next_seq)
        };
        let is_overdue = oldest.is_some_and(|packed_at| now.saturating_sub(packed_at) >= Duration::from_secs(1));
        let is_wanted = match self.it.fsync {
            Fsync::Never | Fsync::Always => false,
            Fsync::Interval => true,
            Fsync::Adaptive => !self.it.is_online || is_overdue,
        };
        if is_wanted && is_behind && now.saturating_sub(self.last_sync) >= HOUSEKEEPING {
            self.last_sync = now;
            self.request_sync(None);
        }
    }

    fn trim_acked(&mut self) {
        let durable = self.it.shared.state().durable_next_seq;
        if durable != self.acked_hint && self.it.is_online {
            self.trim(durable, false);
        }
    }

    /// `fully`: with no tail kept for a server restored from a backup.
    fn trim(&mut self, durable: u64, fully: bool) {
        runferry_failpoints::hit!("pack.trim");
        let journal = &mut self.it.journal;
        let trimmed = if fully { journal.trim_fully(durable) } else { journal.trim(durable) };
        if durable == self.acked_hint && matches!(trimmed, Ok(0)) {
            return;
        }
        self.acked_hint = durable;
        // A hint that is lost costs sending again, and nothing else.
        ack::write_hint(&*self.it.disk, &self.it.dir, self.it.identity.writer_id, durable).ok();
        if let Err(error) = trimmed {
            self.it.shared.set_error(chain(&error));
        }
        let (bytes, first_seq) = (self.it.journal.bytes(), self.it.journal.first_seq());
        self.it.shared.change(|state| {
            state.journal_bytes = bytes;
            state.first_seq = first_seq;
        });
    }

    /// Hands what is not on the device yet to `rf-sync`. Without `done` a busy `rf-sync` is left alone.
    fn request_sync(&mut self, done: Option<Done>) {
        let next_seq = self.next_seq;
        if let Err(reason) = self.rewrite_doubtful() {
            self.it.to_sync.refuse(&reason);
            if let Some(done) = done {
                done.send(Err(reason)).ok();
            }
            return;
        }
        let Some(ticket) = self.it.journal.sync_ticket() else {
            self.synced_next_seq = next_seq;
            if let Some(done) = done {
                done.send(Ok(next_seq)).ok();
            }
            return;
        };
        self.it.to_sync.put(SyncJob { ticket, next_seq, done: done.into_iter().collect() });
        self.synced_next_seq = next_seq;
    }

    fn flush(&mut self, durable: bool, done: Done) {
        self.write_all();
        self.retry_waiting();
        if !self.waiting.is_empty() {
            let error = self.it.shared.state().last_error.clone();
            done.send(Err(format!("{} frames are not in the journal: {error}", self.waiting.len()))).ok();
        } else if durable {
            self.request_sync(Some(done));
        } else {
            done.send(Ok(self.next_seq)).ok();
        }
    }

    pub(crate) fn finish(&mut self, map: &Doc) -> Result<u64, String> {
        if let Some(seq) = self.finished {
            return Ok(seq);
        }
        self.write_all();
        self.retry_waiting();
        if self.it.consumer.unread_bytes() > 0 {
            // Memory holds no more frames, and the disk takes none: what is in the ring is the adopter's, before any FINISH.
            return Err(self.it.shared.state().last_error.clone());
        }
        if let Some(rows) = self.held.take() {
            let held = Closed::of_rows(rows, self.packed_end);
            let packed = held.pack(self.it.identity, self.next_seq, 0);
            self.it.covered.add(held.blocks(), packed.next_seq);
            self.write_as(packed, true);
        }
        let mut map = map.clone();
        let counters = &self.it.shared.counters;
        for (name, count) in [
            ("rows", Counters::get(&counters.accepted_rows)),
            ("points", Counters::get(&counters.packed_points) - counters.of(LossReason::Oldest).1),
            ("dropped_rows", counters.dropped_rows()),
            ("thinned_rows", counters.of(LossReason::Thinned).0),
            ("marked_values", Counters::get(&counters.marked_values)),
        ] {
            map.set(name, Doc::Int(count as i64));
        }
        let seq = self.next_seq;
        map.set("receipt", self.it.covered.to_doc());
        runferry_failpoints::hit!("pack.finish");
        let frame = map_frame(self.it.identity, Kind::Finish, seq, 0, flags::LAST, &map);
        let end = self.it.consumer.cursor();
        let gone = Dropped::default();
        self.write(Packed { frame, seq, next_seq: seq + 1, end, rows: 0, points: 0, gone });
        // Where the server alone took the frames before, this one needs a segment of its own.
        self.retry_waiting();
        self.finished = Some(seq);
        self.it.shared.change(|state| state.is_finished = true);
        self.it.shared.frames.notify_one();
        if !self.waiting.is_empty() {
            return Err(self.it.shared.state().last_error.clone());
        }
        self.sync_now().map(|()| seq)
    }

    /// Waits for the device. After a failed fsync once more, with what was in doubt written anew.
    fn sync_now(&mut self) -> Result<(), String> {
        let mut failed = None;
        for _ in 0..2 {
            self.rewrite_doubtful()?;
            match self.it.journal.sync_ticket().map(|ticket| ticket.sync()) {
                None | Some(Ok(())) => return Ok(()),
                Some(Err(error)) => failed = Some(chain(&error)),
            }
        }
        Err(failed.unwrap_or_default())
    }

    pub(crate) fn end(mut self) {
        self.write_all();
        self.retry_waiting();
        self.trim_acked();
        self.look_at_room(); // the last word of `status()` about the journal
        runferry_failpoints::hit!("pack.end");
        self.it.journal.seal(); // gives back the space it had reserved
        if self.waiting.is_empty() && self.it.consumer.unread_bytes() == 0 {
            // Everything is in the journal: an adopter has no use for the ring. A file that stays is adopted as empty.
            self.it.consumer.unlink().ok();
        }
    }
}

/// An error with its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
