//! A ring full of the smallest rows holds far more of them than a round of the packer takes: `finish` takes them all.

use std::path::Path;
use std::sync::Arc;

use runferry_engine::Fsync;
use runferry_engine::batch::Identity;
use runferry_engine::clock::{self, Clock};
use runferry_engine::steps::{Process, World};
use runferry_journal::{Disk, JournalOptions, Piece, scan_bytes};
use runferry_ring::{DEFAULT_ENTRY_BYTES, DEFAULT_NAMES_BYTES, Options, Pushed};
use runferry_simdisk::SimDisk;
use runferry_wire::record::{RowNames, encode_row};
use runferry_wire::{Doc, Kind};

const WHO: Identity = Identity { run_id: [1; 16], writer_id: 2 };

// fault: 61
#[test]
fn finish_writes_a_full_ring_to_the_last_row_and_nothing_behind_its_own_frame() {
    let folder = std::env::temp_dir().join(format!("runferry-full-ring-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let identity =
        runferry_ring::Identity { run_id: WHO.run_id, writer_id: 2, boot_id: [0; 16], pid: 1, start_ticks: 0 };
    let (mut producer, consumer) = runferry_ring::create(&Options {
        identity,
        name: "ring",
        shm_dir: &folder,
        fallback_dir: &folder,
        entry_bytes: DEFAULT_ENTRY_BYTES,
        names_bytes: DEFAULT_NAMES_BYTES,
    })
    .expect("a ring");
    let disk = SimDisk::new();
    let world = World {
        disk: Arc::clone(&disk) as Arc<dyn Disk>,
        dial: (),
        clock: Clock { mono: clock::mono, wall_us: clock::wall_us },
        base_url: String::new(),
    };
    let open = Doc::Map(vec![("id".to_owned(), "r".into())]);
    let dir = Path::new("/journal/0000000000000002");
    let mut process =
        Process::start(&world, dir, WHO, &open, consumer, JournalOptions::ONLINE, Fsync::Never).expect("a journal");
    let mut pushed = 0;
    loop {
        let (kind, payload) = encode_row(RowNames::Inline(&[]), pushed, 0, &[]);
        if producer.push(kind, &[&payload]) != Pushed::Done {
            break;
        }
        pushed += 1;
    }
    assert!(pushed > 100_000, "{pushed} rows fill the ring");
    producer.close();

    process.finish(&Doc::Map(Vec::new())).expect("room on the disk");
    process.turn();
    process.end();

    let bytes: Vec<u8> = disk.segments().into_iter().flat_map(|(_, bytes)| bytes).collect();
    let found: Vec<(Kind, u32)> = scan_bytes(&bytes)
        .expect("a journal of this version")
        .pieces
        .into_iter()
        .map(|piece| match piece {
            Piece::Frame { header, .. } => (header.kind, header.record_count),
            Piece::Gap(gap) => panic!("{gap:?}"),
        })
        .collect();
    std::fs::remove_dir_all(&folder).ok();
    assert_eq!(found.last(), Some(&(Kind::Finish, 0)));
    let rows: u32 = found.iter().filter(|(kind, _)| *kind == Kind::Data).map(|(_, rows)| rows).sum();
    assert_eq!(i64::from(rows), pushed);
}
