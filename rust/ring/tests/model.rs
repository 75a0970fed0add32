//! The ring against a plain queue: random pushes, drains, releases and names on small rings, where each lap has a PAD, a full
//! ring and an empty one; after every operation the file is read as an adopter would read it.

mod scratch;

use std::collections::VecDeque;

use proptest::collection::vec;
use proptest::prelude::*;
use runferry_ring::{Intent, Orphan, Pushed};

use scratch::{Scratch, payload};

#[derive(Clone, Debug)]
enum Operation {
    Push { kind: u8, len: usize },
    PushParts { kind: u8, lens: Vec<usize> },
    PanicInFill { len: usize },
    DeclineInFill { len: usize },
    Next,
    ReleaseSome { read_entries: usize },
    Intern { len: usize },
    SetIntent,
}

fn operation(longest: usize) -> impl Strategy<Value = Operation> {
    prop_oneof![
        6 => (any::<u8>(), 0..=longest).prop_map(|(kind, len)| Operation::Push { kind, len }),
        2 => (any::<u8>(), vec(0..=longest / 2, 0..4)).prop_map(|(kind, lens)| Operation::PushParts { kind, lens }),
        1 => (0..=longest).prop_map(|len| Operation::PanicInFill { len }),
        1 => (0..=longest).prop_map(|len| Operation::DeclineInFill { len }),
        7 => Just(Operation::Next),
        4 => (1..4_usize).prop_map(|read_entries| Operation::ReleaseSome { read_entries }),
        1 => (0..40_usize).prop_map(|len| Operation::Intern { len }),
        1 => Just(Operation::SetIntent),
    ]
}

#[derive(Clone, Debug, PartialEq)]
struct Record {
    kind: u8,
    payload: Vec<u8>,
    end: u64,
}

/// What the ring should hold.
struct Model {
    entry_bytes: u64,
    names_bytes: usize,
    tail: u64,
    head: u64,
    unread: VecDeque<Record>,
    unreleased: VecDeque<Record>,
    names: Vec<Vec<u8>>,
    intent: Option<Intent>,
}

impl Model {
    fn push(&mut self, kind: u8, payload: Vec<u8>) -> Pushed {
        let need = 8 + (payload.len() as u64).div_ceil(8) * 8;
        if need > self.entry_bytes / 2 {
            return Pushed::TooLarge;
        }
        let left_in_lap = self.entry_bytes - self.tail % self.entry_bytes;
        let pad = if need > left_in_lap { left_in_lap } else { 0 };
        if self.tail + pad + need > self.head + self.entry_bytes {
            return Pushed::Full;
        }
        self.tail += pad + need;
        self.unread.push_back(Record { kind, payload, end: self.tail });
        Pushed::Done
    }

    fn intern(&mut self, name: &[u8]) -> Option<u32> {
        let used = |name: &Vec<u8>| 8 + name.len().div_ceil(8) * 8;
        if self.names.iter().map(used).sum::<usize>() + used(&name.to_vec()) > self.names_bytes {
            return None;
        }
        self.names.push(name.to_vec());
        Some(self.names.len() as u32 - 1)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn the_ring_is_a_queue_that_an_adopter_can_read_at_any_moment(
        (entry_bytes, operations) in prop_oneof![Just(64_usize), Just(128), Just(256), Just(4096)]
            .prop_flat_map(|bytes| (Just(bytes), vec(operation(bytes / 2 + 4), 1..120))),
    ) {
        let scratch = Scratch::new();
        let (mut producer, mut consumer) = scratch.ring(entry_bytes, 128);
        let names = consumer.names();
        let mut model = Model {
            entry_bytes: entry_bytes as u64, names_bytes: 128, tail: 0, head: 0,
            unread: VecDeque::new(), unreleased: VecDeque::new(), names: Vec::new(), intent: None,
        };

        for (n, operation) in operations.into_iter().enumerate() {
            match operation {
                Operation::Push { kind, len } => {
                    let bytes = payload(n as u64, len);
                    let pushed = producer.push_with(kind, len, |to| to.copy_from_slice(&bytes));
                    prop_assert_eq!(pushed, model.push(kind, bytes));
                }
                Operation::PushParts { kind, lens } => {
                    let parts: Vec<Vec<u8>> = lens.iter().map(|len| payload(n as u64, *len)).collect();
                    let slices: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
                    prop_assert_eq!(producer.push(kind, &slices), model.push(kind, parts.concat()));
                }
                Operation::PanicInFill { len } => {
                    let fill = |to: &mut [u8]| { to.fill(0xEE); std::panic::resume_unwind(Box::new("in mid-fill")) };
                    // Whether it panicked or had no room: either way nothing may have changed.
                    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| producer.push_with(1, len, fill))).ok();
                }
                Operation::DeclineInFill { len } => {
                    let decline = |to: &mut [u8]| { to.fill(0xDD); false };
                    let pushed = producer.push_if(1, len, decline);
                    prop_assert!(pushed.is_none_or(|pushed| pushed != Pushed::Done));
                }
                Operation::Next => {
                    let read = consumer.next()
                        .map(|entry| Record { kind: entry.kind, payload: entry.payload.to_vec(), end: entry.end });
                    let expected = model.unread.pop_front();
                    prop_assert_eq!(&read, &expected);
                    model.unreleased.extend(expected);
                }
                Operation::ReleaseSome { read_entries } => {
                    let count = read_entries.min(model.unreleased.len());
                    if let Some(last) = model.unreleased.drain(..count).next_back() {
                        consumer.release(last.end);
                        model.head = last.end;
                    }
                }
                Operation::Intern { len } => {
                    let name = payload(n as u64, len);
                    prop_assert_eq!(producer.intern(&name), model.intern(&name));
                }
                Operation::SetIntent => {
                    consumer.set_intent(n as u64, consumer.cursor());
                    model.intent = Some(Intent { seq: n as u64, end: consumer.cursor() });
                }
            }

            prop_assert_eq!(producer.free_bytes(), model.head + model.entry_bytes - model.tail);
            prop_assert_eq!(consumer.damaged_bytes(), 0);
            for (id, name) in model.names.iter().enumerate() {
                prop_assert_eq!(names.lookup(id as u32), Some(name.as_slice()));
                prop_assert_eq!(consumer.intern_lookup(id as u32), Some(name.as_slice()));
            }
            prop_assert_eq!(names.lookup(model.names.len() as u32), None);

            let orphan = Orphan::open(&scratch.ring_path()).expect("a ring that is still there");
            let left: Vec<Record> = orphan.entries()
                .map(|entry| Record { kind: entry.kind, payload: entry.payload.to_vec(), end: entry.end })
                .collect();
            let expected: Vec<Record> = model.unreleased.iter().chain(&model.unread).cloned().collect();
            prop_assert_eq!(left, expected);
            prop_assert_eq!(orphan.names().map(<[u8]>::to_vec).collect::<Vec<_>>(), model.names.clone());
            prop_assert_eq!(orphan.intent(), model.intent);
            prop_assert!(orphan.is_whole());
        }
    }
}

/// An entry of half the ring fits wherever the tail is: else a caller could wait for ever at an empty ring.
#[test]
fn the_longest_entry_fits_into_an_empty_ring_from_any_place() {
    let scratch = Scratch::new();
    let (mut producer, mut consumer) = scratch.ring(256, 64);
    let longest = vec![5; producer.max_payload_bytes()];

    for step_bytes in (0..=64).cycle().take(1_000) {
        assert_eq!(producer.push(1, &[&payload(1, step_bytes)]), Pushed::Done);
        let end = consumer.next().expect("just pushed").end;
        consumer.release(end);

        assert_eq!(producer.push(2, &[&longest]), Pushed::Done);
        let entry = consumer.next().expect("just pushed");
        assert_eq!(entry.payload, longest);
        let end = entry.end;
        consumer.release(end);
    }
}

#[test]
fn a_default_ring_takes_a_mebibyte_and_not_a_byte_more() {
    let scratch = Scratch::new();
    let (mut producer, mut consumer) =
        scratch.ring(runferry_ring::DEFAULT_ENTRY_BYTES, runferry_ring::DEFAULT_NAMES_BYTES);
    let mebibyte = payload(3, 1 << 20);

    assert_eq!(producer.push(0, &[&mebibyte, &[0]]), Pushed::TooLarge);
    assert_eq!(producer.push(0, &[&mebibyte]), Pushed::Done);

    assert_eq!(consumer.next().expect("just pushed").payload, mebibyte);
}

#[test]
fn a_closed_ring_takes_nothing_and_gives_what_it_holds() {
    let scratch = Scratch::new();
    let (mut producer, mut consumer) = scratch.ring(4096, 64);
    assert_eq!(producer.push(7, &[b"last"]), Pushed::Done);

    assert!(!consumer.is_closed());
    producer.close();

    assert_eq!(producer.push(7, &[b"late"]), Pushed::Closed);
    assert_eq!(producer.intern(b"late"), None);
    assert!(consumer.is_closed());
    assert_eq!(consumer.next().map(|entry| entry.payload), Some(b"last".as_slice()));
    assert_eq!(consumer.next(), None);
    assert!(Orphan::open(&scratch.ring_path()).expect("still there").is_closed());
}

#[test]
fn a_release_of_what_was_not_read_is_ignored() {
    let scratch = Scratch::new();
    let (mut producer, mut consumer) = scratch.ring(4096, 64);
    assert_eq!(producer.push(7, &[b"one"]), Pushed::Done);
    assert_eq!(producer.push(7, &[b"two"]), Pushed::Done);
    let end = consumer.next().expect("just pushed").end;

    consumer.release(end + 16);
    assert_eq!(consumer.unreleased_bytes(), 16);
    consumer.release(end);
    consumer.release(0);

    assert_eq!((consumer.unreleased_bytes(), consumer.unread_bytes()), (0, 16));
    assert_eq!(producer.free_bytes(), 4096 - 16);
}

/// Two threads and many laps, with the hardware's own reordering; `loom.rs` has the rest.
#[test]
fn two_threads_pass_a_million_entries_in_order() {
    const ENTRIES: u64 = 1_000_000;
    let scratch = Scratch::new();
    let (mut producer, mut consumer) = scratch.ring(1 << 14, 64);

    let pushing = std::thread::spawn(move || {
        for n in 0..ENTRIES {
            let len = 8 + (n % 97) as usize;
            while producer.push_with(n as u8, len, |to| to.fill((n >> 8) as u8)) != Pushed::Done {
                std::thread::yield_now();
            }
        }
    });
    let mut n = 0;
    while n < ENTRIES {
        let Some(entry) = consumer.next() else {
            std::thread::yield_now();
            continue;
        };
        assert_eq!(entry.kind, n as u8);
        assert_eq!(entry.payload.len(), 8 + (n % 97) as usize);
        assert!(entry.payload.iter().all(|byte| *byte == (n >> 8) as u8));
        let end = entry.end;
        if n % 5 == 0 {
            consumer.release(end);
        }
        n += 1;
    }

    pushing.join().expect("the producer does not panic");
    assert_eq!(consumer.next(), None);
    assert_eq!(consumer.damaged_bytes(), 0);
}
