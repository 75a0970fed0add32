//! A reader that follows a journal while it is written, and the journal on a real disk.

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use runferry_journal::{GapReason, Journal, JournalOptions, Next, Reader, RealDisk, scan::scan, writers};
use runferry_wire::frame::Header;
use support::{DIR, Fault, SMALL, SimDisk, data, open, path};

struct TempDir(PathBuf);

impl TempDir {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("runferry-tail-{}-{name}", std::process::id())))
    }

    fn writer(&self) -> PathBuf {
        self.0.join("run").join(format!("{:016x}", support::WRITER))
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok(); // a leftover in the temporary directory harms nobody
    }
}

fn payload(seq: u64) -> Vec<u8> {
    vec![seq as u8; (seq as usize * 7919) % 3000]
}

#[test]
fn a_live_reader_gets_every_frame_once_and_in_order_while_segments_come_and_go() {
    const FRAMES: u64 = 20_000;
    let root = TempDir::new("live");
    let dir = root.writer();
    let disk: Arc<RealDisk> = Arc::default();
    let options = JournalOptions { segment_bytes: 64 << 10, ..SMALL };
    let mut journal = Journal::create(Arc::clone(&disk) as _, &dir, open, 1, options).expect("created");
    let read_next_seq = AtomicU64::new(1);
    let is_done = AtomicBool::new(false);

    std::thread::scope(|threads| {
        threads.spawn(|| {
            for seq in 1..=FRAMES {
                journal.append(&data(seq, &payload(seq))).expect("appended");
                // What was read counts as durable elsewhere: segments vanish right behind the reader.
                if seq % 64 == 0 {
                    journal.trim(read_next_seq.load(Ordering::Acquire)).expect("trimmed");
                }
            }
            is_done.store(true, Ordering::Release);
        });

        let mut reader = Reader::open(disk, &dir, 1);
        let mut expected = 1;
        while expected <= FRAMES {
            let was_done = is_done.load(Ordering::Acquire);
            match reader.next().expect("readable") {
                Next::Frame(bytes) => {
                    assert!(bytes == data(expected, &payload(expected)), "frame {expected}");
                    expected += 1;
                    read_next_seq.store(expected, Ordering::Release);
                }
                Next::CaughtUp => assert!(!was_done, "stuck before frame {expected}"),
                Next::Gap(gap) => panic!("{gap:?}"),
            }
        }
        assert_eq!(reader.next().expect("readable"), Next::CaughtUp);
    });
}

#[test]
fn an_incomplete_frame_at_the_end_is_waited_for() {
    let disk = SimDisk::new();
    let whole = [open(1), data(1, b"one"), data(2, &[2; 500])].concat();
    let mut reader = Reader::open(Arc::clone(&disk) as _, Path::new(DIR), 1);
    let mut seqs = Vec::new();

    for len in 0..=whole.len() {
        disk.put(&path("seg-00000000000000000001.rfj"), &whole[..len]);
        // The file is another one each time, as it is never for a real reader: look for it anew.
        reader.seek(reader.next_seq());
        while let Next::Frame(bytes) = reader.next().expect("readable") {
            seqs.push(Header::decode(&bytes).expect("verified").seq);
        }
    }

    assert_eq!(seqs, [1, 2]);
}

#[test]
fn a_damaged_last_frame_is_waited_for_while_live_and_a_gap_once_dead() {
    let disk = SimDisk::new();
    let mut bytes = [open(1), data(1, b"one"), data(2, b"two")].concat();
    let last = bytes.len() - 8;
    bytes[last] ^= 1;
    disk.put(&path("seg-00000000000000000001.rfj"), &bytes);
    let mut reader = Reader::open(disk, Path::new(DIR), 1);

    assert_eq!(reader.next().expect("readable"), Next::Frame(data(1, b"one")));
    assert_eq!(reader.next().expect("readable"), Next::CaughtUp);
    assert_eq!(reader.next().expect("readable"), Next::CaughtUp);

    reader.live(false);

    let Next::Gap(gap) = reader.next().expect("readable") else { panic!("the frame is lost") };
    assert_eq!((gap.seq, gap.count, gap.records, gap.reason), (2, 1, 3, GapReason::Corrupt));
    assert_eq!(reader.next().expect("readable"), Next::CaughtUp);
    assert_eq!(reader.next_seq(), 3);
}

#[test]
fn a_live_reader_follows_a_journal_through_failed_writes_and_fsyncs() {
    let disk = SimDisk::new();
    let options = JournalOptions { segment_bytes: 1 << 20, ..SMALL };
    let mut journal = Journal::create(Arc::clone(&disk) as _, Path::new(DIR), open, 1, options).expect("created");
    let mut reader = Reader::open(Arc::clone(&disk) as _, Path::new(DIR), 1);
    let mut seqs = Vec::new();
    let mut read = |reader: &mut Reader| {
        while let Next::Frame(bytes) = reader.next().expect("readable") {
            seqs.push(Header::decode(&bytes).expect("verified").seq);
        }
    };

    for seq in 1..=3 {
        journal.append(&data(seq, b"data")).expect("appended");
    }
    journal.seal();
    for seq in 4..=6 {
        journal.append(&data(seq, b"data")).expect("appended");
    }
    read(&mut reader);
    disk.inject(Fault::Sync);
    journal.sync_ticket().expect("something to sync").sync().expect_err("injected");
    let doubt = journal.doubt().expect("the first segment");
    assert_eq!((doubt.seq, doubt.until_seq), (1, 4));
    // Written anew from 1 on: the newest segment begins with a lower number than the one before it.
    journal.restart_from(1);
    for seq in 1..=8 {
        journal.append(&data(seq, b"data")).expect("appended");
        read(&mut reader);
    }
    disk.inject(Fault::Write { bytes: 30, error: rustix::io::Errno::IO });
    journal.append(&data(9, b"data")).expect("a new segment takes it");
    read(&mut reader);

    assert_eq!(seqs, (1..=9).collect::<Vec<_>>());
}

#[test]
fn a_reader_goes_back_where_the_server_asks_for() {
    let disk = SimDisk::new();
    let mut journal = Journal::create(Arc::clone(&disk) as _, Path::new(DIR), open, 1, SMALL).expect("created");
    for seq in 1..=20 {
        journal.append(&data(seq, &[1; 100])).expect("appended");
    }
    let mut reader = Reader::open(disk, Path::new(DIR), 18);
    while reader.next().expect("readable") != Next::CaughtUp {}

    reader.seek(5);

    assert_eq!(reader.next().expect("readable"), Next::Frame(data(5, &[1; 100])));
    assert_eq!(reader.next_seq(), 6);
}

#[test]
fn a_journal_on_a_real_disk_is_private_and_gives_reserved_space_back() {
    let root = TempDir::new("real");
    let dir = root.writer();
    let disk = Arc::new(RealDisk);
    let mut journal = Journal::create(Arc::clone(&disk) as _, &dir, open, 1, SMALL).expect("created");
    for seq in 1..=10 {
        journal.append(&data(seq, &[9; 300])).expect("appended");
    }
    let ticket = journal.sync_ticket().expect("something to sync");
    ticket.sync().expect("a real fdatasync");
    assert_eq!(journal.durable_next_seq(), 11);
    journal.seal();
    drop(journal);

    let mode = |path: &Path| path.metadata().expect("there").permissions().mode() & 0o777;
    assert_eq!((mode(&dir), mode(&root.0)), (0o700, 0o700));
    let found = scan(&*disk, &dir).expect("readable");
    assert_eq!((found.first_seq, found.next_seq, found.pieces.len(), found.notes.len()), (1, 11, 10, 0));
    for segment in &found.segments {
        assert_eq!(mode(&segment.path), 0o600);
        assert_eq!(segment.path.metadata().expect("there").len(), segment.bytes);
    }
    let writers = writers(&*disk, &root.0).expect("readable");
    assert_eq!(writers.len(), 1);
    assert_eq!((&writers[0].path, writers[0].writer_id), (&dir, support::WRITER));

    runferry_journal::remove(&*disk, &dir).expect("removed");
    assert!(!dir.exists());
}
