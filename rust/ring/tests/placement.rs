//! Where a ring comes to lie, what its file is like, and what a forked child may do with it.

#![expect(unsafe_code, reason = "fork and waitpid")]

mod scratch;

use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use runferry_ring::{CreateError, Options, Orphan, Placement, Pushed, create};

use scratch::{Scratch, identity};

fn options<'a>(shm_dir: &'a Path, fallback_dir: &'a Path) -> Options<'a> {
    Options { identity: identity(), name: "ring", shm_dir, fallback_dir, entry_bytes: 1 << 16, names_bytes: 1 << 12 }
}

#[test]
fn shared_memory_is_taken_where_there_is_some() {
    let scratch = Scratch::new();

    let (producer, consumer) = create(&options(scratch.path(), Path::new("/nowhere"))).expect("a ring");

    assert_eq!(*producer.placement(), Placement::Shm(scratch.ring_path()));
    assert!(consumer.placement().is_kill_safe() && consumer.failed_places().is_empty() && consumer.is_file_whole());
    let metadata = std::fs::metadata(scratch.ring_path()).expect("its file");
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    assert_eq!(metadata.len(), 4096 + (1 << 12) + (1 << 16));
    assert!(std::os::unix::fs::MetadataExt::blocks(&metadata) * 512 >= metadata.len(), "fully allocated");
}

// fault: 27
#[test]
fn without_shared_memory_it_is_a_file_beside_the_journal() {
    let disk = std::env::temp_dir().join(format!("runferry-ring-{}", std::process::id()));
    std::fs::create_dir(&disk).expect("a folder on a disk");

    let (mut producer, consumer) = create(&options(Path::new("/nowhere"), &disk)).expect("a ring");

    assert_eq!(*consumer.placement(), Placement::File(disk.join("ring")));
    assert_eq!(consumer.failed_places().len(), 1);
    assert_eq!(consumer.failed_places()[0].path, Path::new("/nowhere/ring"));
    assert_eq!(producer.push(1, &[b"kept"]), Pushed::Done);
    drop((producer, consumer));
    let orphan = Orphan::open(&disk.join("ring")).expect("dropping leaves the file");
    assert_eq!(orphan.entries().next().map(|entry| entry.payload), Some(b"kept".as_slice()));
    std::fs::remove_dir_all(&disk).expect("our own folder");
}

// fault: 27
#[test]
fn without_any_folder_it_works_on_the_heap_and_says_so() {
    let (mut producer, mut consumer) = create(&options(Path::new("/nowhere"), Path::new("/dev/null"))).expect("a ring");

    assert_eq!(*producer.placement(), Placement::Heap);
    assert!(!producer.placement().is_kill_safe());
    let kinds: Vec<ErrorKind> = producer.failed_places().iter().map(|place| place.source.kind()).collect();
    assert_eq!(kinds, [ErrorKind::NotFound, ErrorKind::NotADirectory]);
    assert_eq!(producer.push(1, &[b"works"]), Pushed::Done);
    assert_eq!(consumer.next().map(|entry| entry.payload), Some(b"works".as_slice()));
    assert!(consumer.is_file_whole());
    consumer.unlink().expect("nothing to remove");
}

#[test]
fn a_file_that_is_there_already_is_never_touched() {
    let scratch = Scratch::new();
    std::fs::write(scratch.ring_path(), "somebody's").expect("room");

    let (producer, _consumer) = create(&options(scratch.path(), Path::new("/nowhere"))).expect("a ring");

    assert_eq!(*producer.placement(), Placement::Heap);
    assert_eq!(producer.failed_places()[0].source.kind(), ErrorKind::AlreadyExists);
    assert_eq!(std::fs::read(scratch.ring_path()).expect("still there"), b"somebody's");
}

/// A ring larger than the file system: refused at creation, and nothing of it stays behind.
// fault: 27
#[test]
fn full_shared_memory_is_passed_over_without_a_trace() {
    let scratch = Scratch::new();
    let small = scratch.path().join("small");
    std::fs::create_dir(&small).expect("a folder");
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"])
        .arg(&small)
        .output()
        .is_ok_and(|output| output.status.success());
    if !mounted {
        println!("not run: mounting a small tmpfs needs root");
        return;
    }

    let (mut producer, consumer) = create(&options(&small, scratch.path())).expect("a ring");
    let left: Vec<_> = std::fs::read_dir(&small).expect("the mount").collect();
    std::process::Command::new("umount").arg(&small).status().expect("umount runs as mount did");

    assert_eq!(*producer.placement(), Placement::File(scratch.ring_path()));
    assert_eq!(consumer.failed_places()[0].source.kind(), ErrorKind::StorageFull);
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(producer.push(1, &[&scratch::payload(1, 20_000)]), Pushed::Done);
}

#[test]
fn a_name_that_leaves_its_folder_is_refused() {
    for name in ["", ".", "..", "a/b", "/etc/ring", "a\0b"] {
        let answer = create(&Options { name, ..options(Path::new("/dev/shm"), Path::new("/tmp")) });

        assert!(matches!(answer, Err(CreateError::InvalidName { .. })), "{name:?}");
    }
}

#[test]
fn unlink_removes_the_file_and_pushing_goes_on() {
    let scratch = Scratch::new();
    let (mut producer, consumer) = scratch.ring(4096, 64);

    consumer.unlink().expect("our own file");

    assert!(!scratch.ring_path().exists());
    assert_eq!(producer.push(1, &[b"into the void"]), Pushed::Done);
}

// fault: 77
#[test]
fn a_file_that_somebody_removed_or_cut_is_noticed() {
    let scratch = Scratch::new();
    let (_producer, consumer) = scratch.ring(4096, 64);
    std::fs::remove_file(scratch.ring_path()).expect("our own file");
    assert!(!consumer.is_file_whole());
    std::fs::write(scratch.ring_path(), "another file").expect("room");
    assert!(!consumer.is_file_whole());

    let scratch = Scratch::new();
    let (_producer, consumer) = scratch.ring(4096, 64);
    assert!(consumer.is_file_whole());
    let file = std::fs::File::options().write(true).open(scratch.ring_path()).expect("our own file");
    file.set_len(4096).expect("our own file");
    assert!(!consumer.is_file_whole());
}

/// The mapping is not there in the child: every call must say no instead of touching it, and dropping must unmap nothing.
// fault: 62
#[test]
fn a_forked_child_can_neither_use_nor_harm_its_parents_ring() {
    for shm_dir in [Some(Scratch::new()), None] {
        let dir = shm_dir.as_ref().map_or(Path::new("/nowhere"), Scratch::path);
        let (mut producer, mut consumer) = create(&options(dir, Path::new("/nowhere"))).expect("a ring");
        assert_eq!(producer.push(1, &[b"parent's"]), Pushed::Done);
        assert_eq!(producer.intern(b"loss"), Some(0));

        // SAFETY: the child only loads, stores, frees and exits, without a lock that another thread could hold.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let answers = [
                producer.push(1, &[b"child's"]) == Pushed::Closed,
                producer.intern(b"accuracy").is_none(),
                consumer.next().is_none(),
                consumer.intern_lookup(0).is_none(),
                !consumer.is_closed(),
            ];
            consumer.set_intent(9, 9);
            consumer.release(consumer.cursor());
            producer.close();
            drop(producer);
            drop(consumer);
            // SAFETY: ends the child without running the parent's exit handlers.
            unsafe { libc::_exit(i32::from(answers.contains(&false))) };
        }
        let mut status = 0;
        // SAFETY: our own child, and a status of our own.
        let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };

        assert_eq!((waited, status), (child, 0), "the child exits by itself, with 0");
        assert_eq!(producer.push(2, &[b"still here"]), Pushed::Done);
        assert_eq!(producer.intern(b"accuracy"), Some(1));
        assert!(!consumer.is_closed());
        let read: Vec<u8> = std::iter::from_fn(|| consumer.next().map(|entry| entry.kind)).collect();
        assert_eq!(read, [1, 2]);
    }
}
