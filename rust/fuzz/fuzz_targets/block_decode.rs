//! Payloads of arbitrary bytes: decoding is bounded in memory and never panics.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // Hostile bytes are refused; either answer is fine.
    runferry_wire::block::decode_all(bytes).ok();
});
