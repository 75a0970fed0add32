//! The note of who goes on for a writer: either it is read as it was written, or nobody may send the journal.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use runferry_journal::{RealDisk, Successor, remove, successor};

const WRITER: u64 = 7;
const RECORD_BYTES: usize = 48;

/// A folder of its own, gone at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("runferry-successor-{}-{count}", std::process::id()));
        std::fs::create_dir_all(&path).expect("the temporary folder can be written");
        Self(path)
    }

    fn read(&self) -> Result<Option<Successor>, String> {
        successor::read(&RealDisk, &self.0, WRITER).map_err(|error| error.to_string())
    }

    fn add(&self, number: u64) {
        successor::add(&RealDisk, &self.0, WRITER, &made(number)).expect("noted");
    }

    fn bytes(&self) -> Vec<u8> {
        std::fs::read(self.0.join("SUCCESSOR")).expect("there")
    }

    fn write(&self, bytes: &[u8]) {
        std::fs::write(self.0.join("SUCCESSOR"), bytes).expect("written");
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok(); // a leftover in the temporary directory harms nobody
    }
}

fn made(number: u64) -> Successor {
    Successor { writer_id: 100 + number, first_seq: 10 * number, since_us: -3 }
}

// fault: 38
#[test]
fn the_latest_successor_counts() {
    let folder = Folder::new();
    assert_eq!(folder.read(), Ok(None));

    for number in 1..4 {
        folder.add(number);

        assert_eq!(folder.read(), Ok(Some(made(number))));
    }
}

// fault: 38
#[test]
fn a_flipped_bit_or_the_note_of_another_writer_is_an_error_and_never_no_successor() {
    let folder = Folder::new();
    folder.add(1);
    folder.add(2);
    let whole = folder.bytes();
    for bit in 0..whole.len() * 8 {
        let mut damaged = whole.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        folder.write(&damaged);

        assert!(folder.read().is_err(), "bit {bit}");
    }
    folder.write(&whole);
    assert!(successor::read(&RealDisk, &folder.0, WRITER + 1).is_err());
}

// fault: 38
#[test]
fn a_record_cut_short_by_a_power_cut_was_never_used_and_is_written_over() {
    let folder = Folder::new();
    folder.add(1);
    folder.add(2);
    let whole = folder.bytes();
    for cut in (RECORD_BYTES..2 * RECORD_BYTES).step_by(9) {
        for tail in [0, 2 * RECORD_BYTES - cut] {
            // Cut; or as long as it was to be, with zeros in place of all that was written.
            let kept = if tail == 0 { cut } else { RECORD_BYTES };
            let mut bytes = whole[..kept].to_vec();
            bytes.resize(if tail == 0 { cut } else { 2 * RECORD_BYTES }, 0);
            folder.write(&bytes);
            assert_eq!(folder.read(), Ok(Some(made(1))), "cut at {cut}");

            folder.add(2);

            assert_eq!(folder.bytes(), whole);
        }
    }
}

#[test]
fn it_goes_with_the_journal() {
    let folder = Folder::new();
    folder.add(1);

    remove(&RealDisk, &folder.0).expect("removed");

    assert!(!folder.0.exists());
}
