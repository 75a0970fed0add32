//! A writer's receipt: kept while it packs, left in its journal, and made up again from there.
//!
//! Acked segments are trimmed, so the journal alone soon no longer tells what was packed. Therefore every segment begins with the sums over
//! all frames the writer had packed by then (a RECEIPT frame behind OPEN), and FINISH carries the final ones. Since sums
//! can be added and subtracted, any of these together with the frames between gives the receipt at any number the journal still reaches:
//! also after a kill, also when an adopter has packed the rest.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use runferry_journal::{JournalError, Next, Reader, RealDisk, Scan, scan};
use runferry_wire::frame::HEADER_BYTES;
use runferry_wire::receipt::{Receipt, Sums, each_of};
use runferry_wire::{Block, Doc, Frame, Header, Kind, block, payload};
use thiserror::Error;

use crate::adopt::read_open;
use crate::batch::{Identity, map_frame};
use crate::upload::run_path;

/// Sums over what has been packed, and the number behind it. Shared by the batch, which adds, and the journal's segment heads.
#[derive(Debug, Clone, Default)]
pub struct Covered(Arc<Mutex<(u64, Receipt)>>);

impl Covered {
    fn locked(&self) -> MutexGuard<'_, (u64, Receipt)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The frame before `next_seq` holds these blocks. How many distinct names there have been, as [`Receipt::name_count`] says.
    pub(crate) fn add(&self, blocks: &[Block], next_seq: u64) -> usize {
        let mut covered = self.locked();
        covered.0 = next_seq;
        for block in blocks {
            if let Block::Rows(rows) = block {
                covered.1.add_rows(rows);
            }
        }
        covered.1.name_count()
    }

    /// The map for a frame behind which the number is `next_seq`; for a segment head the number is that of the last pack.
    pub(crate) fn to_doc(&self) -> Doc {
        let covered = self.locked();
        covered.1.to_doc(covered.0.max(1))
    }
}

/// What begins each segment of a living writer: OPEN, then the receipt so far.
pub(crate) fn segment_head(identity: Identity, open: Doc, covered: Covered) -> impl Fn(u64) -> Vec<u8> + Send {
    move |seq| {
        let mut head = map_frame(identity, Kind::Open, seq, 0, 0, &open);
        head.extend(map_frame(identity, Kind::Receipt, seq, 0, 0, &covered.to_doc()));
        head
    }
}

/// Why a journal has no receipt.
#[derive(Debug, Error)]
pub enum ReceiptError {
    /// It cannot be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Nobody knows whose it is.
    #[error("the journal in {} has no readable OPEN frame", .0.display())]
    NoOpen(PathBuf),
    /// What was trimmed is not in any sums that are left.
    #[error("the beginning of the journal in {} was trimmed, and no segment of it has readable sums", .0.display())]
    NoSums(PathBuf),
}

/// What a writer packed, by its journal.
#[derive(Debug, Clone)]
pub struct JournalReceipt {
    /// `entity/project/id`.
    pub run: String,
    /// Run and writer.
    pub identity: Identity,
    /// The number behind the last frame in the sums.
    pub covers: u64,
    /// The number behind the last frame of the journal.
    pub next_seq: u64,
    /// The sums.
    pub receipt: Receipt,
    /// Frames in the stretch that had to be read and could not be: the sums lack them.
    pub unreadable_frames: u64,
}

/// The receipt of the journal in `dir` for the frames below `until`, or all of them.
///
/// # Errors
/// [`ReceiptError`].
pub fn of_journal(dir: &Path, until: Option<u64>) -> Result<JournalReceipt, ReceiptError> {
    let scan = scan::scan(&RealDisk, dir)?;
    let open = scan.open.as_deref().and_then(read_open);
    let (identity, open) = open.ok_or_else(|| ReceiptError::NoOpen(dir.to_owned()))?;
    let covers = until.unwrap_or(scan.next_seq).clamp(scan.first_seq, scan.next_seq);
    let (from, receipt) = base(&scan, covers).ok_or_else(|| ReceiptError::NoSums(dir.to_owned()))?;
    let mut found = JournalReceipt {
        run: run_path(&open),
        identity,
        covers,
        next_seq: scan.next_seq,
        receipt,
        unreadable_frames: 0,
    };
    let is_ahead = from > covers;
    let (first, end) = (from.min(covers), from.max(covers));
    let mut reader = Reader::open(Arc::new(RealDisk), dir, first);
    reader.live(false);
    while reader.next_seq() < end {
        let frame = match reader.next()? {
            Next::Frame(frame) => frame,
            Next::Gap(gap) => {
                found.unreadable_frames += gap.count.min(end.saturating_sub(gap.seq));
                continue;
            }
            Next::CaughtUp => break,
        };
        match rows_of(&frame) {
            Some(blocks) => {
                for rows in &blocks {
                    each_of(rows, |name, sums| {
                        found.receipt.add(name, if is_ahead { Sums::default().minus(sums) } else { sums });
                    });
                }
            }
            None => found.unreadable_frames += 1,
        }
    }
    Ok(found)
}

fn rows_of(frame: &[u8]) -> Option<Vec<runferry_wire::Rows>> {
    let frame = Frame::read(frame).ok()?;
    if frame.header.kind != Kind::Data {
        return Some(Vec::new());
    }
    let raw = payload::decompress(&frame.header, frame.payload).ok()?;
    let blocks = block::decode_all(&raw).ok()?;
    Some(blocks.into_iter().filter_map(|block| if let Block::Rows(rows) = block { Some(rows) } else { None }).collect())
}

/// The sums to begin with: the nearest at or below `wanted`, else the nearest above that the journal's frames reach down from.
fn base(scan: &Scan, wanted: u64) -> Option<(u64, Receipt)> {
    let whole = (scan.first_seq == 1).then(|| (1, Receipt::default()));
    let left = scan.segments.iter().filter_map(|segment| head_sums(&segment.path));
    let usable = left.chain(whole).filter(|(covers, _)| (scan.first_seq..=scan.next_seq).contains(covers));
    usable.min_by_key(|(covers, _)| if *covers <= wanted { (0, wanted - covers) } else { (1, covers - wanted) })
}

/// The sums at the beginning of a segment.
fn head_sums(segment: &Path) -> Option<(u64, Receipt)> {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::open(segment).ok()?;
    let mut at = 0;
    for _ in 0..2 {
        let mut head = [0; HEADER_BYTES];
        file.read_exact_at(&mut head, at).ok()?;
        let header = Header::decode(&head).ok()?;
        if header.kind == Kind::Receipt {
            let mut bytes = vec![0; header.frame_len()];
            file.read_exact_at(&mut bytes, at).ok()?;
            let frame = Frame::read(&bytes).ok()?;
            return Receipt::from_doc(&Doc::decode(&payload::decompress(&frame.header, frame.payload).ok()?).ok()?);
        }
        at += header.frame_len() as u64;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{Batch, Names};
    use runferry_journal::{Journal, JournalOptions};
    use runferry_wire::receipt::ROWS;
    use runferry_wire::record::{RowNames, Value, encode_row};
    use std::time::Duration;

    const WHO: Identity = Identity { run_id: [3; 16], writer_id: 4 };

    /// A folder of the test's own, gone with it.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            Self(std::env::temp_dir().join(format!("runferry-receipt-{}-{name}", std::process::id())))
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).ok();
        }
    }

    struct NoNames;

    impl Names for NoNames {
        fn item(&self, _: u32) -> Option<&[u8]> {
            None
        }
    }

    /// A journal of small segments with one row a frame, trimmed up to `trimmed`; the receipts after each frame.
    fn journal(dir: &Path, frames: u64, trimmed: u64) -> Vec<Receipt> {
        let covered = Covered::default();
        let open = Doc::Map(vec![("entity".to_owned(), "e".into())]);
        let options = JournalOptions { segment_bytes: 2_000, tail_keep_bytes: 0, ..JournalOptions::ONLINE };
        let head = segment_head(WHO, open, covered.clone());
        let mut journal = Journal::create(Arc::new(RealDisk), dir, head, 1, options).expect("a fresh folder");
        let mut batch = Batch::covering(covered.clone());
        let mut receipts = vec![Receipt::default()];
        for step in 0..frames {
            let values = [Value::F64(step as f64), Value::I64(1)];
            let (kind, payload) = encode_row(RowNames::Inline(&["loss", "n"]), step as i64, 0, &values);
            batch.push(kind, &payload, step, &NoNames, Duration::ZERO);
            batch.close();
            let packed = batch.pack(WHO, step + 1, 0).expect("closed");
            journal.append(&packed.frame).expect("room");
            receipts.push(covered.locked().1.clone());
        }
        journal.trim(trimmed).expect("unlinked");
        receipts
    }

    #[test]
    fn the_receipt_at_any_number_a_trimmed_journal_reaches_is_the_one_kept_while_packing() {
        let folder = Folder::new("trimmed");
        let receipts = journal(&folder.0, 60, 40);
        let scan = scan::scan(&RealDisk, &folder.0).expect("readable");
        assert!(scan.first_seq > 1 && scan.segments.len() > 1, "{scan:?}");

        for until in scan.first_seq..=scan.next_seq {
            let found = of_journal(&folder.0, Some(until)).expect("has sums");
            assert_eq!((found.covers, found.unreadable_frames), (until, 0));
            let expected = &receipts[until as usize - 1];
            for name in ["loss", "n", ROWS] {
                assert_eq!(found.receipt.get(name), expected.get(name), "{name} at {until}");
            }
        }
    }

    #[test]
    fn a_frame_that_cannot_be_read_is_told() {
        let folder = Folder::new("damaged");
        journal(&folder.0, 20, 1);
        let scan = scan::scan(&RealDisk, &folder.0).expect("readable");
        let last = scan.segments.last().expect("there are some");
        let mut bytes = std::fs::read(&last.path).expect("readable");
        let end = bytes.iter().rposition(|byte| *byte != 0).expect("not empty");
        bytes[end] ^= 1;
        std::fs::write(&last.path, bytes).expect("writable");

        let found = of_journal(&folder.0, None).expect("has sums");

        assert_eq!(found.unreadable_frames, 1);
        assert_eq!(found.receipt.get("loss").map(|sums| sums.points), Some(19));
    }
}
