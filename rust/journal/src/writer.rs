//! The writing side: whole frames behind one another, in segments.
//!
//! Appending must go on whatever the disk does, and must never make a frame unreadable that was good. Hence plain
//! `pwrite` at a tracked offset, and after any doubt a new segment: nothing is ever written behind a doubtful tail.
//!
//! # Invariants
//! - The active segment holds whole frames up to the tracked offset. A frame that could not be written whole is cut off
//!   again, and where even that fails the segment is left.
//! - Numbers are contiguous: a frame is taken only if its number is [`Journal::next_seq`].
//! - No byte is removed but by [`Journal::trim`] (the server has it) and [`Journal::drop_segment`] (a GAP takes its place).
//! - A descriptor whose fsync failed is never synced again.
//!
//! # Failure
//! No room (disk full, quota, our own limits) is [`JournalError::Full`] and leaves everything as it was. Any other error
//! moves to a new segment once; what was not yet synced is then in [`Doubt`] until the caller has written it anew.

mod room;

use std::collections::VecDeque;
use std::fmt;
use std::io::ErrorKind;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use runferry_wire::frame::{Header, Kind};

use crate::active::{Active, WriteFault};
use crate::disk::{Disk, DiskFile};
use crate::error::{JournalError, Shortage};
use crate::scan::{Scan, scan};
use crate::segment::SegmentName;
use crate::sync::{SegmentSync, SyncTicket};

pub use room::{Droppable, Room};

/// More segments with the same first number than any disk fault explains.
const MAX_ORDINAL: u32 = 10_000;

/// Limits of a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournalOptions {
    /// A segment is closed before it grows beyond this.
    pub segment_bytes: u64,
    /// Bytes kept although the server has them durably, for a server restored from a backup.
    pub tail_keep_bytes: u64,
    /// Bytes of the file system left to others.
    pub min_free_bytes: u64,
    /// Most bytes of all segments together.
    pub cap_bytes: u64,
}

impl JournalOptions {
    /// For a run that is sent while it trains.
    pub const ONLINE: Self =
        Self { segment_bytes: 8 << 20, tail_keep_bytes: 16 << 20, min_free_bytes: 256 << 20, cap_bytes: 10 << 30 };
    /// For a run that is kept to be synced later.
    pub const OFFLINE: Self = Self { segment_bytes: 64 << 20, ..Self::ONLINE };

    /// The same with other limits; segments and tail shrink with a small cap, so that room is made in small steps.
    #[must_use]
    pub fn limited(self, cap_bytes: u64, min_free_bytes: u64) -> Self {
        Self {
            segment_bytes: self.segment_bytes.min((cap_bytes / 16).max(64 << 10)),
            tail_keep_bytes: self.tail_keep_bytes.min(cap_bytes / 8),
            min_free_bytes,
            cap_bytes,
        }
    }
}

/// Frames that were written but may not survive a power cut, because a write or an fsync beside them failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Doubt {
    /// The first of them.
    pub seq: u64,
    /// The number behind the last of them.
    pub until_seq: u64,
}

/// A segment that is no longer written.
struct Sealed {
    path: PathBuf,
    first_seq: u64,
    next_seq: u64,
    bytes: u64,
    /// It holds GAP frames in the place of segments that were dropped, and takes more of them.
    gaps: Option<Gaps>,
    /// A GAP has taken its place, but its file is still there.
    is_dropped: bool,
}

struct Gaps {
    file: Arc<dyn DiskFile>,
    sync: Arc<SegmentSync>,
    name: u64,
}

/// A segment that is not yet known to be durable.
struct Unsynced {
    sync: Arc<SegmentSync>,
    /// Numbers its frames reach; of the active segment, when it was last looked at.
    next_seq: u64,
    /// Which creation of a name in the directory it was.
    name: u64,
}

/// The journal of one writer, open for appending.
pub struct Journal {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    open_frame: Box<dyn Fn(u64) -> Vec<u8> + Send>,
    options: JournalOptions,
    sealed: VecDeque<Sealed>,
    /// The newest name ever used here.
    newest: Option<SegmentName>,
    active: Option<Active>,
    unsynced: Vec<Unsynced>,
    doubt: Option<Range<u64>>,
    next_seq: u64,
    can_allocate: bool,
    /// Names created in the directory so far, and how many of them are durable.
    names: u64,
    durable_names: Arc<AtomicU64>,
}

impl fmt::Debug for Journal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Journal")
            .field("dir", &self.dir)
            .field("next_seq", &self.next_seq)
            .field("bytes", &self.bytes())
            .field("doubt", &self.doubt)
            .finish_non_exhaustive()
    }
}

impl Journal {
    /// Opens the journal in `dir` for frames from `first_seq` on, in a new segment. Segments that are there stay as they
    /// are, and count for [`bytes`](Self::bytes) and [`trim`](Self::trim). The caller holds the directory's lock.
    ///
    /// `open_frame` makes the OPEN frame that begins each segment, given the number of the frame behind it.
    ///
    /// # Errors
    /// `Full` and `Io`, with nothing left behind; `Unsupported` if a later program wrote what is there.
    pub fn create(
        disk: Arc<dyn Disk>,
        dir: &Path,
        open_frame: impl Fn(u64) -> Vec<u8> + Send + 'static,
        first_seq: u64,
        options: JournalOptions,
    ) -> Result<Self, JournalError> {
        let found = scan(&*disk, dir)?;
        Self::resume(disk, dir, &found, open_frame, first_seq, options)
    }

    /// As [`create`](Self::create), for a caller who has scanned the directory already.
    ///
    /// # Errors
    /// `Full` and `Io`, with nothing left behind.
    pub fn resume(
        disk: Arc<dyn Disk>,
        dir: &Path,
        found: &Scan,
        open_frame: impl Fn(u64) -> Vec<u8> + Send + 'static,
        first_seq: u64,
        options: JournalOptions,
    ) -> Result<Self, JournalError> {
        disk.make_dirs(dir).map_err(|error| JournalError::io("make directory", dir, error))?;
        let mut journal = Self {
            disk,
            dir: dir.to_owned(),
            open_frame: Box::new(open_frame),
            options,
            sealed: VecDeque::new(),
            newest: None,
            active: None,
            unsynced: Vec::new(),
            doubt: None,
            next_seq: first_seq,
            can_allocate: true,
            names: 0,
            durable_names: Arc::new(AtomicU64::new(0)),
        };
        for segment in &found.segments {
            let path = segment.path.to_path_buf();
            let name = path.file_name().and_then(|name| SegmentName::parse(name.to_str()?));
            journal.newest = journal.newest.max(name);
            // Whether its process ever synced it is not known.
            let sync = Arc::new(SegmentSync::new(path.clone(), None, segment.first_seq));
            journal.unsynced.push(Unsynced { sync, next_seq: segment.next_seq, name: 0 });
            let (first_seq, next_seq, bytes) = (segment.first_seq, segment.next_seq, segment.bytes);
            journal.sealed.push_back(Sealed { path, first_seq, next_seq, bytes, gaps: None, is_dropped: false });
        }
        journal.begin_segment()?;
        Ok(journal)
    }

    /// Number the next frame must have.
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// The lowest number the journal may still hold.
    pub fn first_seq(&self) -> u64 {
        let active = self.active.as_ref().map(|active| active.first_seq);
        self.sealed.iter().map(|segment| segment.first_seq).chain(active).min().unwrap_or(self.next_seq)
    }

    /// Bytes of all segments.
    pub fn bytes(&self) -> u64 {
        let sealed: u64 = self.sealed.iter().map(|segment| segment.bytes).sum();
        sealed + self.active.as_ref().map_or(0, |active| active.offset)
    }

    /// The directory of the writer.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Frames to be written anew with [`restart_from`](Self::restart_from), while the caller has them in memory.
    pub fn doubt(&mut self) -> Option<Doubt> {
        self.notice_failed_syncs();
        self.doubt.as_ref().map(|doubt| Doubt { seq: doubt.start, until_seq: doubt.end })
    }

    /// The number below which every frame survives a power cut.
    pub fn durable_next_seq(&mut self) -> u64 {
        self.notice_failed_syncs();
        self.forget_synced();
        let unsynced = self.unsynced.iter().map(|segment| segment.sync.durable_next_seq());
        unsynced.chain(self.doubt.as_ref().map(|doubt| doubt.start)).min().unwrap_or(self.next_seq).min(self.next_seq)
    }

    /// Writes one whole frame. After `Ok` it survives the death of the process.
    ///
    /// # Errors
    /// `Full`: nothing was written, the same frame may be offered again. FINISH and GAP frames are let past our own
    /// limits (not the disk's), so that a loss can always be put on record. `Io`: neither the active segment nor a new
    /// one took it. `NotAFrame`, `WrongLength`, `OutOfOrder`: a mistake of the caller.
    pub fn append(&mut self, frame: &[u8]) -> Result<(), JournalError> {
        self.append_within(frame, true)
    }

    /// As [`append`](Self::append), past our own limits whatever the frame: for the little that must not be lost.
    ///
    /// # Errors
    /// As of `append`; `Full` only if the disk itself is.
    pub fn append_past_limits(&mut self, frame: &[u8]) -> Result<(), JournalError> {
        self.append_within(frame, false)
    }

    fn append_within(&mut self, frame: &[u8], is_limited: bool) -> Result<(), JournalError> {
        let header = Header::decode(frame).map_err(|source| JournalError::NotAFrame { source })?;
        if header.frame_len() != frame.len() {
            return Err(JournalError::WrongLength { expected: header.frame_len(), found: frame.len() });
        }
        if header.seq != self.next_seq {
            return Err(JournalError::OutOfOrder { expected: self.next_seq, found: header.seq });
        }
        let is_limited = is_limited && !matches!(header.kind, Kind::Finish | Kind::Gap);
        let (used_bytes, cap_bytes) = (self.bytes(), self.options.cap_bytes);
        if is_limited && used_bytes + frame.len() as u64 > cap_bytes {
            return Err(self.full(Shortage::Cap { used_bytes, cap_bytes }));
        }
        self.notice_failed_syncs();
        let end = self.active.as_ref().map_or(0, |active| active.offset) + frame.len() as u64;
        if end > self.options.segment_bytes && self.active.as_ref().is_some_and(|active| active.has_frames) {
            self.seal();
        }
        self.write(frame, is_limited)?;
        self.next_seq = header.next_seq();
        if let Some(active) = &mut self.active {
            active.has_frames = true;
        }
        if let Some(newest) = self.unsynced.last_mut() {
            newest.next_seq = self.next_seq;
        }
        Ok(())
    }

    /// Leaves the active segment if somebody has removed it; its frames are in [`doubt`](Self::doubt) then.
    pub fn look_after_active(&mut self) {
        let Some(active) = self.active.take_if(|active| !active.file.has_name()) else { return };
        active.sync.mark_lost(active.first_seq);
        self.notice_failed_syncs();
    }

    /// Ends the active segment; the next frame begins a new one.
    pub fn seal(&mut self) {
        let Some(active) = self.active.take() else { return };
        runferry_failpoints::hit!("journal.seal");
        // Gives reserved space back. If that fails, space is all that is lost.
        active.file.truncate(active.offset).ok();
        self.put_away(&active);
    }

    /// Goes back to frame `seq` in a new segment, so that the caller can write again, byte for byte, what is in doubt. A
    /// `seq` that was never reached changes nothing but the segment.
    pub fn restart_from(&mut self, seq: u64) {
        self.notice_failed_syncs();
        self.seal();
        self.next_seq = self.next_seq.min(seq);
        let until = self.next_seq;
        self.doubt = self.doubt.take().map(|doubt| doubt.start..doubt.end.min(until)).filter(|doubt| !doubt.is_empty());
    }

    /// What has to be synced for all frames so far to be durable. `None`: they are.
    pub fn sync_ticket(&mut self) -> Option<SyncTicket> {
        self.notice_failed_syncs();
        self.forget_synced();
        let durable_names = self.durable_names.load(Ordering::Acquire);
        let segments: Vec<_> = self
            .unsynced
            .iter()
            .filter(|segment| segment.sync.durable_next_seq() < segment.next_seq || segment.name > durable_names)
            .map(|segment| (Arc::clone(&segment.sync), segment.next_seq))
            .collect();
        let dirs = match durable_names {
            durable if durable == self.names => Vec::new(),
            // The writer's and the run's directory may be as new as the segment.
            0 => self.dir.ancestors().take(3).filter(|dir| !dir.as_os_str().is_empty()).map(Path::to_owned).collect(),
            _ => vec![self.dir.clone()],
        };
        (!segments.is_empty() || !dirs.is_empty()).then(|| SyncTicket {
            disk: Arc::clone(&self.disk),
            segments,
            dirs,
            durable_names: Arc::clone(&self.durable_names),
            names: self.names,
            next_seq: self.next_seq,
        })
    }

    fn full(&self, shortage: Shortage) -> JournalError {
        JournalError::Full { path: self.dir.clone(), shortage }
    }

    /// Puts `bytes` at the end of the active segment, or of a new one if that fails.
    fn write(&mut self, bytes: &[u8], is_limited: bool) -> Result<(), JournalError> {
        let mut has_moved = self.active.is_none();
        loop {
            if self.active.is_none() {
                self.begin_segment()?;
            }
            let Some(active) = &mut self.active else { continue };
            let path = active.sync.path().to_owned();
            let limits = is_limited.then_some((&*self.disk, &*self.dir, self.options.min_free_bytes));
            let result = active
                .reserve(bytes.len() as u64, self.options.segment_bytes, &mut self.can_allocate, limits)
                .and_then(|()| active.put(bytes));
            let Err((fault, is_doubtful)) = result else { return Ok(()) };
            // A segment that stays empty is not worth leaving.
            let can_move = !has_moved && active.has_frames;
            match fault {
                WriteFault::FileTooLarge(_) if can_move && !is_doubtful => self.seal(),
                WriteFault::Io(..) => self.abandon(),
                WriteFault::Full(_) | WriteFault::FileTooLarge(_) if is_doubtful => self.abandon(),
                WriteFault::Full(_) | WriteFault::FileTooLarge(_) => {}
            }
            match fault {
                WriteFault::Full(shortage) => return Err(self.full(shortage)),
                WriteFault::FileTooLarge(error) if !can_move => return Err(self.full(Shortage::Disk(error))),
                WriteFault::Io(action, error) if has_moved => return Err(JournalError::io(action, &path, error)),
                WriteFault::FileTooLarge(_) | WriteFault::Io(..) => has_moved = true,
            }
        }
    }

    fn begin_segment(&mut self) -> Result<(), JournalError> {
        let first_seq = self.next_seq;
        let open = (self.open_frame)(first_seq);
        let mut name = SegmentName::after(self.newest, first_seq);
        let mut has_made_dirs = false;
        let (path, file) = loop {
            let path = name.path(&self.dir);
            match self.disk.create_new(&path) {
                Ok(file) => break (path, file),
                Err(error) if error.kind() == ErrorKind::AlreadyExists && name.ordinal < MAX_ORDINAL => {
                    name.ordinal += 1;
                }
                Err(error) if error.kind() == ErrorKind::NotFound && !has_made_dirs => {
                    has_made_dirs = true;
                    self.make_dirs_anew()?;
                }
                Err(error) if JournalError::is_no_room(&error) => return Err(self.full(Shortage::Disk(error))),
                Err(error) => return Err(JournalError::io("create", &path, error)),
            }
        };
        let sync = Arc::new(SegmentSync::new(path.clone(), Some(Arc::clone(&file)), first_seq));
        let mut active =
            Active { file, sync: Arc::clone(&sync), first_seq, offset: 0, allocated: 0, has_frames: false };
        if let Err((fault, _)) = active.put(&open) {
            // An empty or torn segment does no harm, so a failure to remove it is none either.
            self.disk.unlink(&path).ok();
            return Err(match fault {
                WriteFault::Full(shortage) => self.full(shortage),
                WriteFault::FileTooLarge(error) => self.full(Shortage::Disk(error)),
                WriteFault::Io(action, error) => JournalError::io(action, &path, error),
            });
        }
        self.newest = Some(name);
        self.names += 1;
        self.unsynced.push(Unsynced { sync, next_seq: first_seq, name: self.names });
        self.active = Some(active);
        Ok(())
    }

    /// Somebody has removed the directory under us.
    fn make_dirs_anew(&mut self) -> Result<(), JournalError> {
        self.disk.make_dirs(&self.dir).map_err(|error| JournalError::io("make directory", &self.dir, error))?;
        // Its own name is as new as that of the segment, and tickets for the old one say nothing of it.
        self.durable_names = Arc::new(AtomicU64::new(0));
        Ok(())
    }

    /// Leaves the active segment because its tail or its device is in doubt.
    fn abandon(&mut self) {
        let Some(active) = self.active.take() else { return };
        active.sync.mark_failed();
        self.put_away(&active);
        self.notice_failed_syncs();
    }

    fn put_away(&mut self, active: &Active) {
        self.sealed.push_back(Sealed {
            path: active.sync.path().to_owned(),
            first_seq: active.first_seq,
            next_seq: self.next_seq,
            bytes: active.offset,
            gaps: None,
            is_dropped: false,
        });
    }

    /// Takes segments whose fsync failed out of use and their un-synced frames into doubt.
    fn notice_failed_syncs(&mut self) {
        let active_failed = self.active.take_if(|active| active.sync.has_failed());
        if let Some(active) = active_failed {
            self.put_away(&active);
        }
        let mut doubt = self.doubt.take();
        self.unsynced.retain(|segment| {
            if !segment.sync.has_failed() {
                return true;
            }
            let lost = segment.sync.durable_next_seq()..segment.next_seq;
            if !lost.is_empty() {
                doubt = Some(match &doubt {
                    Some(known) => known.start.min(lost.start)..known.end.max(lost.end),
                    None => lost,
                });
            }
            false
        });
        self.doubt = doubt;
    }

    fn forget_synced(&mut self) {
        let durable_names = self.durable_names.load(Ordering::Acquire);
        let active = self.active.as_ref().map(|active| Arc::clone(&active.sync));
        self.unsynced.retain(|segment| {
            let is_active = active.as_ref().is_some_and(|active| Arc::ptr_eq(active, &segment.sync));
            let is_durable = segment.sync.durable_next_seq() >= segment.next_seq && segment.name <= durable_names;
            is_active || !is_durable
        });
    }
}

/// Removes a writer's directory with all that is in it: everything is durable elsewhere, or the user wants it gone. The
/// caller holds the lock.
///
/// # Errors
/// `Io` for the first thing that cannot be removed; the rest stays.
pub fn remove(disk: &dyn Disk, dir: &Path) -> Result<(), JournalError> {
    let mut names: Vec<_> = disk.list(dir).map_err(|error| JournalError::io("list", dir, error))?.into_iter().collect();
    runferry_failpoints::hit!("journal.remove");
    // The lock goes last: whoever finds it gone finds nothing else either.
    names.sort_by_key(|entry| (entry.name == "LOCK", entry.name.clone()));
    let keeps_folders = names.iter().any(|entry| entry.is_dir);
    for entry in names.into_iter().filter(|entry| !entry.is_dir) {
        let path = dir.join(entry.name);
        match disk.unlink(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(JournalError::io("remove", &path, error)),
            Ok(()) | Err(_) => {}
        }
    }
    if keeps_folders {
        return Ok(());
    }
    disk.remove_dir(dir).map_err(|error| JournalError::io("remove", dir, error))
}
