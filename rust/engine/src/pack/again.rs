//! Frames that are to be written again: those that the journal would not take, and those that it may not have kept.
//!
//! # Order
//! A frame that waits keeps its number and its place: nothing is written past it, so the journal goes on where it stopped, or, where the
//! server alone took the frames between, in a segment of its own.
//!
//! # Failure
//! After a failed fsync what the kernel shows of a segment says nothing about the device. Frames that are still in memory are written to
//! a new one; for those that are neither there nor on the server the doubt is told, and a durable flush fails.

use std::sync::Arc;

use bytes::Bytes;
use runferry_journal::{Journal, JournalError};
use runferry_wire::Header;
use runferry_wire::record::Dropped;

use super::{Loop, chain};
use crate::receipt::segment_head;
use crate::shared::Connection;

/// A frame that the journal would not take yet.
pub(super) struct Waiting {
    pub(super) seq: u64,
    pub(super) next_seq: u64,
    pub(super) end: u64,
    pub(super) frame: Bytes,
    pub(super) rows: u64,
    pub(super) points: u64,
    pub(super) gone: Dropped,
}

impl Loop {
    /// Bytes of frames that are nowhere but in memory.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.waiting.iter().map(|waiting| waiting.frame.len()).sum()
    }

    /// What the server has needs no journal: while the disk takes nothing, the ring empties as fast as the server acks.
    pub(super) fn release_acked(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let durable = self.it.shared.state().durable_next_seq;
        while let Some(end) =
            self.waiting.front().filter(|waiting| waiting.next_seq <= durable).map(|waiting| waiting.end)
        {
            self.waiting.pop_front();
            self.release(end);
        }
        if self.waiting.is_empty() {
            self.it.shared.set_holding(false);
        }
    }

    /// Offers the frames again that the journal would not take. What the server has meanwhile needs no journal.
    pub(super) fn retry_waiting(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        self.release_acked();
        let first = self.waiting.front().map_or(self.next_seq, |waiting| waiting.seq);
        if self.it.journal.next_seq() != first {
            // Frames below went to the server alone: the journal goes on behind them, in a segment of its own.
            match self.new_journal(first) {
                Ok(journal) => self.it.journal = journal,
                Err(error) => return self.it.shared.set_error(chain(&error)),
            }
        }
        // What a lost server may have seen has to be kept as it is: the cap is passed by what the ring held, once.
        let past_limits = !self.it.policy.holds() && self.it.shared.state().connection != Connection::Connected;
        if self.write_waiting(past_limits) {
            self.it.shared.set_holding(false);
            self.it.shared.change(|state| state.journal = if state.is_pressed { "full" } else { "ok" });
        }
    }

    /// Whether the journal took everything that waited for it.
    fn write_waiting(&mut self, past_limits: bool) -> bool {
        while let Some(waiting) = self.waiting.pop_front() {
            if !self.append(&waiting.frame, past_limits) {
                self.waiting.push_front(waiting);
                return false;
            }
            self.it.shared.change(|state| {
                if let Some(item) = state.items.iter_mut().find(|item| item.seq == waiting.seq) {
                    item.is_journaled = true;
                }
            });
            self.journaled(waiting.end, waiting.next_seq, waiting.frame.len());
            self.tally(waiting.rows, waiting.points, waiting.gone);
        }
        true
    }

    fn new_journal(&self, first_seq: u64) -> Result<Journal, JournalError> {
        let head = segment_head(self.it.identity, self.it.open.clone(), self.it.covered.clone());
        Journal::create(Arc::clone(&self.it.disk), &self.it.dir, head, first_seq, self.it.options)
    }

    /// After a failed fsync nothing the old segment holds is believed: what is still in memory is written anew.
    ///
    /// # Errors
    /// Frames that the server does not have either are in doubt and not in memory any more.
    pub(super) fn rewrite_doubtful(&mut self) -> Result<(), String> {
        self.rewrite_from_memory();
        let durable = self.it.shared.state().durable_next_seq;
        let Some(doubt) = self.it.journal.doubt().filter(|doubt| doubt.until_seq > durable) else { return Ok(()) };
        let (first, last) = (doubt.seq.max(durable), doubt.until_seq - 1);
        let reason = format!("frames {first} to {last} may not survive a power cut: their fsync failed");
        self.it.shared.set_error(reason.clone());
        Err(reason)
    }

    fn rewrite_from_memory(&mut self) {
        let Some(doubt) = self.it.journal.doubt() else { return };
        let first = self.doubtful_in_memory(doubt.seq);
        // Frames behind the doubtful ones cure nothing.
        let Some(first) = first.filter(|first| *first < doubt.until_seq) else { return };
        self.take_back(first);
        self.it.journal.restart_from(first);
        if self.write_waiting(true) {
            self.it.shared.change(|state| {
                state.last_error = format!("the disk failed or a file of the journal was removed; frames from {first} on were written to a new one");
            });
        }
        self.it.shared.change(|state| state.journal = "degraded");
    }

    /// The first frame from `seq` on that was journaled and is still in memory; all behind it are, too.
    fn doubtful_in_memory(&self, seq: u64) -> Option<u64> {
        let state = self.it.shared.state();
        state.items.iter().find(|item| item.is_journaled && item.next_seq > seq).map(|item| item.seq)
    }

    /// Journaled frames from `first` on wait again to be written.
    fn take_back(&mut self, first: u64) {
        let taken: Vec<Waiting> = self.it.shared.change(|state| {
            let journaled = state.items.iter_mut().filter(|item| item.is_journaled && item.seq >= first);
            let back = journaled.map(|item| {
                item.is_journaled = false;
                let records = Header::decode(&item.frame).map_or(0, |header| u64::from(header.record_count));
                // Their records have left the ring.
                Waiting {
                    seq: item.seq,
                    next_seq: item.next_seq,
                    end: 0,
                    frame: item.frame.clone(),
                    rows: records,
                    points: 0,
                    gone: Dropped::default(),
                }
            });
            back.collect()
        });
        for waiting in taken.into_iter().rev() {
            self.waiting.push_front(waiting);
        }
    }
}
