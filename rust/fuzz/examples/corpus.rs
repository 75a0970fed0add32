//! Writes the corpus of the targets that begin with what Runferry itself writes: `cargo run --example corpus` in this folder.
//!
//! The corpora of `frame_decode`, `block_decode` and `journal_open` are older, and of `tests/support/frames.py`: not made here.

use std::fs;
use std::path::Path;

use runferry_columns::axis::Axis;
use runferry_columns::cells::{Cell, Cells};
use runferry_columns::chunk::ChunkRow;
use runferry_columns::pack::Packer;
use runferry_journal::successor::{Successor, add};
use runferry_ring::{Identity, Options, Pushed, create};
use runferry_wire::block::{Block, Changes, encode_all};
use runferry_wire::histogram::Histogram;
use runferry_wire::receipt::{Receipt, Sums};
use runferry_wire::record::{DOCUMENT, DROPPED, DropReason, Dropped, RowNames, Value, encode_document, encode_row};
use runferry_wire::rows::{Column, Rows};
use runferry_wire::{Codec, Doc, Values, payload};

fn write(target: &str, name: &str, bytes: &[u8]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    fs::create_dir_all(&folder).expect("a folder");
    fs::write(folder.join(name), bytes).expect("a file");
}

fn config() -> Doc {
    Doc::Map(vec![
        ("lr".to_owned(), Doc::F64(3e-4)),
        ("layers".to_owned(), Doc::Array(vec![Doc::Int(1), Doc::Bool(true), Doc::Nil])),
    ])
}

fn rows(first: i64) -> Rows {
    let column = |name: &str, presence, values| Column { name: name.to_owned(), presence, values };
    Rows {
        steps: (first..first + 12).collect(),
        times_us: (0..12).map(|row| row * row * 1_000).collect(),
        columns: vec![
            column("loss", None, Values::F64((0..12).map(|row| 1.0 / f64::from(row + 1)).collect())),
            column("epoch", None, Values::I64((0..12).collect())),
            column("note", Some(vec![0b101, 0]), Values::Str(vec!["a".to_owned(), "b".to_owned()])),
        ],
    }
}

fn main() {
    let changes = Changes { updates: config(), removed: vec!["old".to_owned()] };
    let blocks = encode_all(&[Block::Rows(rows(0)), Block::Config(changes.clone()), Block::Meta(config())]);

    for (name, raw) in [("zstd", blocks.repeat(3)), ("plain", b"short".to_vec())] {
        let (codec, stored) = payload::compress(&raw, 1);
        let head = [if codec == Codec::Zstd { 2 } else { 0 }].into_iter().chain((raw.len() as u32).to_le_bytes());
        write("payload_read", name, &head.chain(stored).collect::<Vec<_>>());
    }

    let mut receipt = Receipt::default();
    for (index, name) in ["", "loss", "acc"].into_iter().enumerate() {
        receipt.add(name, Sums { points: index as u64, hash: u64::MAX / 3 });
    }
    write("doc_decode", "receipt", &receipt.to_doc(42).encode());
    write("doc_decode", "config", &config().encode());
    let counts = Histogram::of(&(0..50).collect::<Vec<i32>>(), 8, f64::from).expect("eight bins");
    write("doc_decode", "histogram", &counts.encode().expect("eight bins"));
    let uneven = Histogram { edges: vec![0.0, 1.0, 5.0], counts: vec![0.5, 2.0], nan_count: 1, inf_count: 300 };
    write("doc_decode", "histogram_uneven", &uneven.encode().expect("two bins"));

    let disk = runferry_simdisk::SimDisk::new();
    let dir = Path::new("/journal");
    for next in 1..=2 {
        add(&*disk, dir, 7, &Successor { writer_id: 7 + next, first_seq: next * 100, since_us: 1_700_000_000_000_000 })
            .expect("no fault");
        let mut bytes = Vec::new();
        disk.damage(&dir.join("SUCCESSOR"), |found| bytes.clone_from(found));
        write("successor_read", &format!("records_{next}"), &bytes);
        write("successor_read", &format!("torn_{next}"), &bytes[..bytes.len() - 9]);
    }

    let (schema_row, named_row) = (
        encode_row(RowNames::Schema(2), 3, 1_000, &[Value::F64(0.5), Value::I64(7)]),
        encode_row(
            RowNames::Inline(&["text", "histogram", "json", "odd"]),
            4,
            2_000,
            &[
                Value::Str("hello"),
                Value::Hist(&[0, 1, 2]),
                Value::Json(&[0x93, 1, 2, 3]),
                Value::Marker("Tensor", "<cuda>"),
            ],
        ),
    );
    let document = (DOCUMENT, encode_document(&Block::Config(changes)).expect("a document"));
    let dropped = (DROPPED, Dropped { rows: 1, points: 2, bytes: 3 }.encode(DropReason::Full));
    let floats = encode_row(RowNames::Schema(2), 5, 3_000, &[Value::F64(0.5), Value::F64(f64::NAN)]);
    let all = [schema_row, named_row, document, dropped, floats];
    let framed = |entries: &[(u8, Vec<u8>)]| {
        let mut out = vec![0, 5, 0];
        out.extend_from_slice(b"nname");
        for (kind, payload) in entries {
            out.push(*kind);
            out.extend_from_slice(&(payload.len() as u16).to_le_bytes());
            out.extend_from_slice(payload);
        }
        out
    };
    write("entries_pack", "all", &framed(&all));
    for (entry, name) in all.iter().zip(["row_by_schema", "row_with_names", "document", "dropped", "floats"]) {
        write("entries_pack", name, &framed(std::slice::from_ref(entry)));
    }

    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ring");
    let identity = Identity { run_id: [1; 16], writer_id: 2, boot_id: [3; 16], pid: 4, start_ticks: 5 };
    let dir = folder.path();
    let options =
        Options { identity, name: "ring", shm_dir: dir, fallback_dir: dir, entry_bytes: 256, names_bytes: 64 };
    let (mut producer, mut consumer) = create(&options).expect("a ring");
    write("ring_orphan", "fresh", &fs::read(&path).expect("readable"));
    producer.intern(b"nloss");
    for lap in 0..9_u8 {
        assert!(matches!(producer.push(1, &[&[lap; 40]]), Pushed::Done), "lap {lap}");
        if lap == 4 {
            write("ring_orphan", "filling", &fs::read(&path).expect("readable"));
        }
        if lap > 4 {
            let end = consumer.next().expect("pushed").end;
            consumer.set_intent(u64::from(lap), end);
            consumer.release(end);
        }
    }
    write("ring_orphan", "lapped", &fs::read(&path).expect("readable"));

    let mut packer = Packer::new();
    let axes = [
        Axis { steps: (0..20).collect(), times_us: (0..20).map(|row| row * row).collect(), writers: vec![1; 20] },
        Axis { steps: vec![1, 5, 6], times_us: vec![1 << 40, 0, i64::MIN], writers: vec![1, 2, 1] },
    ];
    for (index, axis) in axes.iter().enumerate() {
        let row = axis.encode(2, &mut packer);
        write("chunk_decode", &format!("axis_{index}"), &[&[0], row.n.to_le_bytes().as_slice(), &row.data].concat());
    }
    let texts = || Values::Str(vec!["one".to_owned(), "another".to_owned()]);
    let kinds = [
        ("floats", Cells::Uniform(Values::F64((0..40).map(|row| 1.0 / f64::from(row + 1)).collect()))),
        ("integers", Cells::Uniform(Values::I64((0..20).map(|row| row * row).collect()))),
        ("bools", Cells::Uniform(Values::Bool(vec![true, false, true]))),
        ("texts", Cells::Uniform(texts())),
        ("markers", Cells::Uniform(Values::Marker(vec![("Tensor".to_owned(), "<cuda>".to_owned())]))),
        (
            "mixed",
            Cells::Mixed(vec![Cell::I64(1), Cell::F64(0.5), Cell::Str("x".to_owned()), Cell::Null, Cell::I64(-1)]),
        ),
    ];
    for (name, cells) in kinds {
        let row = ChunkRow::encode(1, 2, (0, 9), &cells, &mut packer);
        write("chunk_decode", name, &[&[row.kind], row.n.to_le_bytes().as_slice(), &row.data].concat());
    }

    for (name, offset, second) in [("apart", 100_u8, 0), ("overlapping", 0, 6), ("labels", 1, 3)] {
        let (first, second) = (encode_all(&[Block::Rows(rows(0))]), encode_all(&[Block::Rows(rows(second))]));
        let mut bytes = (first.len() as u16).to_le_bytes().to_vec();
        bytes.push(offset);
        write("frames_merge", name, &[bytes, first, second].concat());
    }
}
