//! The ring file of a dead process, of arbitrary bytes: the walk ends, stays within the file, and goes forward only.
#![no_main]

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use runferry_ring::Orphan;
use runferry_ring::header::{FIXED_BYTES, Header};

fuzz_target!(|bytes: &[u8]| {
    let Ok(orphan) = Orphan::of_bytes(bytes.to_vec()) else { return };
    let (mut at, mut payload_bytes) = (orphan.head(), 0);
    for entry in orphan.entries() {
        assert!(entry.end > at);
        payload_bytes += entry.payload.len();
        at = entry.end;
    }
    assert!(payload_bytes <= bytes.len());
    assert!(orphan.names().map(<[u8]>::len).sum::<usize>() <= bytes.len());
    if orphan.is_whole() {
        assert!(orphan.tail() <= at);
        assert_eq!(orphan.unreachable_bytes(), 0);
    }
});

// A random change of the header breaks its checksum and gets no further. So every other time it is mended.
fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let size = fuzzer_mutate(data, size, max_size);
    if seed % 2 == 0 && size >= FIXED_BYTES {
        let (fixed, checksum) = data[..FIXED_BYTES].split_at_mut(FIXED_BYTES - 4);
        checksum.copy_from_slice(&crc32c::crc32c(fixed).to_le_bytes());
        debug_assert!(
            !matches!(Header::decode(data), Err(runferry_ring::HeaderError::Damaged { what }) if what.contains("crc"))
        );
    }
    size
});
