//! Records too large for the ring: the payload lies in a file beside the journal before `log()` returns, the ring carries its path.
//!
//! A file in the page cache survives the death of the process as the ring does.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Writes the payload of an entry to a file of its own; the payload of the SPOOLED entry that stands for it.
///
/// # Errors
/// The disk refuses.
pub fn write(dir: &Path, number: u64, kind: u8, payload: &[u8]) -> io::Result<Vec<u8>> {
    let path = dir.join(format!("spool-{number:020}.rec"));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
    if let Err(error) = file.write_all(payload) {
        // What is there of it is of no use; the call is counted as dropped.
        std::fs::remove_file(&path).ok();
        return Err(error);
    }
    let mut entry = vec![kind];
    entry.extend_from_slice(path.as_os_str().as_bytes());
    Ok(entry)
}

/// The entry that a SPOOLED entry stands for: kind, payload, and the file to remove once it is journaled.
///
/// # Errors
/// The file is gone or cannot be read.
pub fn read(entry: &[u8]) -> io::Result<(u8, Vec<u8>, PathBuf)> {
    let (kind, path) = entry.split_first().ok_or(io::ErrorKind::InvalidData)?;
    let path = PathBuf::from(std::ffi::OsString::from_vec(path.to_vec()));
    Ok((*kind, std::fs::read(&path)?, path))
}
