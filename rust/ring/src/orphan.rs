//! An orphan: the ring of a process that died, read by the one that adopts it.
//!
//! The file is copied, never mapped: a few MiB cost a millisecond, and no truncation by somebody else can become a SIGBUS. The
//! walk goes from the head from commit word to commit word and ends at the first that is not valid: usually where the dead
//! process was about to write. A cut or damaged file gives what can still be reached, and [`Orphan::is_whole`] is false.
//!
//! Whether the process is dead the journal's lock must say; an orphan of a living one is a torn snapshot.
//!
//! # Adopting in steps
//! An adopter may be killed too. [`Orphan::set_intent`] and [`Orphan::release`] write to the file what the consumer would have
//! written, so the next adopter continues instead of starting over.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use crate::error::RingError;
use crate::header::{
    CLOSED_AT, HEAD_AT, HEADER_BYTES, Header, INTENT_AT, Identity, Intent, TAIL_AT, decode_intent, encode_intent,
};
use crate::word::{WORD_BYTES, Word, entry_end};
use crate::{names, place};

/// One entry of an orphan.
pub type OrphanEntry<'a> = crate::consumer::Entry<'a>;

/// A dead process's ring.
#[derive(Debug)]
pub struct Orphan {
    path: PathBuf,
    header: Header,
    nonce: u64,
    /// The file, as far as it is there.
    bytes: Vec<u8>,
    names: Vec<(usize, usize)>,
    intent: Option<(u64, Intent)>,
    head: u64,
    tail: u64,
    valid_end: u64,
}

impl Orphan {
    /// Reads the ring of a process that is dead.
    ///
    /// # Errors
    /// `Io`: it cannot be read; `NotFound` means that it was adopted already. `Foreign`: not a plain file of this user.
    /// `Header`: no ring, a newer one, or a damaged header; its [`HeaderError`](crate::HeaderError) says what to do.
    pub fn open(path: &Path) -> Result<Self, RingError> {
        let file = open(path, OFlags::RDONLY | OFlags::NONBLOCK)?;
        check_owner(path, &file)?;
        let failed = |source| io_error("read", path, source);
        let mut bytes = Vec::new();
        (&file).take(HEADER_BYTES as u64).read_to_end(&mut bytes).map_err(failed)?;
        let header = Header::decode(&bytes).map_err(|source| RingError::Header { path: path.to_owned(), source })?;
        (&file).take(header.file_bytes() - HEADER_BYTES as u64).read_to_end(&mut bytes).map_err(failed)?;
        Ok(Self::parse(path, header, bytes))
    }

    /// Reads the bytes of such a file, without a disk: it has no path, and its file cannot be written to.
    ///
    /// # Errors
    /// [`HeaderError`](crate::HeaderError): no ring, a newer one, or a damaged header.
    pub fn of_bytes(bytes: Vec<u8>) -> Result<Self, crate::HeaderError> {
        Ok(Self::parse(Path::new(""), Header::decode(&bytes)?, bytes))
    }

    fn parse(path: &Path, header: Header, bytes: Vec<u8>) -> Self {
        let nonce = header.identity.nonce();
        let names_end = bytes.len().min(header.entries_at());
        let names = names::scan(bytes.get(header.names_at()..names_end).unwrap_or_default(), nonce);
        let intent = INTENT_AT
            .into_iter()
            .filter_map(|at| {
                let [generation, seq, end, check] = [0, 8, 16, 24].map(|field| word(&bytes, at + field));
                decode_intent([generation?, seq?, end?, check?], nonce)
            })
            .max_by_key(|(generation, _)| *generation);
        let head = word(&bytes, HEAD_AT).unwrap_or(0);
        let tail = word(&bytes, TAIL_AT).unwrap_or(0);
        let path = path.to_owned();
        let mut orphan = Self { path, header, nonce, bytes, names, intent, head, tail, valid_end: head };
        while let Some((_, end)) = orphan.entry_from(orphan.valid_end) {
            orphan.valid_end = end;
        }
        orphan
    }

    /// Whose ring it is.
    pub fn identity(&self) -> &Identity {
        &self.header.identity
    }

    /// The ring's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The entries that were committed and not released, in order.
    pub fn entries(&self) -> Entries<'_> {
        Entries { orphan: self, cursor: self.head }
    }

    /// The name numbered `id`; `None` if there is none, or it can no longer be read.
    pub fn name(&self, id: u32) -> Option<&[u8]> {
        let (at, len) = *self.names.get(id as usize)?;
        self.bytes.get(self.header.names_at() + at..)?.get(..len)
    }

    /// All names that can be read, by number.
    pub fn names(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.names.len() as u32).map_while(|id| self.name(id))
    }

    /// What the last frame that may have been written holds; `None` if none was begun.
    ///
    /// If the journal's last seq is this one, or later, the entries up to its `end` are in the journal. If it is the one before, an
    /// adopter must cut its first frame at `end`. An `end` at or before [`Self::head`] concerns nothing in this ring any more.
    pub fn intent(&self) -> Option<Intent> {
        self.intent.map(|(_, intent)| intent)
    }

    /// Absolute offset up to which entries were released.
    pub fn head(&self) -> u64 {
        self.head
    }

    /// Absolute offset behind the last entry that was published.
    pub fn tail(&self) -> u64 {
        self.tail
    }

    /// Whether the process had closed the ring: it ended in order, but was not there to unlink it.
    pub fn is_closed(&self) -> bool {
        word(&self.bytes, CLOSED_AT).is_some_and(|closed| closed != 0)
    }

    /// Whether the walk reached every entry that was published. False: the file was cut or written to by somebody else.
    pub fn is_whole(&self) -> bool {
        self.bytes.len() as u64 == self.header.file_bytes() && self.head <= self.tail && self.tail <= self.valid_end
    }

    /// Bytes of published entries that the walk could not reach; 0 if it is whole, never more than the ring's size.
    pub fn unreachable_bytes(&self) -> u64 {
        self.tail.saturating_sub(self.valid_end).min(self.header.entry_bytes)
    }

    /// Notes that frame `seq` holds the entries up to `end`, before it is written anywhere. As [`crate::Consumer::set_intent`].
    ///
    /// # Errors
    /// `Io`: the file cannot be written.
    pub fn set_intent(&mut self, seq: u64, end: u64) -> Result<(), RingError> {
        let generation = self.intent.map_or(1, |(generation, _)| generation.wrapping_add(1));
        let intent = Intent { seq, end };
        let [even, odd] = INTENT_AT;
        let words = encode_intent(generation, intent, self.nonce).map(u64::to_le_bytes);
        self.write(if generation.is_multiple_of(2) { even } else { odd }, words.as_flattened())?;
        self.intent = Some((generation, intent));
        Ok(())
    }

    /// Forgets the entries up to `end`, an entry's end: their records are in the journal. Anything else is ignored.
    ///
    /// # Errors
    /// `Io`: the file cannot be written.
    pub fn release(&mut self, end: u64) -> Result<(), RingError> {
        if end > self.head && end <= self.valid_end {
            self.write(HEAD_AT, &end.to_le_bytes())?;
            self.head = end;
        }
        Ok(())
    }

    /// Removes the file: everything in it is in the journal.
    ///
    /// # Errors
    /// `Io`: it cannot be removed. That it is gone already is no error.
    pub fn remove(self) -> Result<(), RingError> {
        place::remove_file(&self.path).map_err(|source| io_error("remove", &self.path, source))
    }

    fn write(&self, at: usize, bytes: &[u8]) -> Result<(), RingError> {
        let file = open(&self.path, OFlags::WRONLY | OFlags::NONBLOCK)?;
        file.write_all_at(bytes, at as u64).map_err(|source| io_error("write to", &self.path, source))
    }

    /// The entry at or behind `at`, past a PAD, and its end; `None` if there is no valid one.
    fn entry_from(&self, mut at: u64) -> Option<(OrphanEntry<'_>, u64)> {
        let entry_bytes = self.header.entry_bytes;
        let limit = self.head.checked_add(entry_bytes)?;
        loop {
            let position = at & (entry_bytes - 1);
            let lap_end = at.checked_add(entry_bytes - position)?;
            let start = self.header.entries_at() + position as usize;
            if !at.is_multiple_of(WORD_BYTES) || at >= limit {
                return None;
            }
            match Word::decode(word(&self.bytes, start)?, self.nonce, at)? {
                Word::Pad => at = lap_end,
                Word::Entry { kind, payload_len } => {
                    let end = at.checked_add(entry_end(0, payload_len as usize))?;
                    let payload = self.bytes.get(start + WORD_BYTES as usize..)?.get(..payload_len as usize)?;
                    return (end <= lap_end && end <= limit).then_some((OrphanEntry { kind, payload, end }, end));
                }
            }
        }
    }
}

/// The entries of an orphan: see [`Orphan::entries`].
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    orphan: &'a Orphan,
    cursor: u64,
}

impl<'a> Iterator for Entries<'a> {
    type Item = OrphanEntry<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let (entry, end) = self.orphan.entry_from(self.cursor)?;
        self.cursor = end;
        Some(entry)
    }
}

/// The word at `at`, if the bytes reach that far.
fn word(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|word| u64::from_le_bytes(*word))
}

fn open(path: &Path, flags: OFlags) -> Result<File, RingError> {
    rustix::fs::open(path, flags | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())
        .map(File::from)
        .map_err(|refused| io_error("open", path, refused.into()))
}

/// Everybody may put files into /dev/shm: one that somebody else could write is not adopted.
fn check_owner(path: &Path, file: &File) -> Result<(), RingError> {
    let metadata = file.metadata().map_err(|source| io_error("look at", path, source))?;
    let foreign = |what: String| Err(RingError::Foreign { path: path.to_owned(), what });
    let (owner, user) = (metadata.uid(), rustix::process::geteuid());
    if !metadata.is_file() {
        return foreign("it is not a plain file".to_owned());
    }
    if owner != user.as_raw() && !user.is_root() {
        return foreign(format!("it belongs to user {owner}, not to {}", user.as_raw()));
    }
    if metadata.mode() & 0o022 != 0 {
        return foreign(format!("others may write to it (mode {:03o})", metadata.mode() & 0o777));
    }
    Ok(())
}

fn io_error(action: &'static str, path: &Path, source: io::Error) -> RingError {
    RingError::Io { action, path: path.to_owned(), source }
}
