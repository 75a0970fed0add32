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
use runferry_journal::Droppable;

/// Names of a writer's threads.
pub(crate) const PACK: &str = "rf-pack";
pub(crate) const SEND: &str = "rf-send";
pub(crate) const SYNC: &str = "rf-sync";

/// Journaled frames kept in memory for the sender.
const OUTBOX_BYTES: usize = 4 << 20;
/// Frames that the disk refuses, and that are nowhere else.
pub(crate) const REFUSED_BYTES: usize = 8 << 20;
/// What the server had to say is kept so far back.
const MOST_NOTICES: usize = 50;
/// How long rows of a connected writer gather before they become a frame, unless the server wishes otherwise.
pub(crate) const ONLINE_LINGER: Duration = Duration::from_millis(100);

/// Counts since the writer's start.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) accepted_rows: AtomicU64,
    pub(crate) marked_values: AtomicU64,
    pub(crate) packed_rows: AtomicU64,
    pub(crate) packed_points: AtomicU64,
    /// Distinct names packed, as far as a receipt tells them apart.
    pub(crate) packed_names: AtomicU64,
    pub(crate) packed_frames: AtomicU64,
    pub(crate) journaled_frames: AtomicU64,
    pub(crate) journaled_bytes: AtomicU64,
    pub(crate) sent_frames: AtomicU64,
    pub(crate) sent_bytes: AtomicU64,
    pub(crate) retries: AtomicU64,
    pub(crate) rejected_frames: AtomicU64,
    pub(crate) damaged_records: AtomicU64,
    pub(crate) panics: AtomicU64,
    pub(crate) gaps: AtomicU64,
    lost: [Lost; LossReason::ALL.len()],
}

/// Rows and values that went for one reason.
#[derive(Debug, Default)]
struct Lost {
    rows: AtomicU64,
    points: AtomicU64,
}

/// Why a row did not get through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LossReason {
    /// Taken out between others as the journal neared its cap.
    Thinned,
    /// The ring was full and stayed so.
    RingFull,
    /// The journal was full.
    JournalFull,
    /// Its segment made room for newer ones.
    Oldest,
    /// The call was larger than a call may be, or its spool could not be written.
    Refused,
}

impl LossReason {
    /// All reasons, in the order of their numbers.
    pub const ALL: [Self; 5] = [Self::Thinned, Self::RingFull, Self::JournalFull, Self::Oldest, Self::Refused];

    /// The reason's name in `status()`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Thinned => "thinned",
            Self::RingFull => "ring_full",
            Self::JournalFull => "journal_full",
            Self::Oldest => "oldest",
            Self::Refused => "refused",
        }
    }
}

impl Counters {
    /// Counts rows and values that do not get through.
    pub(crate) fn lost(&self, reason: LossReason, rows: u64, points: u64) {
        if let Some(lost) = self.lost.get(reason as usize) {
            Self::add(&lost.rows, rows);
            Self::add(&lost.points, points);
        }
    }

    /// Rows and values that went for one reason.
    pub(crate) fn of(&self, reason: LossReason) -> (u64, u64) {
        self.lost.get(reason as usize).map_or((0, 0), |lost| (Self::get(&lost.rows), Self::get(&lost.points)))
    }

    /// Rows that went, but for those thinned.
    pub(crate) fn dropped_rows(&self) -> u64 {
        let dropped = LossReason::ALL.into_iter().filter(|reason| *reason != LossReason::Thinned);
        dropped.map(|reason| self.of(reason).0).sum()
    }

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
    /// The sender has asked for frames below, so they may be on their way.
    pub(crate) asked_next_seq: u64,
    /// These are being taken out of the journal: the sender asks again later.
    pub(crate) hidden: Option<Droppable>,
    /// The writer's FINISH frame lies below `next_seq`: no frame follows.
    pub(crate) is_finished: bool,
    pub(crate) connection: Connection,
    pub(crate) run_url: String,
    pub(crate) storage_epoch: Vec<u8>,
    pub(crate) journal: &'static str,
    pub(crate) journal_bytes: u64,
    /// The policy for a full journal is at work.
    pub(crate) is_pressed: bool,
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
    /// Frames wait in memory for room in the journal: callers meet the policy.
    is_holding: AtomicBool,
    /// How often the policy for a full journal has begun or ended its work: odd while it works.
    pressure_turns: AtomicU64,
    /// How long rows gather before they become a frame, in milliseconds.
    linger_ms: AtomicU64,
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
            is_holding: AtomicBool::new(false),
            pressure_turns: AtomicU64::new(0),
            linger_ms: AtomicU64::new(0),
        }
    }

    /// How long rows gather before they become a frame.
    pub(crate) fn linger(&self) -> Duration {
        Duration::from_millis(self.linger_ms.load(Ordering::Relaxed))
    }

    /// Sets how long rows gather from now on.
    pub(crate) fn set_linger(&self, linger: Duration) {
        self.linger_ms.store(linger.as_millis() as u64, Ordering::Relaxed);
    }

    /// Notes whether the policy for a full journal is at work.
    pub(crate) fn set_pressed(&self, is_pressed: bool) {
        let has_changed = self.change(|state| {
            let has_changed = std::mem::replace(&mut state.is_pressed, is_pressed) != is_pressed;
            if has_changed {
                state.journal = if is_pressed { "full" } else { "ok" };
            }
            has_changed
        });
        if has_changed {
            self.pressure_turns.fetch_add(1, Ordering::Release);
        }
    }

    /// Odd while the policy for a full journal is at work; one more with each beginning and end.
    pub(crate) fn pressure_turns(&self) -> u64 {
        self.pressure_turns.load(Ordering::Acquire)
    }

    /// Notes whether frames wait for room, under a policy by which callers feel it.
    pub(crate) fn set_holding(&self, is_holding: bool) {
        if self.is_holding.swap(is_holding, Ordering::AcqRel) != is_holding {
            self.set_pressed(is_holding);
        }
    }

    /// Whether frames wait for room.
    pub(crate) fn is_holding(&self) -> bool {
        self.is_holding.load(Ordering::Acquire)
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

    /// Chooses a segment that the sender has not come to yet, and keeps the sender from it until `unhide`.
    pub(crate) fn hide(&self, choose: impl FnOnce(u64) -> Option<Droppable>) -> Option<Droppable> {
        self.change(|state| {
            state.hidden = choose(state.asked_next_seq);
            if let Some(segment) = state.hidden {
                state.items.retain(|item| !(segment.seq..segment.until_seq).contains(&item.seq));
                state.item_bytes = state.items.iter().map(|item| item.frame.len()).sum();
            }
            state.hidden
        })
    }

    /// The sender may go on.
    pub(crate) fn unhide(&self) {
        self.change(|state| state.hidden = None);
        self.frames.notify_one();
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
