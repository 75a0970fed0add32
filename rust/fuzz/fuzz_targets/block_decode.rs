//! Payloads of arbitrary bytes: decoding is bounded in memory and never panics, and what it accepts reads back the same once encoded.
#![no_main]

use libfuzzer_sys::fuzz_target;
use runferry_wire::block::{decode_all, decode_answer, encode_all};

fuzz_target!(|bytes: &[u8]| {
    let Ok(blocks) = decode_all(bytes) else {
        // What a server answers may be larger, not otherwise.
        decode_answer(bytes).ok();
        return;
    };
    // Bytes and not values: a NaN is not equal to itself.
    let again = encode_all(&blocks);
    assert_eq!(encode_all(&decode_all(&again).expect("just encoded")), again);
    assert_eq!(encode_all(&decode_answer(bytes).expect("takes no less")), again);
});
