//! Frames of arbitrary bytes: decoding never panics, and what it accepts lies within the bytes and is written again as it was.
#![no_main]

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use runferry_wire::frame::{Frame, Header, MAGIC, renumbered};

fuzz_target!(|bytes: &[u8]| {
    let header = Header::decode(bytes);
    if let Ok(frame) = Frame::read(bytes) {
        assert_eq!(Ok(frame.header), header);
        assert_eq!(frame.bytes.len(), frame.header.frame_len());
        assert!(frame.bytes.len() <= bytes.len() && bytes.starts_with(frame.bytes));
        assert_eq!(frame.payload.len(), frame.header.payload_len as usize);
        assert!(frame.header.next_seq() >= frame.header.seq);
        assert_eq!(renumbered(frame.bytes, frame.header.writer_id, frame.header.seq).as_deref(), Ok(frame.bytes));
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
