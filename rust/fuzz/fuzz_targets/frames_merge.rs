//! Two writers' payloads of arbitrary bytes on their way into the store: each is merged or set aside whole, and the chunks hold what was
//! read before the merge.
#![no_main]

use libfuzzer_sys::fuzz_target;
use runferry_columns::merge::Merge;
use runferry_columns::pack::Unpacker;
use runferry_columns::table::{FrameFault, Table, Window, Writer};
use runferry_wire::{Codec, Draft, Kind};

fn frame(payload: &[u8]) -> Vec<u8> {
    let draft = Draft { kind: Kind::Data, flags: 0, run_id: [1; 16], writer_id: 2, seq: 1, record_count: 1 };
    draft.seal(Codec::Plain, payload.len() as u32, payload)
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&[low, high, offset], rest)) = bytes.split_first_chunk::<3>() else { return };
    let (first, second) = rest.split_at(usize::from(u16::from_le_bytes([low, high])).min(rest.len()));
    // Chunks of few points: their ends are where mistakes would be.
    let mut merge = Merge::with_chunk_points(5);
    for (ordinal, step_offset) in [(1, 0), (2, i64::from(offset))] {
        let label = if offset % 2 == 0 { String::new() } else { ordinal.to_string() };
        merge.set_writer(ordinal, Writer { started_us: 0, writer_id: u64::from(ordinal), label, step_offset });
    }
    for (ordinal, payload) in [(1, first), (2, second)] {
        let before = merge.table().row_count();
        match merge.add_frame(ordinal, &frame(payload)) {
            Ok(added) => assert_eq!(merge.table().row_count(), before + added),
            Err(fault) => {
                assert_ne!(fault, FrameFault::Panicked);
                assert_eq!(merge.table().row_count(), before);
            }
        }
    }

    let table: Table = merge.table().clone();
    let keys: Vec<i64> = (0..table.series().len() as i64).collect();
    let merged = merge.finish(&keys, 1);
    let mut unpacker = Unpacker::new();
    for (series, key) in keys.iter().enumerate() {
        let flat = table.flatten(series, Window::ALL);
        let (mut steps, mut values) = (Vec::new(), Vec::new());
        for chunk in merged.chunks.iter().filter(|chunk| chunk.key_id == *key) {
            let (axis, _) =
                merged.axes.iter().find(|(axis, _)| axis.axis_id == chunk.axis_id).expect("each chunk has its axis");
            let cells = chunk.decode(&mut unpacker).expect("just encoded");
            let axis = axis.decode(&mut unpacker).expect("just encoded");
            assert_eq!(axis.len(), cells.len());
            steps.extend(axis.steps);
            values.extend((0..cells.len()).filter_map(|index| cells.get(index)).map(|cell| cell.to_bytes()));
        }
        assert_eq!(steps, flat.rows.iter().map(|row| table.step(*row)).collect::<Vec<_>>());
        assert!(steps.is_sorted_by(|one, next| one < next));
        assert!(
            values
                .into_iter()
                .eq((0..flat.cells.len()).filter_map(|index| flat.cells.get(index)).map(|cell| cell.to_bytes()))
        );
        assert_eq!(flat.rows.len() + flat.losers.len(), table.value_count(series));
    }
    let lost: u64 = merged.superseded.iter().map(|lost| lost.points).sum();
    assert_eq!(
        lost as usize,
        keys.iter().enumerate().map(|(series, _)| table.flatten(series, Window::ALL).losers.len()).sum::<usize>()
    );
});
