//! Journals that are sent as they come: a local server shows what lies beside it, and a new run sends what dead ones left.
//!
//! # Shutdown
//! A follower of orphans ends when a round has found nothing new; one of offline runs goes on until it is told to stop or dropped.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use runferry_journal::{RealDisk, ack};
use runferry_wire::Doc;

use super::{Destination, Held, send_journal, writer_dirs};
use crate::adopt::{AdoptError, lock_only};
use crate::send::Ended;
use crate::shared::Shared;
use crate::thread;

/// How often a follower looks for new journals, and whether a writer it follows still lives.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Keeps sending what lies and what arrives in some folders, until it is dropped or stopped.
#[derive(Debug)]
pub struct Follower {
    shared: Arc<Shared>,
    followed: Arc<Mutex<HashMap<PathBuf, &'static str>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Which journals a follower takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Of offline runs: for a local server that shows them. Dead and alive.
    Offline,
    /// Of dead writers that were to send to this very address: for the next `init` on the machine, which ends when all is sent.
    OrphansOf,
}

impl Follower {
    /// Starts following the roots.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(roots: Vec<PathBuf>, destination: Destination, which: Which) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::new(1));
        let followed = Arc::new(Mutex::new(HashMap::new()));
        let job = FollowJob { roots, destination, which, shared: shared.clone(), followed: followed.clone() };
        let name = if which == Which::Offline { "rf-follow" } else { "rf-adopt" };
        let thread = thread::spawn(name, shared.clone(), move || job.run())?;
        Ok(Self { shared, followed, thread: Mutex::new(Some(thread)) })
    }

    /// The journals met so far: "following", "done", or what is wrong with them.
    pub fn status(&self) -> Vec<(PathBuf, &'static str)> {
        let followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        followed.iter().map(|(path, state)| (path.clone(), *state)).collect()
    }

    /// Ends it; journals keep what was not sent.
    pub fn stop(&self) {
        self.shared.stop_now();
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // A panic was caught inside.
            thread.join().ok();
        }
    }
}

struct FollowJob {
    roots: Vec<PathBuf>,
    destination: Destination,
    which: Which,
    shared: Arc<Shared>,
    followed: Arc<Mutex<HashMap<PathBuf, &'static str>>>,
}

impl FollowJob {
    fn run(self) {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        let job = Arc::new(self);
        let tasks = tokio::task::LocalSet::new();
        let stop = job.shared.clone();
        let watching = tasks.run_until(async move {
            loop {
                let mut started = Vec::new();
                for dir in job.roots.iter().flat_map(|root| writer_dirs(root)) {
                    if !job.note(&dir, "following") {
                        continue;
                    }
                    let job = job.clone();
                    started.push(tokio::task::spawn_local(async move {
                        let state = job.follow(&dir).await;
                        job.followed.lock().unwrap_or_else(PoisonError::into_inner).insert(dir, state);
                    }));
                }
                if job.which == Which::OrphansOf {
                    // Once more after each round: an adopted journal may have left an heir.
                    if started.is_empty() {
                        return;
                    }
                    for task in started {
                        // A panic in one journal's task leaves that journal to the next adopter.
                        task.await.ok();
                    }
                    continue;
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        });
        runtime.block_on(async {
            tokio::select! {
                () = watching => {}
                () = stop.stop.notified() => {}
            }
        });
        runtime.shutdown_background(); // as in `UploadJob::run`
    }

    /// Whether the journal is new.
    fn note(&self, dir: &Path, state: &'static str) -> bool {
        let mut followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        if followed.contains_key(dir) {
            return false;
        }
        followed.insert(dir.to_owned(), state);
        true
    }

    fn is_wanted(&self, open: &Doc) -> bool {
        match self.which {
            Which::Offline => open.get_str("mode") != Some("online"),
            Which::OrphansOf => {
                open.get_str("mode") == Some("online")
                    && open.get_str("base_url") == Some(self.destination.base_url.as_str())
            }
        }
    }

    /// Sends one journal as long as there is anything to send.
    async fn follow(&self, dir: &Path) -> &'static str {
        loop {
            runferry_failpoints::hit!("adopt.follow");
            let journal = match Held::take(dir) {
                Ok(journal) => journal,
                // Just being made: its OPEN frame is a moment away.
                Err(AdoptError::NoOpen(_)) if self.which == Which::Offline => {
                    tokio::time::sleep(LOOK_EVERY).await;
                    continue;
                }
                Err(AdoptError::Empty(_)) => return "done",
                Err(_) => return "unreadable",
            };
            if !self.is_wanted(&journal.open) {
                return "not ours";
            }
            let is_live = journal.adopted.is_none();
            if is_live && self.which == Which::OrphansOf {
                return "alive";
            }
            let shared = Arc::new(Shared::new(1));
            let sending = send_journal(&journal, dir, &self.destination, &shared, None, is_live);
            if !is_live {
                let ended = sending.await;
                if matches!(ended, Ended::Done | Ended::Claimed) {
                    runferry_failpoints::hit!("adopt.done");
                    ack::write_hint(&RealDisk, dir, journal.identity.writer_id, journal.bounds.1).ok();
                    // What the server only claims to have stays here all the same.
                    if self.which == Which::OrphansOf && ended == Ended::Done {
                        // All of it is durably on the server, and nobody will write to it again.
                        runferry_journal::remove(&RealDisk, dir).ok();
                    }
                }
                return "done";
            }
            let mut died = std::pin::pin!(async {
                loop {
                    tokio::time::sleep(LOOK_EVERY).await;
                    if lock_only(dir).is_ok() {
                        return;
                    }
                }
            });
            tokio::select! {
                // It ends only where asking again is of no use before the writer is gone.
                _ = sending => {}
                () = &mut died => continue,
            }
            died.await;
        }
    }
}
