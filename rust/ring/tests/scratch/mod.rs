//! A folder of its own for each test, on real shared memory, and a ring in it.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use runferry_ring::{Consumer, Identity, Options, Producer, create};

/// A new folder on /dev/shm, removed when dropped.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("runferry-ring-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = Path::new("/dev/shm").join(name);
        std::fs::create_dir(&path).expect("a folder on /dev/shm");
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Where [`Self::ring`] puts its file.
    pub(crate) fn ring_path(&self) -> PathBuf {
        self.0.join("ring")
    }

    pub(crate) fn ring(&self, entry_bytes: usize, names_bytes: usize) -> (Producer, Consumer) {
        ring_in(&self.0, entry_bytes, names_bytes)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok(); // Left behind, it costs some memory until the next boot.
    }
}

pub(crate) fn ring_in(dir: &Path, entry_bytes: usize, names_bytes: usize) -> (Producer, Consumer) {
    let options =
        Options { identity: identity(), name: "ring", shm_dir: dir, fallback_dir: dir, entry_bytes, names_bytes };
    create(&options).expect("room for a small ring")
}

pub(crate) fn identity() -> Identity {
    Identity {
        run_id: *b"sixteen bytes ok",
        writer_id: 0x1234_5678_9ABC_DEF0,
        boot_id: [7; 16],
        pid: 42,
        start_ticks: 99,
    }
}

/// A payload that is recognised by its bytes: record `n`, `len` bytes.
pub(crate) fn payload(n: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|index| (n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32).wrapping_add(index * 7) as u8).collect()
}
