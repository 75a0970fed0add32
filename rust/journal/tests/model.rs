//! The journal against a plain model: random operations, faults, kills and power cuts.
//!
//! The model is a map from numbers to bytes. Whatever happens, what comes back is what was appended, in order; what was
//! durable is there; what a kill may not take is there; and every hole is a named gap.

mod support;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use runferry_journal::{Journal, JournalError, JournalOptions, Next, Reader, SyncTicket};
use runferry_wire::frame::{Header, Kind};
use rustix::io::Errno;
use support::{DIR, Fault, SMALL, SimDisk, check_scan, data, frame, is_counted, open, read_all};

#[derive(Debug, Clone, Copy)]
enum Step {
    Append { len: usize, fill: u8 },
    AppendGap { count: u32 },
    Seal,
    Sync,
    TakeTicket,
    RedeemTicket,
    Trim { percent: u64 },
    DropOldest,
    Inject(Fault),
    WriteAnew,
    Follow,
    Kill { torn: Option<usize> },
    CutPower { torn: Option<usize>, dice: u64 },
}

fn fault() -> impl Strategy<Value = Fault> {
    let error = prop::sample::select(vec![Errno::IO, Errno::NOSPC, Errno::DQUOT, Errno::FBIG, Errno::INTR]);
    prop_oneof![
        3 => (0..300_usize, error.clone()).prop_map(|(bytes, error)| Fault::Write { bytes, error }),
        1 => (1..100_usize).prop_map(|bytes| Fault::ShortWrite { bytes }),
        1 => Just(Fault::Truncate),
        2 => Just(Fault::Sync),
        1 => Just(Fault::SyncDir),
        1 => error.prop_map(|error| Fault::Create { error }),
        1 => Just(Fault::Allocate { error: Errno::NOSPC }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let torn = prop::option::of(0..400_usize);
    prop_oneof![
        20 => (0..400_usize, any::<u8>()).prop_map(|(len, fill)| Step::Append { len, fill }),
        1 => (1..5_u32).prop_map(|count| Step::AppendGap { count }),
        1 => Just(Step::Seal),
        4 => Just(Step::Sync),
        1 => Just(Step::TakeTicket),
        1 => Just(Step::RedeemTicket),
        2 => (0..=100_u64).prop_map(|percent| Step::Trim { percent }),
        1 => Just(Step::DropOldest),
        5 => fault().prop_map(Step::Inject),
        3 => Just(Step::WriteAnew),
        3 => Just(Step::Follow),
        1 => torn.clone().prop_map(|torn| Step::Kill { torn }),
        2 => (torn, any::<u64>()).prop_map(|(torn, dice)| Step::CutPower { torn, dice }),
    ]
}

/// What is known of one frame.
#[derive(Debug, Clone)]
struct Known {
    bytes: Vec<u8>,
    is_durable: bool,
    /// Trimmed, dropped, or never confirmed: it may be there or not.
    is_optional: bool,
    /// An fsync of it has failed: should its process be killed, the next one cannot know and believes its own.
    is_doubtful: bool,
}

/// A kill leaves none of these numbers unaccounted for, a power cut none whose GAP is on the disk.
#[derive(Debug, Clone)]
struct Dropped {
    numbers: Range<u64>,
    is_durable: bool,
    /// Dropped by a process that has been killed since: an fsync of its GAP may have failed, and the next process believes its own.
    is_doubtful: bool,
}

struct World {
    disk: Arc<SimDisk>,
    journal: Journal,
    known: BTreeMap<u64, Known>,
    /// All that was ever put in the place of dropped segments: a power cut may bring back what was replaced.
    gaps: Vec<Vec<u8>>,
    /// Numbers of dropped segments that no trim has reached.
    dropped: Vec<Dropped>,
    ticket: Option<SyncTicket>,
    /// Follows the journal while it lives, as the sender does.
    follower: Reader,
    options: JournalOptions,
}

fn create(disk: &Arc<SimDisk>, first_seq: u64, options: JournalOptions) -> Journal {
    // Injected faults may hit this too; they strike once each.
    for _ in 0..100 {
        match Journal::create(Arc::clone(disk) as _, Path::new(DIR), open, first_seq, options) {
            Ok(journal) => return journal,
            Err(JournalError::Full { .. } | JournalError::Io { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    panic!("faults strike once")
}

impl World {
    fn new(options: JournalOptions) -> Self {
        let disk = SimDisk::new();
        let journal = create(&disk, 1, options);
        let follower = Reader::open(Arc::clone(&disk) as _, Path::new(DIR), 1);
        Self {
            disk,
            journal,
            known: BTreeMap::new(),
            gaps: Vec::new(),
            dropped: Vec::new(),
            ticket: None,
            follower,
            options,
        }
    }

    fn append(&mut self, bytes: &[u8]) {
        let seq = Header::decode(bytes).expect("ours").seq;
        assert_eq!(seq, self.journal.next_seq());
        match self.journal.append(bytes) {
            Ok(()) => {
                let known = Known { bytes: bytes.to_vec(), is_durable: false, is_optional: false, is_doubtful: false };
                self.known.insert(seq, known);
            }
            Err(JournalError::Full { .. } | JournalError::Io { .. }) => {
                assert_eq!(self.journal.next_seq(), seq, "a refused frame takes no number");
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn claim_durable(&mut self) {
        let durable_next_seq = self.journal.durable_next_seq();
        self.known.range_mut(..durable_next_seq).for_each(|(_, known)| known.is_durable |= !known.is_doubtful);
        for dropped in &mut self.dropped {
            dropped.is_durable |= dropped.numbers.end <= durable_next_seq && !dropped.is_doubtful;
        }
    }

    fn run(&mut self, step: Step) {
        let next_seq = self.journal.next_seq();
        if let Some(doubt) = self.journal.doubt() {
            self.known.range_mut(doubt.seq..doubt.until_seq).for_each(|(_, known)| known.is_doubtful = true);
        }
        match step {
            Step::Append { .. } | Step::AppendGap { .. } if self.known.contains_key(&next_seq) => self.append_anew(),
            Step::Append { len, fill } => self.append(&data(next_seq, &vec![fill; len])),
            Step::AppendGap { count } => self.append(&frame(Kind::Gap, next_seq, count, b"gap")),
            Step::Seal => self.journal.seal(),
            Step::Sync => {
                if let Some(ticket) = self.journal.sync_ticket() {
                    ticket.sync().ok();
                }
                self.claim_durable();
            }
            Step::TakeTicket => self.ticket = self.journal.sync_ticket(),
            Step::RedeemTicket => {
                if let Some(ticket) = self.ticket.take() {
                    ticket.sync().ok();
                }
                self.claim_durable();
            }
            Step::Trim { percent } => {
                // A server acknowledges whole frames.
                let durable = self.known.range(..=next_seq * percent / 100).next_back().map_or(0, |(seq, _)| *seq);
                self.journal.trim(durable).expect("no fault strikes an unlink");
                self.known
                    .range_mut(..durable)
                    .for_each(|(_, known)| (known.is_optional, known.is_durable) = (true, false));
                self.dropped.retain(|dropped| dropped.numbers.end > durable);
            }
            Step::DropOldest => {
                if let Some(oldest) = self.journal.droppable(self.follower.next_seq()) {
                    let gap = frame(Kind::Gap, oldest.seq, (oldest.until_seq - oldest.seq) as u32, b"dropped");
                    let is_dropped = self.journal.drop_segment(oldest, &gap).is_ok();
                    // It may have been written and only the removal, or nothing, have failed.
                    self.gaps.push(gap);
                    if is_dropped {
                        // An earlier GAP may have been in it.
                        let (start, end) = (oldest.seq, oldest.until_seq);
                        self.dropped.retain(|dropped| dropped.numbers.end <= start || end <= dropped.numbers.start);
                        self.dropped.push(Dropped { numbers: start..end, is_durable: false, is_doubtful: false });
                        // The copies in it may have been the only durable ones.
                        self.known
                            .range_mut(oldest.seq..oldest.until_seq)
                            .for_each(|(_, known)| (known.is_optional, known.is_durable) = (true, false));
                    }
                }
            }
            Step::Inject(fault) => self.disk.inject(fault),
            Step::WriteAnew => self.write_anew(),
            Step::Follow => self.follow(),
            Step::Kill { torn } => {
                self.tear(torn);
                // Frames that wait to be written anew are in doubt as well.
                let rewritten_below = self.journal.next_seq();
                self.known.range_mut(rewritten_below..).for_each(|(_, known)| known.is_doubtful = true);
                self.disk.kill();
                self.restart(false);
            }
            Step::CutPower { torn, dice } => {
                self.tear(torn);
                let mut state = dice | 1;
                self.disk.cut_power(|sides| {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    (state % sides as u64) as usize
                });
                self.restart(true);
            }
        }
    }

    fn is_known(&self, seq: u64, bytes: &[u8]) -> bool {
        self.known.get(&seq).is_some_and(|known| known.bytes == bytes) || self.gaps.iter().any(|gap| gap == bytes)
    }

    fn follow(&mut self) {
        loop {
            match self.follower.next().expect("readable") {
                Next::Frame(bytes) => {
                    let seq = Header::decode(&bytes).expect("verified").seq;
                    assert!(self.is_known(seq, &bytes), "frame {seq}");
                }
                Next::Gap(gap) => {
                    let is_there = |(_, known): (&u64, &Known)| !known.is_optional;
                    let missed = self.known.range(gap.seq..gap.seq + gap.count).any(is_there);
                    assert!(!missed, "{gap:?} is there");
                }
                Next::CaughtUp => break,
            }
        }
        // While frames are written anew the reader may wait for them, but never stay behind the writer.
        assert!(self.follower.next_seq() >= self.journal.next_seq());
    }

    /// Does what the engine does after a failed write or fsync, as long as it has the frames in memory.
    fn write_anew(&mut self) {
        let Some(doubt) = self.journal.doubt() else { return };
        // What was dropped is in no memory: the engine goes on behind it.
        let mut first = doubt.seq;
        while let Some(dropped) = self.dropped.iter().find(|dropped| dropped.numbers.contains(&first)) {
            first = dropped.numbers.end;
        }
        if first >= doubt.until_seq || self.dropped.iter().any(|dropped| dropped.numbers.start > first) {
            return;
        }
        let mut reached = first;
        for known in self.known.range(first..).map(|(_, known)| known) {
            let header = Header::decode(&known.bytes).expect("ours");
            if header.seq != reached {
                return;
            }
            reached = header.next_seq();
        }
        if reached == first {
            return;
        }
        self.journal.restart_from(first);
        while self.known.contains_key(&self.journal.next_seq()) {
            let seq = self.journal.next_seq();
            self.append_anew();
            if self.journal.next_seq() == seq {
                return; // A fault struck again; later appends go on here.
            }
        }
    }

    /// The same bytes once more, which neither makes them durable nor undoes it.
    fn append_anew(&mut self) {
        let seq = self.journal.next_seq();
        let before = self.known.get(&seq).cloned().expect("the caller has looked");
        self.append(&before.bytes);
        let is_doubtful = before.is_doubtful && self.journal.next_seq() == seq;
        self.known.insert(seq, Known { is_doubtful, ..before });
    }

    /// A write that the end of the process cuts short.
    fn tear(&mut self, torn: Option<usize>) {
        let Some(bytes) = torn else { return };
        self.disk.kill(); // earlier faults have had their chance
        let seq = self.journal.next_seq();
        if self.known.contains_key(&seq) {
            return; // being written anew
        }
        self.disk.inject(Fault::Death { bytes });
        let bytes = data(seq, &[0xAA; 200]);
        self.journal.append(&bytes).expect_err("the process is dead");
        self.known.insert(seq, Known { bytes, is_durable: false, is_optional: true, is_doubtful: false });
    }

    fn restart(&mut self, is_power_cut: bool) {
        self.ticket = None;
        let scan = runferry_journal::scan::scan(&*self.disk, Path::new(DIR)).expect("never fatal");
        let (frames, gaps) = read_all(&self.disk, scan.first_seq);
        check_scan(&scan, &frames, &gaps);

        for (seq, bytes) in &frames {
            assert!(self.is_known(*seq, bytes), "frame {seq} is not what was appended");
        }
        for (seq, known) in &self.known {
            let must_be_there = !known.is_optional && (known.is_durable || !is_power_cut);
            assert!(
                frames.contains_key(seq) || !must_be_there || is_counted(&frames, *seq),
                "frame {seq} is lost (power cut: {is_power_cut}), of {:?}; gaps {gaps:?}; {:?}",
                frames.keys().collect::<Vec<_>>(),
                scan.segments
            );
        }

        if is_power_cut {
            // The removal may have been on the disk and the GAP not: the server finds the hole then.
            self.dropped.retain(|dropped| dropped.is_durable);
        }
        for seq in self.dropped.iter().flat_map(|dropped| dropped.numbers.clone()) {
            assert!(
                frames.contains_key(&seq) || is_counted(&frames, seq),
                "nobody accounts for the dropped frame {seq}"
            );
        }
        self.dropped.iter_mut().for_each(|dropped| dropped.is_doubtful = true);

        // A removed name may come back until the directory is synced, which a power cut settles.
        self.known.retain(|seq, known| {
            let may_return = known.is_optional && !is_power_cut && *seq < scan.next_seq;
            frames.contains_key(seq) || may_return || is_counted(&frames, *seq)
        });
        // What came back after a power cut is on the disk.
        if is_power_cut {
            self.known.values_mut().for_each(|known| (known.is_durable, known.is_doubtful) = (true, false));
        }
        self.known.iter_mut().for_each(|(seq, known)| known.is_optional = !frames.contains_key(seq));
        self.journal = create(&self.disk, scan.next_seq, self.options);
        self.follower = Reader::open(Arc::clone(&self.disk) as _, Path::new(DIR), scan.first_seq);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, max_shrink_iters: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    // fault: 10, 12
    #[test]
    fn what_was_appended_comes_back_in_order_and_what_was_synced_always(
        steps in prop::collection::vec(step(), 1..60),
        segment_bytes in 200..3000_u64,
        tail_keep_bytes in prop::sample::select(vec![0, 500]),
    ) {
        let mut world = World::new(JournalOptions { segment_bytes, tail_keep_bytes, ..SMALL });
        for step in steps {
            world.run(step);
        }
        world.run(Step::CutPower { torn: None, dice: 7 });
    }
}
