//! The file `ACK`: what the server was last heard to keep durably.
//!
//! It is a hint that saves a sender from opening segments it need not read. Only the server knows the truth: the file is
//! never synced, and one that is missing, stale, foreign, torn or forged costs sending again and nothing else.
//!
//! # Layout
//! 32 bytes, little-endian: `RFACK` and three zeros, writer_id 8, durable_next_seq 8, zeros 4, CRC32C of bytes 0 to 27.

use std::path::Path;

use crate::disk::{Disk, read_full};
use crate::error::JournalError;

const FILE_NAME: &str = "ACK";
const MAGIC: [u8; 8] = *b"RFACK\0\0\0";

/// Notes that the server holds every frame below `durable_next_seq`.
///
/// # Errors
/// `Io`; the caller loses nothing by ignoring it.
pub fn write_hint(disk: &dyn Disk, dir: &Path, writer_id: u64, durable_next_seq: u64) -> Result<(), JournalError> {
    let mut bytes = Vec::with_capacity(32);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&writer_id.to_le_bytes());
    bytes.extend_from_slice(&durable_next_seq.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    runferry_failpoints::hit!("journal.ack");
    let path = dir.join(FILE_NAME);
    let file = disk.open_or_create(&path).map_err(|error| JournalError::io("open", &path, error))?;
    // A short write leaves a wrong checksum: the hint is gone, as it may be at any time.
    file.pwrite(&bytes, 0).map(drop).map_err(|error| JournalError::io("write", &path, error))
}

/// The hint, if there is one that this writer left whole.
pub fn read_hint(disk: &dyn Disk, dir: &Path, writer_id: u64) -> Option<u64> {
    let mut bytes = [0; 32];
    let file = disk.open_read(&dir.join(FILE_NAME)).ok()?;
    (read_full(&*file, &mut bytes, 0).ok()? == bytes.len()).then_some(())?;
    let (body, checksum) = bytes.split_last_chunk::<4>()?;
    (crc32c::crc32c(body) == u32::from_le_bytes(*checksum)).then_some(())?;
    let (magic, body) = body.split_first_chunk::<8>()?;
    let (writer, body) = body.split_first_chunk::<8>()?;
    let (durable_next_seq, _) = body.split_first_chunk::<8>()?;
    (*magic == MAGIC && u64::from_le_bytes(*writer) == writer_id).then(|| u64::from_le_bytes(*durable_next_seq))
}
