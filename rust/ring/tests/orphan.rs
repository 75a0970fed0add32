//! What an adopter reads: cut, damaged and foreign files, and the states that a kill leaves between two stores.

mod scratch;

use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;
use runferry_ring::{HeaderError, Intent, Orphan, Pushed, RingError};

use scratch::{Scratch, identity, payload};

const ENTRY_BYTES: usize = 1024;
const TAIL_AT: u64 = 128;
const HEAD_AT: u64 = 256;
/// The header page, 64 bytes of names, the entries; then zeros to whole pages.
const USED_BYTES: usize = 4096 + 64 + ENTRY_BYTES;

type Entry = (u8, Vec<u8>, u64);

/// The file of a ring in its third lap: two names, an intent, entries on both sides of the lap's end.
fn used_ring(scratch: &Scratch) -> (Vec<u8>, Vec<Entry>) {
    let (mut producer, mut consumer) = scratch.ring(ENTRY_BYTES, 64);
    assert_eq!((producer.intern(b"loss"), producer.intern(b"accuracy")), (Some(0), Some(1)));
    for n in 0..53 {
        assert_eq!(producer.push(n as u8, &[&payload(n, 20 + n as usize % 30)]), Pushed::Done);
        if n < 38 {
            let end = consumer.next().expect("just pushed").end;
            consumer.set_intent(n, end);
            consumer.release(end);
        }
    }
    let bytes = std::fs::read(scratch.ring_path()).expect("the ring's file");
    let entries = entries(&Orphan::open(&scratch.ring_path()).expect("a good ring"));
    assert_eq!(entries.iter().map(|entry| entry.0).collect::<Vec<_>>(), (38..53).collect::<Vec<_>>());
    let laps: Vec<u64> = entries.iter().map(|entry| entry.2 / ENTRY_BYTES as u64).collect();
    assert_ne!(laps.first(), laps.last(), "the entries lie on both sides of a lap's end");
    (bytes, entries)
}

fn entries(orphan: &Orphan) -> Vec<Entry> {
    orphan.entries().map(|entry| (entry.kind, entry.payload.to_vec(), entry.end)).collect()
}

fn open(scratch: &Scratch, bytes: &[u8]) -> Result<Orphan, RingError> {
    let path = scratch.path().join("copy");
    std::fs::write(&path, bytes).expect("room for a copy");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("our own file");
    Orphan::open(&path)
}

#[test]
fn an_orphan_tells_all_that_the_dead_process_left() {
    let scratch = Scratch::new();
    let (_, entries) = used_ring(&scratch);

    let orphan = Orphan::open(&scratch.ring_path()).expect("a good ring");

    assert_eq!(*orphan.identity(), identity());
    assert_eq!(orphan.names().collect::<Vec<_>>(), [b"loss".as_slice(), b"accuracy"]);
    assert_eq!((orphan.name(1), orphan.name(2)), (Some(b"accuracy".as_slice()), None));
    assert_eq!(orphan.intent(), Some(Intent { seq: 37, end: orphan.head() }));
    assert_eq!(entries.first().map(|entry| entry.1.clone()), Some(payload(38, 20 + 38 % 30)));
    assert!(orphan.is_whole());
}

// fault: 77
#[test]
fn a_cut_at_any_byte_keeps_a_prefix_of_the_entries_or_is_refused() {
    let scratch = Scratch::new();
    let (bytes, original) = used_ring(&scratch);

    for cut in 0..bytes.len() {
        match open(&scratch, &bytes[..cut]) {
            Ok(orphan) => {
                let left = entries(&orphan);
                assert!(cut >= 128 && original.starts_with(&left), "cut at {cut}");
                assert!(!orphan.is_whole(), "cut at {cut}");
                assert!(cut < USED_BYTES || left == original, "cut at {cut}, behind everything");
            }
            Err(RingError::Header { source: HeaderError::NotARing { .. } | HeaderError::Unfinished, .. }) => {
                assert!(cut < 128, "cut at {cut}");
            }
            Err(other) => panic!("cut at {cut}: {other}"),
        }
    }
}

/// No entry that was never pushed, and none at another place; a payload differs only in the bytes that were destroyed.
fn assert_only_pushed_entries(found: &[Entry], original: &[Entry]) {
    assert!(found.is_sorted_by(|one, next| one.2 < next.2), "in order");
    for (kind, payload, end) in found {
        let pushed = original.iter().find(|entry| entry.2 == *end);
        let (pushed_kind, pushed_payload, _) = pushed.expect("an entry that was pushed");
        assert_eq!((kind, payload.len()), (pushed_kind, pushed_payload.len()));
    }
}

#[test]
fn a_flip_of_any_bit_invents_no_entry() {
    let scratch = Scratch::new();
    let (bytes, original) = used_ring(&scratch);

    for bit in 0..USED_BYTES * 8 {
        if (128 * 8..4096 * 8).contains(&bit) && bit / 64 % 8 != 0 {
            continue; // The unused words of the header page.
        }
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let Ok(orphan) = open(&scratch, &damaged) else {
            assert!(bit < 128 * 8, "bit {bit}: only the fixed part makes a ring unreadable");
            continue;
        };
        let found = entries(&orphan);
        assert_only_pushed_entries(&found, &original);
        let is_in_head = bit / 64 == HEAD_AT as usize / 8;
        assert!(is_in_head || found.first() == original.first() || bit >= 4160 * 8, "bit {bit}");
    }
}

proptest! {
    #[test]
    fn destroyed_bytes_invent_no_entry(damage in vec((0..USED_BYTES, any::<u8>()), 1..200)) {
        let scratch = Scratch::new();
        let (mut bytes, original) = used_ring(&scratch);
        for (at, byte) in damage {
            bytes[at] = byte;
        }

        if let Ok(orphan) = open(&scratch, &bytes) {
            assert_only_pushed_entries(&entries(&orphan), &original);
            prop_assert!(orphan.names().count() <= 2);
        }
    }

    /// Behind a good header anything may lie: sizes, offsets and words are then as hostile as they get.
    #[test]
    fn a_good_header_before_noise_is_read_without_panic(noise in vec(any::<u8>(), 0..USED_BYTES * 2), head: u64, tail: u64) {
        let scratch = Scratch::new();
        let (good, _) = used_ring(&scratch);
        let mut bytes = good[..128].to_vec();
        bytes.extend(&noise);
        for (at, word) in [(TAIL_AT as usize, tail), (HEAD_AT as usize, head)] {
            if let Some(field) = bytes.get_mut(at..at + 8) {
                field.copy_from_slice(&word.to_le_bytes());
            }
        }

        let orphan = open(&scratch, &bytes).expect("a good header");

        prop_assert_eq!(orphan.entries().count(), 0);
        prop_assert_eq!(orphan.names().count(), 0);
        prop_assert_eq!(orphan.intent(), None);
        prop_assert!(orphan.unreachable_bytes() <= ENTRY_BYTES as u64);
    }

    #[test]
    fn noise_is_no_ring(noise in vec(any::<u8>(), 1..300)) {
        let scratch = Scratch::new();

        let is_refused = matches!(open(&scratch, &noise), Err(RingError::Header { .. }));
        prop_assert!(is_refused);
    }
}

// fault: 1
#[test]
fn a_kill_while_an_entry_is_filled_leaves_no_trace_of_it() {
    let scratch = Scratch::new();
    let (mut producer, _consumer) = scratch.ring(4096, 64);
    assert_eq!(producer.push(1, &[b"before"]), Pushed::Done);

    let mut in_mid_fill = None;
    let pushed = producer.push_with(2, 100, |to| {
        to.fill(0xAA);
        in_mid_fill = Some(Orphan::open(&scratch.ring_path()).expect("a good ring"));
    });

    assert_eq!(pushed, Pushed::Done);
    let orphan = in_mid_fill.expect("fill was called");
    assert_eq!(entries(&orphan), [(1, b"before".to_vec(), 16)]);
    assert!(orphan.is_whole());
}

/// A kill may come between the commit word and the tail: the entry is whole then, and is given back.
// fault: 2
#[test]
fn a_committed_entry_is_found_though_the_tail_has_not_passed_it() {
    let scratch = Scratch::new();
    let (mut producer, mut consumer) = scratch.ring(256, 64);
    for n in 0..20 {
        let tail_before = consumer.cursor();
        assert_eq!(producer.push(n, &[&payload(u64::from(n), 90)]), Pushed::Done);
        let mut bytes = std::fs::read(scratch.ring_path()).expect("the ring's file");
        bytes[TAIL_AT as usize..][..8].copy_from_slice(&tail_before.to_le_bytes());

        let orphan = open(&scratch, &bytes).expect("a good ring");

        let end = consumer.next().expect("just pushed").end;
        assert_eq!(entries(&orphan), [(n, payload(u64::from(n), 90), end)]);
        consumer.release(end);
    }
}

/// Every word of the ring was valid once, a lap ago.
#[test]
fn a_stale_lap_is_never_taken_for_entries() {
    let scratch = Scratch::new();
    let (mut producer, mut consumer) = scratch.ring(256, 64);
    for n in 0..100 {
        assert_eq!(producer.push(n, &[&payload(u64::from(n), 24)]), Pushed::Done);
        let end = consumer.next().expect("just pushed").end;
        consumer.release(end);

        let orphan = Orphan::open(&scratch.ring_path()).expect("a good ring");
        assert_eq!((entries(&orphan), orphan.is_whole()), (Vec::new(), true));
    }
}

#[test]
fn a_lost_entry_is_noticed_and_measured() {
    let scratch = Scratch::new();
    let (mut producer, mut consumer) = scratch.ring(4096, 64);
    for n in 0..4 {
        assert_eq!(producer.push(n, &[b"12345678"]), Pushed::Done);
    }
    let file = std::fs::File::options().write(true).open(scratch.ring_path()).expect("our own file");
    file.write_all_at(&[0xFF; 8], 4096 + 64 + 2 * 16).expect("a stray write into the third commit word");

    let orphan = Orphan::open(&scratch.ring_path()).expect("a good ring");

    assert_eq!(entries(&orphan).len(), 2);
    assert_eq!((orphan.is_whole(), orphan.unreachable_bytes()), (false, 32));
    // The living consumer skips what it cannot read, says so, and goes on.
    assert_eq!(std::iter::from_fn(|| consumer.next().map(|entry| entry.kind)).collect::<Vec<_>>(), [0, 1]);
    assert_eq!((consumer.damaged_bytes(), consumer.cursor()), (32, 64));
    assert_eq!(producer.push(9, &[b"after"]), Pushed::Done);
    assert_eq!(consumer.next().map(|entry| (entry.kind, entry.end)), Some((9, 80)));
}

#[test]
fn stray_writes_over_the_cursors_cost_entries_but_never_reach_outside() {
    for word in [u64::MAX, 1, 12, 1 << 40, 0] {
        let scratch = Scratch::new();
        let (mut producer, mut consumer) = scratch.ring(256, 64);
        let file = std::fs::File::options().write(true).open(scratch.ring_path()).expect("our own file");
        for n in 0..200_u8 {
            file.write_all_at(&word.to_le_bytes(), TAIL_AT).expect("a stray write");
            file.write_all_at(&word.to_le_bytes(), HEAD_AT).expect("a stray write");
            if producer.push(n, &[&payload(u64::from(n), 40)]) == Pushed::Done {
                while let Some(entry) = consumer.next() {
                    assert_eq!(entry.payload, payload(u64::from(entry.kind), 40));
                }
                consumer.release(consumer.cursor());
            }
        }
    }
}

// fault: 8
#[test]
fn an_adopter_that_is_killed_too_leaves_its_progress() {
    let scratch = Scratch::new();
    let (_, original) = used_ring(&scratch);
    let end = original[4].2;

    let mut first = Orphan::open(&scratch.ring_path()).expect("a good ring");
    first.set_intent(38, end).expect("our own file");
    first.set_intent(39, original[6].2).expect("our own file");
    first.release(end).expect("our own file");
    first.release(u64::MAX).expect("ignored");
    assert_eq!(entries(&first), original[5..]);
    drop(first);
    let second = Orphan::open(&scratch.ring_path()).expect("a good ring");

    assert_eq!(second.intent(), Some(Intent { seq: 39, end: original[6].2 }));
    assert_eq!(entries(&second), original[5..]);
    second.remove().expect("our own file");
    assert!(matches!(Orphan::open(&scratch.ring_path()), Err(RingError::Io { source, .. })
        if source.kind() == std::io::ErrorKind::NotFound));
}

#[test]
fn what_others_could_have_planted_is_not_adopted() {
    let scratch = Scratch::new();
    used_ring(&scratch);
    let ring = scratch.ring_path();
    let link = scratch.path().join("link");
    std::os::unix::fs::symlink(&ring, &link).expect("a link");
    let fifo = scratch.path().join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).expect("a fifo");
    let is_foreign = |path: &Path| matches!(Orphan::open(path), Err(RingError::Foreign { .. }));

    assert!(matches!(Orphan::open(&link), Err(RingError::Io { .. })), "a link is not followed");
    assert!(is_foreign(&fifo), "and a fifo does not block");
    assert!(is_foreign(scratch.path()));
    std::fs::set_permissions(&ring, std::fs::Permissions::from_mode(0o622)).expect("our own file");
    assert!(is_foreign(&ring));
}
