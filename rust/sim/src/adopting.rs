//! Taking over from the dead: the ring is packed into the journal, perhaps by several adopters that die at it, then the journal is sent.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use runferry_engine::steps::{self, Sent, World};
use runferry_journal::{Disk, ack, remove, scan};
use runferry_ring::Orphan;
use runferry_simdisk::{Fault, SimDisk};

use crate::broken::Broken;
use crate::ledger::Ledger;
use crate::net::{Caller, lock};

/// How often the killed adopter of a ring is replaced.
const MOST_ADOPTERS: u32 = 5;

/// A journal without a process.
#[derive(Debug, Clone)]
pub(crate) struct Left {
    pub(crate) dir: PathBuf,
    pub(crate) ring: Option<PathBuf>,
    pub(crate) writer_id: u64,
}

pub(crate) struct Adopting {
    pub(crate) world: World<Caller>,
    pub(crate) disk: Arc<SimDisk>,
    pub(crate) left: Left,
    pub(crate) all: Arc<Mutex<Vec<Left>>>,
    pub(crate) ledger: Arc<Mutex<Ledger>>,
    pub(crate) heirs: Vec<Left>,
    pub(crate) broken: Option<Broken>,
    pub(crate) random: fastrand::Rng,
}

impl Adopting {
    pub(crate) async fn run(mut self) {
        tokio::time::sleep(Duration::from_millis(self.random.u64(..2_000))).await;
        while !self.take_ring() {
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
        Box::pin(self.send()).await;
        while let Some(heir) = self.heirs.pop() {
            self.left = heir;
            Box::pin(self.send()).await;
        }
    }

    async fn send(&mut self) {
        if let Ok(found) = scan::scan(&*self.disk, &self.left.dir) {
            lock(&self.ledger).read_journal(&self.disk, &self.left.dir, self.left.writer_id);
            // Without an OPEN frame nothing that could be sent survived; whether that may be the checker knows.
            if found.open.is_some() {
                let (one, two) = (self.random.fork(), self.random.fork());
                let twice = self.random.u8(..6) == 0;
                let replay = |random| steps::replay(&self.world, &self.left.dir, &found, random);
                let sent = if twice {
                    let (sent, again) = tokio::join!(replay(one), replay(two)); // two syncers at once
                    sent.and(again)
                } else {
                    replay(one).await
                };
                if !matches!(sent, Ok(Sent::All)) {
                    let text = format!("the journal of {:x} cannot be sent: {sent:?}", self.left.writer_id);
                    return lock(&self.ledger).violations.push(text);
                }
                ack::write_hint(&*self.disk, &self.left.dir, self.left.writer_id, found.next_seq).ok();
            }
        }
        // What stays behind is sent again by the next one, and adds nothing.
        remove(&*self.disk, &self.left.dir).ok();
        lock(&self.all).retain(|left| left.dir != self.left.dir);
    }

    /// Packs the ring into the journal; false: the disk refuses for now.
    fn take_ring(&mut self) -> bool {
        let Some(ring) = self.left.ring.clone() else { return true };
        for _ in 0..self.random.u32(..MOST_ADOPTERS) {
            // An adopter that is killed in the middle.
            self.disk.inject(Fault::Death { bytes: self.random.usize(..4_000) });
            let is_done = self.adopt_once(&ring);
            self.disk.kill();
            if is_done {
                return true;
            }
        }
        self.adopt_once(&ring)
    }

    fn adopt_once(&mut self, ring: &Path) -> bool {
        let Ok(mut orphan) = Orphan::open(ring) else { return !ring.exists() };
        if self.broken == Some(Broken::IntentForgotten) {
            orphan.set_intent(0, 0).ok();
        }
        let Ok(found) = scan::scan(&*self.disk, &self.left.dir) else { return false };
        let heir_id = self.random.u64(1..1 << 62);
        let disk: Arc<dyn Disk> = Arc::clone(&self.disk) as _;
        let Ok(heir) = steps::adopt(&disk, &self.left.dir, &found, orphan, || heir_id) else { return false };
        if let Some(dir) = heir {
            lock(&self.ledger).facts(heir_id).is_heir = true;
            let left = Left { dir, ring: None, writer_id: heir_id };
            lock(&self.all).push(left.clone());
            self.heirs.push(left);
        }
        lock(&self.all).iter_mut().filter(|left| left.dir == self.left.dir).for_each(|left| left.ring = None);
        true
    }
}
