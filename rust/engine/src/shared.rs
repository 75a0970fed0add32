//! What the threads of a writer know together: counters, the outbox between packer and sender, and who waits for what.
//!
//! # Invariants
//! - `log()` never takes a lock of this module; it touches only the atomics of [`Counters`].
//! - A frame leaves the outbox when it is durably acked, or when it is in the journal and the outbox is full.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;

/// Names of a writer's threads.
pub(crate) const PACK: &str = "rf-pack";
pub(crate) const SEND: &str = "rf-send";
pub(crate) const SYNC: &str = "rf-sync";

/// Frames kept in memory for the sender, and while the disk is failing.
pub(crate) const OUTBOX_BYTES: usize = 8 << 20;
/// What the server had to say is kept so far back.
const MOST_NOTICES: usize = 50;

/// Counts since the writer's start.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) accepted_rows: AtomicU64,
    pub(crate) dropped_rows: AtomicU64,
    pub(crate) marked_values: AtomicU64,
    pub(crate) packed_rows: AtomicU64,
    pub(crate) packed_points: AtomicU64,
    pub(crate) packed_frames: AtomicU64,
    pub(crate) journaled_frames: AtomicU64,
    pub(crate) journaled_bytes: AtomicU64,
    pub(crate) sent_frames: AtomicU64,
    pub(crate) sent_bytes: AtomicU64,
    pub(crate) retries: AtomicU64,
    pub(crate) rejected_frames: AtomicU64,
    pub(crate) damaged_records: AtomicU64,
    pub(crate) panics: AtomicU64,
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn get(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }
}

/// How the connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Connection {
    /// Nothing is to be sent (offline).
    #[default]
    Off,
    /// Looking for the server, or waiting before the next try.
    Connecting,
    /// Frames flow.
    Connected,
    /// The server refuses this run; the journal is kept.
    Blocked,
    /// Server and client speak different versions; the journal is kept.
    Incompatible,
    /// The server refuses the key, or there is none; another one is waited for.
    Unauthenticated,
    /// The server's certificate cannot be believed.
    Untrusted,
    /// The address answers, but not as a Runferry server.
    NotRunferry,
    /// All is sent and acked.
    Done,
}

impl Connection {
    /// The state's name in `status()`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::Blocked => "blocked",
            Self::Incompatible => "incompatible",
            Self::Unauthenticated => "unauthenticated",
            Self::Untrusted => "untrusted",
            Self::NotRunferry => "not_runferry",
            Self::Done => "done",
        }
    }
}

#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) seq: u64,
    pub(crate) next_seq: u64,
    pub(crate) frame: Bytes,
    pub(crate) is_journaled: bool,
    pub(crate) packed_at: Duration,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) items: VecDeque<Item>,
    pub(crate) item_bytes: usize,
    /// Number of the next frame the packer will write.
    pub(crate) next_seq: u64,
    /// Frames below are gone from the journal; they were durably acked.
    pub(crate) first_seq: u64,
    /// Frames below are in the journal.
    pub(crate) journaled_next_seq: u64,
    /// Frames below are on the device.
    pub(crate) synced_next_seq: u64,
    /// Frames below are durably on the server.
    pub(crate) durable_next_seq: u64,
    pub(crate) received_next_seq: u64,
    /// The writer's FINISH frame lies below `next_seq`: no frame follows.
    pub(crate) is_finished: bool,
    pub(crate) connection: Connection,
    pub(crate) run_url: String,
    pub(crate) storage_epoch: Vec<u8>,
    pub(crate) journal: &'static str,
    pub(crate) journal_bytes: u64,
    pub(crate) last_error: String,
    pub(crate) dead_threads: Vec<String>,
    /// The ring's file was removed or cut by somebody: what is logged from then on dies with the process.
    pub(crate) is_ring_lost: bool,
    pub(crate) notices: Vec<String>,
}

/// The meeting place of a writer's threads.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) counters: Counters,
    state: Mutex<State>,
    /// Something in the state changed that a caller of flush or finish may wait for.
    changed: Condvar,
    /// Frames came in: the sender waits here.
    pub(crate) frames: tokio::sync::Notify,
    /// The sender is to end now, whatever waits.
    pub(crate) is_stopping: AtomicBool,
    pub(crate) stop: tokio::sync::Notify,
}

impl Shared {
    pub(crate) fn new(next_seq: u64) -> Self {
        let state = State {
            next_seq,
            first_seq: next_seq,
            journaled_next_seq: next_seq,
            synced_next_seq: next_seq,
            durable_next_seq: next_seq,
            received_next_seq: next_seq,
            journal: "ok",
            ..State::default()
        };
        Self {
            counters: Counters::default(),
            state: Mutex::new(state),
            changed: Condvar::new(),
            frames: tokio::sync::Notify::new(),
            is_stopping: AtomicBool::new(false),
            stop: tokio::sync::Notify::new(),
        }
    }

    /// The state; a thread that panicked while holding it has left nothing half done (each change is one assignment or push).
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state and wakes whoever waits for a change.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.state());
        self.changed.notify_all();
        result
    }

    /// Waits until `is_reached`, at most `timeout`; says whether it was.
    pub(crate) fn wait(&self, timeout: Duration, is_reached: impl Fn(&State) -> bool) -> bool {
        let waited = self.changed.wait_timeout_while(self.state(), timeout, |state| !is_reached(state));
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        is_reached(&state)
    }

    /// Hands a frame to the sender and keeps the outbox within its bound.
    pub(crate) fn offer(&self, item: Item) {
        self.change(|state| {
            state.next_seq = item.next_seq;
            if item.is_journaled {
                state.journaled_next_seq = item.next_seq;
            }
            state.item_bytes += item.frame.len();
            state.items.push_back(item);
            state.shrink();
        });
        self.frames.notify_one();
    }

    /// The server has frames below `durable` safely, and has seen those below `received`.
    pub(crate) fn acked(&self, received: u64, durable: u64) {
        self.change(|state| {
            state.received_next_seq = state.received_next_seq.max(received);
            state.durable_next_seq = state.durable_next_seq.max(durable);
            while state.items.front().is_some_and(|item| item.next_seq <= durable) {
                state.pop();
            }
        });
    }

    /// Keeps what the server wants the user to read, the latest of it.
    pub(crate) fn notice(&self, text: String) {
        self.change(|state| {
            if state.notices.len() >= MOST_NOTICES {
                state.notices.remove(0);
            }
            state.notices.push(text);
        });
    }

    pub(crate) fn set_error(&self, text: String) {
        self.change(|state| state.last_error = text);
    }

    pub(crate) fn thread_died(&self, name: &str, text: &str) {
        Counters::add(&self.counters.panics, 1);
        self.change(|state| {
            state.dead_threads.push(name.to_owned());
            state.last_error = format!("thread {name} died: {text}");
        });
    }

    /// Ends the sender without waiting for anything.
    pub(crate) fn stop_now(&self) {
        self.is_stopping.store(true, Ordering::Release);
        self.stop.notify_waiters();
        self.stop.notify_one();
    }
}

impl State {
    /// Whether a panic ended this thread.
    pub(crate) fn is_dead(&self, thread: &str) -> bool {
        self.dead_threads.iter().any(|dead| dead == thread)
    }

    fn pop(&mut self) {
        if let Some(item) = self.items.pop_front() {
            self.item_bytes -= item.frame.len();
        }
    }

    /// Forgets journaled frames, oldest first, until the outbox fits: the sender reads them from the journal then.
    fn shrink(&mut self) {
        while self.item_bytes > OUTBOX_BYTES && self.items.front().is_some_and(|item| item.is_journaled) {
            self.pop();
        }
    }
}
