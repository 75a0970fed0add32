//! The few things the journal asks of an operating system, behind a trait.
//!
//! A journal is only as good as its behaviour when the disk fails, and a real disk fails when it likes. Behind [`Disk`]
//! a test can fail any call, cut the power and tear what was not synced; [`RealDisk`] is what ships.
//!
//! # Failure
//! Calls return what the system said. Interrupted calls (EINTR) are retried here, short writes and reads are not: the
//! caller knows what they mean.

use std::ffi::OsString;
use std::fmt::Debug;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use runferry_descriptors::Listed;
use rustix::fs::statvfs;
use rustix::io::Errno;

/// Mode of every file the journal makes: metrics may be confidential.
pub(crate) const FILE_MODE: u32 = 0o600;
/// Mode of every directory the journal makes.
pub(crate) const DIR_MODE: u32 = 0o700;

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// The bare name.
    pub name: OsString,
    /// Whether it is a directory.
    pub is_dir: bool,
}

/// Files and directories.
pub trait Disk: Debug + Send + Sync {
    /// Makes a file for reading and writing (0600) that must not exist yet.
    ///
    /// # Errors
    /// As the system says; `AlreadyExists` if the name is taken.
    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens a file for reading.
    ///
    /// # Errors
    /// As the system says.
    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens a file for writing in place, or makes it (0600).
    ///
    /// # Errors
    /// As the system says.
    fn open_or_create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Makes a directory and what is missing above it (0700). Existing ones are fine.
    ///
    /// # Errors
    /// As the system says.
    fn make_dirs(&self, path: &Path) -> io::Result<()>;

    /// Makes names created in or removed from a directory durable.
    ///
    /// # Errors
    /// As the system says. File systems that cannot sync a directory succeed.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// What lies in a directory, in no particular order.
    ///
    /// # Errors
    /// As the system says.
    fn list(&self, path: &Path) -> io::Result<Vec<Entry>>;

    /// Removes a file.
    ///
    /// # Errors
    /// As the system says.
    fn unlink(&self, path: &Path) -> io::Result<()>;

    /// Removes an empty directory.
    ///
    /// # Errors
    /// As the system says.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;

    /// Bytes that may still be written to the file system that holds `path`.
    ///
    /// # Errors
    /// As the system says.
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;
}

/// One open file. Offsets are given with each call; there is no position.
pub trait DiskFile: Debug + Send + Sync {
    /// Writes some of `bytes` at `offset`; how many is the answer.
    ///
    /// # Errors
    /// As the system says.
    fn pwrite(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;

    /// Reads some bytes at `offset`; 0 at the end of the file.
    ///
    /// # Errors
    /// As the system says.
    fn pread(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Cuts the file to `len_bytes` and gives back space allocated beyond.
    ///
    /// # Errors
    /// As the system says.
    fn truncate(&self, len_bytes: u64) -> io::Result<()>;

    /// Reserves space for a range without changing the file's length.
    ///
    /// # Errors
    /// As the system says; `Unsupported` where the file system knows no such thing.
    fn allocate(&self, offset: u64, len_bytes: u64) -> io::Result<()>;

    /// Waits until the file's bytes are on the device.
    ///
    /// # Errors
    /// As the system says. After an error the pages count as clean: what was lost stays lost.
    fn sync_data(&self) -> io::Result<()>;

    /// Bytes in the file.
    ///
    /// # Errors
    /// As the system says.
    fn len_bytes(&self) -> io::Result<u64>;

    /// Whether the file still has a name: one that somebody has removed can be written, and nobody will ever read it.
    fn has_name(&self) -> bool {
        true
    }
}

/// The disk of the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        runferry_failpoints::check!("journal.create")?;
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(FILE_MODE).open(path)?;
        runferry_failpoints::hit!("journal.created");
        Ok(Arc::new(RealFile::new(file)))
    }

    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(RealFile::new(File::open(path)?)))
    }

    fn open_or_create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(FILE_MODE).open(path)?;
        Ok(Arc::new(RealFile::new(file)))
    }

    fn make_dirs(&self, path: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(DIR_MODE).create(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        runferry_failpoints::check!("journal.sync_dir")?;
        match File::open(path)?.sync_all() {
            // Some network and FUSE file systems have no fsync for directories; nothing better can be done there.
            Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::INVAL | Errno::NOTSUP)) => Ok(()),
            result => result,
        }
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        std::fs::read_dir(path)?
            .map(|entry| {
                let entry = entry?;
                Ok(Entry { name: entry.file_name(), is_dir: entry.file_type()?.is_dir() })
            })
            .collect()
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        runferry_failpoints::check!("journal.unlink")?;
        std::fs::remove_file(path)?;
        runferry_failpoints::hit!("journal.unlinked");
        Ok(())
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        runferry_failpoints::check!("journal.remove_dir")?;
        std::fs::remove_dir(path)
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let space = statvfs(path)?;
        Ok(space.f_bavail.saturating_mul(space.f_frsize))
    }
}

#[derive(Debug)]
struct RealFile {
    /// First, so that it is gone before the file is closed.
    _listed: Listed,
    file: File,
}

impl RealFile {
    fn new(file: File) -> Self {
        Self { _listed: Listed::new(&file), file }
    }
}

impl DiskFile for RealFile {
    fn pwrite(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        runferry_failpoints::check!("journal.write")?;
        let written = uninterrupted(|| self.file.write_at(runferry_failpoints::cut!("journal.torn", bytes), offset))?;
        runferry_failpoints::hit!("journal.written");
        Ok(written)
    }

    fn pread(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        uninterrupted(|| self.file.read_at(buffer, offset))
    }

    fn truncate(&self, len_bytes: u64) -> io::Result<()> {
        runferry_failpoints::check!("journal.truncate")?;
        uninterrupted(|| self.file.set_len(len_bytes))
    }

    fn allocate(&self, offset: u64, len_bytes: u64) -> io::Result<()> {
        runferry_failpoints::check!("journal.allocate")?;
        match uninterrupted(|| allocate_behind_end(&self.file, offset, len_bytes)) {
            Err(error)
                if matches!(
                    Errno::from_io_error(&error),
                    Some(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::PERM)
                ) =>
            {
                Err(io::Error::new(ErrorKind::Unsupported, error))
            }
            result => result,
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        runferry_failpoints::check!("journal.fdatasync")?;
        self.file.sync_data()
    }

    fn len_bytes(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn has_name(&self) -> bool {
        // A file system that does not tell is believed.
        self.file.metadata().map_or(true, |metadata| metadata.nlink() > 0)
    }
}

/// The file's length stays what it is. Linux alone can do that: elsewhere a journal goes without.
#[cfg(target_os = "linux")]
fn allocate_behind_end(file: &File, offset: u64, len_bytes: u64) -> io::Result<()> {
    Ok(rustix::fs::fallocate(file, rustix::fs::FallocateFlags::KEEP_SIZE, offset, len_bytes)?)
}

#[cfg(not(target_os = "linux"))]
fn allocate_behind_end(_: &File, _: u64, _: u64) -> io::Result<()> {
    Err(Errno::NOSYS.into())
}

fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Reads at `offset` until `buffer` is full or the file ends; how many bytes is the answer.
pub(crate) fn read_full(file: &dyn DiskFile, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.pread(rest, offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
