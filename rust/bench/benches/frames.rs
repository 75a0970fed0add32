//! What a frame costs: rows into a block, block to payload, payload compressed and sealed, and all of it back.
//!
//! 2,000 rows of 10 noisy curves whose values fit 32-bit floats, the common case of a frame. Throughput is in points.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use runferry_wire::block::{decode_all, encode_all};
use runferry_wire::builder::RowsBuilder;
use runferry_wire::record::Value;
use runferry_wire::{Block, Draft, Frame, Kind, Rows, payload};

const ROWS: u32 = 2_000;
const METRICS: u32 = 10;
const ZSTD_LEVEL: i32 = 1;
const DRAFT: Draft = Draft { kind: Kind::Data, flags: 0, run_id: [7; 16], writer_id: 7, seq: 1, record_count: ROWS };

/// The same noise for ever.
fn noisy(row: u32, metric: u32) -> f64 {
    let bits = (u64::from(row) << 32 | u64::from(metric)).wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let noise = (bits ^ bits >> 31).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 40;
    f64::from(2.0 / (1.0 + row as f32 / 500.0) + noise as f32 / 1e8)
}

fn rows(builder: &mut RowsBuilder, slots: &[u32]) -> Rows {
    for row in 0..ROWS {
        builder.begin_row(i64::from(row), 1_700_000_000_000_000 + i64::from(row) * 997);
        for (metric, slot) in slots.iter().enumerate() {
            builder.push(*slot, Value::F64(noisy(row, metric as u32)));
        }
    }
    builder.take()
}

fn frames(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frame");
    group.throughput(Throughput::Elements(u64::from(ROWS * METRICS)));

    let mut builder = RowsBuilder::default();
    let slots: Vec<u32> = (0..METRICS).map(|metric| builder.slot(&format!("train/metric_{metric}"))).collect();
    group.bench_function("gather", |bench| bench.iter(|| rows(&mut builder, &slots)));

    let blocks = [Block::Rows(rows(&mut builder, &slots))];
    group.bench_function("encode", |bench| bench.iter(|| encode_all(black_box(&blocks))));

    let raw = encode_all(&blocks);
    group.bench_function("compress", |bench| bench.iter(|| payload::compress(black_box(&raw), ZSTD_LEVEL)));

    let (codec, stored) = payload::compress(&raw, ZSTD_LEVEL);
    group.bench_function("seal", |bench| bench.iter(|| DRAFT.seal(codec, raw.len() as u32, black_box(&stored))));

    let frame = DRAFT.seal(codec, raw.len() as u32, &stored);
    group.bench_function("verify", |bench| bench.iter(|| Frame::read(black_box(&frame)).is_ok()));
    group.bench_function("read", |bench| {
        bench.iter(|| {
            let frame = Frame::read(black_box(&frame)).expect("sealed here");
            decode_all(&payload::decompress(&frame.header, frame.payload).expect("packed here")).expect("encoded here")
        });
    });
    group.finish();
}

criterion_group!(benches, frames);
criterion_main!(benches);
