//! Where a ring lies: /dev/shm, else a file beside the journal, else the heap.
//!
//! A ring file is new (`O_EXCL`, so nothing planted in /dev/shm is ever mapped), readable by its user alone, and fully allocated
//! before it is mapped: a file system without room refuses here, where there is a next place, and not in `log()` as a SIGBUS.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::map::Map;

/// Where a ring lies, and so what it survives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placement {
    /// Shared memory: survives the death of the process.
    Shm(PathBuf),
    /// A mapped file: survives it too, but the kernel may make a store wait for the disk.
    File(PathBuf),
    /// Memory of the process: dies with it.
    Heap,
}

impl Placement {
    /// Whether entries survive `kill -9` of the process.
    pub fn is_kill_safe(&self) -> bool {
        self.path().is_some()
    }

    /// The ring's file.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Shm(path) | Self::File(path) => Some(path),
            Self::Heap => None,
        }
    }
}

/// A place that was tried before the one in use, and why it could not be had.
#[derive(Debug, thiserror::Error)]
#[error("no ring at {path}")]
pub struct FailedPlace {
    /// The file that could not be made.
    pub path: PathBuf,
    /// The kernel's answer.
    pub source: io::Error,
}

/// Where this ring lies and how that came about; shared by producer and consumer.
#[derive(Debug)]
pub(crate) struct Home {
    pub(crate) placement: Placement,
    pub(crate) failed: Vec<FailedPlace>,
    /// Device, inode and size of the file.
    file: Option<(u64, u64, u64)>,
}

impl Home {
    /// Whether the file is still there in full. True on the heap.
    pub(crate) fn is_file_whole(&self) -> bool {
        let (Some(path), Some(file)) = (self.placement.path(), self.file) else { return true };
        rustix::fs::lstat(path).is_ok_and(|stat| file_of(&stat) == file)
    }

    pub(crate) fn unlink(&self) -> io::Result<()> {
        self.placement.path().map_or(Ok(()), remove_file)
    }
}

/// Device, inode and size. Systems disagree on the width of the first.
fn file_of(stat: &Stat) -> (u64, u64, u64) {
    #[allow(clippy::unnecessary_cast, reason = "on Linux it is 64 bits wide")]
    (stat.st_dev as u64, stat.st_ino, stat.st_size as u64)
}

/// Removes a file; that it is gone already is no error.
pub(crate) fn remove_file(path: &Path) -> io::Result<()> {
    match rustix::fs::unlink(path) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(refused) => Err(refused.into()),
    }
}

/// A mapping of `bytes` zeros at the best place to be had.
///
/// # Errors
/// Not even anonymous memory: the kernel's answer to that.
pub(crate) fn find(name: &str, shm_dir: &Path, fallback_dir: &Path, bytes: u64) -> io::Result<(Map, Home)> {
    let mut failed = Vec::new();
    for (dir, placement) in [(shm_dir, Placement::Shm as fn(PathBuf) -> Placement), (fallback_dir, Placement::File)] {
        let path = dir.join(name);
        match create_file(&path, bytes) {
            Ok((map, file)) => return Ok((map, Home { placement: placement(path), failed, file: Some(file) })),
            Err(source) => failed.push(FailedPlace { path, source }),
        }
    }
    let map = Map::anonymous(bytes as usize)?;
    Ok((map, Home { placement: Placement::Heap, failed, file: None }))
}

fn create_file(path: &Path, bytes: u64) -> io::Result<(Map, (u64, u64, u64))> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)?;
    fill_and_map(&file, bytes).inspect_err(|_| {
        // The error to report is the first one; an empty file that stays behind is no ring and harms nobody.
        remove_file(path).ok();
    })
}

fn fill_and_map(file: &OwnedFd, bytes: u64) -> io::Result<(Map, (u64, u64, u64))> {
    // Whatever the umask: the owner must be able to adopt it.
    rustix::fs::fchmod(file, Mode::RUSR | Mode::WUSR)?;
    match rustix::io::retry_on_intr(|| rustix::fs::fallocate(file, FallocateFlags::empty(), 0, bytes)) {
        Ok(()) => {}
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => write_zeros(file.as_fd(), bytes)?,
        Err(refused) => return Err(refused.into()),
    }
    let stat = rustix::fs::fstat(file)?;
    Ok((Map::shared(file.as_fd(), bytes as usize)?, file_of(&stat)))
}

/// Allocates by writing, where the file system cannot do it by itself (NFS before 4.2).
fn write_zeros(file: BorrowedFd<'_>, bytes: u64) -> io::Result<()> {
    let zeros = vec![0; 1 << 16];
    let mut at = 0;
    while at < bytes {
        let piece = zeros.get(..(bytes - at) as usize).unwrap_or(&zeros);
        at += rustix::io::retry_on_intr(|| rustix::io::pwrite(file, piece, at))? as u64;
    }
    Ok(())
}
