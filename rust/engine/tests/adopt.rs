//! Whatever moment a process dies at, an adopter leaves every record in the journal exactly once.
//!
//! The moments are made by hand: a ring, a lock and a journal in the state in which the packer would have left them.

mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use runferry_engine::adopt::{AdoptError, adopt};
use runferry_engine::batch::{Batch, Names};
use runferry_journal::{Next, Reader, RealDisk};
use runferry_ring::Pushed;
use runferry_wire::record::{RowNames, TAG_NAME, Value, encode_row, encode_schema};
use runferry_wire::{Block, Frame, Values, block, flags, payload};

use support::{Begun, RING, Scratch, WHO};

struct RingNames(runferry_ring::Names);

impl Names for RingNames {
    fn item(&self, id: u32) -> Option<&[u8]> {
        self.0.lookup(id)
    }
}

/// A writer by hand, up to the moment of its death.
struct Doomed {
    has: Begun,
    batch: Batch,
    next_seq: u64,
    logged: i64,
}

impl Doomed {
    fn start(dir: &Path) -> Self {
        let mut has = Begun::new(dir);
        let name: Vec<u8> = [&[TAG_NAME], b"loss".as_slice()].concat();
        assert_eq!(has.producer.intern(&name), Some(0));
        assert_eq!(has.producer.intern(&encode_schema(&[0])), Some(1));
        Self { has, batch: Batch::default(), next_seq: 1, logged: 0 }
    }

    fn log(&mut self, rows: i64) {
        for _ in 0..rows {
            let (kind, row) = encode_row(RowNames::Schema(1), self.logged, 0, &[Value::F64(self.logged as f64)]);
            assert_eq!(self.has.producer.push(kind, &[&row]), Pushed::Done);
            self.logged += 1;
        }
    }

    /// Packs what is in the ring as one frame, and goes on as far as `moment`.
    fn pack(&mut self, moment: Moment) {
        let names = RingNames(self.has.consumer.names());
        while let Some(entry) = self.has.consumer.next() {
            self.batch.push(entry.kind, entry.payload, entry.end, &names, Duration::ZERO);
        }
        self.batch.close();
        let packed = self.batch.pack(WHO, self.next_seq, 0).expect("there was something");
        if moment == Moment::BeforeIntent {
            return;
        }
        self.has.consumer.set_intent(packed.seq, packed.end);
        if moment == Moment::BeforeWrite {
            return;
        }
        self.has.journal.append(&packed.frame).expect("written");
        self.next_seq = packed.next_seq;
        if moment == Moment::BeforeRelease {
            return;
        }
        self.has.consumer.release(packed.end);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    BeforeIntent,
    BeforeWrite,
    BeforeRelease,
    Never,
}

/// Steps and values of the journal, and whether each frame was recovered.
fn read_back(dir: &Path) -> (Vec<(i64, f64)>, Vec<bool>) {
    let mut reader = Reader::open(Arc::new(RealDisk), dir, 1);
    reader.live(false);
    let (mut rows, mut recovered) = (Vec::new(), Vec::new());
    loop {
        match reader.next().expect("readable") {
            Next::CaughtUp => return (rows, recovered),
            Next::Gap(gap) => panic!("{gap:?}"),
            Next::Frame(bytes) => {
                let frame = Frame::read(&bytes).expect("verified by the reader");
                recovered.push(frame.header.flags & flags::RECOVERED != 0);
                let raw = payload::decompress(&frame.header, frame.payload).expect("whole");
                for block in block::decode_all(&raw).expect("whole") {
                    let Block::Rows(block) = block else { continue };
                    let [column] = &block.columns[..] else { panic!("one metric") };
                    let Values::F64(values) = &column.values else { panic!("floats") };
                    rows.extend(block.steps.iter().copied().zip(values.iter().copied()));
                }
            }
        }
    }
}

fn expected(rows: i64) -> Vec<(i64, f64)> {
    (0..rows).map(|row| (row, row as f64)).collect()
}

// fault: 3, 4, 5
#[test]
fn a_death_at_any_moment_of_packing_loses_and_doubles_nothing() {
    for moment in [Moment::BeforeIntent, Moment::BeforeWrite, Moment::BeforeRelease, Moment::Never] {
        let scratch = Scratch::new();
        let mut doomed = Doomed::start(&scratch.0);
        doomed.log(10);
        doomed.pack(Moment::Never);
        doomed.log(20);
        doomed.pack(moment);
        doomed.log(5);
        drop(doomed);

        let adopted = adopt(&scratch.0).expect("adopted");

        assert_eq!(read_back(&scratch.0).0, expected(35), "{moment:?}");
        assert_eq!(adopted.open.get_str("id"), Some("r"));
        assert!(!scratch.0.join(RING).exists(), "{moment:?}");
    }
}

// fault: 5, 7
#[test]
fn a_frame_that_may_have_been_seen_elsewhere_is_packed_again_from_the_same_records() {
    let scratch = Scratch::new();
    let mut doomed = Doomed::start(&scratch.0);
    doomed.log(10);
    doomed.pack(Moment::BeforeWrite); // announced as frame 1, up to record 10
    doomed.log(7);
    drop(doomed);

    adopt(&scratch.0).expect("adopted");

    let mut reader = Reader::open(Arc::new(RealDisk), &scratch.0, 1);
    let Next::Frame(first) = reader.next().expect("readable") else { panic!("a frame") };
    assert_eq!(Frame::read(&first).expect("whole").header.record_count, 10, "cut where the dead process had cut");
    assert_eq!(read_back(&scratch.0).0, expected(17));
}

#[test]
fn records_whose_frames_only_the_server_may_know_go_to_an_heir() {
    let scratch = Scratch::new();
    let dir = scratch.0.join("000000000000004d");
    let mut doomed = Doomed::start(&dir);
    doomed.log(4);
    doomed.pack(Moment::Never);
    // The disk refuses frames 2 and 3; the server got them all the same, and died or not, nobody knows their records.
    doomed.log(5);
    doomed.has.consumer.set_intent(3, u64::MAX);
    drop(doomed);

    let adopted = adopt(&dir).expect("adopted");

    let heir = adopted.heir.clone().expect("an heir");
    assert_eq!(read_back(&dir).0, expected(4), "the journal of the dead is as it was");
    assert_eq!(read_back(&heir).0, expected(9).split_off(4));
    drop(adopted);
    let again = adopt(&heir).expect("a journal like any other");
    assert_eq!(again.open.get_int("parent_writer"), Some(WHO.writer_id as i64));
}

// fault: 8
#[test]
fn adopting_twice_adds_nothing() {
    let scratch = Scratch::new();
    let mut doomed = Doomed::start(&scratch.0);
    doomed.log(3);
    drop(doomed);

    drop(adopt(&scratch.0).expect("adopted"));
    drop(adopt(&scratch.0).expect("adopted again"));

    assert_eq!(read_back(&scratch.0), (expected(3), vec![true]));
}

// fault: 29
#[test]
fn a_living_writer_is_not_adopted() {
    let scratch = Scratch::new();
    let mut doomed = Doomed::start(&scratch.0);
    doomed.log(3);

    let refused = adopt(&scratch.0);

    assert!(matches!(refused, Err(AdoptError::Alive { .. })), "{refused:?}");
    drop(doomed);
    assert_eq!(adopt(&scratch.0).expect("adopted").recovered_rows, 3);
}

#[test]
fn a_damaged_record_costs_itself_and_is_counted() {
    let scratch = Scratch::new();
    let mut doomed = Doomed::start(&scratch.0);
    doomed.log(2);
    assert_eq!(doomed.has.producer.push(99, &[b"of a later version"]), Pushed::Done);
    doomed.log(2);
    drop(doomed);

    let adopted = adopt(&scratch.0).expect("adopted");

    assert_eq!((adopted.recovered_rows, adopted.scan.next_seq), (4, 4), "two frames of rows, and a GAP between them");
}
