//! What the journal costs on this disk: a frame appended, and all frames read back and verified.
//!
//! Frames of 64 bytes to 64 KiB of payload, without fsync: that is the device's, and another thread's. Throughput is in bytes.

use std::path::PathBuf;
use std::sync::Arc;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use runferry_journal::{Journal, JournalOptions, Next, Reader, RealDisk};
use runferry_wire::{Codec, Draft, Kind};

const PAYLOADS: [usize; 3] = [64, 4 << 10, 64 << 10];
const FRAMES: u64 = 64;

fn frame(kind: Kind, seq: u64, payload: &[u8]) -> Vec<u8> {
    Draft { kind, flags: 0, run_id: [7; 16], writer_id: 7, seq, record_count: 1 }.seal(
        Codec::Plain,
        payload.len() as u32,
        payload,
    )
}

/// A folder that goes when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("runferry-bench-{}", std::process::id()));
        std::fs::remove_dir_all(&path).ok(); // of a run before that was killed
        Self(path)
    }

    fn journal(&self) -> Journal {
        let options = JournalOptions { min_free_bytes: 0, ..JournalOptions::ONLINE };
        let open = |seq| frame(Kind::Open, seq, b"open");
        Journal::create(Arc::new(RealDisk), &self.0, open, 1, options).expect("a journal in the temporary folder")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok(); // a leftover in the temporary folder harms nobody
    }
}

fn append(journal: &mut Journal, frames: &[Vec<u8>]) {
    for frame in frames {
        journal.append(frame).expect("a frame fits");
    }
}

fn read(folder: &Folder) -> u64 {
    let mut reader = Reader::open(Arc::new(RealDisk), &folder.0, 1);
    while let Next::Frame(_) = reader.next().expect("readable") {}
    reader.next_seq()
}

fn journal(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("journal");
    for payload_bytes in PAYLOADS {
        let frames: Vec<Vec<u8>> = (1..=FRAMES).map(|seq| frame(Kind::Data, seq, &vec![7; payload_bytes])).collect();
        group.throughput(Throughput::Bytes(frames.iter().map(|frame| frame.len() as u64).sum()));
        group.bench_function(BenchmarkId::new("append", payload_bytes), |bench| {
            bench.iter_batched(
                || {
                    let folder = Folder::new();
                    (folder.journal(), folder)
                },
                |(mut journal, folder)| {
                    append(&mut journal, &frames);
                    (journal, folder)
                },
                BatchSize::PerIteration,
            );
        });
        let folder = Folder::new();
        append(&mut folder.journal(), &frames);
        group.bench_function(BenchmarkId::new("read", payload_bytes), |bench| bench.iter(|| read(&folder)));
    }
    group.finish();
}

criterion_group!(benches, journal);
criterion_main!(benches);
