//! Who is alive: the lock on a writer's directory.
//!
//! The lock is a POSIX record lock (`fcntl`), because it alone is gone the moment its process is: `flock` and OFD locks
//! belong to the open file and stay held by forked children of a killed trainer. The price is that closing *any*
//! descriptor of the file frees it, and that it does not keep two threads of one process apart. Hence a registry: this
//! module alone opens `LOCK`, once per process, and knows what the process holds.
//!
//! # Who owns what
//! [`Lock`] is the lock; dropping it frees it. In a forked child it frees nothing: locks are not inherited, and
//! the registry knows them by process.
//!
//! # Failure
//! The lock decides. Pid, start time, boot id and host in the file only inform people and other machines.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _};
use std::mem;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use runferry_descriptors::Listed;
use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::io::Errno;
use rustix::process::{Flock, FlockType, fcntl_getlk, getpid};
use thiserror::Error;

use crate::disk::{DIR_MODE, FILE_MODE};

const FILE_NAME: &str = "LOCK";
/// More than any holder writes.
const MAX_INFO_BYTES: u64 = 64 << 10;
/// Generations of processes that fork and lock, one inside the other.
const MAX_FORK_DEPTH: usize = 64;
/// Times that a directory may vanish while its lock is being taken.
const MAX_TRIES: u32 = 100;

/// What a holder says about itself. Text only informs: `key=value` lines.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LockInfo {
    /// Process id, in the holder's pid namespace.
    pub pid: u32,
    /// When the process began, in clock ticks since boot (`/proc/<pid>/stat`, field 22).
    pub start_ticks: u64,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// Host name.
    pub host: String,
    /// Path of the ring file, which an adopter needs too.
    pub ring: Option<String>,
    /// Address of the server.
    pub base_url: Option<String>,
}

/// Why the lock could not be had.
#[derive(Debug, Error)]
pub enum LockError {
    /// Its holder is alive. Fields it had not written yet are empty.
    #[error("journal is in use by process {} on host {:?}", .0.pid, .0.host)]
    Held(LockInfo),
    /// The system does not let us lock at all.
    #[error("cannot lock {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl LockInfo {
    /// What the holder of the lock in `dir` says, or the last one said. Does not tell whether it is alive.
    ///
    /// # Errors
    /// As the system says; `NotFound` where nobody ever locked.
    pub fn read(dir: &Path) -> io::Result<Self> {
        let path = dir.join(FILE_NAME);
        let registry = registry()?;
        match registry.get(&identity_of(&path)?) {
            // Opening and closing the file would free the lock.
            Some(info) => Ok(info.clone()),
            None => Self::read_file(&File::open(&path)?),
        }
    }

    fn read_file(file: &File) -> io::Result<Self> {
        let mut bytes = Vec::new();
        file.take(MAX_INFO_BYTES).read_to_end(&mut bytes)?;
        Ok(Self::parse(&String::from_utf8_lossy(&bytes)))
    }

    fn parse(text: &str) -> Self {
        let mut info = Self::default();
        for (key, value) in text.lines().filter_map(|line| line.split_once('=')) {
            let value = unescape(value);
            match key {
                "pid" => info.pid = value.parse().unwrap_or_default(),
                "start_ticks" => info.start_ticks = value.parse().unwrap_or_default(),
                "boot_id" => info.boot_id = value,
                "host" => info.host = value,
                "ring" => info.ring = Some(value),
                "base_url" => info.base_url = Some(value),
                _ => {} // of a later version
            }
        }
        info
    }

    fn to_text(&self) -> String {
        let mut text = format!("pid={}\nstart_ticks={}\n", self.pid, self.start_ticks);
        let optional = [("ring", self.ring.as_ref()), ("base_url", self.base_url.as_ref())];
        let always = [("boot_id", Some(&self.boot_id)), ("host", Some(&self.host))];
        for (key, value) in always.into_iter().chain(optional) {
            if let Some(value) = value {
                writeln!(text, "{key}={}", escape(value)).ok(); // A `String` takes everything.
            }
        }
        text
    }
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r")
}

fn unescape(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(char) = chars.next() {
        match (char, char == '\\') {
            (_, true) => match chars.next() {
                Some('n') => text.push('\n'),
                Some('r') => text.push('\r'),
                Some(other) => text.push(other),
                None => {}
            },
            (char, false) => text.push(char),
        }
    }
    text
}

/// The lock on one directory, held until it is dropped or the process ends.
#[derive(Debug)]
pub struct Lock {
    listed: Option<Listed>,
    /// `None` only while it is dropped.
    file: Option<File>,
    identity: FileIdentity,
    pid: i32,
}

/// Device and inode: two paths may name one file.
type FileIdentity = (u64, u64);

impl Lock {
    /// Takes the lock of `dir` without waiting, and makes the directory if need be.
    ///
    /// # Errors
    /// `Held` if any process holds it, this one included; `Io` otherwise.
    pub fn acquire(dir: &Path, info: &LockInfo) -> Result<Self, LockError> {
        let path = dir.join(FILE_NAME);
        Self::acquire_file(dir, &path, info).unwrap_or_else(|source| Err(LockError::Io { path, source }))
    }

    /// Whether some process, this one included, holds the lock of `dir`. Takes nothing, so it is in nobody's way.
    ///
    /// # Errors
    /// As the system says; `NotFound` where nobody ever locked.
    pub fn is_held(dir: &Path) -> io::Result<bool> {
        let path = dir.join(FILE_NAME);
        // Kept to the end: closing the file would free a lock that another thread took meanwhile.
        let registry = registry()?;
        if registry.contains_key(&identity_of(&path)?) {
            return Ok(true);
        }
        Ok(fcntl_getlk(File::open(&path)?, &Flock::from(FlockType::WriteLock))?.is_some())
    }

    fn acquire_file(dir: &Path, path: &Path, info: &LockInfo) -> io::Result<Result<Self, LockError>> {
        let mut registry = registry()?;
        let mut tries = 0;
        loop {
            tries += 1;
            DirBuilder::new().recursive(true).mode(DIR_MODE).create(dir)?;
            match identity_of(path) {
                Ok(identity) => {
                    if let Some(holder) = registry.get(&identity) {
                        return Ok(Err(LockError::Held(holder.clone())));
                    }
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            let opened =
                OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(FILE_MODE).open(path);
            let file = match opened {
                // An adopter has just taken the directory for a dead writer's empty one, and away with it.
                Err(error) if error.kind() == ErrorKind::NotFound && tries < MAX_TRIES => continue,
                opened => opened?,
            };
            runferry_failpoints::hit!("lock.opened");
            match fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::AGAIN | Errno::ACCESS) => return Ok(Err(LockError::Held(LockInfo::read_file(&file)?))),
                Err(error) => return Err(error.into()),
            }
            let identity = identity_of_file(&file)?;
            // Somebody may have removed the directory's files in between; a lock on a nameless file keeps nobody out.
            if !identity_of(path).is_ok_and(|named| named == identity) {
                continue;
            }
            let text = info.to_text();
            runferry_failpoints::hit!("lock.taken");
            file.set_len(0)?;
            runferry_failpoints::hit!("lock.emptied");
            file.write_all_at(text.as_bytes(), 0)?;
            registry.insert(identity, info.clone());
            let listed = Some(Listed::new(&file));
            return Ok(Ok(Self { listed, file: Some(file), identity, pid: getpid().as_raw_nonzero().get() }));
        }
    }
}

impl AsFd for Lock {
    #[expect(clippy::expect_used, reason = "the file is taken out only in `drop`")]
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_ref().expect("present until drop").as_fd()
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let Some(file) = self.file.take() else { return };
        if self.pid != getpid().as_raw_nonzero().get() {
            // A forked child: the descriptor is closed already, and its number may be in use for something else.
            mem::forget((self.listed.take(), file));
            return;
        }
        self.listed = None;
        if let Ok(mut registry) = registry() {
            registry.remove(&self.identity);
            // While the registry is locked, so that nobody meets a lock that is neither held nor free.
            drop(file);
        }
    }
}

fn identity_of(path: &Path) -> io::Result<FileIdentity> {
    let metadata = path.metadata()?;
    Ok((metadata.dev(), metadata.ino()))
}

fn identity_of_file(file: &File) -> io::Result<FileIdentity> {
    let metadata = file.metadata()?;
    Ok((metadata.dev(), metadata.ino()))
}

type Registry = BTreeMap<FileIdentity, LockInfo>;

/// One registry a process, found by its pid. A child of `fork` takes the next free one: the parent's mutex may have been
/// locked at the fork and would stay so, and none of the parent's locks are the child's.
static OWNERS: [AtomicI32; MAX_FORK_DEPTH] = [const { AtomicI32::new(0) }; MAX_FORK_DEPTH];
static REGISTRIES: [Mutex<Registry>; MAX_FORK_DEPTH] = [const { Mutex::new(Registry::new()) }; MAX_FORK_DEPTH];

fn registry() -> io::Result<MutexGuard<'static, Registry>> {
    let pid = getpid().as_raw_nonzero().get();
    for (owner, registry) in OWNERS.iter().zip(&REGISTRIES) {
        let claimed = owner.compare_exchange(0, pid, Ordering::AcqRel, Ordering::Acquire);
        if claimed.is_ok() || claimed == Err(pid) {
            // A map of plain values is whole even if a thread panicked beside it.
            return Ok(registry.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }
    Err(io::Error::other(format!("more than {MAX_FORK_DEPTH} processes forked inside one another hold locks")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_holder_says_is_read_back_whatever_it_is() {
        let info = LockInfo {
            pid: 7,
            start_ticks: u64::MAX,
            boot_id: "a=b".into(),
            host: "line\nbreak\\n\r".into(),
            ring: Some(String::new()),
            base_url: None,
        };

        assert_eq!(LockInfo::parse(&info.to_text()), info);
    }

    #[test]
    fn a_half_written_file_informs_as_far_as_it_goes() {
        let info = LockInfo::parse("pid=12\nstart_ticks=x\nhos");

        assert_eq!(info, LockInfo { pid: 12, ..LockInfo::default() });
    }
}
