//! The reading side: one frame after the other, from a journal that may still grow.
//!
//! The sender follows the journal through this while the packer appends, and `sync` reads a dead writer's journal with
//! it. The two differ in one thing, [`Reader::live`]: what stands at the end of a live journal may be a write in flight,
//! and is looked at again; at the end of a dead one it stays what it is.
//!
//! # Order
//! Frames come by number, each once. A number no good frame holds comes as a [`Gap`], never silently.
//!
//! # Failure
//! A frame that is damaged in one segment is looked for in the others before it becomes a gap. Segments removed below
//! the reader's place are not missed.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use runferry_wire::frame::{FrameError, Header};

use crate::disk::{Disk, DiskFile};
use crate::error::JournalError;
use crate::scan::{Gap, GapReason, at_path, writer_id_of};
use crate::segment::{self, SegmentName};
use crate::walk::{Found, Identity, Walk, Window};

/// Large reads: frames are small beside the cost of a call.
const READ_BYTES: usize = 256 << 10;
/// Enough for the header a search looks at.
const SEARCH_BYTES: usize = 16 << 10;

type SegmentWalk = Walk<Arc<dyn DiskFile>>;

/// What comes next in a journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// A whole frame, both checksums verified.
    Frame(Vec<u8>),
    /// Numbers that no good frame holds.
    Gap(Gap),
    /// Nothing more now. Of a dead journal: nothing more.
    CaughtUp,
}

/// The segment being read.
#[derive(Debug)]
struct Current {
    name: SegmentName,
    walk: SegmentWalk,
    /// Its end was come upon while a newer segment existed: it will not change any more.
    is_final: bool,
}

/// A place in a journal.
#[derive(Debug)]
pub struct Reader {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    is_live: bool,
    expected: u64,
    identity: Identity,
    current: Option<Current>,
    /// Segments read to their end.
    exhausted: BTreeSet<SegmentName>,
    /// First numbers by what the files say; names may lie.
    first_seqs: BTreeMap<SegmentName, u64>,
    /// Damage met since the last good frame.
    damage: Option<String>,
}

impl Reader {
    /// A reader of the journal in `dir` that begins with frame `from_seq` and takes the journal for live. Numbers below
    /// the first segment come as a gap, so a reader of a trimmed journal begins at `Scan::first_seq`.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, from_seq: u64) -> Self {
        Self {
            disk,
            dir: dir.to_owned(),
            is_live: true,
            expected: from_seq,
            identity: Identity { writer_id: writer_id_of(dir), ..Identity::UNKNOWN },
            current: None,
            exhausted: BTreeSet::new(),
            first_seqs: BTreeMap::new(),
            damage: None,
        }
    }

    /// Says whether a writer may still append. It may change at any time, in both directions.
    pub fn live(&mut self, is_live: bool) {
        self.is_live = is_live;
    }

    /// The number of the next frame or gap.
    pub fn next_seq(&self) -> u64 {
        self.expected
    }

    /// Goes to another place, as a server asks by Rewind.
    pub fn seek(&mut self, seq: u64) {
        self.expected = seq;
        self.current = None;
        self.exhausted.clear();
        self.damage = None;
    }

    /// The next frame or gap. Frames without a number (OPEN) are passed over.
    ///
    /// # Errors
    /// `Io` where the system does not let us read at all; the place is kept. `Unsupported` for a later format version.
    #[expect(clippy::should_implement_trait, reason = "an iterator ends; a journal that is caught up goes on")]
    pub fn next(&mut self) -> Result<Next, JournalError> {
        loop {
            let Some(current) = &mut self.current else {
                if !self.select()? {
                    return Ok(Next::CaughtUp);
                }
                continue;
            };
            let name = current.name;
            let found = current.walk.next().map_err(|blocked| at_path(blocked, &name.path(&self.dir)))?;
            self.identity = current.walk.identity();
            match found {
                Found::Frame { offset, header } => {
                    if let Some(next) = self.on_frame(name, offset, &header)? {
                        return Ok(next);
                    }
                }
                Found::Skipped(damage) => self.note(name, damage.offset, damage.bytes),
                Found::End(damage) => {
                    if self.is_live && !current.is_final {
                        current.walk.forget();
                        if self.is_newest(name)? {
                            return Ok(Next::CaughtUp);
                        }
                        // Frames may have come between the look at the end and the look at the directory.
                        if let Some(current) = &mut self.current {
                            current.is_final = true;
                        }
                        continue;
                    }
                    if let Some(damage) = damage {
                        self.note(name, damage.offset, damage.bytes);
                    }
                    self.exhausted.insert(name);
                    self.current = None;
                }
            }
        }
    }

    fn on_frame(&mut self, name: SegmentName, offset: u64, header: &Header) -> Result<Option<Next>, JournalError> {
        if header.seq < self.expected {
            return Ok(None);
        }
        if header.seq > self.expected {
            self.rewind(offset);
            return self.hole(name, header.seq).map(Some);
        }
        if !header.kind.is_numbered() {
            return Ok(None);
        }
        let path = name.path(&self.dir);
        let mut verified = self.verify(offset, header, &path)?;
        if verified.is_err() && self.is_live {
            let is_last_word = self.is_last_word(name)?;
            self.rewind(offset);
            if is_last_word {
                // Perhaps a write in flight.
                return Ok(Some(Next::CaughtUp));
            }
            // It is not in flight any more; it may have been when it was read.
            verified = self.verify(offset, header, &path)?;
            self.rewind(offset + header.frame_len() as u64);
        }
        let damage = match verified {
            Ok(bytes) => return Ok(Some(self.deliver(header, bytes))),
            Err(damage) => damage,
        };
        if let Some((header, bytes)) = self.find_elsewhere(name, header.seq, header.seq.saturating_add(1))? {
            return Ok(Some(self.deliver(&header, bytes)));
        }
        let gap = Gap {
            seq: header.seq,
            count: header.next_seq() - header.seq,
            records: u64::from(header.record_count),
            reason: GapReason::Corrupt,
            detail: format!("{} at offset {offset}: {damage}", path.display()),
        };
        self.expected = header.next_seq();
        Ok(Some(Next::Gap(gap)))
    }

    fn verify(
        &mut self,
        offset: u64,
        header: &Header,
        path: &Path,
    ) -> Result<Result<Vec<u8>, FrameError>, JournalError> {
        let Some(current) = &mut self.current else { return Ok(Err(FrameError::Torn { missing_bytes: 0 })) };
        let frame = current.walk.read(offset, header).map_err(|error| JournalError::io("read", path, error))?;
        Ok(frame.map(|frame| frame.bytes.to_vec()))
    }

    fn deliver(&mut self, header: &Header, bytes: Vec<u8>) -> Next {
        self.expected = header.next_seq();
        self.damage = None;
        Next::Frame(bytes)
    }

    /// The numbers from the expected one to `until` are not where they should be.
    fn hole(&mut self, name: SegmentName, until: u64) -> Result<Next, JournalError> {
        let seq = self.expected;
        let elsewhere = self.find_elsewhere(name, seq, until)?;
        if let Some((header, bytes)) = &elsewhere
            && header.seq == seq
        {
            return Ok(self.deliver(header, bytes.clone()));
        }
        let until = elsewhere.map_or(until, |(header, _)| header.seq);
        self.expected = until;
        let (reason, detail) = match self.damage.take() {
            Some(detail) => (GapReason::Corrupt, detail),
            None => (GapReason::Missing, format!("no segment holds frames {seq} to {}", until - 1)),
        };
        Ok(Next::Gap(Gap { seq, count: until - seq, records: 0, reason, detail }))
    }

    /// The good frame with the lowest number in `seq..until` outside of `except`.
    fn find_elsewhere(
        &mut self,
        except: SegmentName,
        seq: u64,
        until: u64,
    ) -> Result<Option<(Header, Vec<u8>)>, JournalError> {
        let mut best: Option<(Header, Vec<u8>)> = None;
        for name in self.list()?.into_iter().rev().filter(|&name| name != except) {
            let until = best.as_ref().map_or(until, |(header, _)| header.seq);
            if self.first_seq(name)? >= until {
                continue;
            }
            let Some(mut walk) = self.walk(name, SEARCH_BYTES)? else { continue };
            let path = name.path(&self.dir);
            loop {
                match walk.next().map_err(|blocked| at_path(blocked, &path))? {
                    Found::End(_) => break,
                    Found::Frame { offset, header }
                        if header.kind.is_numbered() && (seq..until).contains(&header.seq) =>
                    {
                        let read =
                            walk.read(offset, &header).map_err(|error| JournalError::io("read", &path, error))?;
                        if let Ok(frame) = read {
                            best = Some((header, frame.bytes.to_vec()));
                            break;
                        }
                    }
                    Found::Frame { .. } | Found::Skipped(_) => {}
                }
            }
        }
        Ok(best)
    }

    /// Chooses the segment to go on with: the newest of those that may hold the expected frame.
    fn select(&mut self) -> Result<bool, JournalError> {
        let mut known = Vec::new();
        for name in self.list()? {
            if !self.exhausted.contains(&name) {
                known.push((self.first_seq(name)?, name));
            }
        }
        let expected = self.expected;
        let holding = known.iter().filter(|(first_seq, _)| *first_seq <= expected).max_by_key(|(_, name)| *name);
        let Some(&(_, name)) = holding.or_else(|| known.iter().min()) else { return Ok(false) };
        match self.walk(name, READ_BYTES)? {
            Some(walk) => self.current = Some(Current { name, walk, is_final: false }),
            // Removed since the directory was listed.
            None => drop(self.exhausted.insert(name)),
        }
        Ok(true)
    }

    fn is_newest(&self, name: SegmentName) -> Result<bool, JournalError> {
        Ok(self.list()?.last().is_none_or(|&newest| newest <= name))
    }

    /// Whether nothing stands behind the frame the walk has just found.
    fn is_last_word(&mut self, name: SegmentName) -> Result<bool, JournalError> {
        let is_newest = self.is_newest(name)?;
        let Some(current) = &mut self.current else { return Ok(false) };
        current.walk.forget();
        let found = current.walk.next().map_err(|blocked| at_path(blocked, &name.path(&self.dir)))?;
        Ok(is_newest && matches!(found, Found::End(_)))
    }

    fn rewind(&mut self, offset: u64) {
        if let Some(current) = &mut self.current {
            current.walk.rewind(offset);
        }
    }

    fn note(&mut self, name: SegmentName, offset: u64, bytes: u64) {
        let path = name.path(&self.dir);
        self.damage = Some(format!("{}: {bytes} bytes at offset {offset} are damaged", path.display()));
    }

    fn list(&self) -> Result<Vec<SegmentName>, JournalError> {
        segment::list(&*self.disk, &self.dir)
    }

    fn first_seq(&mut self, name: SegmentName) -> Result<u64, JournalError> {
        if let Some(&first_seq) = self.first_seqs.get(&name) {
            return Ok(first_seq);
        }
        let Some(mut walk) = self.walk(name, SEARCH_BYTES)? else { return Ok(name.first_seq) };
        let mut first_seq = u64::MAX;
        loop {
            match walk.next().map_err(|blocked| at_path(blocked, &name.path(&self.dir)))? {
                Found::Frame { header, .. } => {
                    first_seq = first_seq.min(header.seq);
                    self.first_seqs.insert(name, first_seq);
                    return Ok(first_seq);
                }
                // The head is lost: the name may know of lower numbers than the first frame that is left.
                Found::Skipped(_) => first_seq = name.first_seq,
                Found::End(_) => return Ok(name.first_seq),
            }
        }
    }

    fn walk(&self, name: SegmentName, read_bytes: usize) -> Result<Option<SegmentWalk>, JournalError> {
        let path = name.path(&self.dir);
        match self.disk.open_read(&path) {
            Ok(file) => Ok(Some(Walk::new(Window::new(file, read_bytes), self.identity))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(JournalError::io("open", &path, error)),
        }
    }
}
