//! A model of the server: one number a writer, advanced by compare-and-set in the step that stores the frames.
//!
//! It speaks the real protocol through the real gRPC library, so the client under test cannot tell it from the one in Python. What
//! is modelled is what the client has to live with: commits that take time, outcomes nobody knows, deaths before and after a
//! commit, a store that is lost or restored from a backup, credit, throttling, refusals.
//!
//! # The store
//! [`Store`] is what is on the server's disk: it outlives [`Server::crash`] and nothing else does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use runferry_transport::proto::ingest_server::IngestServer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{Notify, mpsc};
use tokio::task::{JoinHandle, JoinSet};

use crate::broken::Broken;
use crate::call::Handover;
use crate::net::{Net, SERVER, Socket, lock};
use crate::trace::Trace;

/// Where the door is asked.
pub const DOOR_PORT: u16 = 7070;
const WRITE_PORT: u16 = 7071;
const DOOR: &str = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 53\r\n\r\n{\"service\":\"runferry\",\"protocol\":1,\"version\":\"model\"}\n";

/// What is stored of one writer: frames without a hole.
#[derive(Debug, Clone)]
pub struct Writer {
    /// The number expected next.
    pub next_seq: u64,
    /// All frames below.
    pub frames: Vec<Bytes>,
}

/// The server's disk.
#[derive(Debug, Clone)]
pub struct Store {
    /// Another one after a loss.
    pub epoch: u64,
    /// By writer id.
    pub writers: BTreeMap<u64, Writer>,
}

impl Store {
    /// What is stored of a writer; a new one begins with nothing.
    pub(crate) fn writer(&mut self, writer_id: u64) -> &mut Writer {
        self.writers.entry(writer_id).or_insert(Writer { next_seq: 1, frames: Vec::new() })
    }
}

/// What the server does to the next commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misfortune {
    /// The process dies before.
    DeathBefore,
    /// It dies between commit and ack.
    DeathAfter,
    /// An error that says nothing about the outcome; this one was stored.
    UnknownButStored,
    /// The same, and it was not.
    UnknownAndLost,
}

/// How the server behaves.
#[derive(Debug, Clone, Default)]
pub struct Manners {
    /// Bytes a client may have under way.
    pub credit_bytes: u64,
    /// A commit takes up to this.
    pub slowest_commit: Duration,
    /// The next commits meet these.
    pub misfortunes: Vec<Misfortune>,
    /// What the next message of frames is answered with, and whether its frames are taken.
    pub answers: Vec<Answer>,
    /// New streams are refused so, as long as this holds.
    pub refusal: Option<Refusal>,
}

/// An answer out of order.
#[derive(Debug, Clone)]
pub enum Answer {
    /// Please slow down: milliseconds, bytes a second.
    Throttle(u32, u64),
    /// The checksum of the first frame is said not to fit.
    Checksum,
    /// The first frame is refused for good.
    Refuse,
    /// The server is about to close.
    Drain(u32),
}

/// How a stream is refused.
#[derive(Debug, Clone, Copy)]
pub enum Refusal {
    /// gRPC's UNAVAILABLE.
    Unavailable,
    /// gRPC's RESOURCE_EXHAUSTED, without a hint.
    Exhausted,
    /// A Throttle in the place of OpenOk.
    Busy(u32),
}

/// What the checker has to know of the past.
#[derive(Debug, Default)]
pub struct Memory {
    /// Every frame that ever came, by writer and number.
    pub seen: BTreeMap<(u64, u64), Bytes>,
    /// The highest number that was ever stored and might have been acked.
    pub highest: BTreeMap<u64, u64>,
    /// Frames refused for good.
    pub refused: BTreeSet<(u64, u64)>,
    /// Frames that came again with other contents.
    pub alarms: Vec<String>,
    /// How many frames came that were there already.
    pub duplicates: u64,
    /// Checksums that were said not to fit.
    pub checksums: u64,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) random: fastrand::Rng,
    pub(crate) store: Store,
    pub(crate) manners: Manners,
    pub(crate) memory: Memory,
    pub(crate) is_dying: bool,
}

/// The server's machine.
#[derive(Debug, Clone)]
pub struct Server {
    net: Net,
    pub(crate) trace: Trace,
    pub(crate) state: Arc<Mutex<State>>,
    pub(crate) death: Arc<Notify>,
    pub(crate) broken: Option<Broken>,
    running: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl Server {
    /// A server that is off, with an empty store.
    pub(crate) fn new(net: Net, trace: Trace, broken: Option<Broken>, random: fastrand::Rng) -> Self {
        let store = Store { epoch: 1, writers: BTreeMap::new() };
        let manners = Manners { credit_bytes: 1 << 20, ..Manners::default() };
        let state = State { random, store, manners, memory: Memory::default(), is_dying: false };
        let (death, running) = (Arc::default(), Arc::default());
        Self { net, trace, state: Arc::new(Mutex::new(state)), death, broken, running }
    }

    /// Starts the process.
    pub fn start(&self) {
        self.crash();
        self.trace.note(|| "server starts".to_owned());
        self.net.switch_server(false);
        lock(&self.state).is_dying = false;
        let (doors, streams) = (self.net.listen(DOOR_PORT), self.net.listen(WRITE_PORT));
        *lock(&self.running) = Some(tokio::spawn(self.clone().serve(doors, streams)));
    }

    /// The process is killed.
    pub fn crash(&self) {
        if let Some(running) = lock(&self.running).take() {
            self.trace.note(|| "server dies".to_owned());
            self.net.crash(SERVER, false);
            running.abort();
        }
    }

    /// The machine loses power: nobody is told.
    pub fn lose_power(&self) {
        if let Some(running) = lock(&self.running).take() {
            self.trace.note(|| "server loses power".to_owned());
            self.net.switch_server(true);
            self.net.crash(SERVER, true);
            running.abort();
        }
    }

    /// Waits until a [`Misfortune`] calls for the death of the process.
    pub async fn is_to_die(&self) {
        self.death.notified().await;
    }

    /// Changes how it behaves.
    pub fn manners(&self, change: impl FnOnce(&mut Manners)) {
        change(&mut lock(&self.state).manners);
    }

    /// The store as it is.
    pub fn store(&self) -> Store {
        lock(&self.state).store.clone()
    }

    /// The number the store expects next of a writer.
    pub fn next_seq(&self, writer_id: u64) -> u64 {
        lock(&self.state).store.writers.get(&writer_id).map_or(1, |writer| writer.next_seq)
    }

    /// Puts another store in the place of this one, under a new epoch. The process must be down.
    pub fn restore(&self, store: Store) {
        let mut state = lock(&self.state);
        let epoch = state.store.epoch + 1;
        state.store = Store { epoch, ..store };
    }

    /// What the checker has to know of the past.
    pub fn recall<T>(&self, look: impl FnOnce(&Memory) -> T) -> T {
        look(&lock(&self.state).memory)
    }

    async fn serve(self, mut doors: mpsc::UnboundedReceiver<Socket>, mut streams: mpsc::UnboundedReceiver<Socket>) {
        // Whatever it serves ends with it.
        let mut connections = JoinSet::new();
        let calls = Arc::new(Mutex::new(JoinSet::new()));
        loop {
            tokio::select! {
                biased;
                Some(socket) = doors.recv() => {
                    connections.spawn(answer_door(socket));
                }
                Some(socket) = streams.recv() => {
                    let ingest = Handover { server: self.clone(), calls: Arc::clone(&calls) };
                    let service = TowerToHyperService::new(IngestServer::new(ingest).max_decoding_message_size(16 << 20));
                    let mut http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    http.timer(TokioTimer::new()).auto_date_header(false).keep_alive_interval(Duration::from_secs(20));
                    let serving = http.serve_connection(TokioIo::new(socket), service);
                    connections.spawn(async move { serving.await.ok(); });
                }
                else => return,
            }
        }
    }

    /// What befalls the commit that is about to be made.
    pub(crate) fn dies_before(&self) -> Option<Misfortune> {
        let mut state = lock(&self.state);
        let misfortune = state.manners.misfortunes.pop();
        if misfortune == Some(Misfortune::DeathBefore) {
            state.is_dying = true;
            self.death.notify_one();
        }
        misfortune
    }
}

async fn answer_door(mut socket: Socket) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        if socket.read_buf(&mut request).await.is_ok_and(|read| read > 0) {
            continue;
        }
        return;
    }
    // The client may be gone.
    socket.write_all(DOOR.as_bytes()).await.ok();
    socket.shutdown().await.ok();
}
