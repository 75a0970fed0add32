//! A disk that fails while the journal writes: nothing good becomes unreadable, nothing doubtful passes for durable.

mod support;

use std::path::Path;
use std::sync::Arc;

use runferry_journal::{Doubt, Droppable, Journal, JournalError, JournalOptions, Next, Reader, Shortage};
use runferry_wire::frame::{Header, Kind};
use rustix::io::Errno;
use support::{DIR, Fault, SMALL, SimDisk, data, frame, open, path};

fn journal(disk: &Arc<SimDisk>, options: JournalOptions) -> Journal {
    Journal::create(Arc::clone(disk) as _, Path::new(DIR), open, 1, options).expect("created")
}

fn large() -> JournalOptions {
    JournalOptions { segment_bytes: 1 << 20, ..SMALL }
}

/// Frames and gaps a reader finds, by number.
fn found(disk: &Arc<SimDisk>) -> (Vec<u64>, Vec<u64>) {
    let mut reader = Reader::open(Arc::clone(disk) as _, Path::new(DIR), 1);
    reader.live(false);
    let (mut frames, mut gaps) = (Vec::new(), Vec::new());
    loop {
        match reader.next().expect("readable") {
            Next::Frame(bytes) => frames.push(Header::decode(&bytes).expect("verified").seq),
            Next::Gap(gap) => gaps.push(gap.seq),
            Next::CaughtUp => return (frames, gaps),
        }
    }
}

#[test]
fn short_and_interrupted_writes_are_continued() {
    let disk = SimDisk::new();
    let mut journal = journal(&disk, large());
    for bytes in [1, 7, 63, 64, 65] {
        disk.inject(Fault::ShortWrite { bytes });
    }
    disk.inject(Fault::Write { bytes: 0, error: Errno::INTR });

    journal.append(&data(1, &[7; 300])).expect("appended");

    assert_eq!(disk.pending_faults(), []);
    assert_eq!(found(&disk), (vec![1], vec![]));
}

// fault: 18, 19
#[test]
fn a_full_disk_in_mid_frame_leaves_the_journal_at_the_frame_before() {
    let disk = SimDisk::new();
    let mut journal = journal(&disk, large());
    journal.append(&data(1, b"one")).expect("appended");
    let before = journal.bytes();
    for error in [Errno::NOSPC, Errno::DQUOT] {
        disk.inject(Fault::Write { bytes: 40, error });

        let refused = journal.append(&data(2, b"two"));

        assert!(matches!(refused, Err(JournalError::Full { shortage: Shortage::Disk(_), .. })), "{refused:?}");
        assert_eq!((journal.bytes(), journal.next_seq()), (before, 2));
        assert_eq!(disk.segments()[0].1.len() as u64, before);
    }

    journal.append(&data(2, b"two")).expect("there is room again");

    assert_eq!((found(&disk), disk.segments().len()), ((vec![1, 2], vec![]), 1));
}

// fault: 19
#[test]
fn a_frame_that_cannot_be_cut_off_again_is_left_behind_in_its_segment() {
    let disk = SimDisk::new();
    let mut journal = journal(&disk, large());
    journal.append(&data(1, b"one")).expect("appended");
    disk.inject(Fault::Write { bytes: 40, error: Errno::NOSPC });
    disk.inject(Fault::Truncate);
    journal.append(&data(2, b"two")).expect_err("no room");

    journal.append(&data(2, b"two")).expect("there is room again");
    journal.append(&data(3, b"three")).expect("appended");

    assert_eq!((found(&disk), disk.segments().len()), ((vec![1, 2, 3], vec![]), 2));
}

#[test]
fn an_allocation_without_room_is_refused_between_frames() {
    let disk = SimDisk::new();
    let mut journal = journal(&disk, large());
    disk.inject(Fault::Allocate { error: Errno::NOSPC });

    let refused = journal.append(&data(1, b"one"));

    assert!(matches!(refused, Err(JournalError::Full { shortage: Shortage::Disk(_), .. })), "{refused:?}");
    journal.append(&data(1, b"one")).expect("there is room again");
    assert_eq!(found(&disk), (vec![1], vec![]));
}

#[test]
fn a_file_system_without_allocation_is_written_to_all_the_same() {
    let disk = SimDisk::new();
    let mut journal = journal(&disk, large());
    disk.inject(Fault::Allocate { error: Errno::OPNOTSUPP });

    journal.append(&data(1, b"one")).expect("appended");

    assert_eq!(found(&disk), (vec![1], vec![]));
}

// fault: 20
#[test]
fn a_file_size_limit_is_met_with_a_new_segment_and_is_full_only_where_that_does_not_help() {
    let disk = SimDisk::new();
    let mut journal = journal(&disk, large());
    journal.append(&data(1, b"one")).expect("appended");
    disk.inject(Fault::Write { bytes: 10, error: Errno::FBIG });

    journal.append(&data(2, b"two")).expect("a new file takes it");

    assert_eq!(disk.segments().len(), 2);
    disk.inject(Fault::Write { bytes: 10, error: Errno::FBIG });
    disk.inject(Fault::ShortWrite { bytes: 1000 });
    disk.inject(Fault::Write { bytes: 10, error: Errno::FBIG });
    let refused = journal.append(&data(3, b"three"));
    assert!(matches!(refused, Err(JournalError::Full { .. })), "{refused:?}");
    assert_eq!(found(&disk), (vec![1, 2], vec![]));
}

// fault: 21
#[test]
fn a_write_error_moves_on_to_a_new_segment_and_puts_unsynced_frames_in_doubt() {
    let disk = SimDisk::new();
    let mut journal = journal(&disk, large());
    journal.append(&data(1, b"synced")).expect("appended");
    journal.sync_ticket().expect("something to sync").sync().expect("synced");
    journal.append(&data(2, b"not synced")).expect("appended");
    disk.inject(Fault::Write { bytes: 70, error: Errno::IO });

    journal.append(&data(3, b"three")).expect("a new segment takes it");

    assert_eq!(journal.doubt(), Some(Doubt { seq: 2, until_seq: 3 }));
    assert_eq!(journal.durable_next_seq(), 2);
    assert_eq!((found(&disk), disk.segments().len()), ((vec![1, 2, 3], vec![]), 2));
}

#[test]
fn a_disk_that_takes_nothing_any_more_is_an_error_and_the_frame_may_come_again() {
    let disk = SimDisk::new();
    let mut journal = journal(&disk, large());
    journal.append(&data(1, b"one")).expect("appended");
    disk.inject(Fault::Write { bytes: 0, error: Errno::IO });
    disk.inject(Fault::Create { error: Errno::ROFS });

    let refused = journal.append(&data(2, b"two"));

    assert!(matches!(refused, Err(JournalError::Io { action: "create", .. })), "{refused:?}");
    journal.append(&data(2, b"two")).expect("it has recovered");
    assert_eq!(found(&disk), (vec![1, 2], vec![]));
}

// fault: 22
#[test]
fn a_failed_fsync_is_never_tried_again_and_its_frames_are_written_anew() {
    let disk = SimDisk::new();
    let mut journal = journal(&disk, large());
    for seq in 1..=3 {
        journal.append(&data(seq, b"kept in memory")).expect("appended");
    }
    let ticket = journal.sync_ticket().expect("something to sync");
    disk.inject(Fault::Sync);
    assert!(matches!(ticket.sync(), Err(JournalError::Io { action: "fdatasync", .. })));

    assert!(matches!(ticket.sync(), Err(JournalError::Doubtful { .. })), "the same ticket must not succeed");
    assert_eq!(journal.doubt(), Some(Doubt { seq: 1, until_seq: 4 }));
    assert!(journal.sync_ticket().is_none_or(|ticket| ticket.sync().is_ok()));
    assert_eq!(journal.durable_next_seq(), 1, "nothing is durable before it is written anew");

    journal.restart_from(1);
    for seq in 1..=4 {
        journal.append(&data(seq, b"kept in memory")).expect("appended");
    }
    assert_eq!(journal.doubt(), None);
    journal.sync_ticket().expect("something to sync").sync().expect("synced");

    assert_eq!(journal.durable_next_seq(), 5);
    assert_eq!(disk.syncs(&path("seg-00000000000000000001.rfj")), 0, "the doubtful descriptor was synced");
    for losses in 0..2 {
        let disk = Arc::clone(&disk);
        disk.cut_power(move |sides| (sides - 1) * losses);
        assert_eq!(found(&disk), (vec![1, 2, 3, 4], vec![]));
    }
}

#[test]
fn a_doubt_is_settled_by_the_server_too() {
    let disk = SimDisk::new();
    let mut journal = journal(&disk, large());
    for seq in 1..=3 {
        journal.append(&data(seq, b"sent meanwhile")).expect("appended");
    }
    disk.inject(Fault::Sync);
    journal.sync_ticket().expect("something to sync").sync().expect_err("injected");

    journal.trim(3).expect("trimmed");
    assert_eq!(journal.doubt(), Some(Doubt { seq: 3, until_seq: 4 }));

    journal.trim(4).expect("trimmed");
    assert_eq!(journal.doubt(), None);
}

#[test]
fn a_directory_that_cannot_be_synced_makes_its_new_segments_doubtful() {
    let disk = SimDisk::new();
    let mut journal = journal(&disk, large());
    journal.append(&data(1, b"one")).expect("appended");
    disk.inject(Fault::SyncDir);

    journal.sync_ticket().expect("something to sync").sync().expect_err("injected");

    assert_eq!(journal.doubt(), Some(Doubt { seq: 1, until_seq: 2 }));
    assert_eq!(journal.durable_next_seq(), 1);
}

#[test]
fn a_ticket_covers_what_was_appended_before_it_and_no_more() {
    let disk = SimDisk::new();
    let mut journal = journal(&disk, large());
    journal.append(&data(1, b"one")).expect("appended");
    let ticket = journal.sync_ticket().expect("something to sync");
    journal.append(&data(2, b"two")).expect("appended");

    ticket.sync().expect("synced");

    assert_eq!((ticket.next_seq(), journal.durable_next_seq()), (2, 2));
    journal.sync_ticket().expect("frame 2").sync().expect("synced");
    assert_eq!(journal.durable_next_seq(), 3);
    assert!(journal.sync_ticket().is_none());
}

// fault: 10
#[test]
fn segments_of_a_dead_process_are_synced_before_they_count_as_durable() {
    let disk = SimDisk::new();
    let mut dead = journal(&disk, large());
    dead.append(&data(1, b"one")).expect("appended");
    drop(dead);

    let mut adopter = Journal::create(Arc::clone(&disk) as _, Path::new(DIR), open, 2, large()).expect("created");

    assert_eq!(adopter.durable_next_seq(), 1);
    adopter.sync_ticket().expect("the old segment").sync().expect("synced");
    assert_eq!((adopter.durable_next_seq(), disk.syncs(&path("seg-00000000000000000001.rfj"))), (2, 1));
}

#[test]
fn the_cap_stops_data_but_not_the_record_of_its_loss() {
    let disk = SimDisk::new();
    let mut journal = journal(&disk, JournalOptions { cap_bytes: 400, ..large() });
    journal.append(&data(1, &[1; 200])).expect("appended");

    let refused = journal.append(&data(2, &[2; 200]));

    assert!(matches!(refused, Err(JournalError::Full { shortage: Shortage::Cap { .. }, .. })), "{refused:?}");
    journal.append(&frame(Kind::Gap, 2, 1, b"dropped")).expect("a gap");
    journal.append(&frame(Kind::Finish, 3, 0, b"finish")).expect("the end");
    assert_eq!(found(&disk), (vec![1, 2, 3], vec![]));
}

#[test]
fn the_space_of_others_is_left_to_them() {
    let disk = SimDisk::new();
    let mut journal = journal(&disk, JournalOptions { min_free_bytes: 10 << 20, ..large() });
    disk.limit_free_bytes(Some(10 << 20));

    let refused = journal.append(&data(1, b"one"));

    assert!(matches!(refused, Err(JournalError::Full { shortage: Shortage::Free { .. }, .. })), "{refused:?}");
    disk.limit_free_bytes(Some(12 << 20));
    journal.append(&data(1, b"one")).expect("there is room again");
}

#[test]
fn trimming_keeps_a_tail_and_the_active_segment() {
    let disk = SimDisk::new();
    let mut journal = journal(&disk, JournalOptions { tail_keep_bytes: 600, ..SMALL });
    for seq in 1..=20 {
        journal.append(&data(seq, &[1; 136])).expect("appended");
    }
    let segments = disk.segments().len();
    assert!(segments > 5, "three frames a segment");

    assert_eq!(journal.trim(1).expect("trimmed"), 0);
    let trimmed_bytes = journal.trim(21).expect("trimmed");

    assert!(trimmed_bytes > 0);
    assert!((600..1400).contains(&journal.bytes()), "{} bytes left", journal.bytes());
    assert!(disk.segments().len() >= 2);
}

#[test]
fn nothing_above_the_durable_number_is_trimmed() {
    let disk = SimDisk::new();
    let mut journal = journal(&disk, SMALL);
    for seq in 1..=20 {
        journal.append(&data(seq, &[1; 136])).expect("appended");
    }

    for durable_next_seq in 1..=21 {
        journal.trim(durable_next_seq).expect("trimmed");

        let (frames, _) = found(&disk);
        assert!((durable_next_seq..=20).all(|seq| frames.contains(&seq)), "durable {durable_next_seq}: {frames:?}");
    }
}

#[test]
fn a_dropped_segment_leaves_a_gap_in_its_place_and_the_next_one_joins_it() {
    let disk = SimDisk::new();
    let mut journal = journal(&disk, large());
    for seq in 1..=9 {
        journal.append(&data(seq, &[7; 500])).expect("appended");
        if seq % 2 == 0 {
            journal.seal();
        }
    }
    let before = journal.bytes();

    for (seq, until_seq) in [(3, 5), (5, 7)] {
        let oldest = journal.droppable(3).expect("a segment");
        assert!(
            matches!(oldest, Droppable { seq: found, until_seq: until, .. } if (found, until) == (seq, until_seq)),
            "{oldest:?}"
        );
        journal.drop_segment(oldest, &frame(Kind::Gap, seq, 2, b"gap")).expect("dropped");
    }

    assert_eq!(found(&disk), (vec![1, 2, 3, 5, 7, 8, 9], vec![]), "frames 3 and 5 are the gaps");
    assert!(journal.bytes() < before - 3 * 500, "{} of {before}", journal.bytes());
    assert_eq!(journal.droppable(8), None, "a frame below was asked for, and the active segment is not dropped");
    journal.trim(9).expect("trimmed");
    assert_eq!((journal.first_seq(), found(&disk)), (9, (vec![9], vec![1])));
}

#[test]
fn a_segment_whose_gap_cannot_be_written_stays() {
    let disk = SimDisk::new();
    let mut journal = journal(&disk, large());
    for seq in 1..=4 {
        journal.append(&data(seq, b"data")).expect("appended");
        if seq == 2 {
            journal.seal();
        }
    }
    let oldest = journal.droppable(1).expect("a segment");

    for fault in [Fault::Create { error: Errno::NOSPC }, Fault::Write { bytes: 100, error: Errno::NOSPC }] {
        disk.inject(fault);
        journal.drop_segment(oldest, &frame(Kind::Gap, 1, 2, b"gap")).expect_err("the disk refuses");

        assert_eq!(found(&disk), (vec![1, 2, 3, 4], vec![]));
    }
}

#[test]
fn a_segment_that_cannot_be_removed_has_gone_all_the_same_and_no_other_goes_before_it() {
    let disk = SimDisk::new();
    let mut journal = journal(&disk, large());
    for seq in 1..=6 {
        journal.append(&data(seq, &[7; 500])).expect("appended");
        if seq % 2 == 0 {
            journal.seal();
        }
    }

    for (seq, frames) in [(1, vec![1, 3, 4, 5, 6]), (3, vec![1, 3, 5, 6])] {
        let oldest = journal.droppable(seq).expect("a segment");
        disk.inject(Fault::Unlink);
        journal.drop_segment(oldest, &frame(Kind::Gap, seq, 2, b"gap")).expect("its GAP is written");

        assert_eq!(found(&disk), (frames.clone(), vec![]), "the GAP is what a reader finds");
        assert!(journal.droppable(seq).is_none_or(|next| next.seq == seq + 2), "it is not dropped twice");
        disk.inject(Fault::Unlink);
        journal.remove_dropped().expect_err("the disk still refuses");
        let before = journal.bytes();
        assert_eq!(journal.remove_dropped().expect("the disk is well again"), oldest.bytes);
        assert_eq!(journal.bytes(), before - oldest.bytes);
        assert_eq!((journal.remove_dropped().expect("nothing to do"), found(&disk)), (0, (frames, vec![])));
    }
}

#[test]
fn what_is_not_the_next_whole_frame_is_refused() {
    let disk = SimDisk::new();
    let mut journal = journal(&disk, large());
    let mut longer = data(1, b"one");
    longer.push(0);

    assert!(matches!(journal.append(b"junk"), Err(JournalError::NotAFrame { .. })));
    assert!(matches!(journal.append(&longer), Err(JournalError::WrongLength { expected: 72, found: 73 })));
    assert!(matches!(journal.append(&data(2, b"two")), Err(JournalError::OutOfOrder { expected: 1, found: 2 })));
    assert_eq!(found(&disk), (vec![], vec![]));
}

#[test]
fn removing_a_journal_leaves_nothing() {
    let disk = SimDisk::new();
    let mut journal = journal(&disk, large());
    journal.append(&data(1, b"one")).expect("appended");
    runferry_journal::ack::write_hint(&*disk, Path::new(DIR), support::WRITER, 2).expect("written");

    runferry_journal::remove(&*disk, Path::new(DIR)).expect("removed");

    assert_eq!(runferry_journal::Disk::list(&*disk, Path::new(DIR)).expect("listed"), []);
}
