//! A disk that fails when told to and forgets what was not synced. For tests.
//!
//! A power cut keeps any subset of the sectors written since the last fsync, and any length between the synced and the
//! written one; a name comes or goes only for sure once its directory was synced. A failed fsync drops what it should
//! have written, for good, as Linux does.

#![allow(clippy::indexing_slicing, reason = "a simulation may panic; its sizes are its own")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use runferry_journal::disk::Entry;
use runferry_journal::{Disk, DiskFile};
use rustix::io::Errno;

/// What a disk writes whole or not at all.
pub const SECTOR: usize = 512;

/// A fault that happens once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "a fault's fields are named by what they are")]
pub enum Fault {
    /// The next write takes this many bytes, but never all, and then fails so.
    Write { bytes: usize, error: Errno },
    /// The next write takes this many bytes and succeeds.
    ShortWrite { bytes: usize },
    /// The next write takes this many bytes; from then on nothing reaches the disk.
    Death { bytes: usize },
    /// The next truncation fails.
    Truncate,
    /// The next fsync of a file fails.
    Sync,
    /// The next fsync of a directory fails.
    SyncDir,
    /// The next new file cannot be made.
    Create { error: Errno },
    /// The next removal of a file fails.
    Unlink,
    /// The next allocation fails.
    Allocate { error: Errno },
    /// Reads of this block of any file fail from now on.
    ReadBlock { block: u64 },
}

#[derive(Debug, Default, Clone)]
struct Content {
    bytes: Vec<u8>,
    durable: Vec<u8>,
    dirty: BTreeSet<usize>,
    syncs: usize,
}

type Shared = Arc<Mutex<Content>>;

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<PathBuf, Shared>,
    durable_names: BTreeMap<PathBuf, Shared>,
    faults: Vec<Fault>,
    is_dead: bool,
    is_full: bool,
    ignores_syncs: bool,
    free_bytes: Option<u64>,
}

/// The disk; clones are the same one.
#[derive(Debug, Default, Clone)]
pub struct SimDisk(Arc<Mutex<State>>);

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    content: Shared,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SimDisk {
    /// An empty disk.
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Arms a fault.
    pub fn inject(&self, fault: Fault) {
        lock(&self.0).faults.push(fault);
    }

    /// Faults that have not struck.
    pub fn pending_faults(&self) -> Vec<Fault> {
        lock(&self.0).faults.clone()
    }

    /// Whether a [`Fault::Death`] has struck.
    pub fn is_dead(&self) -> bool {
        lock(&self.0).is_dead
    }

    /// What [`Disk::free_bytes`] answers.
    pub fn limit_free_bytes(&self, free_bytes: Option<u64>) {
        lock(&self.0).free_bytes = free_bytes;
    }

    /// While it is full, nothing can be made, written or reserved.
    pub fn set_full(&self, is_full: bool) {
        lock(&self.0).is_full = is_full;
    }

    /// A disk that lies: fsync succeeds, and nothing is safe.
    pub fn ignore_syncs(&self, ignores_syncs: bool) {
        lock(&self.0).ignores_syncs = ignores_syncs;
    }

    /// Another disk in the same state, without the armed faults.
    pub fn copied(&self) -> Arc<Self> {
        let state = lock(&self.0);
        let mut copies: Vec<(Shared, Shared)> = Vec::new();
        let mut copy = |content: &Shared| {
            if let Some((_, copy)) = copies.iter().find(|(of, _)| Arc::ptr_eq(of, content)) {
                return Arc::clone(copy);
            }
            let copy = Arc::new(Mutex::new(lock(content).clone()));
            copies.push((Arc::clone(content), Arc::clone(&copy)));
            copy
        };
        let mut names = |names: &BTreeMap<PathBuf, Shared>| {
            names.iter().map(|(name, content)| (name.clone(), copy(content))).collect::<BTreeMap<_, _>>()
        };
        let (files, durable_names) = (names(&state.files), names(&state.durable_names));
        Arc::new(Self(Arc::new(Mutex::new(State { files, durable_names, ..State::default() }))))
    }

    /// Changes the bytes of a file at rest.
    ///
    /// # Panics
    /// There is no such file.
    pub fn damage(&self, path: &Path, damage: impl FnOnce(&mut Vec<u8>)) {
        damage(&mut lock(&lock(&self.0).files[path]).bytes);
    }

    /// Every segment's name and bytes, of all directories.
    pub fn segments(&self) -> Vec<(String, Vec<u8>)> {
        let files = lock(&self.0).files.clone();
        files
            .iter()
            .filter_map(|(path, content)| {
                let name = path.file_name()?.to_str()?.to_owned();
                name.starts_with("seg-").then(|| (name, lock(content).bytes.clone()))
            })
            .collect()
    }

    /// Puts a file there, already synced.
    pub fn put(&self, path: &Path, bytes: &[u8]) {
        let content = Content { bytes: bytes.to_vec(), durable: bytes.to_vec(), ..Content::default() };
        lock(&self.0).files.insert(path.to_owned(), Arc::new(Mutex::new(content)));
    }

    /// Takes a file away.
    pub fn remove(&self, path: &Path) {
        lock(&self.0).files.remove(path);
    }

    /// Gives a file another name.
    ///
    /// # Panics
    /// There is no such file.
    pub fn rename(&self, from: &Path, to: &Path) {
        let mut state = lock(&self.0);
        let content = state.files.remove(from).expect("the file to rename");
        state.files.insert(to.to_owned(), content);
    }

    /// How often the file was synced.
    pub fn syncs(&self, path: &Path) -> usize {
        lock(&lock(&self.0).files[path]).syncs
    }

    /// The process is gone; the system and what it was given live on.
    pub fn kill(&self) {
        let mut state = lock(&self.0);
        state.faults.clear();
        state.is_dead = false;
    }

    /// The power is gone. `dice` gives numbers below its argument.
    pub fn cut_power(&self, mut dice: impl FnMut(usize) -> usize) {
        self.kill();
        let mut state = lock(&self.0);
        let names: BTreeSet<_> = state.files.keys().chain(state.durable_names.keys()).cloned().collect();
        let mut survivors = BTreeMap::new();
        for name in names {
            let (now, durable) = (state.files.get(&name), state.durable_names.get(&name));
            let survivor = match (now, durable) {
                (Some(now), Some(durable)) if Arc::ptr_eq(now, durable) => Some(now),
                _ if dice(2) == 0 => now,
                _ => durable,
            };
            if let Some(content) = survivor {
                lock(content).lose_power(&mut dice);
                survivors.insert(name, Arc::clone(content));
            }
        }
        state.files.clone_from(&survivors);
        state.durable_names = survivors;
    }

    fn take(&self, mut matches: impl FnMut(&Fault) -> bool) -> Option<Fault> {
        let mut state = lock(&self.0);
        let index = state.faults.iter().position(&mut matches)?;
        Some(state.faults.remove(index))
    }

    fn alive(&self) -> io::Result<()> {
        if self.is_dead() { Err(Errno::IO.into()) } else { Ok(()) }
    }

    fn room(&self) -> io::Result<()> {
        if lock(&self.0).is_full { Err(Errno::NOSPC.into()) } else { Ok(()) }
    }
}

impl Content {
    fn lose_power(&mut self, mut dice: impl FnMut(usize) -> usize) {
        let (short, long) = (self.durable.len().min(self.bytes.len()), self.durable.len().max(self.bytes.len()));
        let len = if self.dirty.is_empty() && short == long { long } else { short + dice(long - short + 1) };
        let mut kept = vec![0; len];
        for (index, sector) in kept.chunks_mut(SECTOR).enumerate() {
            let is_new = self.dirty.contains(&index) && dice(2) == 0;
            let source = if is_new { &self.bytes } else { &self.durable };
            let from = source.get(index * SECTOR..).unwrap_or_default();
            let count = from.len().min(sector.len());
            sector[..count].copy_from_slice(&from[..count]);
        }
        self.bytes.clone_from(&kept);
        self.durable = kept;
        self.dirty.clear();
    }

    fn write(&mut self, bytes: &[u8], offset: usize) {
        let end = offset + bytes.len();
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[offset..end].copy_from_slice(bytes);
        if !bytes.is_empty() {
            self.dirty.extend(offset / SECTOR..=(end - 1) / SECTOR);
        }
    }

    fn sync(&mut self) {
        self.durable.resize(self.bytes.len(), 0);
        for &sector in &self.dirty {
            let range = sector * SECTOR..self.bytes.len().min((sector + 1) * SECTOR);
            if range.start < range.end {
                self.durable[range.clone()].copy_from_slice(&self.bytes[range]);
            }
        }
        self.dirty.clear();
        self.syncs += 1;
    }
}

impl Disk for SimDisk {
    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.alive()?;
        self.room()?;
        if let Some(Fault::Create { error }) = self.take(|fault| matches!(fault, Fault::Create { .. })) {
            return Err(error.into());
        }
        let mut state = lock(&self.0);
        if state.files.contains_key(path) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        let content = Shared::default();
        state.files.insert(path.to_owned(), Arc::clone(&content));
        Ok(Arc::new(SimFile { disk: self.clone(), content }))
    }

    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let content = lock(&self.0).files.get(path).cloned().ok_or(ErrorKind::NotFound)?;
        Ok(Arc::new(SimFile { disk: self.clone(), content }))
    }

    fn open_or_create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.open_read(path).or_else(|_| self.create_new(path))
    }

    fn make_dirs(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.alive()?;
        if self.take(|fault| matches!(fault, Fault::SyncDir)).is_some() {
            return Err(Errno::IO.into());
        }
        let mut state = lock(&self.0);
        let State { files, durable_names, .. } = &mut *state;
        durable_names.retain(|name, _| name.parent() != Some(path));
        let here = files.iter().filter(|(name, _)| name.parent() == Some(path));
        durable_names.extend(here.map(|(name, content)| (name.clone(), Arc::clone(content))));
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let state = lock(&self.0);
        let here = state.files.keys().filter(|name| name.parent() == Some(path));
        Ok(here.filter_map(|name| Some(Entry { name: name.file_name()?.to_owned(), is_dir: false })).collect())
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.alive()?;
        if self.take(|fault| matches!(fault, Fault::Unlink)).is_some() {
            return Err(Errno::IO.into());
        }
        lock(&self.0).files.remove(path).map(drop).ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn remove_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        Ok(lock(&self.0).free_bytes.unwrap_or(u64::MAX))
    }
}

impl DiskFile for SimFile {
    fn pwrite(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.disk.alive()?;
        self.disk.room()?;
        let is_write =
            |fault: &Fault| matches!(fault, Fault::Write { .. } | Fault::ShortWrite { .. } | Fault::Death { .. });
        let fault = self.disk.take(is_write);
        let length = bytes.len();
        let mut content = lock(&self.content);
        let mut some = |count: usize| {
            let count = count.min(bytes.len());
            content.write(&bytes[..count], offset as usize);
            count
        };
        match fault {
            Some(Fault::ShortWrite { bytes }) => Ok(some(bytes.max(1))),
            Some(Fault::Write { bytes, error }) => {
                // A call that took everything would have said so.
                some(bytes.min(length - 1));
                Err(error.into())
            }
            Some(Fault::Death { bytes }) => {
                some(bytes);
                lock(&self.disk.0).is_dead = true;
                Err(Errno::IO.into())
            }
            _ => Ok(some(bytes.len())),
        }
    }

    fn pread(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let content = lock(&self.content);
        let from = content.bytes.get(offset as usize..).unwrap_or_default();
        let count = from.len().min(buffer.len());
        let blocks = offset / 4096..(offset + count as u64).div_ceil(4096);
        let broken = |fault: &Fault| matches!(fault, Fault::ReadBlock { block } if blocks.contains(block));
        if lock(&self.disk.0).faults.iter().any(broken) {
            return Err(Errno::IO.into());
        }
        buffer[..count].copy_from_slice(&from[..count]);
        Ok(count)
    }

    fn truncate(&self, len_bytes: u64) -> io::Result<()> {
        self.disk.alive()?;
        if self.disk.take(|fault| matches!(fault, Fault::Truncate)).is_some() {
            return Err(Errno::IO.into());
        }
        let mut content = lock(&self.content);
        let old = content.bytes.len();
        content.bytes.resize(len_bytes as usize, 0);
        let touched = old.min(len_bytes as usize) / SECTOR..=old.max(len_bytes as usize) / SECTOR;
        if old != len_bytes as usize {
            content.dirty.extend(touched);
        }
        Ok(())
    }

    fn allocate(&self, _: u64, _: u64) -> io::Result<()> {
        self.disk.room()?;
        match self.disk.take(|fault| matches!(fault, Fault::Allocate { .. })) {
            Some(Fault::Allocate { error }) => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.alive()?;
        let mut content = lock(&self.content);
        if self.disk.take(|fault| matches!(fault, Fault::Sync)).is_some() {
            // The pages count as clean now: they reach the disk neither now nor by a later fsync.
            content.dirty.clear();
            return Err(Errno::IO.into());
        }
        if !lock(&self.disk.0).ignores_syncs {
            content.sync();
        }
        Ok(())
    }

    fn len_bytes(&self) -> io::Result<u64> {
        Ok(lock(&self.content).bytes.len() as u64)
    }
}
