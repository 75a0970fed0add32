//! One world: it is made from a seed, goes wrong for a while, heals, and is judged.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use runferry_simdisk::Fault;
use rustix::io::Errno;

use crate::begin_time;
use crate::broken::Broken;
use crate::check::{Counts, Excuses, check};
use crate::machine::Machine;
use crate::net::{Caller, Host, Net, SERVER, lock};
use crate::server::{Answer, Misfortune, Refusal, Server, Store};
use crate::trace::Trace;

/// How long a healed world may take until everything is on the server: the longest wait a server may ask for and the longest
/// silence that is believed together, and then some.
const LONGEST_HEALING: Duration = Duration::from_secs(30 * 60);

/// What became of a world.
#[derive(Debug)]
pub struct Outcome {
    /// What was counted, or every rule that was broken.
    pub judged: Result<Counts, Vec<String>>,
    /// Digest and number of the events.
    pub digest: (u64, u64),
    /// Simulated time.
    pub lasted: Duration,
    /// From the end of the last fault until everything was on the server.
    pub healed_in: Duration,
    /// The events, if they were to be kept.
    pub lines: Vec<String>,
}

/// Kinds of faults; a world has some of them, so that each is also met alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Partition,
    OneWay,
    Slow,
    Breaking,
    Reset,
    Overtake,
    Kill,
    Power,
    Disk,
    FullDisk,
    ServerDeath,
    ServerPower,
    Misfortune,
    Throttle,
    Refusal,
    Answers,
    Loss,
    Backup,
}

const KINDS: [Kind; 18] = [
    Kind::Partition,
    Kind::OneWay,
    Kind::Slow,
    Kind::Breaking,
    Kind::Reset,
    Kind::Overtake,
    Kind::Kill,
    Kind::Power,
    Kind::Disk,
    Kind::FullDisk,
    Kind::ServerDeath,
    Kind::ServerPower,
    Kind::Misfortune,
    Kind::Throttle,
    Kind::Refusal,
    Kind::Answers,
    Kind::Loss,
    Kind::Backup,
];

/// A folder for rings, gone at the end.
struct Shm(PathBuf);

impl Shm {
    fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!("runferry-sim-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let shm = PathBuf::from("/dev/shm");
        let path = if shm.is_dir() { shm } else { std::env::temp_dir() }.join(name);
        std::fs::create_dir_all(&path).expect("the folder for rings can be made");
        Self(path)
    }
}

impl Drop for Shm {
    fn drop(&mut self) {
        // What stays is litter, and named as such.
        std::fs::remove_dir_all(&self.0).ok();
    }
}

/// Lives the world of a seed; `broken`: with a rule that does not hold there.
///
/// # Panics
/// The code under test does, or the machine has no room for a ring.
pub fn live(seed: u64, broken: Option<Broken>, keeps_lines: bool) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O needs nothing");
    runtime.block_on(async { World::new(seed, broken, keeps_lines).live().await })
}

struct World {
    random: fastrand::Rng,
    net: Net,
    trace: Trace,
    server: Server,
    machines: Vec<Machine>,
    kinds: Vec<Kind>,
    backup: Store,
    excuses: Excuses,
    _shm: Shm,
}

impl World {
    fn new(seed: u64, broken: Option<Broken>, keeps_lines: bool) -> Self {
        begin_time();
        let mut random = fastrand::Rng::with_seed(seed);
        let trace = Trace::new(keeps_lines);
        let net = Net::new(random.fork());
        let server = Server::new(net.clone(), trace.clone(), broken, random.fork());
        let shm = Shm::new();
        let machines = (1..=random.u8(1..=3))
            .map(|host| {
                let caller = Caller { net: net.clone(), host };
                Machine::new(caller, server.clone(), trace.clone(), &shm.0, broken, random.fork())
            })
            .collect();
        let mut kinds = KINDS.to_vec();
        random.shuffle(&mut kinds);
        kinds.truncate(random.usize(1..=6));
        let backup = server.store();
        Self { random, net, trace, server, machines, kinds, backup, excuses: Excuses::default(), _shm: shm }
    }

    async fn live(mut self) -> Outcome {
        let kinds = self.kinds.clone();
        self.trace.note(|| format!("kinds {kinds:?}"));
        self.server.manners(|manners| {
            manners.credit_bytes = 1 << self.random.u32(10..21);
            manners.slowest_commit = Duration::from_millis(1 << self.random.u32(0..10));
        });
        self.server.start();
        self.machines.iter_mut().for_each(Machine::start);
        let reviving = tokio::spawn(revive(self.server.clone(), self.random.fork()));
        let until = Duration::from_secs(self.random.u64(5..120));
        while self.trace.elapsed() < until {
            let wait = Duration::from_millis(self.random.u64(..4_000));
            tokio::time::sleep(wait).await;
            let kind = self.kinds[self.random.usize(..self.kinds.len())];
            self.go_wrong(kind).await;
        }

        reviving.abort();
        self.heal();
        let healing_since = self.trace.elapsed();
        let finishing = async {
            for machine in &mut self.machines {
                machine.finish().await;
            }
        };
        let in_time = tokio::time::timeout(LONGEST_HEALING, finishing).await;
        let lasted = self.trace.elapsed();
        let guards: Vec<_> = self.machines.iter().map(|machine| lock(&machine.ledger)).collect();
        let ledgers: Vec<_> = guards.iter().map(|guard| &**guard).collect();
        let judged = match in_time {
            Ok(()) => {
                // Before the look at the past: both are behind one lock.
                let store = self.server.store();
                self.server.recall(|memory| check(&store, memory, &ledgers, &self.excuses))
            }
            Err(_elapsed) => Err(vec![format!("not all is on the server {LONGEST_HEALING:?} after the last fault")]),
        };
        drop(guards);
        self.trace.note(|| format!("end {judged:?}"));
        let healed_in = lasted.saturating_sub(healing_since);
        Outcome { judged, digest: self.trace.digest(), lasted, healed_in, lines: self.trace.lines() }
    }

    fn heal(&mut self) {
        self.trace.note(|| "everything heals".to_owned());
        self.net.heal();
        self.server.manners(|manners| {
            manners.refusal = None;
            manners.misfortunes.clear();
            manners.answers.clear();
            manners.slowest_commit = Duration::from_millis(10);
        });
        self.server.start();
        for machine in &mut self.machines {
            machine.disk.kill(); // faults that have not struck
            if !machine.is_alive() {
                machine.start();
            }
        }
    }

    fn pause(&mut self, longest_s: u64) -> Duration {
        Duration::from_millis(self.random.u64(..longest_s * 1_000))
    }

    fn machine(&mut self) -> usize {
        self.random.usize(..self.machines.len())
    }

    async fn go_wrong(&mut self, kind: Kind) {
        self.trace.note(|| format!("{kind:?}"));
        let index = self.machine();
        let host = index as Host + 1;
        match kind {
            Kind::Partition | Kind::OneWay => {
                let ways = [(host, SERVER), (SERVER, host)];
                let way = self.random.usize(..2);
                let cut = if kind == Kind::OneWay { &ways[way..=way] } else { &ways[..] };
                cut.iter().for_each(|(from, to)| self.net.cut(*from, *to));
                tokio::time::sleep(self.pause(90)).await;
                self.net.heal();
            }
            Kind::Slow => self.net.set_latency(Duration::from_millis(self.random.u64(..1_500))),
            Kind::Breaking => self.net.set_breaking(self.random.u32(..=100)),
            Kind::Reset => self.net.reset(host),
            Kind::Overtake => {
                self.net.hold(host);
                tokio::time::sleep(self.pause(90)).await;
                self.net.release();
            }
            Kind::Kill | Kind::Power => {
                self.machines[index].kill(kind == Kind::Power).await;
                tokio::time::sleep(self.pause(20)).await;
                if !self.machines[index].is_alive() {
                    self.machines[index].start();
                }
            }
            Kind::Disk => self.fail_disk(index),
            Kind::FullDisk => {
                self.excuses.disks_failed = true;
                self.machines[index].disk.set_full(true);
                tokio::time::sleep(self.pause(90)).await;
                self.machines[index].disk.set_full(false);
            }
            Kind::ServerDeath | Kind::ServerPower => {
                if kind == Kind::ServerPower {
                    self.server.lose_power();
                } else {
                    self.server.crash();
                }
                tokio::time::sleep(self.pause(60)).await;
                self.server.start();
            }
            Kind::Misfortune => {
                let all = [
                    Misfortune::DeathBefore,
                    Misfortune::DeathAfter,
                    Misfortune::UnknownButStored,
                    Misfortune::UnknownAndLost,
                ];
                let misfortune = all[self.random.usize(..all.len())];
                self.server.manners(|manners| manners.misfortunes.push(misfortune));
            }
            Kind::Throttle => {
                let wait_ms = [0, 1, 200, 3_600_000, u32::MAX][self.random.usize(..5)];
                let bytes_per_s = [0, 1_000, 1_000_000][self.random.usize(..3)];
                self.server.manners(|manners| manners.answers.push(Answer::Throttle(wait_ms, bytes_per_s)));
            }
            Kind::Refusal => {
                let all = [Refusal::Unavailable, Refusal::Exhausted, Refusal::Busy(0), Refusal::Busy(5_000)];
                let refusal = all[self.random.usize(..all.len())];
                for _ in 0..self.random.u32(1..20) {
                    self.server.manners(|manners| manners.refusal = Some(refusal));
                    self.net.reset(host);
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    self.server.manners(|manners| manners.refusal = None);
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
            Kind::Answers => {
                let answer = match self.random.u8(..6) {
                    0 => Answer::Refuse,
                    1 => Answer::Drain(self.random.u32(..5_000)),
                    _ => Answer::Checksum,
                };
                self.server.manners(|manners| manners.answers.push(answer));
            }
            Kind::Loss | Kind::Backup => {
                if kind == Kind::Backup && self.random.bool() {
                    self.backup = self.server.store();
                    return;
                }
                self.server.crash();
                self.note_loss();
                let empty = Store { epoch: 0, writers: std::collections::BTreeMap::new() };
                let store = if kind == Kind::Loss { empty } else { self.backup.clone() };
                self.server.restore(store);
                tokio::time::sleep(self.pause(10)).await;
                self.server.start();
            }
        }
    }

    fn note_loss(&mut self) {
        self.excuses.store_was_replaced = true;
        let highest = self.server.recall(|memory| memory.highest.clone());
        for (writer_id, next_seq) in highest {
            let lost = self.excuses.lost_by_server.entry(writer_id).or_default();
            *lost = next_seq.max(*lost);
        }
    }

    fn fail_disk(&mut self, index: usize) {
        self.excuses.disks_failed = true;
        let errors = [Errno::IO, Errno::NOSPC, Errno::DQUOT, Errno::FBIG, Errno::INTR];
        let error = errors[self.random.usize(..errors.len())];
        let bytes = self.random.usize(1..2_000);
        for _ in 0..self.random.u32(1..4) {
            let fault = match self.random.u8(..8) {
                0 => Fault::ShortWrite { bytes },
                1 => Fault::Truncate,
                2 | 3 => Fault::Sync,
                4 => Fault::SyncDir,
                5 => Fault::Create { error },
                6 => Fault::Allocate { error },
                _ => Fault::Write { bytes, error },
            };
            self.trace.note(|| format!("{fault:?}"));
            self.machines[index].disk.inject(fault);
        }
    }
}

/// Brings the server back when a commit was its death.
async fn revive(server: Server, mut random: fastrand::Rng) {
    loop {
        server.is_to_die().await;
        server.crash();
        tokio::time::sleep(Duration::from_millis(random.u64(..20_000))).await;
        server.start();
    }
}
