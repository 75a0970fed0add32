//! Entries of a dead process's ring, as an adopter packs them: whatever their bytes, the frames can be read back, each entry is in
//! them or counted, and they are no larger than the entries.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use runferry_engine::batch::{Batch, Identity, Names};
use runferry_wire::record::{DROPPED, encode_schema};
use runferry_wire::{Frame, Kind, block, payload};

const WHO: Identity = Identity { run_id: [1; 16], writer_id: 2 };

struct Interned([Vec<u8>; 6]);

impl Names for Interned {
    fn item(&self, id: u32) -> Option<&[u8]> {
        self.0.get(id as usize).map(Vec::as_slice)
    }
}

/// A byte for the kind, two for the length, the payload: until the bytes end.
fn entries(mut bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (&[kind, low, high], rest) = bytes.split_first_chunk::<3>()?;
        let (payload, rest) = rest.split_at(usize::from(u16::from_le_bytes([low, high])).min(rest.len()));
        bytes = rest;
        Some((kind, payload))
    })
}

fuzz_target!(|bytes: &[u8]| {
    let mut entries = entries(bytes);
    // The first is an interned name or schema of any bytes.
    let foreign = entries.next().map(|(_, bytes)| bytes.to_vec()).unwrap_or_default();
    let names = Interned([
        b"nloss".to_vec(),
        b"nacc".to_vec(),
        encode_schema(&[0, 1]),
        encode_schema(&[0, 0, 5]),
        encode_schema(&[]),
        foreign,
    ]);
    let mut batch = Batch::default();
    let (mut pushed, mut rows, mut gone, mut raw_bytes) = (0_u64, 0, 0, 0);
    for (kind, payload) in entries {
        pushed += 1;
        rows += u64::from(kind != DROPPED);
        batch.push(kind, payload, pushed, &names, Duration::ZERO);
    }
    batch.close();
    let (mut seq, mut packed_rows) = (1, 0);
    while let Some(packed) = batch.pack(WHO, seq, 0) {
        let frame = Frame::read(&packed.frame).expect("just packed");
        assert_eq!((frame.header.seq, frame.header.next_seq()), (seq, packed.next_seq));
        let raw = payload::decompress_written(&frame.header, frame.payload).expect("just packed");
        if frame.header.kind == Kind::Data {
            block::decode_all(&raw).expect("just packed");
            raw_bytes += raw.len();
        } else {
            gone += 1;
        }
        packed_rows += packed.rows;
        assert!(packed.end <= pushed);
        seq = packed.next_seq;
    }
    assert!(packed_rows <= rows, "{packed_rows} rows of {rows} entries");
    assert!(batch.damaged() <= gone && gone <= pushed);
    // A name of the table costs the ring four bytes, and what is beside a value is small.
    assert!(raw_bytes <= 64 * bytes.len() + 64, "{raw_bytes} bytes of {}", bytes.len());
});
