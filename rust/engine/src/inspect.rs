//! Looking at journals without touching them: what `runferry status` and `runferry journal` print.

use std::path::{Path, PathBuf};

use runferry_journal::{DamageKind, GapReason, JournalError, Lock, LockInfo, Piece, RealDisk, Scan, ack, scan};
use runferry_wire::frame::HEADER_BYTES;
use runferry_wire::{Frame, Header, Kind};

use crate::adopt::read_open;
use crate::pack::chain;
use crate::upload::{run_path, writer_dirs};

/// One writer below a folder of journals.
#[derive(Debug, Clone, Default)]
#[expect(missing_docs, reason = "each is described where users read it: runferry._native.JournalState")]
pub struct JournalState {
    pub path: PathBuf,
    pub run: String,
    pub writer_id: u64,
    pub mode: String,
    pub base_url: Option<String>,
    pub is_alive: bool,
    pub pid: u32,
    pub host: String,
    pub is_finished: bool,
    pub frames: u64,
    pub backlog_frames: u64,
    pub backlog_bytes: u64,
    pub last_ack_us: Option<i64>,
    pub error: Option<String>,
}

/// One frame of a journal, or a place where there is none.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "each is described where users read it: runferry._native.JournalFrame")]
pub struct JournalFrame {
    pub segment: PathBuf,
    pub offset: u64,
    pub kind: &'static str,
    pub seq: u64,
    pub records: u64,
    pub stored_bytes: u64,
    pub raw_bytes: u64,
    pub error: Option<String>,
}

/// What a check of a journal found.
#[derive(Debug, Clone, Default)]
#[expect(missing_docs, reason = "each is described where users read it: runferry._native.JournalCheck")]
pub struct JournalCheck {
    pub path: PathBuf,
    pub segments: u64,
    pub frames: u64,
    pub records: u64,
    pub stored_bytes: u64,
    pub raw_bytes: u64,
    pub first_seq: u64,
    pub next_seq: u64,
    /// First number, how many, why.
    pub gaps: Vec<(u64, u64, String)>,
    pub errors: Vec<String>,
    pub torn_bytes: u64,
}

/// The journals that `path` means.
pub fn list(path: &Path) -> Vec<JournalState> {
    writer_dirs(path).into_iter().map(|dir| state_of(&dir)).collect()
}

fn state_of(dir: &Path) -> JournalState {
    let mut state = JournalState { path: dir.to_owned(), ..JournalState::default() };
    if let Ok(info) = LockInfo::read(dir) {
        state.is_alive = Lock::is_held(dir).unwrap_or(false);
        (state.pid, state.host, state.base_url) = (info.pid, info.host, info.base_url);
    }
    let scan = match scan::scan(&RealDisk, dir) {
        Ok(scan) => scan,
        Err(error) => {
            state.error = Some(chain(&error));
            return state;
        }
    };
    match scan.open.as_deref().and_then(read_open) {
        Some((identity, open)) => {
            state.run = run_path(&open);
            state.writer_id = identity.writer_id;
            open.get_str("mode").unwrap_or_default().clone_into(&mut state.mode);
        }
        None => state.error = Some("no readable OPEN frame".to_owned()),
    }
    state.is_finished = scan.is_finished;
    state.frames = scan.next_seq - 1;
    let durable = ack::read_hint(&RealDisk, dir, state.writer_id).unwrap_or(1).min(scan.next_seq);
    state.backlog_frames = scan.next_seq - durable;
    state.backlog_bytes = frame_bytes(&scan, durable);
    let hint = std::fs::metadata(dir.join("ACK")).and_then(|metadata| metadata.modified()).ok();
    state.last_ack_us =
        hint.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok()).map(|since| since.as_micros() as i64);
    state
}

fn frame_bytes(scan: &Scan, from_seq: u64) -> u64 {
    let of_piece = |piece: &Piece| match piece {
        Piece::Frame { header, .. } if header.seq >= from_seq => header.frame_len() as u64,
        Piece::Frame { .. } | Piece::Gap(_) => 0,
    };
    scan.pieces.iter().map(of_piece).sum()
}

/// Every frame of the journals that `path` means, payloads verified; the head of a segment before its first numbered one.
///
/// # Errors
/// A journal that cannot be read at all, or of a later format version.
pub fn frames(path: &Path) -> Result<Vec<JournalFrame>, JournalError> {
    let mut found = Vec::new();
    for dir in writer_dirs(path) {
        let scan = scan::scan(&RealDisk, &dir)?;
        let mut unopened: Vec<PathBuf> = scan.segments.iter().map(|segment| segment.path.to_path_buf()).collect();
        for piece in scan.pieces {
            if let Piece::Frame { segment, .. } = &piece {
                unopened.retain(|path| {
                    let is_here = path.as_path() == &**segment;
                    if is_here {
                        found.extend(head_of(path));
                    }
                    !is_here
                });
            }
            found.push(frame_of(&dir, piece));
        }
        found.extend(unopened.iter().flat_map(|path| head_of(path)));
    }
    Ok(found)
}

/// The frames at the start of a segment that take no number: OPEN and RECEIPT.
fn head_of(segment: &Path) -> Vec<JournalFrame> {
    use std::os::unix::fs::FileExt;
    let mut found = Vec::new();
    let Ok(file) = std::fs::File::open(segment) else { return found };
    let mut offset = 0;
    let mut bytes = [0; HEADER_BYTES];
    while file.read_exact_at(&mut bytes, offset).is_ok()
        && let Ok(header) = Header::decode(&bytes)
        && matches!(header.kind, Kind::Open | Kind::Receipt)
    {
        found.push(frame_of(segment, Piece::Frame { segment: segment.into(), offset, header }));
        offset += header.frame_len() as u64;
    }
    found
}

fn frame_of(dir: &Path, piece: Piece) -> JournalFrame {
    match piece {
        Piece::Frame { segment, offset, header } => JournalFrame {
            kind: kind_name(header.kind),
            seq: header.seq,
            records: u64::from(header.record_count),
            stored_bytes: header.frame_len() as u64,
            raw_bytes: u64::from(header.raw_len),
            error: verify(&segment, offset, header.frame_len()),
            segment: segment.to_path_buf(),
            offset,
        },
        Piece::Gap(gap) => JournalFrame {
            segment: dir.to_owned(),
            offset: 0,
            kind: "gap",
            seq: gap.seq,
            records: gap.records,
            stored_bytes: 0,
            raw_bytes: 0,
            error: Some(format!("{} frames {}: {}", gap.count, reason_name(gap.reason), gap.detail)),
        },
    }
}

/// What is wrong with a frame's payload.
fn verify(segment: &Path, offset: u64, len: usize) -> Option<String> {
    use std::os::unix::fs::FileExt;
    let mut bytes = vec![0; len];
    let read = std::fs::File::open(segment).and_then(|file| file.read_exact_at(&mut bytes, offset));
    match read {
        Err(error) => Some(error.to_string()),
        Ok(()) => Frame::read(&bytes).err().map(|error| error.to_string()),
    }
}

/// Checks one writer's journal: every checksum, every number.
pub fn check(dir: &Path) -> JournalCheck {
    let mut check = JournalCheck { path: dir.to_owned(), ..JournalCheck::default() };
    let scan = match scan::scan(&RealDisk, dir) {
        Ok(scan) => scan,
        Err(error) => {
            check.errors.push(chain(&error));
            return check;
        }
    };
    check.segments = scan.segments.len() as u64;
    (check.first_seq, check.next_seq) = (scan.first_seq, scan.next_seq);
    if scan.open.is_none() && check.segments > 0 {
        check.errors.push("no readable OPEN frame: nobody knows whose frames these are".to_owned());
    }
    for note in &scan.notes {
        if note.kind == DamageKind::Torn {
            check.torn_bytes += note.bytes;
        } else {
            let place = note.segment.display();
            check.errors.push(format!("{place} at {}: {} bytes: {:?}", note.offset, note.bytes, note.kind));
        }
    }
    for frame in scan.segments.iter().flat_map(|segment| head_of(&segment.path)) {
        if let Some(error) = frame.error {
            check.errors.push(format!(
                "{} at {}: {} frame: {error}",
                frame.segment.display(),
                frame.offset,
                frame.kind
            ));
        }
    }
    for piece in scan.pieces {
        if let Piece::Gap(gap) = &piece {
            check.gaps.push((gap.seq, gap.count, reason_name(gap.reason).to_owned()));
            continue;
        }
        let frame = frame_of(dir, piece);
        check.frames += 1;
        if frame.kind == "data" {
            check.records += frame.records;
        }
        check.stored_bytes += frame.stored_bytes;
        check.raw_bytes += frame.raw_bytes;
        if let Some(error) = frame.error {
            check.gaps.push((frame.seq, 1, "corrupt".to_owned()));
            check.errors.push(format!("{} at {}: {error}", frame.segment.display(), frame.offset));
        }
    }
    check
}

fn reason_name(reason: GapReason) -> &'static str {
    match reason {
        GapReason::Corrupt => "corrupt",
        GapReason::Missing => "missing",
    }
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Data => "data",
        Kind::Open => "open",
        Kind::Finish => "finish",
        Kind::Gap => "gap",
        Kind::Dict => "dict",
        Kind::Mark => "mark",
        Kind::BlobRef => "blobref",
        Kind::Receipt => "receipt",
        Kind::Unknown(_) => "unknown",
    }
}
