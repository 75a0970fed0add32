//! A recovery scan of arbitrary bytes: it ends, never panics, and what it reports hangs together.
#![no_main]

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use runferry_journal::{JournalError, Piece, scan_bytes};
use runferry_wire::frame::MAGIC;

fuzz_target!(|bytes: &[u8]| {
    let scan = match scan_bytes(bytes) {
        Ok(scan) => scan,
        Err(error) => {
            assert!(matches!(error, JournalError::Unsupported { .. }), "{error}");
            return;
        }
    };

    // Frames and gaps follow one another without holes or overlap, each within the bytes.
    let mut expected = scan.first_seq;
    for piece in &scan.pieces {
        match piece {
            Piece::Frame { offset, header, .. } => {
                assert_eq!(header.seq, expected);
                assert!(offset + header.frame_len() as u64 <= bytes.len() as u64);
                expected = header.next_seq();
            }
            Piece::Gap(gap) => {
                assert_eq!(gap.seq, expected);
                assert!(gap.count > 0);
                expected += gap.count;
            }
        }
    }
    assert_eq!(expected, scan.next_seq);
    for note in &scan.notes {
        assert!(note.offset + note.bytes <= bytes.len() as u64);
    }
});

// A random change breaks a checksum and gets no further. So every other time the checksums of all headers are mended,
// and of all payloads too every fourth time.
fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let size = fuzzer_mutate(data, size, max_size);
    let mut at = 0;
    while seed % 2 == 0 && at + 64 <= size {
        if data[at..at + 4] == MAGIC {
            let payload_len = u32::from_le_bytes([data[at + 8], data[at + 9], data[at + 10], data[at + 11]]) as usize;
            if seed % 4 == 0 && at + 64 + payload_len <= size {
                let checksum = crc32c::crc32c(&data[at + 64..at + 64 + payload_len]);
                data[at + 56..at + 60].copy_from_slice(&checksum.to_le_bytes());
            }
            let checksum = crc32c::crc32c(&data[at..at + 60]);
            data[at + 60..at + 64].copy_from_slice(&checksum.to_le_bytes());
        }
        at += 8;
    }
    size
});
