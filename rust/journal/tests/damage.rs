//! Damage to files at rest: whatever happens to the bytes costs what it hits, and is reported.

mod support;

use std::path::Path;
use std::sync::Arc;

use runferry_journal::{DamageKind, GapReason, Journal, JournalError, Next, Piece, Reader, Scan, scan_bytes};
use runferry_wire::frame::{HEADER_BYTES, Header, Kind};
use support::{DIR, Fault, SMALL, SimDisk, data, frame, open, path};

/// OPEN and four frames of different sizes, and where each begins.
fn segment() -> (Vec<u8>, Vec<usize>) {
    let frames = [open(1), data(1, b"one"), data(2, &[2; 50]), frame(Kind::Gap, 3, 2, b"hole"), data(5, &[5; 20])];
    let starts = frames.iter().scan(0, |at, frame| Some(std::mem::replace(at, *at + frame.len()))).collect();
    (frames.concat(), starts)
}

/// What a reader of a dead journal gets: numbers of frames, and holes as (seq, count).
fn read_all(disk: &Arc<SimDisk>, from_seq: u64) -> (Vec<u64>, Vec<(u64, u64)>) {
    let mut reader = Reader::open(Arc::clone(disk) as _, Path::new(DIR), from_seq);
    reader.live(false);
    let (mut frames, mut gaps) = (Vec::new(), Vec::new());
    loop {
        match reader.next().expect("readable") {
            Next::Frame(bytes) => frames.push(Header::decode(&bytes).expect("verified").seq),
            Next::Gap(gap) => gaps.push((gap.seq, gap.count)),
            Next::CaughtUp => return (frames, gaps),
        }
    }
}

fn scan(disk: &Arc<SimDisk>) -> Scan {
    runferry_journal::scan::scan(&**disk, Path::new(DIR)).expect("never fatal")
}

fn seqs(scan: &Scan) -> Vec<u64> {
    let seq = |piece: &Piece| match piece {
        Piece::Frame { header, .. } => Some(header.seq),
        Piece::Gap(_) => None,
    };
    scan.pieces.iter().filter_map(seq).collect()
}

fn gaps(scan: &Scan) -> Vec<(u64, u64, GapReason)> {
    let gap = |piece: &Piece| match piece {
        Piece::Gap(gap) => Some((gap.seq, gap.count, gap.reason)),
        Piece::Frame { .. } => None,
    };
    scan.pieces.iter().filter_map(gap).collect()
}

/// Three segments: frames 1 and 2, 3 and 4, 5 and 6.
fn three_segments() -> Arc<SimDisk> {
    let disk = SimDisk::new();
    let mut journal = Journal::create(Arc::clone(&disk) as _, Path::new(DIR), open, 1, SMALL).expect("created");
    for seq in 1..=6 {
        journal.append(&data(seq, &[seq as u8; 30])).expect("appended");
        if seq % 2 == 0 {
            journal.seal();
        }
    }
    disk
}

const FIRST: &str = "seg-00000000000000000001.rfj";
const SECOND: &str = "seg-00000000000000000003.rfj";
const THIRD: &str = "seg-00000000000000000005.rfj";

// fault: 13
#[test]
fn a_cut_at_any_byte_loses_only_the_frame_it_falls_in() {
    let (bytes, starts) = segment();
    let numbered = [None, Some(1), Some(2), Some(3), Some(5)];

    for cut in 0..=bytes.len() {
        let found = scan_bytes(&bytes[..cut]).expect("never fatal");

        let ends = starts[1..].iter().copied().chain([bytes.len()]);
        let whole: Vec<_> = ends.zip(numbered).filter(|(end, _)| *end <= cut).filter_map(|(_, seq)| seq).collect();
        assert_eq!(seqs(&found), whole, "cut at {cut}");
        assert!(gaps(&found).is_empty(), "cut at {cut}: a torn tail is free to be packed again");
        let is_boundary = cut == bytes.len() || starts.contains(&cut);
        assert_eq!(found.notes.iter().any(|note| note.kind == DamageKind::Torn), !is_boundary, "cut at {cut}");
    }
}

// fault: 14, 15
#[test]
fn a_flip_of_any_bit_costs_at_most_its_frame_and_is_reported() {
    let (bytes, starts) = segment();
    let ends: Vec<_> = starts[1..].iter().copied().chain([bytes.len()]).collect();
    let numbered = [None, Some((1, 1)), Some((2, 1)), Some((3, 2)), Some((5, 1))];

    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let hit = starts.partition_point(|&start| start <= bit / 8) - 1;
        let padding = {
            let payload_len = Header::decode(&bytes[starts[hit]..]).expect("good").payload_len as usize;
            starts[hit] + HEADER_BYTES + payload_len..ends[hit]
        };

        let disk = SimDisk::new();
        disk.put(&path(FIRST), &flipped);
        let found = scan(&disk);
        let (frames, holes) = read_all(&disk, 1);

        let all = [1, 2, 3, 5];
        if padding.contains(&(bit / 8)) || numbered[hit].is_none() {
            assert_eq!((frames, holes), (all.to_vec(), vec![]), "bit {bit} costs nothing");
        } else {
            let (seq, count) = numbered[hit].expect("checked above");
            let others: Vec<_> = all.into_iter().filter(|&other| other != seq).collect();
            assert_eq!(frames, others, "bit {bit}");
            // A header flipped in the last frame leaves its number free; the note tells.
            let is_last_header = hit == 4 && bit / 8 < starts[4] + HEADER_BYTES;
            assert_eq!(holes, if is_last_header { vec![] } else { vec![(seq, count)] }, "bit {bit}");
            assert!(!holes.is_empty() || !found.notes.is_empty(), "bit {bit} goes unreported");
        }
        assert!(found.pieces.len() <= 4);
    }
}

// fault: 13
#[test]
fn zeros_behind_the_last_frame_are_a_clean_end() {
    let (mut bytes, _) = segment();
    bytes.extend([0; 5003]);

    let found = scan_bytes(&bytes).expect("never fatal");

    assert_eq!((found.next_seq, found.notes), (6, vec![]));
}

// fault: 13
#[test]
fn garbage_behind_the_last_frame_is_noted_and_its_number_stays_free() {
    let (mut bytes, _) = segment();
    let end = bytes.len() as u64;
    bytes.extend((0..5003_u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 13) as u8));

    let found = scan_bytes(&bytes).expect("never fatal");

    assert_eq!((found.next_seq, gaps(&found)), (6, vec![]));
    assert_eq!(found.notes.len(), 1);
    assert_eq!((found.notes[0].offset, found.notes[0].bytes, found.notes[0].kind), (end, 5003, DamageKind::Garbage));
}

// fault: 15
#[test]
fn bytes_missing_from_the_middle_cost_only_the_frames_they_were_in() {
    let (bytes, starts) = segment();
    let mut holed = bytes.clone();
    holed.drain(starts[2] + HEADER_BYTES..starts[2] + HEADER_BYTES + 16);

    let disk = SimDisk::new();
    disk.put(&path(FIRST), &holed);

    assert_eq!(read_all(&disk, 1), (vec![1, 3, 5], vec![(2, 1)]));
}

// fault: 16
#[test]
fn a_frame_of_another_writer_ends_its_segment_and_is_reported() {
    let (bytes, starts) = segment();
    let mut mixed = bytes[..starts[2]].to_vec();
    let foreign = mixed.len() as u64;
    let other = runferry_wire::frame::Draft {
        kind: Kind::Data,
        flags: 0,
        run_id: support::RUN,
        writer_id: 1,
        seq: 2,
        record_count: 1,
    };
    mixed.extend(other.seal(runferry_wire::frame::Codec::Plain, 0, b""));
    mixed.extend(data(2, b"behind it"));

    let found = scan_bytes(&mixed).expect("never fatal");

    assert_eq!((seqs(&found), found.next_seq), (vec![1], 2));
    assert_eq!((found.notes[0].offset, found.notes[0].kind), (foreign, DamageKind::Foreign));
}

// fault: 54
#[test]
fn a_later_format_version_names_the_file_and_both_versions() {
    let (bytes, starts) = segment();
    let mut newer = bytes;
    let at = starts[1];
    newer[at + 4] = 9;
    let checksum = crc32c::crc32c(&newer[at..at + 60]);
    newer[at + 60..at + 64].copy_from_slice(&checksum.to_le_bytes());
    let disk = SimDisk::new();
    disk.put(&path(FIRST), &newer);

    let error = runferry_journal::scan::scan(&*disk, Path::new(DIR)).expect_err("not ours to read");

    assert!(matches!(error, JournalError::Unsupported { found: 9, supported: 1, .. }), "{error}");
    assert!(error.to_string().contains(FIRST), "{error}");
}

#[test]
fn a_missing_low_segment_is_normal() {
    let disk = three_segments();
    disk.remove(&path(FIRST));

    let found = scan(&disk);

    assert_eq!((found.first_seq, found.next_seq, seqs(&found), gaps(&found)), (3, 7, vec![3, 4, 5, 6], vec![]));
    assert_eq!(read_all(&disk, 3), (vec![3, 4, 5, 6], vec![]));
}

// fault: 16
#[test]
fn a_missing_middle_segment_is_a_gap_of_its_numbers() {
    let disk = three_segments();
    disk.remove(&path(SECOND));

    assert_eq!(gaps(&scan(&disk)), [(3, 2, GapReason::Missing)]);
    assert_eq!(read_all(&disk, 1), (vec![1, 2, 5, 6], vec![(3, 2)]));
}

// fault: 16
#[test]
fn an_emptied_segment_is_a_gap_of_its_numbers() {
    let disk = three_segments();
    disk.put(&path(SECOND), b"");

    assert_eq!(gaps(&scan(&disk)), [(3, 2, GapReason::Missing)]);
    assert_eq!(read_all(&disk, 1), (vec![1, 2, 5, 6], vec![(3, 2)]));
}

// fault: 16
#[test]
fn an_emptied_last_segment_leaves_its_numbers_free() {
    let disk = three_segments();
    disk.put(&path(THIRD), b"");

    let found = scan(&disk);

    assert_eq!((found.next_seq, gaps(&found)), (5, vec![]));
}

#[test]
fn a_segment_that_holds_only_its_open_frame_proves_that_lower_numbers_were_used() {
    let disk = three_segments();
    disk.put(&path(SECOND), b"");
    disk.put(&path(THIRD), &open(5));

    let found = scan(&disk);

    assert_eq!((found.next_seq, gaps(&found)), (5, vec![(3, 2, GapReason::Missing)]));
    assert_eq!(read_all(&disk, 1), (vec![1, 2], vec![(3, 2)]));
}

// fault: 16
#[test]
fn a_duplicated_segment_adds_nothing() {
    let disk = three_segments();
    let (_, bytes) = disk.segments().remove(1);
    disk.put(&path("seg-00000000000000000003-007.rfj"), &bytes);

    let found = scan(&disk);

    assert_eq!((seqs(&found), gaps(&found), found.duplicate_frames), (vec![1, 2, 3, 4, 5, 6], vec![], 2));
    assert_eq!(read_all(&disk, 1), (vec![1, 2, 3, 4, 5, 6], vec![]));
}

// fault: 16
#[test]
fn swapped_and_renamed_segments_are_read_by_what_is_inside() {
    let disk = three_segments();
    disk.rename(&path(FIRST), &path("seg-00000000000000000099.rfj"));
    disk.rename(&path(THIRD), &path(FIRST));
    disk.rename(&path(SECOND), &path(THIRD));

    let found = scan(&disk);

    assert_eq!((seqs(&found), gaps(&found), found.first_seq), (vec![1, 2, 3, 4, 5, 6], vec![], 1));
    assert_eq!(read_all(&disk, 1), (vec![1, 2, 3, 4, 5, 6], vec![]));
}

#[test]
fn a_frame_damaged_in_one_segment_is_taken_from_its_copy() {
    let disk = three_segments();
    let (_, mut bytes) = disk.segments().remove(1);
    let copy = bytes.clone();
    let last = bytes.len() - 8;
    bytes[last] ^= 1;
    disk.put(&path("seg-00000000000000000003-001.rfj"), &bytes);

    assert_eq!(read_all(&disk, 1), (vec![1, 2, 3, 4, 5, 6], vec![]));

    disk.put(&path(SECOND), &bytes);
    disk.put(&path("seg-00000000000000000003-001.rfj"), &copy);

    assert_eq!(read_all(&disk, 1), (vec![1, 2, 3, 4, 5, 6], vec![]));
    assert!(gaps(&scan(&disk)).is_empty());
}

// fault: 21
#[test]
fn an_unreadable_sector_costs_the_frames_on_it() {
    let disk = SimDisk::new();
    let frames: Vec<_> = (1..=20).map(|seq| data(seq, &[seq as u8; 1000])).collect();
    disk.put(&path(FIRST), &[vec![open(1)], frames].concat().concat());
    disk.inject(Fault::ReadBlock { block: 2 });

    let (frames, holes) = read_all(&disk, 1);

    let lost: u64 = holes.iter().map(|(_, count)| count).sum();
    assert_eq!(frames.len() as u64 + lost, 20);
    assert!(lost <= 6, "{holes:?}: block 2 and its neighbour hold at most 6 of 20 frames in part");
    assert!(frames.contains(&1) && frames.contains(&20));
}

#[test]
fn the_newest_open_frame_is_found_and_a_damaged_one_passed_over() {
    let disk = three_segments();
    let (_, mut bytes) = disk.segments().remove(2);
    bytes[HEADER_BYTES] ^= 1;
    disk.put(&path(THIRD), &bytes);

    assert_eq!(scan(&disk).open, Some(open(3)));
}

#[test]
fn a_directory_that_is_not_there_holds_an_empty_journal() {
    let found = scan(&SimDisk::new());

    assert_eq!((found.first_seq, found.next_seq, found.pieces.len(), found.open), (1, 1, 0, None));
}

// fault: 17
#[test]
fn a_forged_or_foreign_or_torn_ack_hint_is_no_hint() {
    use runferry_journal::ack::{read_hint, write_hint};
    let disk = SimDisk::new();
    let dir = Path::new(DIR);
    write_hint(&*disk, dir, support::WRITER, 42).expect("written");

    assert_eq!(read_hint(&*disk, dir, support::WRITER), Some(42));
    assert_eq!(read_hint(&*disk, dir, 7), None, "another writer's");
    assert_eq!(scan(&disk).last_durable_hint, Some(42));

    for bit in 0..32 * 8 {
        let mut bytes = [0; 32];
        let file = runferry_journal::Disk::open_read(&*disk, &dir.join("ACK")).expect("there");
        file.pread(&mut bytes, 0).expect("readable");
        bytes[bit / 8] ^= 1 << (bit % 8);
        let forged = SimDisk::new();
        forged.put(&path("ACK"), &bytes);

        assert_eq!(read_hint(&*forged, dir, support::WRITER), None, "bit {bit}");
    }
}
