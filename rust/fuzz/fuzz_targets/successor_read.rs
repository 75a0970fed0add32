//! The file that says who goes on for a writer, of arbitrary bytes: the last good record or an error, and one added behind it counts.
#![no_main]

use std::path::Path;

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use runferry_journal::successor::{Successor, add, read};
use runferry_simdisk::SimDisk;

/// The writer of the corpus.
const WRITER_ID: u64 = 7;
const RECORD_BYTES: usize = 48;

fuzz_target!(|bytes: &[u8]| {
    let (disk, dir) = (SimDisk::new(), Path::new("/journal"));
    disk.put(&dir.join("SUCCESSOR"), bytes);
    let next = Successor { writer_id: 8, first_seq: 9, since_us: 10 };
    let records = bytes.as_chunks::<RECORD_BYTES>().0;
    let used = records.iter().take_while(|record| **record != [0; RECORD_BYTES]).count();
    let Ok(found) = read(&*disk, dir, WRITER_ID) else {
        assert!(used > 0, "zeros, and less than a record, are no damage");
        // Over damage nothing is written: a later version may read it.
        assert!(add(&*disk, dir, WRITER_ID, &next).is_err());
        return;
    };
    assert_eq!(found.is_some(), used > 0);
    assert!(found.is_none_or(|found| found.first_seq > 0));
    // Behind zeros that a power cut left there may be anything; it is not there if it was never used.
    if bytes[used * RECORD_BYTES..].len() < RECORD_BYTES || bytes[used * RECORD_BYTES..].iter().all(|byte| *byte == 0) {
        add(&*disk, dir, WRITER_ID, &next).expect("a disk without faults");
        assert_eq!(read(&*disk, dir, WRITER_ID).expect("just written"), Some(next));
    }
});

// A random change breaks a checksum and gets no further. So every other time all are mended.
fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let size = fuzzer_mutate(data, size, max_size);
    if seed % 2 == 0 {
        for record in data[..size].as_chunks_mut::<RECORD_BYTES>().0 {
            let checksum = crc32c::crc32c(&record[..44]);
            record[44..].copy_from_slice(&checksum.to_le_bytes());
        }
    }
    size
});
