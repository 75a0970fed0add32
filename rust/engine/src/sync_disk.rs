//! Thread `rf-sync`: fdatasync, away from the packer, so that a slow or hanging disk stops neither packing nor sending.
//!
//! # Waiting
//! For the next job, or for the device. # Shutdown: the packer drops its end of the queue.
//! # Failure
//! The journal notes a failed fsync itself ([`runferry_journal::Journal::doubt`]); whoever waits is told.

use std::sync::mpsc::{Receiver, SyncSender};

use runferry_journal::SyncTicket;

use crate::pack::chain;

/// One fsync.
pub(crate) struct SyncJob {
    pub(crate) ticket: SyncTicket,
    pub(crate) next_seq: u64,
    pub(crate) done: Option<SyncSender<Result<u64, String>>>,
}

/// The thread's body.
pub(crate) fn run(jobs: &Receiver<SyncJob>) {
    jobs.iter().for_each(do_job);
}

pub(crate) fn do_job(job: SyncJob) {
    let SyncJob { ticket, next_seq, done } = job;
    let result = ticket.sync().map(|()| next_seq).map_err(|error| chain(&error));
    if let Some(done) = done {
        // Whoever asked may have stopped waiting.
        done.send(result).ok();
    }
}
