//! Every interleaving and every stale read that the memory model allows, on the smallest ring, up to a bound of preemptions.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p runferry-ring --test loom --release`
//!
//! Loom watches the control words and a cell for each 8 bytes: a payload read before its writing is ordered, or overwritten
//! before its reading is, fails the test.

#![cfg(loom)]

use std::path::Path;

use loom::thread;
use runferry_ring::{Consumer, Identity, Options, Producer, Pushed, create};

/// On the heap, for each of the many runs makes one.
fn ring() -> (Producer, Consumer) {
    let identity = Identity { run_id: [1; 16], writer_id: 2, boot_id: [3; 16], pid: 4, start_ticks: 5 };
    let nowhere = Path::new("/nowhere");
    let options =
        Options { identity, name: "ring", shm_dir: nowhere, fallback_dir: nowhere, entry_bytes: 64, names_bytes: 64 };
    create(&options).expect("room on the heap")
}

fn model(check: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(6);
    builder.check(check);
}

/// An entry of 24 bytes: two in a lap of 64, and then a PAD.
fn push(producer: &mut Producer, n: u8) -> Pushed {
    producer.push_with(n, 16, |payload| payload.fill(n))
}

fn push_waiting(producer: &mut Producer, n: u8) {
    while push(producer, n) == Pushed::Full {
        thread::yield_now();
    }
}

fn next_waiting(consumer: &mut Consumer) -> (u8, u64) {
    loop {
        if let Some(entry) = consumer.next() {
            assert_eq!(entry.payload, [entry.kind; 16]);
            return (entry.kind, entry.end);
        }
        thread::yield_now();
    }
}

#[test]
fn an_entry_is_seen_whole_or_not_at_all() {
    model(|| {
        let (mut producer, mut consumer) = ring();
        let pushing = thread::spawn(move || {
            assert_eq!(push(&mut producer, 0), Pushed::Done);
            assert_eq!(push(&mut producer, 1), Pushed::Done);
        });

        let mut seen = 0;
        for _ in 0..3 {
            if let Some(entry) = consumer.next() {
                assert_eq!((entry.kind, entry.payload), (seen, [seen; 16].as_slice()));
                seen += 1;
            }
        }

        pushing.join().expect("the producer does not panic");
        assert_eq!(consumer.damaged_bytes(), 0);
    });
}

/// The third entry needs a PAD and the place of the first: full until the consumer releases it.
#[test]
fn a_full_ring_wraps_over_nothing_that_is_still_read() {
    model(|| {
        let (mut producer, mut consumer) = ring();
        assert_eq!((push(&mut producer, 0), push(&mut producer, 1)), (Pushed::Done, Pushed::Done));
        let pushing = thread::spawn(move || {
            push_waiting(&mut producer, 2);
            push_waiting(&mut producer, 3);
        });

        for n in 0..4 {
            let (kind, end) = next_waiting(&mut consumer);
            assert_eq!(kind, n);
            consumer.release(end);
        }

        pushing.join().expect("the producer does not panic");
        assert_eq!(consumer.next(), None);
        assert_eq!(consumer.damaged_bytes(), 0);
    });
}

/// Reading runs ahead of releasing: what was read but not released must not be overwritten.
#[test]
fn what_is_read_but_not_released_stays() {
    model(|| {
        let (mut producer, mut consumer) = ring();
        assert_eq!(push(&mut producer, 0), Pushed::Done);
        let pushing = thread::spawn(move || {
            push_waiting(&mut producer, 1);
            push_waiting(&mut producer, 2);
        });

        let (_, first_end) = next_waiting(&mut consumer);
        let (kind, second_end) = next_waiting(&mut consumer);
        assert_eq!(kind, 1);
        consumer.release(first_end);
        consumer.release(second_end);
        assert_eq!(next_waiting(&mut consumer).0, 2);

        pushing.join().expect("the producer does not panic");
        assert_eq!(consumer.damaged_bytes(), 0);
    });
}

#[test]
fn a_name_is_there_before_the_entry_that_uses_it() {
    model(|| {
        let (mut producer, mut consumer) = ring();
        let names = consumer.names();
        let pushing = thread::spawn(move || {
            for n in 0..2 {
                let id = producer.intern(&[n; 3]).expect("room for two names");
                assert_eq!(push(&mut producer, id as u8), Pushed::Done);
            }
        });

        for _ in 0..2 {
            if let Some(entry) = consumer.next() {
                assert_eq!(names.lookup(u32::from(entry.kind)), Some([entry.kind; 3].as_slice()));
            }
        }

        pushing.join().expect("the producer does not panic");
    });
}

#[test]
fn a_close_is_seen_after_the_last_entry_only() {
    model(|| {
        let (mut producer, mut consumer) = ring();
        let pushing = thread::spawn(move || {
            assert_eq!(push(&mut producer, 0), Pushed::Done);
            producer.close();
        });

        if consumer.is_closed() {
            assert_eq!(consumer.next().map(|entry| entry.kind), Some(0));
        }

        pushing.join().expect("the producer does not panic");
    });
}
