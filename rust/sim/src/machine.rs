//! A training machine: its disk, its shared memory, the process that runs now, and what dead ones have left.
//!
//! The process is the engine's own code ([`runferry_engine::steps`]); the tasks here are its threads. A death drops them between two
//! turns or in the middle of a write. What the next process finds is what a real one would: ring and journal after the death of a
//! process, what the disk has kept after the death of the machine.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use runferry_engine::Fsync;
use runferry_engine::batch::Identity;
use runferry_engine::steps::{Process, Progress, Sent, World};
use runferry_journal::{Disk, JournalOptions};
use runferry_ring::{Options, Producer, Pushed};
use runferry_simdisk::{Fault, SimDisk};
use runferry_wire::Doc;
use runferry_wire::record::{RowNames, TAG_NAME, Value, encode_row, encode_schema};
use tokio::task::{AbortHandle, JoinHandle};

use crate::adopting::{Adopting, Left};
use crate::broken::Broken;
use crate::ledger::{Ledger, check_progress, text_of};
use crate::net::{Caller, Host, lock};
use crate::server::Server;
use crate::trace::Trace;

/// All writers write to one run.
const RUN: [u8; 16] = *b"the run's own id";
/// Where journals lie on each machine.
const ROOT: &str = "/journals/run";
/// A process that is to die in the middle of a write, and writes nothing, dies after this.
const LONGEST_WAIT_FOR_A_WRITE: Duration = Duration::from_secs(2);

struct Alive {
    process: Arc<Mutex<Process>>,
    writer_id: u64,
    dir: PathBuf,
    ring: PathBuf,
    tasks: Vec<JoinHandle<()>>,
    sending: JoinHandle<()>,
}

/// See the module.
pub struct Machine {
    host: Host,
    /// Its disk.
    pub disk: Arc<SimDisk>,
    world: World<Caller>,
    server: Server,
    trace: Trace,
    shm: PathBuf,
    random: fastrand::Rng,
    /// What its callers know.
    pub ledger: Arc<Mutex<Ledger>>,
    alive: Option<Alive>,
    left: Arc<Mutex<Vec<Left>>>,
    adopting: Vec<JoinHandle<()>>,
    options: JournalOptions,
    fsync: Fsync,
    busy_ms: u64,
    next_row: Arc<Mutex<u64>>,
    broken: Option<Broken>,
}

impl std::fmt::Debug for Machine {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Machine").field("host", &self.host).finish_non_exhaustive()
    }
}

impl Machine {
    /// A machine that is off. `shm` is a real folder of its own: rings are real files.
    pub fn new(
        caller: Caller,
        server: Server,
        trace: Trace,
        shm: &Path,
        broken: Option<Broken>,
        mut random: fastrand::Rng,
    ) -> Self {
        let disk = SimDisk::new();
        disk.ignore_syncs(broken == Some(Broken::FsyncLies));
        let options = JournalOptions {
            segment_bytes: 1 << random.u32(12..18),
            tail_keep_bytes: if random.bool() { 0 } else { 1 << random.u32(10..16) },
            min_free_bytes: 0,
            cap_bytes: u64::MAX,
        };
        let host = caller.host;
        Self {
            host,
            world: World {
                disk: Arc::clone(&disk) as _,
                dial: caller,
                clock: crate::CLOCK,
                base_url: format!("http://server:{}", crate::server::DOOR_PORT),
            },
            disk,
            server,
            trace,
            shm: shm.to_owned(),
            ledger: Arc::default(),
            alive: None,
            left: Arc::default(),
            adopting: Vec::new(),
            options,
            fsync: [Fsync::Adaptive, Fsync::Interval, Fsync::Always, Fsync::Never][random.usize(..4)],
            busy_ms: random.u64(20..2_000),
            next_row: Arc::new(Mutex::new(u64::from(host) * 1_000_000_000)),
            broken,
            random,
        }
    }

    /// Whether a process runs.
    pub fn is_alive(&self) -> bool {
        self.alive.is_some()
    }

    /// Starts the next process; it adopts what lies here.
    ///
    /// # Panics
    /// The machine that simulates has no room for a ring.
    pub fn start(&mut self) {
        let writer_id = self.random.u64(1..1 << 62);
        let name = format!("runferry-{writer_id:016x}.ring");
        let dir = Path::new(ROOT).join(format!("{writer_id:016x}"));
        let identity = runferry_ring::Identity {
            run_id: RUN,
            writer_id,
            boot_id: [0; 16],
            pid: u32::from(self.host),
            start_ticks: 0,
        };
        let (mut producer, consumer) = runferry_ring::create(&Options {
            identity,
            name: &name,
            shm_dir: &self.shm,
            fallback_dir: &self.shm,
            entry_bytes: 1 << self.random.u32(14..17),
            names_bytes: 1 << 12,
        })
        .expect("the real disk has room for a ring");
        for name in ["id", "text"] {
            producer.intern(&[&[TAG_NAME], name.as_bytes()].concat()).expect("room for two names");
        }
        let schema = producer.intern(&encode_schema(&[0, 1])).expect("room for a schema");

        let identity = Identity { run_id: RUN, writer_id };
        let open = Doc::Map(vec![("id".to_owned(), "r".into()), ("mode".to_owned(), "online".into())]);
        let started = Process::start(&self.world, &dir, identity, &open, consumer, self.options, self.fsync);
        let Ok(process) = started else {
            // `init()` fails where the disk refuses a journal; the user tries again later.
            std::fs::remove_file(self.shm.join(name)).ok();
            return;
        };
        let host = self.host;
        self.trace.note(|| format!("machine {host}: writer {writer_id:x} starts"));
        lock(&self.ledger).facts(writer_id);
        let sending = process.sending(&self.world, self.random.fork());
        let process = Arc::new(Mutex::new(process));
        let ledger = Arc::clone(&self.ledger);
        let sending = tokio::spawn(async move {
            if let Sent::GaveUp(error) = sending.await {
                lock(&ledger).violations.push(format!("the sender of {writer_id:x} gave up: {error}"));
            }
        });
        let logging = log(
            producer,
            schema,
            Arc::clone(&self.next_row),
            Arc::clone(&self.ledger),
            writer_id,
            self.busy_ms,
            self.random.fork(),
        );
        let logging = tokio::spawn(logging);
        let others = vec![sending.abort_handle(), logging.abort_handle()];
        let packing = self.packing(&process, writer_id, &dir, others);
        let ring = self.shm.join(name);
        self.alive = Some(Alive { process, writer_id, dir, ring, tasks: vec![packing, logging], sending });
        self.adopt();
    }

    fn packing(
        &mut self,
        process: &Arc<Mutex<Process>>,
        writer_id: u64,
        dir: &Path,
        others: Vec<AbortHandle>,
    ) -> JoinHandle<()> {
        let packing = Packing {
            process: Arc::clone(process),
            server: self.server.clone(),
            ledger: Arc::clone(&self.ledger),
            writer_id,
            disk: Arc::clone(&self.disk),
            dir: dir.to_owned(),
            broken: self.broken,
            others,
            random: self.random.fork(),
        };
        tokio::spawn(packing.run())
    }

    /// Takes over what dead processes have left.
    fn adopt(&mut self) {
        for left in lock(&self.left).clone() {
            let adopting = Adopting {
                world: self.world.clone(),
                disk: Arc::clone(&self.disk),
                left,
                all: Arc::clone(&self.left),
                ledger: Arc::clone(&self.ledger),
                heirs: Vec::new(),
                broken: self.broken,
                random: self.random.fork(),
            };
            self.adopting.push(tokio::spawn(adopting.run()));
        }
    }

    /// Kills the process, perhaps in the middle of a write; `power`: the machine with it.
    pub async fn kill(&mut self, power: bool) {
        if self.alive.is_some() && self.random.bool() {
            self.disk.inject(Fault::Death { bytes: self.random.usize(..3_000) });
            let patience = tokio::time::Instant::now() + LONGEST_WAIT_FOR_A_WRITE;
            while !self.disk.is_dead() && tokio::time::Instant::now() < patience {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        let Some(alive) = self.alive.take() else { return };
        let (host, writer) = (self.host, alive.writer_id);
        self.trace.note(|| format!("machine {host}: writer {writer:x} is killed, power: {power}"));
        for task in alive.tasks.iter().chain([&alive.sending]).chain(&self.adopting) {
            task.abort();
        }
        self.adopting.clear();
        self.world.dial.net.crash(self.host, power);
        let progress = lock(&alive.process).progress();
        self.disk.kill();
        self.note_journal(alive.writer_id, &alive.dir, &progress, power);
        let left = Left { dir: alive.dir, ring: Some(alive.ring), writer_id: alive.writer_id };
        lock(&self.left).push(left);
        drop(alive.process);
        if power {
            for left in lock(&self.left).iter_mut() {
                if let Some(ring) = left.ring.take() {
                    std::fs::remove_file(ring).ok();
                }
                lock(&self.ledger).facts(left.writer_id).lost_power = true;
            }
            let random = &mut self.random;
            self.disk.cut_power(|sides| random.usize(..sides));
        }
    }

    /// Reads what the journal of the dying process holds, for the checker.
    fn note_journal(&self, writer_id: u64, dir: &Path, progress: &Progress, power: bool) {
        let mut ledger = lock(&self.ledger);
        ledger.read_journal(&self.disk, dir, writer_id);
        let facts = ledger.facts(writer_id);
        facts.acked_next_seq = facts.acked_next_seq.max(progress.durable_next_seq);
        if power {
            facts.synced_next_seq = progress.synced_next_seq;
        }
    }

    /// The end of training: the last words are written, then everything is waited for. True once all of it is on the server.
    pub async fn finish(&mut self) {
        let Some(alive) = self.alive.take() else { return };
        for task in &alive.tasks {
            task.abort();
        }
        tokio::task::yield_now().await;
        let map = Doc::Map(vec![("exit_code".to_owned(), Doc::Int(0))]);
        if let Err(error) = lock(&alive.process).finish(&map) {
            lock(&self.ledger).violations.push(format!("finish of {:x} failed: {error}", alive.writer_id));
        }
        let packing = self.packing(&alive.process, alive.writer_id, &alive.dir, Vec::new());
        // The task's own violation is in the ledger.
        alive.sending.await.ok();
        packing.abort();
        for adopting in self.adopting.drain(..) {
            adopting.await.ok();
        }
        for left in lock(&self.left).iter() {
            lock(&self.ledger).violations.push(format!("the journal of {:x} was not sent", left.writer_id));
        }
        let progress = lock(&alive.process).progress();
        self.note_journal(alive.writer_id, &alive.dir, &progress, false);
    }
}

struct Packing {
    process: Arc<Mutex<Process>>,
    server: Server,
    ledger: Arc<Mutex<Ledger>>,
    writer_id: u64,
    disk: Arc<SimDisk>,
    dir: PathBuf,
    broken: Option<Broken>,
    /// The other threads of the process.
    others: Vec<AbortHandle>,
    random: fastrand::Rng,
}

impl Packing {
    /// `rf-pack` and `rf-sync`, and a look at what must hold at all times.
    async fn run(mut self) {
        loop {
            let wait = {
                let mut process = lock(&self.process);
                let wait = process.turn();
                if self.random.u8(..4) == 0 {
                    process.sync();
                }
                check_progress(&process.progress(), &self.server, &self.ledger, self.writer_id);
                wait
            };
            if self.disk.is_dead() {
                // Killed in the middle of that write: no thread of the process does anything more.
                return self.others.iter().for_each(AbortHandle::abort);
            }
            if self.broken == Some(Broken::TrimBeforeAck) {
                self.trim_early();
            }
            tokio::time::sleep(wait.max(Duration::from_millis(1))).await;
        }
    }

    fn trim_early(&self) {
        let entries = self.disk.list(&self.dir).unwrap_or_default().into_iter();
        let mut segments: Vec<_> = entries
            .map(|entry| entry.name)
            .filter(|name| name.to_str().is_some_and(|name| name.starts_with("seg-")))
            .collect();
        segments.sort();
        segments.pop();
        for segment in segments {
            // A segment that is gone already is as early as can be.
            self.disk.unlink(&self.dir.join(segment)).ok();
        }
    }
}

/// The training loop.
async fn log(
    mut producer: Producer,
    schema: u32,
    next_row: Arc<Mutex<u64>>,
    ledger: Arc<Mutex<Ledger>>,
    writer_id: u64,
    busy_ms: u64,
    mut random: fastrand::Rng,
) {
    loop {
        tokio::time::sleep(Duration::from_millis(random.u64(..busy_ms))).await;
        for _ in 0..random.u32(1..20) {
            let row = *lock(&next_row);
            let text = text_of(row);
            let values = [Value::I64(row as i64), Value::Str(&text)];
            let (kind, payload) = encode_row(RowNames::Schema(schema), row as i64, row as i64, &values);
            while producer.push(kind, &[&payload]) != Pushed::Done {
                lock(&ledger).waits += 1;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            *lock(&next_row) += 1;
            lock(&ledger).returned.insert(row, writer_id);
        }
    }
}
