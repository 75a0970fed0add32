//! Making a ring: sizes, place, halves.

use std::path::Path;
use std::sync::Arc;

use crate::consumer::Consumer;
use crate::error::CreateError;
use crate::header::{Header, Identity, MAX_AREA_BYTES, MIN_AREA_BYTES};
use crate::place;
use crate::producer::Producer;
use crate::region;

/// What a ring is made from.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// Whose ring it is.
    pub identity: Identity,
    /// Name of its file; there must be none of that name yet.
    pub name: &'a str,
    /// Shared memory: `/dev/shm`.
    pub shm_dir: &'a Path,
    /// Where the file lies if there is no shared memory: beside the journal.
    pub fallback_dir: &'a Path,
    /// Size of the entries' area, rounded up to a power of two; usually [`crate::DEFAULT_ENTRY_BYTES`].
    pub entry_bytes: usize,
    /// Size of the names' area, likewise; usually [`crate::DEFAULT_NAMES_BYTES`].
    pub names_bytes: usize,
}

/// Makes a ring in shared memory, else in a file, else on the heap ([`Producer::placement`] says which).
///
/// # Errors
/// `InvalidName`: the name is no plain file name. `NoMemory`: not even the heap had room.
#[expect(clippy::missing_panics_doc, reason = "the one `expect` holds its proof")]
pub fn create(options: &Options<'_>) -> Result<(Producer, Consumer), CreateError> {
    let name = options.name;
    if matches!(name, "" | "." | "..") || name.contains(['/', '\0']) {
        return Err(CreateError::InvalidName { name: name.to_owned() });
    }
    let header = Header {
        names_bytes: area_bytes(options.names_bytes),
        entry_bytes: area_bytes(options.entry_bytes),
        identity: options.identity,
    };
    let ring_bytes = header.file_bytes();
    let (map, home) = place::find(name, options.shm_dir, options.fallback_dir, ring_bytes)
        .map_err(|source| CreateError::NoMemory { ring_bytes, source })?;
    let halves = region::split(map, &header).expect("a map of ring_bytes, made in this very process, holds its areas");

    let home = Arc::new(home);
    let nonce = options.identity.nonce();
    let (entries_in, entries_out) = halves.entries;
    let (names_in, names_out) = halves.names;
    let (producer_notes, consumer_notes) = halves.notes;
    let producer = Producer::new(entries_in, names_in, producer_notes, nonce, Arc::clone(&home));
    Ok((producer, Consumer::new(entries_out, names_out, consumer_notes, nonce, home)))
}

fn area_bytes(wanted: usize) -> u64 {
    (wanted as u64).clamp(MIN_AREA_BYTES, MAX_AREA_BYTES).next_power_of_two()
}
