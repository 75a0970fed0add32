//! What a journal holds, found out without trusting any of it.
//!
//! A scan reads headers only, more than a gigabyte a second, and is the same whether the last process finished, was
//! killed, or lost its power. It modifies nothing: the only cure for a doubtful tail is a new segment.
//!
//! # Order
//! Frames come by number. Of two copies the one in the later segment wins, because a segment is begun anew when the
//! older one is in doubt; where there are two, payloads are verified and the good one wins.
//!
//! # Failure
//! Nothing in a file is fatal but a later format version. Every hole below the last frame becomes a [`Gap`]. What lies
//! behind the last frame of a segment is a [`Note`]: its number is still free, for an adopter to pack again.

use std::cmp::Reverse;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use runferry_wire::frame::{Frame, Header, Kind, VERSION, flags};

use crate::ack;
use crate::disk::Disk;
use crate::error::JournalError;
use crate::segment::{self, SegmentName};
use crate::walk::{Blocked, Damage, DamageKind, Found, Identity, Source, Walk, Window};

/// Frames are large and only their headers are read.
const READ_BYTES: usize = 16 << 10;

/// Why numbers are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GapReason {
    /// The bytes are there but damaged.
    Corrupt,
    /// No segment holds them.
    Missing,
}

/// Numbers below the last frame that no good frame holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// The first number missing.
    pub seq: u64,
    /// How many.
    pub count: u64,
    /// Rows and documents in them, where a good header says so, else 0.
    pub records: u64,
    /// Why.
    pub reason: GapReason,
    /// Where and what, for people.
    pub detail: String,
}

/// One step of the sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// A frame with a good header. Its payload is verified when it is read.
    Frame {
        /// File that holds it.
        segment: Arc<Path>,
        /// Where in the file.
        offset: u64,
        /// Its header.
        header: Header,
    },
    /// A hole.
    Gap(Gap),
}

/// Bytes of a segment that are no frames of this writer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The file.
    pub segment: Arc<Path>,
    /// Where they begin.
    pub offset: u64,
    /// How many.
    pub bytes: u64,
    /// What is wrong with them.
    pub kind: DamageKind,
}

/// One file of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// The file.
    pub path: Arc<Path>,
    /// The lowest number it may hold.
    pub first_seq: u64,
    /// The number behind its last frame.
    pub next_seq: u64,
    /// Length of the file.
    pub bytes: u64,
}

/// What a journal holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    /// The newest OPEN frame, whole and verified.
    pub open: Option<Vec<u8>>,
    /// The lowest number there is, or was by what is left; lower ones were trimmed. `next_seq` in an empty journal.
    pub first_seq: u64,
    /// The number for the next frame.
    pub next_seq: u64,
    /// What the file `ACK` says; never to be trusted.
    pub last_durable_hint: Option<u64>,
    /// Whether the writer said that nothing follows.
    pub is_finished: bool,
    /// Frames and gaps from `first_seq` to `next_seq`, in order, without overlap.
    pub pieces: Vec<Piece>,
    /// Damage, also where it cost no frame.
    pub notes: Vec<Note>,
    /// Copies of frames that were not needed.
    pub duplicate_frames: u64,
    /// The files, oldest first.
    pub segments: Vec<Segment>,
}

/// Reads the journal of one writer. A directory that is not there holds an empty journal.
///
/// # Errors
/// `Unsupported` for a later format version; `Io` where the system does not let us read at all.
pub fn scan(disk: &dyn Disk, dir: &Path) -> Result<Scan, JournalError> {
    let mut identity = Identity { writer_id: writer_id_of(dir), ..Identity::UNKNOWN };
    let mut walked = Vec::new();
    for name in segment::list(disk, dir)? {
        let path: Arc<Path> = name.path(dir).into();
        let file = match disk.open_read(&path) {
            Ok(file) => file,
            // Trimmed by its writer since the directory was listed.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(JournalError::io("open", &path, error)),
        };
        let segment = Walked::new(file, Some(name), &path, identity).map_err(|blocked| at_path(blocked, &path))?;
        identity = segment.identity;
        walked.push(segment);
    }
    // Segments are opened anew for the few frames to be read: a long journal has more of them than descriptors allow.
    let mut scan = merge(&walked, |path, offset, header| {
        let file = disk.open_read(path).map_err(|error| JournalError::io("open", path, error))?;
        let mut window = Window::new(file, 0);
        let bytes = window.at(offset, header.frame_len()).map_err(|error| JournalError::io("read", path, error))?;
        Ok(Frame::read(bytes).ok().map(|frame| frame.bytes.to_vec()))
    })?;
    scan.last_durable_hint = identity.writer_id.and_then(|writer_id| ack::read_hint(disk, dir, writer_id));
    Ok(scan)
}

/// Reads the bytes of one segment as [`scan`] would, without a disk.
///
/// # Errors
/// `Unsupported` for a later format version.
pub fn scan_bytes(bytes: &[u8]) -> Result<Scan, JournalError> {
    let path: Arc<Path> = Path::new("").into();
    let walked = Walked::new(bytes, None, &path, Identity::UNKNOWN).map_err(|blocked| at_path(blocked, &path))?;
    merge(&[walked], |_, offset, _| {
        let bytes = usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..)).unwrap_or_default();
        Ok(Frame::read(bytes).ok().map(|frame| frame.bytes.to_vec()))
    })
}

/// The writer a directory belongs to, by its name.
pub(crate) fn writer_id_of(dir: &Path) -> Option<u64> {
    let name = dir.file_name()?.to_str()?;
    let is_id = name.len() == 16 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    is_id.then(|| u64::from_str_radix(name, 16).ok())?
}

pub(crate) fn at_path(blocked: Blocked, path: &Path) -> JournalError {
    match blocked {
        Blocked::Io(source) => JournalError::io("read", path, source),
        Blocked::Unsupported { found } => {
            JournalError::Unsupported { path: path.to_owned(), found, supported: VERSION }
        }
    }
}

/// One segment, walked to its end.
struct Walked {
    path: Arc<Path>,
    first_seq: u64,
    bytes: u64,
    identity: Identity,
    frames: Vec<(u64, Header)>,
    damages: Vec<Damage>,
}

impl Walked {
    fn new(
        source: impl Source,
        name: Option<SegmentName>,
        path: &Arc<Path>,
        identity: Identity,
    ) -> Result<Self, Blocked> {
        let bytes = source.len_bytes()?;
        let mut walk = Walk::new(Window::new(source, READ_BYTES), identity);
        let (mut frames, mut damages) = (Vec::new(), Vec::new());
        loop {
            match walk.next()? {
                Found::Frame { offset, header } => frames.push((offset, header)),
                Found::Skipped(damage) => damages.push(damage),
                Found::End(damage) => {
                    damages.extend(damage);
                    break;
                }
            }
        }
        // The numbers inside are the truth; the name stands in only where the head of the file is lost.
        let inside = frames.first().map(|(_, header)| header.seq);
        let named = name.map(|name| name.first_seq);
        let is_headless = damages.first().is_some_and(|damage| damage.offset == 0);
        let first_seq = match (inside, named) {
            (Some(inside), Some(named)) if is_headless => inside.min(named),
            (Some(seq), _) | (None, Some(seq)) => seq,
            (None, None) => 1,
        };
        for damage in &mut damages {
            damage.expected.get_or_insert(first_seq);
        }
        Ok(Self { path: Arc::clone(path), first_seq, bytes, identity: walk.identity(), frames, damages })
    }

    fn next_seq(&self) -> u64 {
        self.frames.iter().map(|(_, header)| header.next_seq()).max().unwrap_or(self.first_seq)
    }
}

/// A frame of some segment that claims a place in the sequence.
struct Candidate {
    segment: usize,
    offset: u64,
    header: Header,
}

/// Puts the frames of all segments, given oldest first, in order. `read` gives a frame's bytes if both its checksums are good.
fn merge(
    walked: &[Walked],
    read: impl Fn(&Path, u64, &Header) -> Result<Option<Vec<u8>>, JournalError>,
) -> Result<Scan, JournalError> {
    let mut candidates: Vec<Candidate> = Vec::new();
    for (segment, of) in walked.iter().enumerate() {
        candidates.extend(of.frames.iter().map(|&(offset, header)| Candidate { segment, offset, header }));
    }
    // Newest copy first. Frames without a number only prove that all below their number were written.
    candidates.sort_by_key(|it| (it.header.seq, it.header.kind.is_numbered(), Reverse((it.segment, it.offset))));

    let first_seq = walked.iter().filter(|it| !it.frames.is_empty()).map(|it| it.first_seq).min();
    let mut expected = first_seq.or_else(|| walked.iter().map(|it| it.first_seq).max()).unwrap_or(1);
    let first_seq = expected;
    let mut pieces = Vec::new();
    let mut duplicate_frames = 0;
    let mut is_finished = false;
    for group in candidates.chunk_by(|one, other| {
        one.header.seq == other.header.seq && one.header.kind.is_numbered() == other.header.kind.is_numbered()
    }) {
        let Some(newest) = group.first() else { continue };
        let seq = newest.header.seq;
        let is_numbered = newest.header.kind.is_numbered();
        if seq < expected {
            duplicate_frames += if is_numbered { group.len() as u64 } else { 0 };
            continue;
        }
        if seq > expected {
            pieces.push(Piece::Gap(hole(walked, expected, seq)));
            expected = seq;
        }
        if !is_numbered {
            continue;
        }
        let mut chosen = newest;
        if group.len() > 1 {
            for candidate in group {
                if let Some(of) = walked.get(candidate.segment)
                    && read(&of.path, candidate.offset, &candidate.header)?.is_some()
                {
                    chosen = candidate;
                    break;
                }
            }
        }
        duplicate_frames += group.len() as u64 - 1;
        expected = chosen.header.next_seq();
        is_finished |= chosen.header.flags & flags::LAST != 0;
        if let Some(of) = walked.get(chosen.segment) {
            let segment = Arc::clone(&of.path);
            pieces.push(Piece::Frame { segment, offset: chosen.offset, header: chosen.header });
        }
    }
    Ok(Scan {
        open: newest_open(walked, read)?,
        first_seq,
        next_seq: expected,
        last_durable_hint: None,
        is_finished,
        pieces,
        notes: notes(walked),
        duplicate_frames,
        segments: walked.iter().map(summary).collect(),
    })
}

fn hole(walked: &[Walked], seq: u64, until: u64) -> Gap {
    let damages = walked.iter().flat_map(|segment| segment.damages.iter().map(move |damage| (segment, damage)));
    let damage = damages
        .into_iter()
        .find(|(_, damage)| damage.expected.is_some_and(|expected| (seq..until).contains(&expected)));
    let (reason, detail) = match damage {
        Some((segment, Damage { offset, bytes, .. })) => {
            (GapReason::Corrupt, format!("{}: {bytes} bytes at offset {offset} are damaged", segment.path.display()))
        }
        None => (GapReason::Missing, format!("no segment holds frames {seq} to {}", until - 1)),
    };
    Gap { seq, count: until - seq, records: 0, reason, detail }
}

fn newest_open(
    walked: &[Walked],
    read: impl Fn(&Path, u64, &Header) -> Result<Option<Vec<u8>>, JournalError>,
) -> Result<Option<Vec<u8>>, JournalError> {
    for segment in walked.iter().rev() {
        for (offset, header) in segment.frames.iter().rev().filter(|(_, header)| header.kind == Kind::Open) {
            // One with a damaged payload is passed over: an older segment has another.
            if let Some(bytes) = read(&segment.path, *offset, header)? {
                return Ok(Some(bytes));
            }
        }
    }
    Ok(None)
}

fn notes(walked: &[Walked]) -> Vec<Note> {
    let mut notes = Vec::new();
    for segment in walked {
        notes.extend(segment.damages.iter().map(|&Damage { offset, bytes, kind, .. }| Note {
            segment: Arc::clone(&segment.path),
            offset,
            bytes,
            kind,
        }));
    }
    notes
}

fn summary(walked: &Walked) -> Segment {
    Segment {
        path: Arc::clone(&walked.path),
        first_seq: walked.first_seq,
        next_seq: walked.next_seq(),
        bytes: walked.bytes,
    }
}

/// A directory that holds one writer's journal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct WriterDir {
    /// The directory itself.
    pub path: PathBuf,
    /// The directory of its run.
    pub run_dir: PathBuf,
    /// The writer, by the directory's name.
    pub writer_id: u64,
}

/// The journals below `root`, laid out as `<run>/<writer, 16 hex digits>`. A root that is not there has none, and run
/// directories that may not be read are passed over.
///
/// # Errors
/// `Io` if the root itself may not be read.
pub fn writers(disk: &dyn Disk, root: &Path) -> Result<Vec<WriterDir>, JournalError> {
    let runs = match disk.list(root) {
        Ok(runs) => runs,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(JournalError::io("list", root, error)),
    };
    let mut found = Vec::new();
    for run in runs.into_iter().filter(|run| run.is_dir) {
        let run_dir = root.join(run.name);
        let writers = disk.list(&run_dir).unwrap_or_default();
        found.extend(writers.into_iter().filter(|writer| writer.is_dir).filter_map(|writer| {
            let path = run_dir.join(writer.name);
            Some(WriterDir { writer_id: writer_id_of(&path)?, run_dir: run_dir.clone(), path })
        }));
    }
    found.sort_unstable();
    Ok(found)
}
