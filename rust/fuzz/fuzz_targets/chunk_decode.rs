//! Rows of the store's tables `chunk` and `axis` of arbitrary bytes, their checksums made to fit: decoding is bounded by what is there, and
//! what it accepts encodes and reads back the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use runferry_columns::axis::{AxisRow, read_sub};
use runferry_columns::cells::{Cell, Cells};
use runferry_columns::chunk::{CODEC, ChunkRow};
use runferry_columns::pack::{ChunkError, Packer, Unpacker};
use runferry_columns::stats::Stats;

fn bytes_of(cells: &Cells) -> Vec<Vec<u8>> {
    (0..cells.len()).filter_map(|index| cells.get(index)).map(|cell| cell.to_bytes()).collect()
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&[kind, n0, n1, n2, n3], data)) = bytes.split_first_chunk::<5>() else { return };
    let n = u32::from_le_bytes([n0, n1, n2, n3]);
    let (mut packer, mut unpacker) = (Packer::new(), Unpacker::new());

    let mut chunk = ChunkRow {
        key_id: 1,
        step0: 0,
        step1: 9,
        axis_id: 2,
        n,
        kind,
        stats: Stats::default(),
        first: data.to_vec(),
        last: Vec::new(),
        sub: data.to_vec(),
        codec: CODEC,
        head_crc32c: 0,
        crc32c: crc32c::crc32c(data),
        data: data.to_vec(),
    };
    if let Err(ChunkError::Checksum { computed, .. }) = chunk.verify_head() {
        chunk.head_crc32c = computed;
    }
    if let Ok(cells) = chunk.decode(&mut unpacker) {
        assert_eq!(cells.len(), n as usize);
        if n <= 65_536 {
            let again = ChunkRow::encode(1, 2, (0, 9), &cells, &mut packer);
            assert_eq!(bytes_of(&again.decode(&mut unpacker).expect("just encoded")), bytes_of(&cells));
        }
    }
    assert!(chunk.read_sub().len() <= data.len() / 38);
    if let Some(cell) = Cell::from_bytes(data) {
        assert_eq!(Cell::from_bytes(&cell.to_bytes()).map(|cell| cell.to_bytes()), Some(cell.to_bytes()));
    }

    let mut axis = AxisRow { axis_id: 2, step0: 0, time1_us: 0, n, sub: Vec::new(), crc32c: 0, data: data.to_vec() };
    if let Err(ChunkError::Checksum { computed, .. }) = axis.decode(&mut unpacker) {
        axis.crc32c = computed;
    }
    if let Ok(axis) = axis.decode(&mut unpacker) {
        assert_eq!((axis.len(), axis.times_us.len(), axis.writers.len()), (n as usize, n as usize, n as usize));
        if n > 0 {
            assert_eq!(axis.encode(2, &mut packer).decode(&mut unpacker), Ok(axis));
        }
    }
    assert!(read_sub(data).len() <= data.len() / 24);
});
