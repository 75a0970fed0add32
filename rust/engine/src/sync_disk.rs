//! Thread `rf-sync`: fdatasync, away from the packer, so that a slow or hanging disk stops neither packing nor sending.
//!
//! # Waiting
//! For the next job, or for the device. # Shutdown: the packer drops its end of the queue.
//! # Failure
//! The journal notes a failed fsync itself ([`runferry_journal::Journal::doubt`]); whoever waits is told.
//! While a device hangs the packer never waits for this thread: [`SyncQueue`] keeps one job for it, and everybody who asks
//! meanwhile joins that one.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError};

use runferry_journal::SyncTicket;

use crate::pack::chain;

/// More callers than this do not wait for one fsync; the oldest are let go, as if their time were over.
const MOST_WAITING: usize = 1_024;

/// Where the answer to a flush goes.
pub(crate) type Done = SyncSender<Result<u64, String>>;

/// One fsync.
pub(crate) struct SyncJob {
    pub(crate) ticket: SyncTicket,
    pub(crate) next_seq: u64,
    pub(crate) done: Vec<Done>,
}

/// The packer's end: takes jobs without ever waiting for the device.
pub(crate) struct SyncQueue {
    to_sync: SyncSender<SyncJob>,
    /// The thread's inbox was full: to be offered again.
    pending: Option<SyncJob>,
}

impl SyncQueue {
    pub(crate) fn new(to_sync: SyncSender<SyncJob>) -> Self {
        Self { to_sync, pending: None }
    }

    /// Takes a job. The ticket of a later job covers what an earlier one covers, as long as nothing is in doubt.
    pub(crate) fn put(&mut self, mut job: SyncJob) {
        if let Some(earlier) = self.pending.take() {
            let surplus = (earlier.done.len() + job.done.len()).saturating_sub(MOST_WAITING);
            job.done = earlier.done.into_iter().chain(job.done).skip(surplus).collect();
        }
        self.pending = Some(job);
        self.offer();
    }

    /// Hands over what could not be handed over before.
    pub(crate) fn offer(&mut self) {
        let Some(job) = self.pending.take() else { return };
        match self.to_sync.try_send(job) {
            Err(TrySendError::Full(job)) => self.pending = Some(job),
            // A panic ended the thread: its work is done here, for what it costs.
            Err(TrySendError::Disconnected(job)) => do_job(job),
            Ok(()) => {}
        }
    }

    /// What waited here is in doubt: nobody may be told that it is durable.
    pub(crate) fn refuse(&mut self, reason: &str) {
        for done in self.pending.take().into_iter().flat_map(|job| job.done) {
            done.send(Err(reason.to_owned())).ok(); // whoever asked may have stopped waiting
        }
    }
}

/// The thread's body.
pub(crate) fn run(jobs: &Receiver<SyncJob>) {
    for job in jobs {
        runferry_failpoints::hit!("sync.job");
        do_job(job);
    }
}

/// Forces it to the device, and tells whoever waits.
pub(crate) fn do_job(job: SyncJob) {
    let SyncJob { ticket, next_seq, done } = job;
    let result = ticket.sync().map(|()| next_seq).map_err(|error| chain(&error));
    for done in done {
        // Whoever asked may have stopped waiting.
        done.send(result.clone()).ok();
    }
}
