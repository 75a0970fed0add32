//! The file `SUCCESSOR`: under which id, and from which frame on, a writer's frames go to the server since it knows more of the writer
//! than there is here.
//!
//! That happens to a process that was set back, as with a virtual machine restored from a snapshot: what it packs next gets numbers that the
//! server has seen on other frames. Numbers in the journal stay as they are; the sender gives frames from `first_seq` on other ones. So
//! the file is no hint: whoever sends the journal without it sends numbers that the server takes for duplicates. It is on the device
//! before the first such frame is sent, and a file that cannot be read keeps the journal from being sent at all.
//!
//! # Layout
//! Records of 48 bytes, little-endian, the last one counts: `RFSUC` and three zeros, writer_id 8, successor_id 8, first_seq 8, since_us 8,
//! zeros 4, CRC32C of bytes 0 to 43. Less than a record, or zeros, is what a power cut left of one that was never used.

use std::io::ErrorKind;
use std::path::Path;

use crate::disk::{Disk, read_full};
use crate::error::JournalError;

const FILE_NAME: &str = "SUCCESSOR";
const MAGIC: [u8; 8] = *b"RFSUC\0\0\0";
const RECORD_BYTES: usize = 48;

/// Who goes on for a writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Successor {
    /// Its id.
    pub writer_id: u64,
    /// Number, in the journal, of the frame that is its first.
    pub first_seq: u64,
    /// When it took over, microseconds since 1970 UTC.
    pub since_us: i64,
}

/// The latest successor of a writer; `None`: it goes on itself.
///
/// # Errors
/// `Io`: the file cannot be read, or is damaged. The journal must not be sent.
pub fn read(disk: &dyn Disk, dir: &Path, writer_id: u64) -> Result<Option<Successor>, JournalError> {
    Ok(records(disk, dir, writer_id)?.last().copied())
}

/// Notes a successor; on the device on return.
///
/// # Errors
/// `Io`: no frame may be sent in its name.
pub fn add(disk: &dyn Disk, dir: &Path, writer_id: u64, successor: &Successor) -> Result<(), JournalError> {
    let offset = records(disk, dir, writer_id)?.len() * RECORD_BYTES;
    let mut bytes = Vec::with_capacity(RECORD_BYTES);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&writer_id.to_le_bytes());
    bytes.extend_from_slice(&successor.writer_id.to_le_bytes());
    bytes.extend_from_slice(&successor.first_seq.to_le_bytes());
    bytes.extend_from_slice(&successor.since_us.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());

    let path = dir.join(FILE_NAME);
    let file = disk.open_or_create(&path).map_err(|error| JournalError::io("open", &path, error))?;
    let written = file.pwrite(&bytes, offset as u64).map_err(|error| JournalError::io("write", &path, error))?;
    if written < bytes.len() {
        return Err(JournalError::io("write", &path, ErrorKind::WriteZero.into()));
    }
    file.sync_data().map_err(|error| JournalError::io("sync", &path, error))?;
    disk.sync_dir(dir).map_err(|error| JournalError::io("sync", dir, error))
}

fn records(disk: &dyn Disk, dir: &Path, writer_id: u64) -> Result<Vec<Successor>, JournalError> {
    let path = dir.join(FILE_NAME);
    let unreadable = |error| JournalError::io("read", &path, error);
    let file = match disk.open_read(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(error)),
    };
    let mut found = Vec::new();
    loop {
        let mut record = [0; RECORD_BYTES];
        let read = read_full(&*file, &mut record, (found.len() * RECORD_BYTES) as u64).map_err(unreadable)?;
        if read < RECORD_BYTES || record == [0; RECORD_BYTES] {
            return Ok(found);
        }
        let successor = decode(&record, writer_id).ok_or_else(|| unreadable(ErrorKind::InvalidData.into()))?;
        found.push(successor);
    }
}

fn decode(record: &[u8; RECORD_BYTES], writer_id: u64) -> Option<Successor> {
    let (body, checksum) = record.split_last_chunk::<4>()?;
    let (magic, body) = body.split_first_chunk::<8>()?;
    let (of, body) = body.split_first_chunk::<8>()?;
    let (successor, body) = body.split_first_chunk::<8>()?;
    let (first_seq, body) = body.split_first_chunk::<8>()?;
    let (since_us, _) = body.split_first_chunk::<8>()?;
    let is_whole = crc32c::crc32c(record.split_last_chunk::<4>()?.0) == u32::from_le_bytes(*checksum);
    (is_whole && *magic == MAGIC && u64::from_le_bytes(*of) == writer_id).then(|| Successor {
        writer_id: u64::from_le_bytes(*successor),
        first_seq: u64::from_le_bytes(*first_seq).max(1),
        since_us: i64::from_le_bytes(*since_us),
    })
}
