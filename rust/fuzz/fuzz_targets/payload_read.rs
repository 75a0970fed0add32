//! Stored payloads of arbitrary bytes under headers that may lie: they unfold to what the header says, or to an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use runferry_wire::payload::{compress, decompress, decompress_written};
use runferry_wire::{Codec, Draft, Frame, Kind};

fuzz_target!(|bytes: &[u8]| {
    let Some((&[codec, r0, r1, r2, r3], payload)) = bytes.split_first_chunk::<5>() else { return };
    // The length most often near what is there: a lie costs pages that nothing is written to, but the sanitizer looks at all of them.
    let raw_len = u32::from_le_bytes([r0, r1, r2, r3]) >> (8 * (codec >> 6));
    let codec = match codec % 4 {
        0 => Codec::Plain,
        1 => Codec::Unknown(codec),
        _ => Codec::Zstd,
    };
    let draft = Draft { kind: Kind::Data, flags: 0, run_id: [1; 16], writer_id: 2, seq: 3, record_count: 4 };
    let frame = draft.seal(codec, raw_len, payload);
    let Ok(frame) = Frame::read(&frame) else { return };
    let written = decompress_written(&frame.header, frame.payload);
    if let Ok(raw) = &written {
        assert_eq!(raw.len(), frame.header.raw_len as usize);
        let (codec, again) = compress(raw, 1);
        let again = draft.seal(codec, raw.len() as u32, &again);
        let again = Frame::read(&again).expect("just sealed");
        assert_eq!(decompress(&again.header, again.payload).as_ref(), Ok(raw));
    }
});
