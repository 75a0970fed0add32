//! One start of one process writing to a run: its ring, its journal, and the threads behind them.
//!
//! # Start
//! Lock, journal with its OPEN frame, ring, threads, in that order: whoever finds any of them finds the lock that tells whether
//! their process lives.
//!
//! # Shutdown
//! [`Writer::finish`] waits for the disk, and for the server as long as it is told to. What is not acked by then stays in the journal
//! for an adopter. Dropping a writer without finishing it leaves everything to an adopter.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use runferry_journal::{Disk, Journal, JournalError, JournalOptions, Lock, LockError, LockInfo, RealDisk};
use runferry_ring::{CreateError, Placement, Producer};
use runferry_transport::{Tcp, Timeouts};
use runferry_wire::{Doc, Kind};
use thiserror::Error;

use crate::adopt::{LOOK_AGAIN, MOST_LOOKS};
use crate::batch::{Identity, Last, map_frame};
use crate::clock::Clock;
use crate::credentials::Access;
use crate::intake::Intake;
use crate::machine;
use crate::pack::{self, Command, Fsync, Packer};
use crate::pressure::Policy;
use crate::receipt::{Covered, segment_head};
use crate::send::{self, Behalf, Sender};
use crate::shared::{Connection, Counters, LossReason, ONLINE_LINGER, PACK, SEND, SYNC, Shared};
use crate::source::LiveSource;
use crate::sync_disk::{self, SyncQueue};
use crate::{clock, thread};

const NAMES_BYTES: usize = 1 << 20;
const OFFLINE_LINGER: Duration = Duration::from_secs(1);
/// A disk with less than five times this free is full by `journal_min_free_bytes` before it is by the cap.
const LEAST_CAP_BYTES: u64 = 16 << 20;
/// How long `finish` waits for a disk that hangs.
const DISK_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest wait for an answer of the packer, whatever the caller allows.
const LONGEST_QUESTION: Duration = Duration::from_secs(24 * 60 * 60);
/// How long the threads get to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a full inbox, or a thread that is to end, is looked at.
const INBOX_POLL: Duration = Duration::from_millis(2);
/// How long the end of an acked stream may take.
const BYE_TIMEOUT: Duration = Duration::from_secs(2);

/// What a writer is made from.
#[derive(Debug, Clone)]
pub struct Options {
    /// Folder of the journals.
    pub root: PathBuf,
    /// Run and writer.
    pub identity: Identity,
    /// The map of the OPEN frame.
    pub open: Doc,
    /// The server's HTTP address; `None`: offline.
    pub base_url: Option<String>,
    /// Key and authorities.
    pub access: Access,
    /// "runferry/0.1.0"
    pub client: String,
    /// Size of the ring.
    pub ring_bytes: usize,
    /// Most bytes of the journal; `None`: 10 GiB, or a fifth of what is free if that is less.
    pub journal_cap_bytes: Option<u64>,
    /// Bytes of the file system that the journal leaves to others.
    pub journal_min_free_bytes: u64,
    /// What happens to rows at the cap.
    pub policy: Policy,
    /// When the journal goes to the device.
    pub fsync: Fsync,
}

/// Why a writer cannot start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The journal cannot be made there: choose another folder.
    #[error("cannot keep a journal in {}", path.display())]
    Journal {
        /// The folder.
        path: PathBuf,
        /// What is wrong.
        source: JournalError,
    },
    /// The journal's lock cannot be had.
    #[error("cannot lock the journal in {}", path.display())]
    Lock {
        /// The folder.
        path: PathBuf,
        /// What is wrong.
        source: Box<LockError>,
    },
    /// No memory for a ring.
    #[error(transparent)]
    Ring(#[from] CreateError),
    /// The system gives no thread.
    #[error("cannot start a thread")]
    Thread(#[from] std::io::Error),
}

/// How far `flush` waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// In the journal.
    Journaled,
    /// On the device.
    Durable,
    /// Durably on the server.
    Acked,
}

/// What became of a flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flushed {
    /// Everything is there.
    Yes,
    /// Not within the time given.
    NotYet,
    /// The disk refuses, or there is no server: waiting does not help (see [`Writer::status`]).
    Never,
}

/// Counts and states for `run.status()`; figures since the writer's start.
#[derive(Debug, Clone, Default)]
#[expect(missing_docs, reason = "each is described where users read it: runferry.RunStatus")]
pub struct Status {
    pub accepted_rows: u64,
    pub packed_frames: u64,
    pub packed_points: u64,
    pub journaled_frames: u64,
    pub journaled_bytes: u64,
    pub durable_frames: u64,
    pub acked_frames: u64,
    pub received_frames: u64,
    /// Rows and values that went, by reason.
    pub losses: Vec<(LossReason, u64, u64)>,
    pub gaps: u64,
    pub marked_values: u64,
    pub damaged_records: u64,
    pub retries: u64,
    pub rejected_frames: u64,
    pub lag_s: f64,
    pub linger_s: f64,
    pub backlog_frames: u64,
    pub backlog_bytes: u64,
    pub journal_bytes: u64,
    pub kill_safe: bool,
    pub is_finished: bool,
    pub connection: &'static str,
    pub journal: &'static str,
    pub run_url: String,
    pub last_error: String,
    pub dead_threads: Vec<String>,
    pub notices: Vec<String>,
}

/// A running writer. Safe from any thread; `log()` does not pass here but through the [`Producer`].
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    dir: PathBuf,
    inbox: SyncSender<Command>,
    is_online: bool,
    policy: Policy,
    placement: Placement,
    threads: Mutex<Vec<JoinHandle<()>>>,
    lock: Mutex<Option<Lock>>,
}

impl Writer {
    /// Starts the writer; the producer is the caller's half of the ring.
    ///
    /// # Errors
    /// [`StartError`]. Nothing is left running.
    pub fn start(options: Options) -> Result<(Self, Producer), StartError> {
        let Identity { run_id, writer_id } = options.identity;
        let dir = options.root.join(machine::hex(run_id)).join(format!("{writer_id:016x}"));
        let is_online = options.base_url.is_some();
        let disk: Arc<RealDisk> = Arc::new(RealDisk);
        let journal_error = |source| StartError::Journal { path: options.root.clone(), source };

        let covered = Covered::default();
        let head = segment_head(options.identity, options.open.clone(), covered.clone());
        let ring_name = format!("runferry-{writer_id:016x}.ring");
        let pid = std::process::id();
        let lock_info = LockInfo {
            pid,
            start_ticks: machine::start_ticks(pid),
            boot_id: machine::boot_id_text(),
            host: machine::host(),
            ring: Some(machine::shm_dir().join(&ring_name).display().to_string()),
            base_url: options.base_url.clone(),
        };
        make_dirs(&dir).map_err(|source| {
            journal_error(JournalError::Io { action: "make directory", path: dir.clone(), source })
        })?;
        let kind = if is_online { JournalOptions::ONLINE } else { JournalOptions::OFFLINE };
        let cap_bytes = options.journal_cap_bytes.unwrap_or_else(|| default_cap(&dir));
        let limits = kind.limited(cap_bytes, options.journal_min_free_bytes);
        let journal_options = JournalOptions {
            segment_bytes: runferry_failpoints::value!("journal.segment_bytes", limits.segment_bytes),
            tail_keep_bytes: runferry_failpoints::value!("journal.tail_keep_bytes", limits.tail_keep_bytes),
            ..limits
        };
        let lock = lock_own(&dir, &lock_info)
            .map_err(|source| StartError::Lock { path: dir.clone(), source: Box::new(source) })?;
        runferry_failpoints::hit!("start.locked");
        let journal = Journal::create(disk.clone(), &dir, head, 1, journal_options).map_err(journal_error)?;
        runferry_failpoints::hit!("start.journal");
        let ring_identity = runferry_ring::Identity {
            run_id,
            writer_id,
            boot_id: machine::boot_id(),
            pid,
            start_ticks: lock_info.start_ticks,
        };
        let (producer, consumer) = runferry_ring::create(&runferry_ring::Options {
            identity: ring_identity,
            name: &ring_name,
            shm_dir: machine::shm_dir(),
            fallback_dir: &dir,
            entry_bytes: options.ring_bytes,
            names_bytes: NAMES_BYTES,
        })?;
        let placement = producer.placement().clone();
        runferry_failpoints::hit!("start.ring");

        let shared = Arc::new(Shared::new(1));
        shared.set_linger(if is_online { ONLINE_LINGER } else { OFFLINE_LINGER });
        let (to_sync, sync_jobs) = sync_channel(4);
        let (inbox, commands) = sync_channel(64);
        let packer = Packer {
            identity: options.identity,
            shared: shared.clone(),
            consumer,
            disk: disk.clone(),
            dir: dir.clone(),
            journal,
            open: options.open.clone(),
            covered,
            options: journal_options,
            is_online,
            fsync: options.fsync,
            policy: options.policy,
            to_sync: SyncQueue::new(to_sync),
            clock: Clock::MACHINE,
        };
        let mut threads = vec![
            thread::spawn(SYNC, shared.clone(), move || sync_disk::run(&sync_jobs))?,
            thread::spawn(PACK, shared.clone(), move || pack::run(packer, &commands))?,
        ];
        if let Some(base_url) = options.base_url {
            shared.change(|state| state.connection = Connection::Connecting);
            let open_frame = map_frame(options.identity, Kind::Open, 1, 0, 0, &options.open);
            let sender = Sender {
                dial: Tcp,
                clock: Clock::MACHINE,
                base_url,
                access: options.access,
                client: options.client,
                shared: shared.clone(),
                behalf: Behalf::Own,
                timeouts: Timeouts::default(),
            };
            let source = LiveSource::new(shared.clone(), disk, &dir, open_frame.into(), options.identity);
            threads.push(thread::spawn(SEND, shared.clone(), move || send::run(&sender, source))?);
        }
        let writer = Self {
            shared,
            dir,
            inbox,
            is_online,
            policy: options.policy,
            placement,
            threads: Mutex::new(threads),
            lock: Mutex::new(Some(lock)),
        };
        Ok((writer, producer))
    }

    /// A number for a new writer: random, not 0, and positive as a signed integer.
    ///
    /// It comes from the system each time: a generator of our own is copied by fork, and all children would get the same number.
    pub fn new_writer_id() -> u64 {
        let mixed = || fastrand::u64(..) ^ u64::from(std::process::id()).rotate_left(40) ^ clock::wall_us() as u64;
        (getrandom::u64().unwrap_or_else(|_| mixed()) >> 1).max(1)
    }

    /// The journal's folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Counts a row that was taken into the ring. Only whoever holds the intake does, so it takes no read-modify-write.
    #[inline]
    pub fn accepted_row(&self, _held: &mut Intake) {
        let counter = &self.shared.counters.accepted_rows;
        counter.store(Counters::get(counter) + 1, Ordering::Relaxed);
    }

    /// Counts a row that was refused.
    pub fn dropped_row(&self, reason: LossReason, points: u64) {
        self.shared.counters.lost(reason, 1, points);
    }

    /// Whether a call is to raise: the journal is full, and the user asked for it.
    #[inline]
    pub fn is_refusing(&self) -> bool {
        self.policy == Policy::Raise && self.shared.is_holding()
    }

    /// The policy for a full journal.
    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// Whether frames wait in memory for room in the journal.
    pub fn is_holding(&self) -> bool {
        self.shared.is_holding()
    }

    /// How long a call may wait for room where the policy is to block: in all while the journal is full, else for the packer's next
    /// step. A packer that is dead is not waited for.
    pub(crate) fn patience(&self) -> Option<Duration> {
        match self.policy {
            Policy::Block(longest) if !self.shared.state().is_dead(PACK) => Some(longest),
            _ => None,
        }
    }

    /// Odd while rows go because the journal is at its cap; one more with each beginning and end of that.
    #[inline]
    pub fn pressure_turns(&self) -> u64 {
        self.shared.pressure_turns()
    }

    /// Distinct metric names that were packed; beyond some thousands a lower bound.
    pub fn packed_names(&self) -> usize {
        Counters::get(&self.shared.counters.packed_names) as usize
    }

    /// Counts values that were replaced by a marker.
    pub fn marked_values(&self, values: u64) {
        Counters::add(&self.shared.counters.marked_values, values);
    }

    /// Wakes the packer: the ring is full. Says how many frames it has packed so far, so that a caller sees progress.
    pub fn wake(&self) -> u64 {
        // A full inbox means that it is awake.
        self.inbox.try_send(Command::Wake).ok();
        Counters::get(&self.shared.counters.packed_frames)
    }

    /// Waits at most `timeout` until everything logged so far has come as far as `reach`. What the server acks need not be in the journal.
    pub fn flush(&self, reach: Reach, timeout: Duration) -> Flushed {
        let deadline = Instant::now().checked_add(timeout);
        let left = || deadline.map_or(timeout, |deadline| deadline.saturating_duration_since(Instant::now()));
        let is_durable = reach != Reach::Journaled;
        let mut acked_next_seq = 0;
        loop {
            let (next_seq, is_journaled) = match self.ask(left(), |done| Command::Flush { durable: is_durable, done }) {
                Some(Ok(next_seq)) => (next_seq, true),
                Some(Err(_)) if reach == Reach::Acked && self.is_online => (self.shared.state().next_seq, false),
                Some(Err(_)) => return Flushed::Never,
                None if self.shared.state().is_dead(PACK) => return Flushed::Never,
                None => return Flushed::NotYet,
            };
            if is_durable && is_journaled {
                self.shared.change(|state| state.synced_next_seq = state.synced_next_seq.max(next_seq));
            }
            if reach != Reach::Acked {
                return Flushed::Yes;
            }
            if !self.is_online {
                return Flushed::Never;
            }
            self.shared.wait(left(), |state| state.durable_next_seq >= next_seq || state.is_dead(SEND));
            {
                let state = self.shared.state();
                if state.durable_next_seq < next_seq {
                    return if state.is_dead(SEND) { Flushed::Never } else { Flushed::NotYet };
                }
            }
            // While the disk refuses, the ring may hold rows that come only after what was acked now.
            if is_journaled || next_seq == acked_next_seq {
                return Flushed::Yes;
            }
            acked_next_seq = next_seq;
        }
    }

    /// The last value of every metric logged so far.
    pub fn last_values(&self) -> Vec<(String, Last)> {
        self.ask(DISK_TIMEOUT, |done| Command::LastValues { done }).unwrap_or_default()
    }

    /// Takes the last word: drains the ring, writes the FINISH frame, forces the journal to the device. Idempotent.
    pub fn end(&self, map: Doc) {
        if let Some(Ok(seq)) = self.ask(DISK_TIMEOUT, |done| Command::Finish { map, done }) {
            self.shared.change(|state| state.synced_next_seq = seq + 1);
        }
    }

    /// Waits at most `timeout` for the server to have everything. True also where waiting is of no use: offline, refused, stopped, or a
    /// thread of ours is dead.
    pub fn wait_acked(&self, timeout: Duration) -> bool {
        !self.is_online
            || self.threads.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
            || self.shared.wait(timeout, |state| {
                matches!(state.connection, Connection::Blocked | Connection::Incompatible)
                    || state.is_dead(PACK)
                    || state.is_dead(SEND)
                    || state.is_finished && state.durable_next_seq >= state.next_seq
            })
    }

    /// Ends the threads, whatever waits; what is not acked stays in the journal for an adopter. Returns the last status.
    pub fn stop(&self) -> Status {
        // The sender says Bye by itself when all is acked; it is given the time for that, and no more.
        self.shared.wait(BYE_TIMEOUT, |state| {
            state.connection != Connection::Connected || state.durable_next_seq < state.next_seq
        });
        let status = self.status();
        self.shared.stop_now();
        let deadline = Instant::now() + STOP_TIMEOUT;
        self.tell(Command::Stop, deadline);
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        while threads.iter().any(|thread| !thread.is_finished()) && Instant::now() < deadline {
            std::thread::sleep(INBOX_POLL);
        }
        let lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
        if threads.iter().any(|thread| !thread.is_finished()) {
            // A disk that hangs has a thread of ours. It may still write, so the lock stays taken until the process is gone.
            std::mem::forget(lock);
        }
        status
    }

    /// Puts a command into the packer's inbox; false: the packer is gone, or its inbox stayed full.
    fn tell(&self, mut command: Command, deadline: Instant) -> bool {
        loop {
            match self.inbox.try_send(command) {
                Ok(()) => return true,
                Err(TrySendError::Full(back)) if Instant::now() < deadline => command = back,
                Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => return false,
            }
            std::thread::sleep(INBOX_POLL);
        }
    }

    /// Puts a question to the packer; `None`: it is gone, or did not answer in time.
    fn ask<T>(&self, timeout: Duration, question: impl FnOnce(SyncSender<T>) -> Command) -> Option<T> {
        let (done, answer) = sync_channel(1);
        let deadline = Instant::now() + timeout.min(LONGEST_QUESTION);
        if !self.tell(question(done), deadline) {
            return None;
        }
        answer.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok()
    }

    /// Where things stand.
    pub fn status(&self) -> Status {
        let counters = &self.shared.counters;
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let now = clock::mono();
        let state = self.shared.state();
        let waiting = state.items.iter().filter(|item| item.next_seq > state.durable_next_seq);
        Status {
            accepted_rows: get(&counters.accepted_rows),
            packed_frames: get(&counters.packed_frames),
            packed_points: get(&counters.packed_points),
            journaled_frames: get(&counters.journaled_frames),
            journaled_bytes: get(&counters.journaled_bytes),
            durable_frames: state.synced_next_seq - 1,
            acked_frames: state.durable_next_seq - 1,
            received_frames: state.received_next_seq - 1,
            losses: LossReason::ALL
                .into_iter()
                .map(|reason| (reason, counters.of(reason).0, counters.of(reason).1))
                .collect(),
            gaps: get(&counters.gaps),
            marked_values: get(&counters.marked_values),
            damaged_records: get(&counters.damaged_records),
            retries: get(&counters.retries),
            rejected_frames: get(&counters.rejected_frames),
            lag_s: waiting.clone().next().map_or(0.0, |item| now.saturating_sub(item.packed_at).as_secs_f64()),
            linger_s: self.shared.linger().as_secs_f64(),
            backlog_frames: state.next_seq.saturating_sub(state.durable_next_seq),
            backlog_bytes: waiting.map(|item| item.frame.len() as u64).sum(),
            journal_bytes: state.journal_bytes,
            kill_safe: self.placement.is_kill_safe() && !state.is_ring_lost,
            is_finished: state.is_finished,
            connection: if state.is_dead(SEND) { "dead" } else { state.connection.name() },
            journal: if state.is_dead(PACK) { "dead" } else { state.journal },
            run_url: state.run_url.clone(),
            last_error: state.last_error.clone(),
            dead_threads: state.dead_threads.clone(),
            notices: state.notices.clone(),
        }
    }
}

/// Locks a directory that is ours alone. An adopter that met it before its lock was taken holds it for a moment, to see that it is empty.
fn lock_own(dir: &Path, info: &LockInfo) -> Result<Lock, LockError> {
    for _ in 1..MOST_LOOKS {
        match Lock::acquire(dir, info) {
            Err(LockError::Held(_)) => std::thread::sleep(LOOK_AGAIN),
            taken => return taken,
        }
    }
    Lock::acquire(dir, info)
}

/// 10 GiB, or a fifth of what is free if that is less.
fn default_cap(dir: &Path) -> u64 {
    let free_bytes = RealDisk.free_bytes(dir).unwrap_or(u64::MAX);
    JournalOptions::ONLINE.cap_bytes.min(free_bytes / 5).max(LEAST_CAP_BYTES)
}

fn make_dirs(dir: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}
