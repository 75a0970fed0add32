//! A walk over the frames of one segment, whatever has happened to its bytes.
//!
//! Recovery, the tail reader and the fuzzer all walk with this one piece of code, so what the fuzzer has tried is what
//! runs after a crash. Only headers are looked at; whoever wants a payload verifies it.
//!
//! # Invariants
//! - Nothing is modified, and no bytes make it panic.
//! - A walk always ends: the offset only grows, except that the payload of a damaged frame is searched once.
//! - [`Found::End`] is not final: a later call looks again, because a live writer may have appended.

use std::io;
use std::sync::Arc;

use runferry_wire::frame::{ALIGNMENT, Frame, FrameError, HEADER_BYTES, Header, MAGIC};
use rustix::io::Errno;

use crate::disk::{DiskFile, read_full};

/// Blocks of this size are tried one by one where a larger read failed.
const BLOCK_BYTES: usize = 4096;
/// How much a search for the next frame reads at a time.
const SEARCH_BYTES: usize = 64 << 10;
/// What stands for bytes that the disk cannot read: neither zeros (a clean end) nor part of a magic.
const UNREADABLE: u8 = 0xEE;

/// Whose frames belong here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    /// `None`: not known yet.
    pub(crate) run_id: Option<[u8; 16]>,
    pub(crate) writer_id: Option<u64>,
}

impl Identity {
    pub(crate) const UNKNOWN: Self = Self { run_id: None, writer_id: None };

    fn owns(self, header: &Header) -> bool {
        self.run_id.is_none_or(|run_id| run_id == header.run_id)
            && self.writer_id.is_none_or(|writer_id| writer_id == header.writer_id)
    }

    fn learn(&mut self, header: &Header) {
        self.run_id.get_or_insert(header.run_id);
        self.writer_id.get_or_insert(header.writer_id);
    }
}

/// Where the bytes come from.
pub(crate) trait Source {
    /// Reads at `offset` until `buffer` is full or the bytes end.
    fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    fn len_bytes(&self) -> io::Result<u64>;
}

impl Source for &[u8] {
    fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.get(offset..)).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..count), rest.get(..count)) {
            to.copy_from_slice(from);
        }
        Ok(count)
    }

    fn len_bytes(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }
}

impl Source for Arc<dyn DiskFile> {
    fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        match read_full(&**self, buffer, offset) {
            Err(error) if Errno::from_io_error(&error) == Some(Errno::IO) => self.read_blocks(buffer, offset),
            result => result,
        }
    }

    fn len_bytes(&self) -> io::Result<u64> {
        DiskFile::len_bytes(&**self)
    }
}

/// Reading around a bad sector, so that it costs the frames on it and no others.
trait ReadBlocks {
    fn read_blocks(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
}

impl ReadBlocks for Arc<dyn DiskFile> {
    fn read_blocks(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let available = self.len_bytes()?.saturating_sub(offset).min(buffer.len() as u64) as usize;
        let mut done = 0;
        while done < available {
            let at = offset + done as u64;
            let until_block = BLOCK_BYTES - (at % BLOCK_BYTES as u64) as usize;
            let Some(block) = buffer.get_mut(done..available.min(done + until_block)) else { break };
            match read_full(&**self, block, at) {
                Ok(count) if count < block.len() => return Ok(done + count),
                Ok(_) => {}
                Err(error) if Errno::from_io_error(&error) == Some(Errno::IO) => block.fill(UNREADABLE),
                Err(error) => return Err(error),
            }
            done += block.len();
        }
        Ok(done)
    }
}

/// A buffer over a stretch of the source.
#[derive(Debug)]
pub(crate) struct Window<S> {
    source: S,
    read_bytes: usize,
    start: u64,
    bytes: Vec<u8>,
    known_len: u64,
}

impl<S: Source> Window<S> {
    pub(crate) fn new(source: S, read_bytes: usize) -> Self {
        Self { source, read_bytes, start: 0, bytes: Vec::new(), known_len: 0 }
    }

    /// `len` bytes at `offset`, fewer where the source ends.
    pub(crate) fn at(&mut self, offset: u64, len: usize) -> io::Result<&[u8]> {
        let end = self.start + self.bytes.len() as u64;
        if offset < self.start || offset.saturating_add(len as u64) > end {
            self.fill(offset, len.max(self.read_bytes))?;
        }
        let from = (offset - self.start) as usize;
        Ok(self.bytes.get(from..self.bytes.len().min(from + len)).unwrap_or_default())
    }

    fn fill(&mut self, offset: u64, len: usize) -> io::Result<()> {
        // No more than there is: a lone frame must not cost a buffer of the full size.
        let available = self.source.len_bytes()?.saturating_sub(offset).min(len as u64) as usize;
        self.start = offset;
        self.bytes.resize(available, 0);
        let count = self.source.read(&mut self.bytes, offset).inspect_err(|_| self.known_len = 0);
        self.bytes.truncate(*count.as_ref().unwrap_or(&0));
        count.map(drop)
    }

    /// Forgets what was read: a live writer may have changed the bytes behind its last whole frame.
    pub(crate) fn forget(&mut self) {
        self.bytes.clear();
        self.known_len = 0;
    }

    fn reaches(&mut self, end: u64) -> io::Result<bool> {
        if end > self.known_len {
            self.known_len = self.source.len_bytes()?;
        }
        Ok(end <= self.known_len)
    }

    fn is_zero_from(&mut self, mut offset: u64) -> io::Result<bool> {
        loop {
            let bytes = self.at(offset, SEARCH_BYTES)?;
            if bytes.is_empty() {
                return Ok(true);
            }
            if bytes.iter().any(|&byte| byte != 0) {
                return Ok(false);
            }
            offset += bytes.len() as u64;
        }
    }
}

/// A stretch of a segment that holds no frames of this writer, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Damage {
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
    pub(crate) kind: DamageKind,
    /// The number expected here, if one was.
    pub(crate) expected: Option<u64>,
}

/// What is wrong with some bytes of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DamageKind {
    /// The segment ends inside a frame: the usual mark of a crash in mid-write.
    Torn,
    /// No frame begins where one should.
    Garbage,
    /// A whole frame, but of another run or writer.
    Foreign,
}

/// What a walk comes upon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// A good header whose frame lies within the segment. The payload was not looked at.
    Frame { offset: u64, header: Header },
    /// Bytes that are no frame, with a frame behind them.
    Skipped(Damage),
    /// Nothing more, for now: the end of the bytes, with what lies between the last frame and it.
    End(Option<Damage>),
}

/// Why a walk cannot go on.
#[derive(Debug)]
pub(crate) enum Blocked {
    Io(io::Error),
    Unsupported { found: u8 },
}

impl From<io::Error> for Blocked {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

enum Step {
    Frame(Header),
    End,
    Damaged(DamageKind),
}

/// A position in a segment.
#[derive(Debug)]
pub(crate) struct Walk<S> {
    window: Window<S>,
    offset: u64,
    identity: Identity,
    expected: Option<u64>,
    previous: Option<(u64, Header)>,
}

impl<S: Source> Walk<S> {
    pub(crate) fn new(window: Window<S>, identity: Identity) -> Self {
        Self { window, offset: 0, identity, expected: None, previous: None }
    }

    pub(crate) fn identity(&self) -> Identity {
        self.identity
    }

    pub(crate) fn forget(&mut self) {
        self.window.forget();
    }

    /// Puts the walk back to a frame it found, so that the next call finds it again.
    pub(crate) fn rewind(&mut self, offset: u64) {
        self.offset = offset;
        self.previous = None;
    }

    /// The whole frame at `offset`, verified.
    pub(crate) fn read(&mut self, offset: u64, header: &Header) -> io::Result<Result<Frame<'_>, FrameError>> {
        Ok(Frame::read(self.window.at(offset, header.frame_len())?))
    }

    pub(crate) fn next(&mut self) -> Result<Found, Blocked> {
        match self.step()? {
            Step::Frame(header) => {
                let offset = self.offset;
                self.identity.learn(&header);
                self.expected = self.expected.max(Some(header.next_seq()));
                self.previous = Some((offset, header));
                self.offset += header.frame_len() as u64;
                Ok(Found::Frame { offset, header })
            }
            Step::End => Ok(Found::End(None)),
            Step::Damaged(kind) => {
                let offset = self.offset;
                let next = match kind {
                    DamageKind::Foreign => None,
                    DamageKind::Torn | DamageKind::Garbage => self.resync()?,
                };
                let until = match next {
                    Some(next) => next,
                    None => self.window.source.len_bytes()?,
                };
                let damage = Damage { offset, bytes: until.saturating_sub(offset), kind, expected: self.expected };
                let Some(next) = next else { return Ok(Found::End(Some(damage))) };
                // A writer at work may have completed the frame between the first look and the search.
                self.window.forget();
                if matches!(self.step()?, Step::Frame(_)) {
                    return self.next();
                }
                self.rewind(next);
                Ok(Found::Skipped(Damage { kind: DamageKind::Garbage, ..damage }))
            }
        }
    }

    fn step(&mut self) -> Result<Step, Blocked> {
        let head = self.window.at(self.offset, HEADER_BYTES)?;
        if head.is_empty() {
            return Ok(Step::End);
        }
        match Header::decode(head) {
            Ok(header) if !self.identity.owns(&header) => Ok(Step::Damaged(DamageKind::Foreign)),
            Ok(header) => {
                let whole = self.window.reaches(self.offset + header.frame_len() as u64)?;
                Ok(if whole { Step::Frame(header) } else { Step::Damaged(DamageKind::Torn) })
            }
            Err(FrameError::UnsupportedVersion { found }) => Err(Blocked::Unsupported { found }),
            Err(error) => {
                let is_zero = head.iter().all(|&byte| byte == 0);
                if is_zero && self.window.is_zero_from(self.offset)? {
                    return Ok(Step::End);
                }
                Ok(Step::Damaged(match error {
                    FrameError::Torn { .. } => DamageKind::Torn,
                    FrameError::NotAFrame { .. }
                    | FrameError::HeaderCorrupt { .. }
                    | FrameError::UnsupportedVersion { .. }
                    | FrameError::TooLarge { .. }
                    | FrameError::PayloadCorrupt { .. } => DamageKind::Garbage,
                }))
            }
        }
    }

    /// Where the next frame of this writer begins that has not been seen.
    fn resync(&mut self) -> Result<Option<u64>, Blocked> {
        let mut offset = self.offset + ALIGNMENT as u64;
        // Where bytes have gone missing, the next frame lies inside what the last one claims as its payload.
        if let Some((start, header)) = self.previous
            && self.read(start, &header)?.is_err()
        {
            offset = start + HEADER_BYTES as u64;
        }
        loop {
            let bytes = self.window.at(offset, SEARCH_BYTES)?;
            if bytes.len() < HEADER_BYTES {
                return Ok(None);
            }
            let read_bytes = bytes.len();
            let hit = bytes.chunks_exact(ALIGNMENT).position(|chunk| chunk.starts_with(&MAGIC));
            let Some(hit) = hit else {
                offset += (read_bytes / ALIGNMENT * ALIGNMENT) as u64;
                continue;
            };
            offset += (hit * ALIGNMENT) as u64;
            match Header::decode(self.window.at(offset, HEADER_BYTES)?) {
                Ok(header) if self.is_next(&header) && self.window.reaches(offset + header.frame_len() as u64)? => {
                    return Ok(Some(offset));
                }
                _ => offset += ALIGNMENT as u64,
            }
        }
    }

    fn is_next(&self, header: &Header) -> bool {
        self.identity.owns(header) && self.expected.is_none_or(|expected| header.seq >= expected)
    }
}
