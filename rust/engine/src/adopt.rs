//! Taking over from a process that died: its ring is packed into its journal, under its lock.
//!
//! # Order
//! Lock, scan, ring. The ring's intent says which records have a frame number already: if the journal holds that number they are
//! skipped, else they get that number again, cut at the same record, so a server that has seen the frame meets the same one.
//!
//! # Heirs
//! While the disk refuses frames, a writer sends them to the server from memory, under numbers that its journal never saw. Nobody can say
//! afterwards which records each of them held, so what such a writer leaves in the ring goes to an *heir*: a new writer of the same run with a
//! journal of its own. What the server has twice by that is the same value at the same step, and shows once.
//!
//! # Failure
//! Killed in the middle, an adopter leaves what the next one needs: each frame is announced in the ring's header before it is
//! written, and the ring is removed last.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use runferry_journal::{
    DamageKind, Disk, Journal, JournalError, JournalOptions, Lock, LockError, LockInfo, Note, RealDisk, Scan, scan,
};
use runferry_ring::{HeaderError, Orphan, RingError};
use runferry_wire::record::{Dropped, SPOOLED};
use runferry_wire::{Block, Doc, Frame, Kind, block, flags, payload};
use thiserror::Error;

use crate::batch::{Batch, Identity, Names, Packed, gap_frame, map_frame};
use crate::writer::Writer;
use crate::{machine, rowspool};

/// How often, and how many times, an adoption by somebody else is waited for: 2 s together.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(20);
pub(crate) const MOST_LOOKS: u32 = 100;

/// Why a journal could not be taken over.
#[derive(Debug, Error)]
pub enum AdoptError {
    /// Its writer is alive, or another adopter is at it.
    #[error("the journal is in use by process {pid} on {host:?}")]
    Alive {
        /// The holder.
        pid: u32,
        /// Its host.
        host: String,
    },
    /// The lock cannot be had.
    #[error("cannot lock the journal")]
    Lock(#[source] LockError),
    /// The journal cannot be read or written.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// No OPEN frame survived: nobody knows whose frames these are.
    #[error("the journal in {} has no readable OPEN frame", .0.display())]
    NoOpen(PathBuf),
    /// The writer died before its first frame, and so before its first `log`: nothing was ever here. The folder is gone now.
    #[error("{} was empty, and is removed", .0.display())]
    Empty(PathBuf),
    /// The ring cannot be read; the journal is whole as it is.
    #[error("the ring cannot be adopted")]
    Ring(#[from] RingError),
}

/// A journal whose lock is ours.
#[derive(Debug)]
pub struct Adopted {
    /// Held until this is dropped.
    pub lock: Lock,
    /// What the journal holds now.
    pub scan: Scan,
    /// Run and writer.
    pub identity: Identity,
    /// The map of its OPEN frame.
    pub open: Doc,
    /// The OPEN frame.
    pub open_frame: Vec<u8>,
    /// Rows that were still in the ring.
    pub recovered_rows: u64,
    /// Folder of the journal that took those rows, if it could not be this one.
    pub heir: Option<PathBuf>,
}

impl Adopted {
    /// Whether the writer is known to have died without FINISH. That its lock was free is not enough: so is that of a copy of a
    /// living writer's journal.
    pub fn has_died(&self) -> bool {
        !self.scan.is_finished && machine::is_gone(&self.open)
    }
}

struct OrphanNames<'a>(&'a Orphan);

impl Names for OrphanNames<'_> {
    fn item(&self, id: u32) -> Option<&[u8]> {
        self.0.name(id)
    }
}

/// The map and the identity of an OPEN frame.
pub fn read_open(frame: &[u8]) -> Option<(Identity, Doc)> {
    let frame = Frame::read(frame).ok()?;
    let raw = payload::decompress(&frame.header, frame.payload).ok()?;
    let identity = Identity { run_id: frame.header.run_id, writer_id: frame.header.writer_id };
    Some((identity, Doc::decode(&raw).ok()?))
}

/// Locks the journal in `dir` and packs the ring of its dead writer into it.
///
/// # Errors
/// [`AdoptError`]. After `Ring` the journal can still be read and sent as it is: see [`lock_only`].
pub fn adopt(dir: &Path) -> Result<Adopted, AdoptError> {
    let before = LockInfo::read(dir).unwrap_or_default();
    let mut adopted = lock_only(dir)?;
    let ring_name = format!("runferry-{:016x}.ring", adopted.identity.writer_id);
    let places =
        before.ring.iter().map(PathBuf::from).chain([machine::shm_dir().join(&ring_name), dir.join(&ring_name)]);
    for path in places {
        let orphan = match Orphan::open(&path) {
            Ok(orphan) => orphan,
            Err(RingError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => continue,
            Err(RingError::Header { source: HeaderError::Unfinished | HeaderError::Damaged { .. }, .. }) => {
                bury(dir, &adopted, &path)?;
                adopted.scan = scan::scan(&RealDisk, dir)?;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let ring = *orphan.identity();
        if (ring.run_id, ring.writer_id) != (adopted.identity.run_id, adopted.identity.writer_id) {
            continue;
        }
        let left = Left {
            disk: Arc::new(RealDisk),
            dir,
            scan: &adopted.scan,
            identity: adopted.identity,
            open: &adopted.open,
        };
        let (rows, heir) = left.pack_orphan(orphan, Writer::new_writer_id)?;
        adopted.recovered_rows += rows;
        adopted.heir = heir.or(adopted.heir);
        adopted.scan = scan::scan(&RealDisk, dir)?;
    }
    Ok(adopted)
}

/// Locks a journal whose writer is gone, and reads what it holds.
///
/// # Errors
/// [`AdoptError`], but for `Ring`.
pub fn lock_only(dir: &Path) -> Result<Adopted, AdoptError> {
    let before = LockInfo::read(dir).unwrap_or_default();
    let pid = std::process::id();
    let info = LockInfo {
        pid,
        start_ticks: machine::start_ticks(pid),
        boot_id: machine::boot_id_text(),
        host: machine::host(),
        ..before
    };
    let lock = Lock::acquire(dir, &info).map_err(|error| match error {
        LockError::Held(LockInfo { pid, host, .. }) => AdoptError::Alive { pid, host },
        error @ LockError::Io { .. } => AdoptError::Lock(error),
    })?;
    runferry_failpoints::hit!("recover.locked");
    let scan = scan::scan(&RealDisk, dir)?;
    runferry_failpoints::hit!("recover.scanned");
    if is_empty(dir, &scan, info.ring.as_deref()) {
        runferry_journal::remove(&RealDisk, dir)?;
        return Err(AdoptError::Empty(dir.to_owned()));
    }
    let open_frame = scan.open.clone().ok_or_else(|| AdoptError::NoOpen(dir.to_owned()))?;
    let (identity, open) = read_open(&open_frame).ok_or_else(|| AdoptError::NoOpen(dir.to_owned()))?;
    Ok(Adopted { lock, scan, identity, open, open_frame, recovered_rows: 0, heir: None })
}

/// Whether a writer died so early that its journal never had a whole frame, and there is no ring: the ring is made after the OPEN frame.
fn is_empty(dir: &Path, scan: &Scan, ring: Option<&str>) -> bool {
    let is_known = |name: &str| name == "LOCK" || name.starts_with("seg-");
    let Ok(mut names) = std::fs::read_dir(dir) else { return false };
    let is_torn_at_once = |note: &Note| note.kind == DamageKind::Torn && note.offset == 0;
    scan.open.is_none()
        && scan.pieces.is_empty()
        && scan.notes.iter().all(is_torn_at_once)
        && names.all(|entry| entry.is_ok_and(|entry| entry.file_name().to_str().is_some_and(is_known)))
        && !ring.is_some_and(|ring| Path::new(ring).exists())
}

/// What a dead process left on the disk. The caller holds its lock.
pub(crate) struct Left<'a> {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) dir: &'a Path,
    pub(crate) scan: &'a Scan,
    pub(crate) identity: Identity,
    pub(crate) open: &'a Doc,
}

impl Left<'_> {
    /// Packs what the ring holds beyond the journal, and removes the ring. Returns the rows, and the heir's folder if there is one.
    pub(crate) fn pack_orphan(
        &self,
        mut orphan: Orphan,
        new_writer_id: impl FnOnce() -> u64,
    ) -> Result<(u64, Option<PathBuf>), AdoptError> {
        let mut next_seq = self.scan.next_seq;
        let (mut from, mut cut, mut needs_heir) = (orphan.head(), None, false);
        if let Some(intent) = orphan.intent() {
            if intent.seq < next_seq {
                from = from.max(intent.end);
            } else if intent.seq == next_seq && intent.end > from {
                cut = Some(intent.end);
            } else {
                needs_heir = true;
            }
        }
        let mut identity = self.identity;
        if needs_heir {
            identity.writer_id = new_writer_id();
            next_seq = 1;
        }

        let lost_bytes = if orphan.tail() > from { orphan.unreachable_bytes() } else { 0 };
        let mut batch = Batch::default();
        let mut spooled = Vec::new();
        let mut journal = None;
        let mut rows = 0;
        loop {
            let taken = Self::take_in(&orphan, from, cut, &mut batch, &mut spooled);
            match taken {
                Some(end) => from = end,
                None => batch.close(),
            }
            let mut packed: Vec<Packed> = std::iter::from_fn(|| {
                let frame = batch.pack(identity, next_seq, flags::RECOVERED)?;
                next_seq = frame.next_seq;
                Some(frame)
            })
            .collect();
            if taken.is_none() && lost_bytes > 0 {
                let detail = "the ring was cut or written to by somebody else";
                packed.push(lost_in_ring(identity, next_seq, orphan.tail(), lost_bytes, detail));
            }
            runferry_failpoints::hit!("recover.packed");
            for frame in packed {
                let journal = match &mut journal {
                    Some(journal) => journal,
                    None => journal.insert(self.journal_for(identity)?),
                };
                rows += frame.rows;
                if needs_heir {
                    // Killed here, the next adopter makes another heir: the same values at the same steps once more.
                    journal.append(&frame.frame)?;
                    runferry_failpoints::hit!("recover.heir");
                    continue;
                }
                orphan.set_intent(frame.seq, frame.end)?;
                runferry_failpoints::hit!("recover.before_write");
                journal.append(&frame.frame)?;
                runferry_failpoints::hit!("recover.after_write");
                orphan.release(frame.end)?;
                runferry_failpoints::hit!("recover.released");
            }
            if taken.is_none() {
                break;
            }
        }
        if let Some(ticket) = journal.as_mut().and_then(Journal::sync_ticket) {
            ticket.sync()?;
        }
        let heir = journal.filter(|_| needs_heir).map(|journal| journal.dir().to_owned());
        runferry_failpoints::hit!("recover.remove");
        orphan.remove()?;
        runferry_failpoints::hit!("recover.removed");
        for path in spooled {
            // Left behind it is only litter.
            std::fs::remove_file(path).ok();
        }
        Ok((rows, heir))
    }

    /// Takes entries behind `from` into the batch until a frame is ready, since each may unfold to many times its bytes. Where the last of
    /// them ends; `None`: there is no more.
    fn take_in(
        orphan: &Orphan,
        from: u64,
        cut: Option<u64>,
        batch: &mut Batch,
        spooled: &mut Vec<PathBuf>,
    ) -> Option<u64> {
        let names = OrphanNames(orphan);
        let mut end = None;
        for entry in orphan.entries().filter(|entry| entry.end > from) {
            if entry.kind == SPOOLED
                && let Ok((kind, payload, path)) = rowspool::read(entry.payload)
            {
                batch.push(kind, &payload, entry.end, &names, Duration::ZERO);
                spooled.push(path);
            } else {
                batch.push(entry.kind, entry.payload, entry.end, &names, Duration::ZERO);
            }
            if cut == Some(entry.end) {
                batch.close();
            }
            end = Some(entry.end);
            if batch.has_ready() {
                break;
            }
        }
        end
    }

    /// The journal that takes what the ring holds: this one, or a new one of an heir.
    fn journal_for(&self, identity: Identity) -> Result<Journal, JournalError> {
        let is_heir = identity.writer_id != self.identity.writer_id;
        let mut open = self.open.clone();
        if is_heir {
            open.set("parent_writer", Doc::Int(self.identity.writer_id as i64));
        }
        let open_frame = move |seq| map_frame(identity, Kind::Open, seq, 0, 0, &open);
        let (disk, options) = (Arc::clone(&self.disk), JournalOptions::OFFLINE);
        if is_heir {
            let dir = self.dir.with_file_name(format!("{:016x}", identity.writer_id));
            Journal::create(disk, &dir, open_frame, 1, options)
        } else {
            Journal::resume(disk, self.dir, self.scan, open_frame, self.scan.next_seq, options)
        }
    }
}

/// The GAP for what lay in a ring and cannot be read.
fn lost_in_ring(identity: Identity, seq: u64, end: u64, bytes: u64, detail: &str) -> Packed {
    let counts = Dropped { bytes, ..Dropped::default() };
    let frame = gap_frame(identity, seq, 1, flags::RECOVERED, "corrupt", counts, detail);
    Packed { frame, seq, next_seq: seq + 1, end, rows: 0, points: 0, gone: counts }
}

/// Puts a GAP in the place of a ring of which nothing can be read, and removes it. A writer that had no frame yet, or no more to come, lost
/// nothing with it: the ring was not yet made, or was empty. Killed between the two steps, the next adopter tells of the loss once more.
fn bury(dir: &Path, adopted: &Adopted, ring: &Path) -> Result<(), AdoptError> {
    let (identity, open, next_seq) = (adopted.identity, adopted.open.clone(), adopted.scan.next_seq);
    if next_seq > 1 && !adopted.scan.is_finished {
        let open_frame = move |seq| map_frame(identity, Kind::Open, seq, 0, 0, &open);
        let options = JournalOptions::OFFLINE;
        let mut journal = Journal::resume(Arc::new(RealDisk), dir, &adopted.scan, open_frame, next_seq, options)?;
        journal.append(&lost_in_ring(identity, next_seq, 0, 0, "the ring was cut by somebody else").frame)?;
    }
    std::fs::remove_file(ring)
        .map_err(|source| AdoptError::Ring(RingError::Io { action: "remove", path: ring.to_owned(), source }))
}

/// The highest step in the journals of a run below `root`, those of dead writers adopted first; `None`: no row there.
pub fn last_step(root: &Path, run_id: [u8; 16]) -> Option<i64> {
    let run_dir = root.join(machine::hex(run_id));
    let writers =
        std::fs::read_dir(run_dir).ok()?.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_dir());
    writers
        .filter_map(|dir| {
            for _ in 0..MOST_LOOKS {
                match adopt(&dir) {
                    Ok(adopted) => return last_step_of(&adopted.scan),
                    Err(AdoptError::Alive { pid, .. }) if is_being_adopted(&dir, pid) => std::thread::sleep(LOOK_AGAIN),
                    // Alive, or not ours to write: what it holds counts all the same.
                    Err(_) => break,
                }
            }
            last_step_of(&scan::scan(&RealDisk, &dir).ok()?)
        })
        .max()
}

/// Whether the holder of the lock is not the ring's own process, but one that is packing the ring just now.
fn is_being_adopted(dir: &Path, holder: u32) -> bool {
    let ring = LockInfo::read(dir).ok().and_then(|info| info.ring);
    ring.and_then(|path| Orphan::open(Path::new(&path)).ok()).is_some_and(|orphan| orphan.identity().pid != holder)
}

/// Steps never go back within a writer, so the last frame with rows has the highest.
fn last_step_of(scan: &Scan) -> Option<i64> {
    use runferry_journal::Piece;
    scan.pieces.iter().rev().find_map(|piece| {
        let Piece::Frame { segment, offset, header } = piece else { return None };
        if header.kind != Kind::Data {
            return None;
        }
        let file = RealDisk.open_read(segment).ok()?;
        let mut bytes = vec![0; header.frame_len()];
        let mut filled = 0;
        while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match file.pread(rest, offset + filled as u64).ok()? {
                0 => return None,
                read => filled += read,
            }
        }
        let frame = Frame::read(&bytes).ok()?;
        let raw = payload::decompress(&frame.header, frame.payload).ok()?;
        let blocks = block::decode_wanted(&raw, &|_| false).ok()?;
        blocks
            .iter()
            .filter_map(|block| if let Block::Rows(rows) = block { rows.steps.last().copied() } else { None })
            .max()
    })
}
