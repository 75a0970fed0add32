//! What the store's codec costs: frames merged to chunks, frames joined with the chunks before them, and a chart read from chunks.
//!
//! Frames of 2,000 rows of 10 noisy curves of one writer. Throughput is in points.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use runferry_columns::merge::{Merge, Merged};
use runferry_columns::table::Writer;
use runferry_wire::{Block, Column, Draft, Kind, Rows, Values, block, payload};

const FRAMES: u32 = 8;
const ROWS: u32 = 2_000;
const METRICS: u32 = 10;

/// The same noise for ever.
fn noisy(row: u32, metric: u32) -> f32 {
    let bits = (u64::from(row) << 32 | u64::from(metric)).wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let noise = (bits ^ bits >> 31).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 40;
    2.0 / (1.0 + row as f32 / 500.0) + noise as f32 / 1e8
}

fn frame(number: u32) -> Vec<u8> {
    let rows = number * ROWS..(number + 1) * ROWS;
    let columns = (0..METRICS).map(|metric| Column {
        name: format!("train/metric_{metric}"),
        presence: None,
        values: Values::F64(rows.clone().map(|row| f64::from(noisy(row, metric))).collect()),
    });
    let raw = block::encode_all(&[Block::Rows(Rows {
        steps: rows.clone().map(i64::from).collect(),
        times_us: rows.clone().map(|row| 1_700_000_000_000_000 + i64::from(row) * 997).collect(),
        columns: columns.collect(),
    })]);
    let (codec, stored) = payload::compress(&raw, 1);
    let seq = u64::from(number) + 1;
    Draft { kind: Kind::Data, flags: 0, run_id: [7; 16], writer_id: 7, seq, record_count: ROWS }.seal(
        codec,
        raw.len() as u32,
        &stored,
    )
}

fn begun(frames: &[Vec<u8>]) -> (Merge, Vec<i64>) {
    let mut merge = Merge::new();
    merge.set_writer(0, Writer { started_us: 1, writer_id: 7, label: String::new(), step_offset: 0 });
    for frame in frames {
        merge.add_frame(0, frame).expect("sealed here");
    }
    let key_ids = (1..).take(merge.table().series().len()).collect();
    (merge, key_ids)
}

fn merged(frames: &[Vec<u8>]) -> Merged {
    let (mut merge, key_ids) = begun(frames);
    merge.finish(&key_ids, 1)
}

/// A late frame whose steps fall into stored chunks: they are taken in and written anew.
fn joined(stored: &Merged, frames: &[Vec<u8>]) -> Merged {
    let (mut merge, key_ids) = begun(frames);
    for (series, key_id) in key_ids.iter().enumerate() {
        for chunk in stored.chunks.iter().filter(|chunk| chunk.key_id == *key_id) {
            let of_chunk = |axis: &_| {
                let (axis, _): &(runferry_columns::axis::AxisRow, u32) = axis;
                (axis.axis_id, axis.step0) == (chunk.axis_id, chunk.step0)
            };
            let (axis, _) = stored.axes.iter().find(|axis| of_chunk(axis)).expect("each chunk has one");
            merge.add_chunk(series, chunk, axis).expect("made here");
        }
    }
    merge.finish(&key_ids, 1_000)
}

fn merging(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("merge");
    let frames: Vec<Vec<u8>> = (0..FRAMES).map(frame).collect();
    let points = u64::from(FRAMES * ROWS * METRICS);

    group.throughput(Throughput::Elements(points));
    group.bench_function("frames to chunks", |bench| bench.iter(|| merged(black_box(&frames))));
    let stored = merged(&frames);
    group.bench_function("frames into chunks of the same steps", |bench| {
        bench.iter(|| joined(black_box(&stored), black_box(&frames)));
    });
    group.finish();
}

criterion_group!(benches, merging);
criterion_main!(benches);
