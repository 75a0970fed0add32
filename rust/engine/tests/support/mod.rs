//! A writer made by hand, for tests that let it die: lock, journal and ring as the packer has them at its start.

#![allow(dead_code, reason = "each test file uses a part")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use runferry_engine::batch::{Identity, map_frame};
use runferry_engine::machine;
use runferry_journal::{Journal, JournalOptions, Lock, LockInfo, RealDisk};
use runferry_ring::{Consumer, Options, Producer};
use runferry_wire::{Doc, Kind};

pub(crate) const WHO: Identity = Identity { run_id: [3; 16], writer_id: 77 };
/// Where the ring of a writer lies in its folder.
pub(crate) const RING: &str = "test.ring";

/// A folder of its own, gone at the end.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("runferry-adopt-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("the temporary folder can be written");
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

/// What a writer has; it dies by dropping it.
pub(crate) struct Begun {
    pub(crate) producer: Producer,
    pub(crate) consumer: Consumer,
    pub(crate) journal: Journal,
    _lock: Lock,
}

impl Begun {
    /// A writer of an offline run, with nothing logged.
    pub(crate) fn new(dir: &Path) -> Self {
        let info = LockInfo { ring: Some(dir.join(RING).display().to_string()), ..LockInfo::default() };
        let lock = Lock::acquire(dir, &info).expect("nobody else has it");
        let open = Doc::Map(vec![("id".to_owned(), "r".into()), ("mode".to_owned(), "offline".into())]);
        let open_frame = move |seq| map_frame(WHO, Kind::Open, seq, 0, 0, &open);
        let journal = Journal::create(Arc::new(RealDisk), dir, open_frame, 1, JournalOptions::OFFLINE).expect("made");
        let identity = runferry_ring::Identity {
            run_id: WHO.run_id,
            writer_id: WHO.writer_id,
            boot_id: machine::boot_id(),
            pid: 1,
            start_ticks: 0,
        };
        let (producer, consumer) = runferry_ring::create(&Options {
            identity,
            name: RING,
            shm_dir: dir,
            fallback_dir: dir,
            entry_bytes: 1 << 16,
            names_bytes: 1 << 12,
        })
        .expect("made");
        Self { producer, consumer, journal, _lock: lock }
    }
}
