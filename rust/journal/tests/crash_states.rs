//! Every state that a power cut can leave behind un-synced writes, tried one after the other.
//!
//! A short history of the journal is played on the simulated disk. Then each decision the disk is free to make, which names came
//! through, how long a file is, which of its written sectors arrived, is made in every possible way, and each time the journal has to
//! recover: what was synced is there, what is there was written, every hole is named, and writing can go on.
//!
//! `RUNFERRY_EFFORT_CRASH_STATES` bounds how many states are tried; histories come in order of their length.

#![allow(clippy::indexing_slicing, reason = "a test may panic")]

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use runferry_journal::{Journal, JournalOptions, scan::scan};
use runferry_wire::frame::Kind;
use support::{DIR, Fault, SECTOR, SMALL, SimDisk, check_scan, data, effort, frame, open, read_all};

/// Of the lengths a file may have, one every so many bytes is tried, and those beside its ends.
const LENGTH_STEP: usize = 160;
/// The longest history.
const MOST_STEPS: usize = 6;

const OPTIONS: JournalOptions = JournalOptions { segment_bytes: 2_400, ..SMALL };

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// A frame within a sector.
    Small,
    /// A frame over three sectors.
    Large,
    Gap,
    Seal,
    Sync,
    /// A write that stops halfway and cannot be taken back.
    Broken,
    /// An fsync that fails; what was in doubt is written anew, as the engine does.
    FailedSync,
}

const STEPS: [Step; 7] = [Step::Small, Step::Large, Step::Gap, Step::Seal, Step::Sync, Step::Broken, Step::FailedSync];

/// Decisions in every possible way: like the digits of a number that is counted up, each digit with a base of its own.
#[derive(Debug, Default)]
struct Decisions {
    made: Vec<(usize, usize)>,
    at: usize,
}

impl Decisions {
    fn make(&mut self, sides: usize) -> usize {
        let options = if sides <= 2 { sides } else { lengths(sides).len() };
        if self.at == self.made.len() {
            self.made.push((0, options));
        }
        assert_eq!(self.made[self.at].1, options, "the disk asks the same questions for the same answers");
        let choice = self.made[self.at].0;
        self.at += 1;
        if sides <= 2 { choice } else { lengths(sides)[choice] }
    }

    /// The next way; false: that was the last.
    fn go_on(&mut self) -> bool {
        self.at = 0;
        while let Some((choice, options)) = self.made.pop() {
            if choice + 1 < options {
                self.made.push((choice + 1, options));
                return true;
            }
        }
        false
    }
}

fn lengths(sides: usize) -> Vec<usize> {
    let mut lengths: Vec<usize> = (0..sides).step_by(LENGTH_STEP).chain([1, sides - 2, sides - 1]).collect();
    lengths.sort_unstable();
    lengths.dedup();
    lengths
}

/// What was written, and below which number it must be there.
struct History {
    disk: Arc<SimDisk>,
    written: BTreeMap<u64, Vec<u8>>,
    durable_next_seq: u64,
}

fn play(steps: &[Step]) -> History {
    let disk = SimDisk::new();
    let mut journal = Journal::create(Arc::clone(&disk) as _, Path::new(DIR), open, 1, OPTIONS).expect("created");
    let mut written: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    for step in steps {
        let seq = journal.next_seq();
        match step {
            Step::Small | Step::Large | Step::Gap | Step::Broken => {
                let bytes = match step {
                    Step::Gap => frame(Kind::Gap, seq, 2, b"hole"),
                    Step::Large => data(seq, &vec![seq as u8; 3 * SECTOR]),
                    _ => data(seq, &[seq as u8; 100]),
                };
                if *step == Step::Broken {
                    disk.inject(Fault::Write { bytes: 90, error: rustix::io::Errno::IO });
                    disk.inject(Fault::Truncate);
                }
                // Refused where the segment had no frame yet; else a new one takes it.
                if journal.append(&bytes).is_ok() {
                    written.insert(seq, bytes);
                }
                assert!(written.contains_key(&seq) || *step == Step::Broken);
                disk.kill(); // a truncation that was not needed
            }
            Step::Seal => journal.seal(),
            Step::Sync | Step::FailedSync => {
                if *step == Step::FailedSync {
                    disk.inject(Fault::Sync);
                }
                if let Some(ticket) = journal.sync_ticket() {
                    assert_eq!(ticket.sync().is_err(), *step == Step::FailedSync && disk.pending_faults().is_empty());
                }
                disk.kill();
                if let Some(doubt) = journal.doubt() {
                    journal.restart_from(doubt.seq);
                    for bytes in written.range(doubt.seq..).map(|(_, bytes)| bytes) {
                        journal.append(bytes).expect("nothing fails now");
                    }
                }
            }
        }
    }
    History { disk, written, durable_next_seq: journal.durable_next_seq() }
}

impl History {
    /// Cuts the power in every way, and counts them; false: there were more than may be tried.
    fn crash(&self, steps: &[Step], states: &AtomicU64, most_states: u64) -> bool {
        let mut decisions = Decisions::default();
        while states.fetch_add(1, Ordering::Relaxed) < most_states {
            let disk = self.disk.copied();
            disk.cut_power(|sides| decisions.make(sides));
            self.check(&disk, &|| format!("{steps:?}, decided {:?}", decisions.made));
            if !decisions.go_on() {
                return true;
            }
        }
        false
    }

    fn check(&self, disk: &Arc<SimDisk>, place: &dyn Fn() -> String) {
        let found = scan(&**disk, Path::new(DIR)).expect("never fatal");
        let (frames, gaps) = read_all(disk, found.first_seq);
        check_scan(&found, &frames, &gaps);
        for (seq, bytes) in &frames {
            assert!(self.written.get(seq) == Some(bytes), "frame {seq} was not written so; {}", place());
        }
        for seq in self.written.range(..self.durable_next_seq).map(|(seq, _)| seq) {
            assert!(frames.contains_key(seq), "frame {seq} was synced and is lost; {}", place());
        }

        // Whoever goes on leaves what is there alone, and what it syncs survives the next cut.
        let seq = found.next_seq;
        let mut journal = Journal::create(Arc::clone(disk) as _, Path::new(DIR), open, seq, OPTIONS).expect("goes on");
        journal.append(&data(seq, b"afterwards")).expect("appended");
        journal.sync_ticket().expect("something to sync").sync().expect("synced");
        disk.cut_power(|sides| sides - 1);
        let (again, gaps_again) = read_all(disk, found.first_seq);
        assert_eq!(again.len(), frames.len() + 1, "{}", place());
        assert!(frames.iter().all(|(seq, bytes)| again.get(seq) == Some(bytes)), "{}", place());
        assert_eq!(gaps_again, gaps, "{}", place());
    }
}

/// The `index`-th history of so many steps.
fn history(mut index: usize, length: usize) -> Vec<Step> {
    let mut steps = Vec::new();
    for _ in 0..length {
        steps.push(STEPS[index % STEPS.len()]);
        index /= STEPS.len();
    }
    steps
}

// fault: 10, 12, 21, 22
#[test]
fn every_state_a_power_cut_can_leave_recovers_to_what_was_synced_and_named_gaps() {
    let most_states = effort("CRASH_STATES", 100_000);
    let (states, histories) = (AtomicU64::new(0), AtomicU64::new(0));
    for length in 1..=MOST_STEPS {
        let next = AtomicU64::new(0);
        let all = STEPS.len().pow(length as u32) as u64;
        std::thread::scope(|scope| {
            for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
                scope.spawn(|| {
                    while states.load(Ordering::Relaxed) < most_states {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        if index >= all {
                            return;
                        }
                        let steps = history(index as usize, length);
                        let is_whole = play(&steps).crash(&steps, &states, most_states);
                        histories.fetch_add(u64::from(is_whole), Ordering::Relaxed);
                    }
                });
            }
        });
    }
    let (states, histories) = (states.into_inner(), histories.into_inner());
    println!("{} states; {histories} histories in every state", states.min(most_states));

    assert!(histories > STEPS.len() as u64, "not even the shortest histories were tried in every state");
}
