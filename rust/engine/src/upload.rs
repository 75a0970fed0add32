//! Journals to a server without their writers: `runferry sync`, adopted orphans, and a local server that shows what lies beside it.
//!
//! The sender is the same as the living writer's; only the source differs. Sending a journal twice, or by three programs at once, adds
//! nothing twice: the server counts frames per writer.

mod follow;

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use runferry_journal::{RealDisk, ack, scan};
pub use runferry_transport::Timeouts;
use runferry_transport::{RetryCause, Tcp, TransportError};
use runferry_wire::Doc;

use crate::adopt::{AdoptError, Adopted, adopt, lock_only, read_open};
use crate::batch::Identity;
use crate::clock::Clock;
use crate::credentials::Access;
use crate::pack::chain;
use crate::patience::Patience;
use crate::rejected;
use crate::send::{Behalf, Ended, Sender, serve};
use crate::shared::{Counters, Shared};
use crate::source::JournalSource;
use crate::thread;
pub use follow::{Follower, Which};

/// Where to, and as whom.
#[derive(Debug, Clone)]
pub struct Destination {
    /// The server's HTTP address.
    pub base_url: String,
    /// Key and authorities.
    pub access: Access,
    /// "runferry/0.1.0"
    pub client: String,
    /// How long one attempt waits for the server.
    pub timeouts: Timeouts,
}

/// What an upload did with one journal.
#[derive(Debug, Clone)]
pub struct Uploaded {
    /// The journal's folder.
    pub dir: PathBuf,
    /// "entity/project/id", empty if nobody knows.
    pub run: String,
    /// The writer.
    pub writer_id: u64,
    /// Frames the journal holds.
    pub frames: u64,
    /// Frames the server holds durably.
    pub acked_frames: u64,
    /// Rows and documents in the journal.
    pub records: u64,
    /// Why not all of it is there; `None`: it is.
    pub error: Option<String>,
    /// The reason is that no Runferry server answered.
    pub is_unreachable: bool,
}

/// Numbers for a progress bar.
#[derive(Debug, Clone, Copy, Default)]
pub struct Progress {
    /// Frames durably on the server.
    pub acked_frames: u64,
    /// Frames to be there.
    pub total_frames: u64,
    /// Bytes handed to the network.
    pub sent_bytes: u64,
    /// Bytes of all journals.
    pub total_bytes: u64,
}

/// "entity/project/id" of an OPEN map.
pub fn run_path(open: &Doc) -> String {
    ["entity", "project", "id"].map(|name| open.get_str(name).unwrap_or_default()).join("/")
}

/// The writer folders that `path` means: itself, or those below it.
pub fn writer_dirs(path: &Path) -> Vec<PathBuf> {
    let is_writer = |path: &Path| {
        let mut names = std::fs::read_dir(path)
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        names.any(|name| name.starts_with("seg-") || name == "LOCK")
    };
    if is_writer(path) {
        return vec![path.to_owned()];
    }
    let below = |path: &Path| -> Vec<PathBuf> {
        let mut dirs: Vec<PathBuf> = std::fs::read_dir(path)
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())))
            .map(|entry| entry.path())
            .filter(|path| !path.ends_with(rejected::FOLDER))
            .collect();
        dirs.sort();
        dirs
    };
    // A run's folder, a root, or the folder a root lies in.
    let mut found = Vec::new();
    let mut level = vec![path.to_owned()];
    for _ in 0..3 {
        level = level.iter().flat_map(|dir| below(dir)).collect();
        found.extend(level.iter().filter(|dir| is_writer(dir)).cloned());
        level.retain(|dir| !is_writer(dir));
    }
    found
}

/// An upload of some journals, in a thread of its own.
#[derive(Debug)]
pub struct Upload {
    progress: Arc<Mutex<Progress>>,
    results: Mutex<Receiver<Vec<Uploaded>>>,
    is_stopping: Arc<AtomicBool>,
    current: Arc<Mutex<Option<Arc<Shared>>>>,
    thread: Option<JoinHandle<()>>,
}

impl Upload {
    /// Starts sending the journals in `dirs`; `base_url` overrides where each was to go. `timeout`: for a server that cannot be
    /// reached or does not answer; it is waited for once, not for each journal.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(
        dirs: Vec<PathBuf>,
        base_url: Option<String>,
        access: Access,
        client: String,
        timeout: Duration,
    ) -> std::io::Result<Self> {
        let progress = Arc::new(Mutex::new(Progress::default()));
        let is_stopping = Arc::new(AtomicBool::new(false));
        let current = Arc::new(Mutex::new(None));
        let (done, results) = sync_channel(1);
        let job = UploadJob {
            progress: progress.clone(),
            is_stopping: is_stopping.clone(),
            current: current.clone(),
            timeout,
        };
        let thread = thread::spawn("rf-sync-up", Arc::new(Shared::new(1)), move || {
            // Whoever started it may be gone.
            done.send(job.run(&dirs, base_url.as_deref(), &access, &client)).ok();
        })?;
        Ok(Self { progress, results: Mutex::new(results), is_stopping, current, thread: Some(thread) })
    }

    /// Where it stands.
    pub fn progress(&self) -> Progress {
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits at most `timeout` for the end.
    pub fn wait(&self, timeout: Duration) -> Option<Vec<Uploaded>> {
        self.results.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(timeout).ok()
    }

    /// Ends it, whatever waits; journals keep what was not sent.
    pub fn stop(&mut self) {
        self.is_stopping.store(true, Ordering::Release);
        if let Some(shared) = &*self.current.lock().unwrap_or_else(PoisonError::into_inner) {
            shared.stop_now();
        }
        if let Some(thread) = self.thread.take() {
            // A panic was caught inside; the results then never come.
            thread.join().ok();
        }
    }
}

struct UploadJob {
    progress: Arc<Mutex<Progress>>,
    is_stopping: Arc<AtomicBool>,
    current: Arc<Mutex<Option<Arc<Shared>>>>,
    timeout: Duration,
}

impl UploadJob {
    fn run(&self, dirs: &[PathBuf], base_url: Option<&str>, access: &Access, client: &str) -> Vec<Uploaded> {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return Vec::new() };
        let mut uploaded = Vec::new();
        let mut unreachable = HashMap::new();
        let mut waiting: VecDeque<PathBuf> = dirs.iter().cloned().collect();
        while let Some(dir) = waiting.pop_front()
            && !self.is_stopping.load(Ordering::Acquire)
        {
            if let Some((result, heir)) = self.upload(&runtime, &dir, base_url, access, client, &mut unreachable) {
                uploaded.push(result);
                waiting.extend(heir);
            }
        }
        // Not by dropping it: that waits for a name lookup under way, which can take half a minute.
        runtime.shutdown_background();
        uploaded
    }

    /// What became of one journal, and its heir; `None`: there was nothing in it.
    fn upload(
        &self,
        runtime: &tokio::runtime::Runtime,
        dir: &Path,
        base_url: Option<&str>,
        access: &Access,
        client: &str,
        unreachable: &mut HashMap<String, String>,
    ) -> Option<(Uploaded, Option<PathBuf>)> {
        runferry_failpoints::hit!("adopt.upload");
        let mut result = Uploaded {
            dir: dir.to_owned(),
            run: String::new(),
            writer_id: 0,
            frames: 0,
            acked_frames: 0,
            records: 0,
            error: None,
            is_unreachable: false,
        };
        let journal = match Held::take(dir) {
            Ok(journal) => journal,
            Err(AdoptError::Empty(_)) => return None,
            Err(error) => {
                result.error = Some(chain(&error));
                return Some((result, None));
            }
        };
        let heir = journal.adopted.as_ref().and_then(|adopted| adopted.heir.clone());
        result.run = run_path(&journal.open);
        result.writer_id = journal.identity.writer_id;
        result.frames = journal.bounds.1 - 1;
        result.records = journal.records;
        let own_url = journal.open.get_str("base_url").filter(|_| journal.open.get_str("mode") == Some("online"));
        let Some(base_url) = base_url.or(own_url) else {
            result.error = Some(
                "no server is known for it: give one by --base-url, RUNFERRY_BASE_URL or `runferry login URL`"
                    .to_owned(),
            );
            return Some((result, heir));
        };
        let shared = Arc::new(Shared::new(1));
        shared.change(|state| state.next_seq = journal.bounds.1);
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Some(shared.clone());
        let before = *self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let destination = Destination {
            base_url: base_url.to_owned(),
            access: access.clone(),
            client: client.to_owned(),
            timeouts: Timeouts { connect: self.timeout.min(Timeouts::default().connect), ..Timeouts::default() },
        };
        if let Some(error) = unreachable.get(base_url) {
            (result.error, result.is_unreachable) = (Some(error.clone()), true);
            return Some((result, heir));
        }
        let patience = Some(Patience::new(self.timeout));
        let sending = send_journal(&journal, dir, &destination, &shared, patience, false);
        let ended = runtime.block_on(async {
            tokio::pin!(sending);
            loop {
                tokio::select! {
                    ended = &mut sending => return ended,
                    () = tokio::time::sleep(Duration::from_millis(50)) => {}
                }
                let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
                progress.total_frames = before.total_frames + result.frames;
                progress.total_bytes = before.total_bytes + journal.bytes;
                progress.acked_frames = before.acked_frames + shared.state().durable_next_seq - 1;
                progress.sent_bytes = before.sent_bytes + Counters::get(&shared.counters.sent_bytes);
                if self.is_stopping.load(Ordering::Acquire) {
                    shared.stop_now();
                }
            }
        });
        let durable = shared.state().durable_next_seq;
        result.acked_frames = durable - 1;
        // A hint that is lost costs sending again.
        ack::write_hint(&RealDisk, dir, result.writer_id, durable).ok();
        result.error = match ended {
            Ended::Done | Ended::Claimed => None,
            Ended::Stopped => Some("stopped".to_owned()),
            Ended::GaveUp(error) => {
                let text = chain(&error);
                if is_silence(&error) && durable == 1 {
                    result.is_unreachable = true;
                    unreachable.insert(base_url.to_owned(), text.clone());
                }
                Some(text)
            }
        };
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        progress.total_frames = before.total_frames + result.frames;
        progress.total_bytes = before.total_bytes + journal.bytes;
        progress.acked_frames = before.acked_frames + result.acked_frames;
        progress.sent_bytes = before.sent_bytes + journal.bytes;
        Some((result, heir))
    }
}

/// Whether nobody was there who could have taken anything.
fn is_silence(error: &TransportError) -> bool {
    match error {
        TransportError::Retry { cause, .. } => matches!(cause, RetryCause::Unreachable | RetryCause::TimedOut),
        TransportError::NotRunferry { .. } => true,
        TransportError::BadAddress { .. }
        | TransportError::PauseAuth { .. }
        | TransportError::Untrusted { .. }
        | TransportError::Blocked { .. }
        | TransportError::Incompatible { .. } => false,
    }
}

/// A journal to be sent: locked and adopted if its writer is dead, only read if it lives.
struct Held {
    /// Its lock is kept while it is sent; `None`: its writer lives.
    adopted: Option<Adopted>,
    identity: Identity,
    open: Doc,
    open_frame: Vec<u8>,
    bounds: (u64, u64),
    bytes: u64,
    records: u64,
}

impl Held {
    fn behalf(&self) -> Behalf {
        match &self.adopted {
            None => Behalf::Living,
            Some(adopted) if adopted.has_died() => Behalf::Dead,
            Some(_) => Behalf::Absent,
        }
    }

    fn take(dir: &Path) -> Result<Self, AdoptError> {
        let adopted = match adopt(dir) {
            // The ring is unreadable: what the journal holds is sent all the same.
            Err(AdoptError::Ring(_)) => lock_only(dir),
            other => other,
        };
        match adopted {
            Ok(adopted) => {
                let (identity, open, open_frame) = (adopted.identity, adopted.open.clone(), adopted.open_frame.clone());
                Ok(Self::of(&adopted.scan.clone(), identity, open, open_frame, Some(adopted)))
            }
            Err(AdoptError::Alive { .. }) => {
                let scan = scan::scan(&RealDisk, dir)?;
                let open_frame = scan.open.clone().ok_or_else(|| AdoptError::NoOpen(dir.to_owned()))?;
                let (identity, open) = read_open(&open_frame).ok_or_else(|| AdoptError::NoOpen(dir.to_owned()))?;
                Ok(Self::of(&scan, identity, open, open_frame, None))
            }
            Err(error) => Err(error),
        }
    }

    fn of(
        scan: &runferry_journal::Scan,
        identity: Identity,
        open: Doc,
        open_frame: Vec<u8>,
        adopted: Option<Adopted>,
    ) -> Self {
        use runferry_journal::Piece;
        let records = scan.pieces.iter().map(|piece| match piece {
            Piece::Frame { header, .. } if header.kind == runferry_wire::Kind::Data => u64::from(header.record_count),
            Piece::Frame { .. } | Piece::Gap(_) => 0,
        });
        Self {
            identity,
            open,
            open_frame,
            bounds: (scan.first_seq, scan.next_seq),
            bytes: scan.segments.iter().map(|segment| segment.bytes).sum(),
            records: records.sum(),
            adopted,
        }
    }
}

async fn send_journal(
    journal: &Held,
    dir: &Path,
    destination: &Destination,
    shared: &Arc<Shared>,
    patience: Option<Patience>,
    is_live: bool,
) -> Ended {
    let sender = Sender {
        dial: Tcp,
        clock: Clock::MACHINE,
        base_url: destination.base_url.clone(),
        access: destination.access.clone(),
        client: destination.client.clone(),
        shared: shared.clone(),
        behalf: journal.behalf(),
        timeouts: destination.timeouts,
    };
    let open_frame = journal.open_frame.clone().into();
    let source = JournalSource::new(Arc::new(RealDisk), dir, journal.identity, open_frame, journal.bounds, is_live);
    serve(&sender, source, patience, fastrand::Rng::new()).await
}
