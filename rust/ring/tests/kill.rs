//! The promise itself: a process is killed with SIGKILL at random instants, and every push that had returned comes back, once,
//! in order, bit for bit. At most one more record may be there: the one whose push had not returned yet.
//!
//! The training process is this test binary started again, running only [`the_training_process`]. It reports each push that
//! returned through a pipe (its standard input, so that no descriptor needs a number). `RUNFERRY_EFFORT_KILLS` sets how many die.

#![expect(clippy::disallowed_methods, reason = "how the two halves of the test, and its caller, speak to each other")]

mod scratch;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use runferry_ring::{Consumer, Intent, Orphan, Producer, Pushed};
use rustix::process::{Signal, getpid, kill_process};

use scratch::{Scratch, payload, ring_in};

const FOLDER: &str = "RUNFERRY_RING_TEST_FOLDER";
const SCENE: &str = "RUNFERRY_RING_TEST_SCENE";
/// Small, so that a run of milliseconds goes through many laps.
const ENTRY_BYTES: usize = 1 << 14;
/// The journal of these tests: for each record seq, ring end and payload length, 8 bytes each, and the payload.
const JOURNAL: &str = "journal";

fn kills() -> u64 {
    std::env::var("RUNFERRY_EFFORT_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(100)
}

/// Record `n`: its number, then bytes that follow from it, of a length that follows from it.
fn record(n: u64) -> Vec<u8> {
    let len = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56;
    let len = if n.is_multiple_of(50) { 4_000 } else { len };
    [&n.to_le_bytes(), payload(n, len as usize).as_slice()].concat()
}

fn die() {
    kill_process(getpid(), Signal::KILL).expect("a process may kill itself");
}

/// Pushes records until the process is killed, and reports the number of each whose push has returned.
fn push_for_ever(mut producer: Producer, scene: &str) {
    let mut returned = File::from(std::io::stdin().as_fd().try_clone_to_owned().expect("a pipe"));
    for n in 0.. {
        let bytes = record(n);
        loop {
            let pushed = producer.push_with(n as u8, bytes.len(), |to| {
                let (to_first, to_second) = to.split_at_mut(bytes.len() / 2);
                let (first, second) = bytes.split_at(bytes.len() / 2);
                to_first.copy_from_slice(first);
                if scene == "die in mid-fill" && n == 77 {
                    die();
                }
                to_second.copy_from_slice(second);
            });
            match pushed {
                Pushed::Done => break,
                Pushed::Full => std::thread::yield_now(),
                Pushed::TooLarge | Pushed::Closed => unreachable!("small records, and nobody closes"),
            }
        }
        if scene == "die before the report" && n == 77 {
            die();
        }
        returned.write_all(&n.to_le_bytes()).expect("the parent reads until we are dead");
    }
}

/// Drains as `rf-pack` does: intent, then journal, then release.
fn drain_for_ever(mut consumer: Consumer, folder: &Path, scene: &str) {
    let mut journal = File::create(folder.join(JOURNAL)).expect("a journal");
    for seq in 1.. {
        let mut frame = Vec::new();
        let mut end = 0;
        // A frame of several records, so that a cut at the wrong place would show.
        for _ in 0..=seq % 7 {
            let Some(entry) = consumer.next() else { break };
            end = entry.end;
            for word in [seq, end, entry.payload.len() as u64] {
                frame.extend(word.to_le_bytes());
            }
            frame.extend(entry.payload);
        }
        if frame.is_empty() {
            std::thread::yield_now();
            continue;
        }
        consumer.set_intent(seq, end);
        if scene == "die before the write" && seq > 30 {
            die();
        }
        if scene == "die in mid-write" && seq > 30 {
            journal.write_all(frame.split_at(frame.len() / 2).0).expect("room for a journal");
            die();
        }
        journal.write_all(&frame).expect("room for a journal");
        if scene == "die before the release" && seq > 30 {
            die();
        }
        consumer.release(end);
    }
}

#[test]
#[ignore = "the half that is killed; the other tests start it"]
fn the_training_process() {
    let (Ok(folder), Ok(scene)) = (std::env::var(FOLDER), std::env::var(SCENE)) else { return };
    let (producer, consumer) = ring_in(Path::new(&folder), ENTRY_BYTES, 64);
    let drained_scene = scene.clone();
    std::thread::spawn(move || drain_for_ever(consumer, Path::new(&folder), &drained_scene));
    push_for_ever(producer, &scene);
}

/// Starts a training process, kills it when it has reported `reports` pushes and some spinning more (or waits until it dies
/// by itself), and returns how many pushes returned.
fn train_and_kill(folder: &Path, scene: &str, kill: Option<(u64, u64)>) -> u64 {
    let (mut returned, report) = std::io::pipe().expect("a pipe");
    let mut child: Child = Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", "the_training_process", "--ignored"])
        .env(FOLDER, folder)
        .env(SCENE, scene)
        .stdin(report)
        .stdout(Stdio::null())
        .spawn()
        .expect("this binary runs");
    let mut bytes = Vec::new();
    if let Some((reports, spins)) = kill {
        (&mut returned).take(reports * 8).read_to_end(&mut bytes).expect("our own pipe");
        (0..spins).for_each(|_| std::hint::spin_loop());
        child.kill().expect("our own child");
    }
    returned.read_to_end(&mut bytes).expect("our own pipe");
    let status = child.wait().expect("our own child");
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "it died of the kill: {status}");
    let numbers: Vec<u64> = bytes.as_chunks().0.iter().map(|number| u64::from_le_bytes(*number)).collect();
    assert_eq!(numbers, (0..numbers.len() as u64).collect::<Vec<_>>());
    numbers.len() as u64
}

/// The records of a journal: (seq, ring end, payload) of each frame that is whole; a torn tail is ignored.
fn read_journal(folder: &Path) -> Vec<(u64, u64, Vec<u8>)> {
    let bytes = std::fs::read(folder.join(JOURNAL)).unwrap_or_default();
    let mut rest = bytes.as_slice();
    let mut records = Vec::new();
    while let Some((words, behind)) = rest.split_at_checked(24) {
        let [seq, end, len] = words.as_chunks().0 else { unreachable!("24 bytes are three words") };
        let [seq, end, len] = [seq, end, len].map(|word| u64::from_le_bytes(*word));
        let Some((payload, behind)) = behind.split_at_checked(len as usize) else { break };
        records.push((seq, end, payload.to_vec()));
        rest = behind;
    }
    records
}

/// Journal and ring together, cut where the intent says.
fn recover(folder: &Path) -> Vec<Vec<u8>> {
    let orphan = Orphan::open(&folder.join("ring")).expect("the dead process's ring");
    assert!(orphan.is_whole());
    let mut records = read_journal(folder);
    let intent = orphan.intent().unwrap_or(Intent { seq: 0, end: 0 });
    // A frame is in the journal when all of it is: else the adopter writes it anew, up to the same end.
    let is_written = records.last().is_some_and(|(_, end, _)| *end == intent.end);
    if !is_written {
        records.retain(|(seq, ..)| *seq < intent.seq);
    }
    let journal_end = records.last().map_or(0, |(_, end, _)| *end);
    assert!(orphan.head() <= journal_end, "nothing is released before it is in the journal");
    assert!(is_written || intent.seq == 0 || orphan.entries().any(|entry| entry.end == intent.end));
    let left = orphan.entries().filter(|entry| entry.end > journal_end).map(|entry| {
        assert_eq!(Some(&entry.kind), entry.payload.first());
        entry.payload.to_vec()
    });
    records.into_iter().map(|(_, _, payload)| payload).chain(left).collect()
}

fn assert_all_came_back(records: &[Vec<u8>], returned: u64) {
    let extra = records.len() as u64 - returned;
    assert!(extra <= 1, "{returned} pushes returned, {} records came back", records.len());
    for (n, found) in records.iter().enumerate() {
        assert!(*found == record(n as u64), "record {n} of {returned} is another one");
    }
}

#[test]
fn every_push_that_returned_survives_kill_9_with_a_consumer_at_work() {
    let mut total = 0;
    for round in 0..kills() {
        let scratch = Scratch::new();
        let returned =
            train_and_kill(scratch.path(), "drain", Some((fastrand::u64(1..3_000), fastrand::u64(..20_000))));

        let records = recover(scratch.path());

        assert!(records.len() as u64 >= returned, "round {round}: {returned} returned, {} are there", records.len());
        assert_all_came_back(&records, returned);
        total += returned;
    }
    println!("{total} pushes returned in {} processes, all are there", kills());
}

// fault: 1, 2, 3, 5
#[test]
fn a_kill_at_each_point_of_the_hand_off_loses_and_doubles_nothing() {
    for scene in [
        "die in mid-fill",
        "die before the report",
        "die before the write",
        "die in mid-write",
        "die before the release",
    ] {
        let scratch = Scratch::new();

        let returned = train_and_kill(scratch.path(), scene, None);

        let records = recover(scratch.path());
        assert!(records.len() as u64 >= returned, "{scene}: {returned} returned, {} are there", records.len());
        assert_all_came_back(&records, returned);
        match scene {
            "die in mid-fill" => assert_eq!((returned, records.len()), (77, 77)),
            "die before the report" => assert_eq!((returned, records.len()), (77, 78)),
            _ => assert!(!read_journal(scratch.path()).is_empty(), "{scene}"),
        }
    }
}
