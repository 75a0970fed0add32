//! The packer, the sender and the adopter without their threads, for a simulation that owns time, chance, network and disk.
//!
//! What runs here is what ships: a thread is only a loop around [`Process::turn`], [`Process::sync`] and [`Process::sending`]. The
//! simulation decides when each of them moves, and when the process dies: it is dropped, and its ring and journal stay.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use runferry_journal::{Disk, Journal, JournalError, JournalOptions, Scan};
use runferry_ring::{Consumer, Orphan};
use runferry_transport::{Dial, Timeouts, TransportError};
use runferry_wire::{Doc, Kind};

use crate::adopt::{AdoptError, Left, read_open};
use crate::batch::{Identity, map_frame};
use crate::clock::Clock;
use crate::pack::{Fsync, Loop, Packer};
use crate::pressure::Policy;
use crate::receipt::{Covered, segment_head};
use crate::send::{Behalf, Ended, Sender, serve};
use crate::shared::{ONLINE_LINGER, Shared};
use crate::source::{JournalSource, LiveSource};
use crate::sync_disk::{SyncJob, SyncQueue, do_job};

/// What the client is called.
const CLIENT: &str = "runferry/steps";

/// The world a process runs in.
#[derive(Debug, Clone)]
pub struct World<D> {
    /// Where journals lie.
    pub disk: Arc<dyn Disk>,
    /// How servers are reached.
    pub dial: D,
    /// What time it is.
    pub clock: Clock,
    /// The server's HTTP address.
    pub base_url: String,
}

/// What is left to do for a sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sent {
    /// All there is is durably on the server.
    All,
    /// It was told to stop.
    Stopped,
    /// Only the user can help.
    GaveUp(TransportError),
}

impl From<Ended> for Sent {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Done | Ended::Claimed => Self::All,
            Ended::Stopped => Self::Stopped,
            Ended::GaveUp(error) => Self::GaveUp(error),
        }
    }
}

/// How far things have come; see [`crate::Status`].
#[derive(Debug, Clone, Default)]
#[expect(missing_docs, reason = "as in Status")]
pub struct Progress {
    pub next_seq: u64,
    pub synced_next_seq: u64,
    pub durable_next_seq: u64,
    pub first_seq: u64,
    pub connection: &'static str,
    pub last_error: String,
    pub notices: Vec<String>,
}

/// A writing process, without the caller of `log()`: that is who holds the ring's other end.
pub struct Process {
    packer: Loop,
    sync_jobs: Receiver<SyncJob>,
    shared: Arc<Shared>,
    identity: Identity,
    dir: PathBuf,
    open_frame: Vec<u8>,
}

impl std::fmt::Debug for Process {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Process").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl Process {
    /// Starts a writer whose journal lies in `dir`.
    ///
    /// # Errors
    /// The journal cannot be made.
    pub fn start<D>(
        world: &World<D>,
        dir: &Path,
        identity: Identity,
        open: &Doc,
        consumer: Consumer,
        options: JournalOptions,
        fsync: Fsync,
    ) -> Result<Self, JournalError> {
        let covered = Covered::default();
        let head = segment_head(identity, open.clone(), covered.clone());
        let journal = Journal::create(Arc::clone(&world.disk), dir, head, 1, options)?;
        let shared = Arc::new(Shared::new(1));
        shared.set_linger(ONLINE_LINGER);
        let (to_sync, sync_jobs) = sync_channel(4);
        let packer = Loop::new(Packer {
            identity,
            shared: Arc::clone(&shared),
            consumer,
            disk: Arc::clone(&world.disk),
            dir: dir.to_owned(),
            journal,
            open: open.clone(),
            covered,
            options,
            is_online: true,
            fsync,
            // Rows wait for room: nobody here could be told that they went.
            policy: Policy::Block(Duration::ZERO),
            to_sync: SyncQueue::new(to_sync),
            clock: world.clock,
        });
        let open_frame = map_frame(identity, Kind::Open, 1, 0, 0, open);
        Ok(Self { packer, sync_jobs, shared, identity, dir: dir.to_owned(), open_frame })
    }

    /// What `rf-pack` does between two looks at its inbox; how long it would sleep then.
    pub fn turn(&mut self) -> Duration {
        // Without a command a turn has no end to tell.
        self.packer.turn(None).is_break();
        self.packer.wait()
    }

    /// What `rf-sync` does with its next job; false: it has none.
    pub fn sync(&mut self) -> bool {
        self.sync_jobs.try_recv().map(do_job).is_ok()
    }

    /// What `finish()` asks of the packer.
    ///
    /// # Errors
    /// What the disk says; the frames are in memory then.
    pub fn finish(&mut self, map: &Doc) -> Result<u64, String> {
        self.packer.finish(map)
    }

    /// The body of `rf-send`. It owns what it needs, so it moves beside the packer.
    pub fn sending<D: Dial + Clone>(
        &self,
        world: &World<D>,
        random: fastrand::Rng,
    ) -> impl Future<Output = Sent> + use<D> {
        let sender = sender(world, Arc::clone(&self.shared), Behalf::Own);
        let open_frame = self.open_frame.clone().into();
        let disk = Arc::clone(&world.disk);
        let source = LiveSource::new(Arc::clone(&self.shared), disk, &self.dir, open_frame, self.identity);
        async move { serve(&sender, source, None, random).await.into() }
    }

    /// Where it stands.
    pub fn progress(&self) -> Progress {
        let state = self.shared.state();
        Progress {
            next_seq: state.next_seq,
            synced_next_seq: state.synced_next_seq,
            durable_next_seq: state.durable_next_seq,
            first_seq: state.first_seq,
            connection: state.connection.name(),
            last_error: state.last_error.clone(),
            notices: state.notices.clone(),
        }
    }

    /// The end in order: the ring goes.
    pub fn end(self) {
        self.packer.end();
    }
}

fn sender<D: Dial + Clone>(world: &World<D>, shared: Arc<Shared>, behalf: Behalf) -> Sender<D> {
    Sender {
        dial: world.dial.clone(),
        clock: world.clock,
        base_url: world.base_url.clone(),
        access: crate::credentials::Access::default(),
        client: CLIENT.to_owned(),
        shared,
        behalf,
        timeouts: Timeouts::default(),
    }
}

/// Packs what a dead process left in its ring into its journal; the folder of the heir if one was needed. The caller sees to it that
/// nobody else does so.
///
/// # Errors
/// As [`crate::adopt::adopt`].
pub fn adopt(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    scan: &Scan,
    ring: Orphan,
    new_writer_id: impl FnOnce() -> u64,
) -> Result<Option<PathBuf>, AdoptError> {
    let (identity, open) =
        scan.open.as_deref().and_then(read_open).ok_or_else(|| AdoptError::NoOpen(dir.to_owned()))?;
    let left = Left { disk: Arc::clone(disk), dir, scan, identity, open: &open };
    left.pack_orphan(ring, new_writer_id).map(|(_, heir)| heir)
}

/// Sends the journal of a dead writer, as `sync` and `rf-adopt` do.
///
/// # Errors
/// `NoOpen`: nobody knows whose it is.
pub async fn replay<D: Dial + Clone>(
    world: &World<D>,
    dir: &Path,
    scan: &Scan,
    random: fastrand::Rng,
) -> Result<Sent, AdoptError> {
    let open_frame = scan.open.clone().ok_or_else(|| AdoptError::NoOpen(dir.to_owned()))?;
    let (identity, _) = read_open(&open_frame).ok_or_else(|| AdoptError::NoOpen(dir.to_owned()))?;
    let sender = sender(world, Arc::new(Shared::new(1)), Behalf::Absent);
    let bounds = (scan.first_seq, scan.next_seq);
    let source = JournalSource::new(Arc::clone(&world.disk), dir, identity, open_frame.into(), bounds, false);
    Ok(serve(&sender, source, None, random).await.into())
}
