//! Frames to put on a simulated disk, and where; and what a reader of a dead journal finds there.

#![allow(dead_code, reason = "each test file uses a part")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use runferry_journal::{Gap, JournalOptions, Next, Piece, Reader, Scan};
#[allow(unused_imports, reason = "each test file uses a part")]
pub(crate) use runferry_simdisk::{Fault, SECTOR, SimDisk};
use runferry_wire::frame::{Codec, Draft, Header, Kind};

pub(crate) const RUN: [u8; 16] = *b"the run's own id";
pub(crate) const WRITER: u64 = 0xfeed_f00d;
/// A journal directory as the layout names it.
pub(crate) const DIR: &str = "/journals/run/00000000feedf00d";

pub(crate) fn frame(kind: Kind, seq: u64, record_count: u32, payload: &[u8]) -> Vec<u8> {
    Draft { kind, flags: 0, run_id: RUN, writer_id: WRITER, seq, record_count }.seal(
        Codec::Plain,
        payload.len() as u32,
        payload,
    )
}

pub(crate) fn data(seq: u64, payload: &[u8]) -> Vec<u8> {
    frame(Kind::Data, seq, 3, payload)
}

pub(crate) fn open(seq: u64) -> Vec<u8> {
    frame(Kind::Open, seq, 0, b"open")
}

/// Small segments and no limits.
pub(crate) const SMALL: JournalOptions =
    JournalOptions { segment_bytes: 700, tail_keep_bytes: 0, min_free_bytes: 0, cap_bytes: u64::MAX };

/// A file of the journal.
pub(crate) fn path(name: &str) -> PathBuf {
    Path::new(DIR).join(name)
}

#[expect(clippy::disallowed_methods, reason = "how hard a test tries is told by the environment")]
pub(crate) fn effort(name: &str, default: u64) -> u64 {
    std::env::var(format!("RUNFERRY_EFFORT_{name}")).ok().and_then(|count| count.parse().ok()).unwrap_or(default)
}

/// Frames by number, and the holes between them.
pub(crate) fn read_all(disk: &Arc<SimDisk>, from_seq: u64) -> (BTreeMap<u64, Vec<u8>>, Vec<Gap>) {
    let mut reader = Reader::open(Arc::clone(disk) as _, Path::new(DIR), from_seq);
    reader.live(false);
    let (mut frames, mut gaps) = (BTreeMap::new(), Vec::new());
    let mut expected = from_seq;
    loop {
        match reader.next().expect("readable") {
            Next::Frame(bytes) => {
                let header = Header::decode(&bytes).expect("verified");
                assert_eq!(header.seq, expected, "in order, without a silent hole");
                expected = header.next_seq();
                frames.insert(header.seq, bytes);
            }
            Next::Gap(gap) => {
                assert_eq!(gap.seq, expected);
                expected += gap.count;
                gaps.push(gap);
            }
            Next::CaughtUp => return (frames, gaps),
        }
    }
}

/// Whether a GAP frame covers the number from below. A power cut may bring a dropped segment back beside its GAP: either is right.
pub(crate) fn is_counted(frames: &BTreeMap<u64, Vec<u8>>, seq: u64) -> bool {
    frames.range(..seq).next_back().is_some_and(|(_, bytes)| {
        let header = Header::decode(bytes).expect("verified");
        header.kind == Kind::Gap && header.next_seq() > seq
    })
}

/// Scan and reader are two ways to one answer; payloads are the reader's business.
pub(crate) fn check_scan(scan: &Scan, frames: &BTreeMap<u64, Vec<u8>>, gaps: &[Gap]) {
    let mut expected = scan.first_seq;
    for piece in &scan.pieces {
        match piece {
            Piece::Frame { header, .. } => {
                assert_eq!(header.seq, expected);
                let is_named = gaps.iter().any(|gap| (gap.seq..gap.seq + gap.count).contains(&header.seq));
                let is_told = is_named || is_counted(frames, header.seq);
                assert!(frames.contains_key(&header.seq) != is_told, "frame {expected} is neither read nor named");
                expected = header.next_seq();
            }
            Piece::Gap(gap) => {
                assert_eq!(gap.seq, expected);
                assert!(frames.range(gap.seq..gap.seq + gap.count).next().is_none());
                expected += gap.count;
            }
        }
    }
    assert_eq!(expected, scan.next_seq);
    let last = frames.keys().next_back().copied().unwrap_or(0).max(gaps.last().map_or(0, |gap| gap.seq));
    assert!(last < scan.next_seq, "frame {last} would be written twice");
}
