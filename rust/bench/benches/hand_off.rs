//! What the hand-off costs on shared memory: an entry pushed and an entry taken, for rows of 1, 10 and 100 floats.
//!
//! One thread does both in turns, so the figures are without the other side's cache misses.

use std::hint::black_box;
use std::path::Path;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use runferry_ring::{Consumer, DEFAULT_ENTRY_BYTES, DEFAULT_NAMES_BYTES, Identity, Options, Producer, Pushed, create};

/// A row's head and 8 bytes a value.
const PAYLOADS: [usize; 3] = [24 + 8, 24 + 80, 24 + 800];
const ENTRIES: usize = 1_000;

fn ring() -> (Producer, Consumer) {
    let identity =
        Identity { run_id: [7; 16], writer_id: 7, boot_id: [7; 16], pid: std::process::id(), start_ticks: 7 };
    let name = format!("runferry-bench-{}", std::process::id());
    let options = Options {
        identity,
        name: &name,
        shm_dir: Path::new("/dev/shm"),
        fallback_dir: &std::env::temp_dir(),
        entry_bytes: DEFAULT_ENTRY_BYTES,
        names_bytes: DEFAULT_NAMES_BYTES,
    };
    create(&options).expect("a ring in shared memory")
}

fn push(producer: &mut Producer, row: &[u8]) {
    for _ in 0..ENTRIES {
        let pushed = producer.push_with(3, row.len(), |payload| payload.copy_from_slice(row));
        debug_assert!(matches!(black_box(pushed), Pushed::Done));
    }
}

fn take(consumer: &mut Consumer) {
    while let Some(entry) = consumer.next() {
        black_box(entry.payload);
    }
    consumer.release(consumer.cursor());
}

fn hand_off(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ring");
    group.throughput(Throughput::Elements(ENTRIES as u64));
    let (producer, consumer) = ring();
    let (producer, consumer) = (std::cell::RefCell::new(producer), std::cell::RefCell::new(consumer));
    for payload_bytes in PAYLOADS {
        let row = vec![7_u8; payload_bytes];
        group.bench_function(BenchmarkId::new("push", payload_bytes), |bench| {
            bench.iter_batched(
                || take(&mut consumer.borrow_mut()),
                |()| push(&mut producer.borrow_mut(), &row),
                BatchSize::PerIteration,
            );
        });
        group.bench_function(BenchmarkId::new("take", payload_bytes), |bench| {
            bench.iter_batched(
                || push(&mut producer.borrow_mut(), &row),
                |()| take(&mut consumer.borrow_mut()),
                BatchSize::PerIteration,
            );
        });
        take(&mut consumer.borrow_mut());
    }
    group.finish();
    consumer.into_inner().unlink().expect("the ring's file is removed");
}

criterion_group!(benches, hand_off);
criterion_main!(benches);
