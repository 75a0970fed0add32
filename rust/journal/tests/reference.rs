//! A reference journal cut at every byte and flipped at every bit: the damage costs the frames it hits, and they are named.
//!
//! `RUNFERRY_EFFORT_REFERENCE_BYTES` says how large the journal is (the long form takes a MiB). Each segment is damaged beside its
//! neighbours, since what lies further away is not looked at otherwise.

#![allow(clippy::indexing_slicing, reason = "a test may panic")]

mod support;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use runferry_journal::{Journal, JournalOptions, scan::scan};
use runferry_wire::frame::{HEADER_BYTES, Header, Kind};
use support::{DIR, SMALL, SimDisk, data, effort, open, path, read_all};

/// A segment, and where its frames lie: number, bytes with padding, bytes without.
struct Segment {
    path: PathBuf,
    bytes: Vec<u8>,
    frames: Vec<(Option<u64>, Range<usize>, Range<usize>)>,
}

fn reference(bytes: u64) -> Vec<Segment> {
    let disk = SimDisk::new();
    let options = JournalOptions { segment_bytes: (bytes / 4).clamp(2_000, 32 << 10), ..SMALL };
    let mut journal = Journal::create(Arc::clone(&disk) as _, Path::new(DIR), open, 1, options).expect("created");
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    while journal.bytes() < bytes {
        let payload: Vec<u8> = (0..random % 1_500)
            .map(|_| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                random as u8
            })
            .collect();
        random = random.rotate_left(9) ^ 0x5555;
        journal.append(&data(journal.next_seq(), &payload)).expect("appended");
    }
    disk.segments().into_iter().map(|(name, bytes)| Segment::new(path(&name), bytes)).collect()
}

impl Segment {
    fn new(path: PathBuf, bytes: Vec<u8>) -> Self {
        let (mut frames, mut at) = (Vec::new(), 0);
        while at < bytes.len() {
            let header = Header::decode(&bytes[at..]).expect("ours");
            let seq = (header.kind == Kind::Data).then_some(header.seq);
            let end = at + header.frame_len();
            frames.push((seq, at..end, at..at + HEADER_BYTES + header.payload_len as usize));
            at = end;
        }
        Self { path, bytes, frames }
    }

    fn seqs(&self) -> impl Iterator<Item = u64> {
        self.frames.iter().filter_map(|(seq, ..)| *seq)
    }
}

/// A segment on a disk with its neighbours, and all numbers there.
fn beside_neighbours(segments: &[Segment], index: usize) -> (Arc<SimDisk>, Vec<u64>) {
    let disk = SimDisk::new();
    let near = &segments[index.saturating_sub(1)..segments.len().min(index + 2)];
    near.iter().for_each(|segment| disk.put(&segment.path, &segment.bytes));
    (disk, near.iter().flat_map(Segment::seqs).collect())
}

/// All frames but `lost` are there, and `lost` is named unless it ends the journal.
fn check(disk: &Arc<SimDisk>, all: &[u64], lost: &[u64], place: &str) {
    let found = scan(&**disk, Path::new(DIR)).expect("never fatal");
    let (frames, gaps) = read_all(disk, all[0]);
    let kept: Vec<u64> = all.iter().copied().filter(|seq| !lost.contains(seq)).collect();
    assert!(
        frames.keys().copied().eq(kept.iter().copied()),
        "{place}: {kept:?} should be there, not {:?}",
        frames.keys()
    );
    let named: Vec<u64> = gaps.iter().flat_map(|gap| gap.seq..gap.seq + gap.count).collect();
    let last = kept.last().copied().unwrap_or(0);
    let must_be_named: Vec<u64> = lost.iter().copied().filter(|seq| *seq < last).collect();
    assert!(named.starts_with(&must_be_named), "{place}: {must_be_named:?} should be named, not {named:?}");
    assert!(named.iter().all(|seq| lost.contains(seq)), "{place}: {named:?} is too much, {lost:?} was lost");
    assert!(
        lost.is_empty() || !gaps.is_empty() || !found.notes.is_empty() || found.next_seq <= lost[0],
        "{place}: untold"
    );
}

fn in_parallel(count: usize, work: impl Fn(usize) + Sync) {
    let next = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    if index >= count {
                        return;
                    }
                    work(index);
                }
            });
        }
    });
}

// fault: 13
#[test]
fn a_cut_at_any_byte_of_a_segment_costs_the_frames_behind_it() {
    let segments = reference(effort("REFERENCE_BYTES", 12 << 10));

    in_parallel(segments.len(), |index| {
        let segment = &segments[index];
        let (disk, all) = beside_neighbours(&segments, index);
        for cut in (0..segment.bytes.len()).rev() {
            disk.damage(&segment.path, |bytes| bytes.truncate(cut));

            let cut_off = segment.frames.iter().filter(|(_, whole, _)| whole.end > cut);
            let lost: Vec<u64> = cut_off.filter_map(|(seq, ..)| *seq).collect();
            check(&disk, &all, &lost, &format!("{} cut at {cut}", segment.path.display()));
        }
    });
}

// fault: 14, 15
#[test]
fn a_flip_of_any_bit_of_a_segment_costs_at_most_the_frame_it_hits() {
    let segments = reference(effort("REFERENCE_BYTES", 12 << 10));

    in_parallel(segments.len(), |index| {
        let segment = &segments[index];
        let (disk, all) = beside_neighbours(&segments, index);
        for (seq, whole, needed) in &segment.frames {
            for bit in whole.start * 8..whole.end * 8 {
                disk.damage(&segment.path, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));

                // An OPEN frame is in every segment, and padding holds nothing.
                let lost: Vec<u64> = seq.iter().copied().filter(|_| needed.contains(&(bit / 8))).collect();
                check(&disk, &all, &lost, &format!("{} flipped at bit {bit}", segment.path.display()));
                disk.damage(&segment.path, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
            }
        }
    });
}
