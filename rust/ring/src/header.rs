//! The header page: whose ring it is, how large, and how far producer and consumer are.
//!
//! The first 128 bytes never change after creation and carry a CRC32C; the words behind them change while the ring is in
//! use, each an aligned 64-bit word that a kill leaves old or new. Words of different writers lie 128 bytes apart, so
//! that producer and consumer do not fight over cache lines (x86 fetches them in pairs).
//!
//! # Layout
//! Offset, field, bytes:
//! ```text
//!   0 magic 8            24 entry_bytes 8      72 pid 4             256 head 8
//!   8 version 4          32 run_id 16          76 zeros 4           384 names_tail 8   392 closed 8
//!  12 header_bytes 4     48 writer_id 8        80 start_ticks 8     512 intent slot 0: generation 8, seq 8, end 8, check 8
//!  16 names_bytes 8      56 boot_id 16         88 zeros 36          640 intent slot 1
//!                                             124 crc32c 4  128 tail 8
//! ```
//! # Intent
//! Two slots, written in turn: a kill in mid-write spoils the slot of the frame that was not written anywhere yet, and the
//! other one still tells of the frame before it. The valid slot of the higher generation counts.

use crate::word::fold;

/// Bytes before the names' area.
pub const HEADER_BYTES: usize = 4096;
/// Bytes of the part that never changes.
pub const FIXED_BYTES: usize = 128;
const CRC_AT: usize = 124;
/// The first bytes of each ring: not ASCII, so no text file is one.
pub const MAGIC: [u8; 8] = [0xF5, 0x9E, 0xD1, 0x8B, 0x0D, 0x0A, 0x1A, 0xE7];
/// The version this build writes and reads.
pub const VERSION: u32 = 1;

pub(crate) const TAIL_AT: usize = 128;
pub(crate) const HEAD_AT: usize = 256;
pub(crate) const NAMES_TAIL_AT: usize = 384;
pub(crate) const CLOSED_AT: usize = 392;
pub(crate) const INTENT_AT: [usize; 2] = [512, 640];

/// An area is never smaller: the least that holds an entry of 24 bytes in each lap.
pub const MIN_AREA_BYTES: u64 = 64;
/// An area is never larger.
pub const MAX_AREA_BYTES: u64 = 1 << 30;

/// Whose ring it is. The journal's lock says whether that process lives; this only informs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The run, as in its frames.
    pub run_id: [u8; 16],
    /// The writer, as in its frames: random, and new at every process start.
    pub writer_id: u64,
    /// The machine's boot: a ring of another boot has no living process.
    pub boot_id: [u8; 16],
    /// The process, in its own pid namespace.
    pub pid: u32,
    /// Start of the process in clock ticks since boot (field 22 of `/proc/<pid>/stat`): tells a reused pid.
    pub start_ticks: u64,
}

impl Identity {
    /// The number that commit words of this ring are checked with. `writer_id` is random, so no user data foresees it.
    pub(crate) fn nonce(&self) -> u64 {
        let [run_low, run_high] = halves(self.run_id);
        [run_low, run_high, self.writer_id, self.start_ticks]
            .into_iter()
            .fold(u64::from(self.pid), |nonce, part| fold(nonce ^ part).wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }
}

/// The part of the header that never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes of the names' area, a power of two.
    pub names_bytes: u64,
    /// Bytes of the entries' area, a power of two.
    pub entry_bytes: u64,
    /// Whose ring it is.
    pub identity: Identity,
}

/// Why bytes are not the header of a ring that this build reads.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Other bytes, or not enough of them. Not ours to remove.
    #[error("not a ring: it starts with {found:02x?}")]
    NotARing {
        /// Up to eight bytes of the start.
        found: Vec<u8>,
    },
    /// Only zeros: the process died while it created the ring, so nothing was ever pushed. May be removed.
    #[error("ring was never finished: its header is empty")]
    Unfinished,
    /// A newer Runferry wrote it and must read it. Keep the file.
    #[error("ring is of version {found}, this build reads version {VERSION}")]
    Newer {
        /// Its version.
        found: u32,
    },
    /// The checksum or the sizes are wrong: nothing in it can be found.
    #[error("ring header is damaged: {what}")]
    Damaged {
        /// Expected and found.
        what: String,
    },
}

impl Header {
    /// Bytes of the whole file: whole pages of 4 KiB.
    pub fn file_bytes(&self) -> u64 {
        (HEADER_BYTES as u64 + self.names_bytes + self.entry_bytes).next_multiple_of(4096)
    }

    /// Where the names' area starts in the file.
    pub const fn names_at(&self) -> usize {
        HEADER_BYTES
    }

    /// Where the entries' area starts in the file.
    pub const fn entries_at(&self) -> usize {
        HEADER_BYTES + self.names_bytes as usize
    }

    /// The first bytes of the file.
    pub fn encode(&self) -> [u8; FIXED_BYTES] {
        let mut bytes = [0; FIXED_BYTES];
        let identity = &self.identity;
        let fields: [(usize, &[u8]); 11] = [
            (0, &MAGIC),
            (8, &VERSION.to_le_bytes()),
            (12, &(HEADER_BYTES as u32).to_le_bytes()),
            (16, &self.names_bytes.to_le_bytes()),
            (24, &self.entry_bytes.to_le_bytes()),
            (32, &identity.run_id),
            (48, &identity.writer_id.to_le_bytes()),
            (56, &identity.boot_id),
            (72, &identity.pid.to_le_bytes()),
            (80, &identity.start_ticks.to_le_bytes()),
            (88, &[0; 36]),
        ];
        for (at, field) in fields {
            bytes.iter_mut().skip(at).zip(field).for_each(|(to, from)| *to = *from);
        }
        let (fixed, crc) = bytes.split_at_mut(CRC_AT);
        crc.copy_from_slice(&crc32c::crc32c(fixed).to_le_bytes());
        bytes
    }

    /// Reads the header at the start of `bytes`.
    ///
    /// # Errors
    /// Any [`HeaderError`]. The version is looked at before the checksum: a newer header may have another one.
    pub fn decode(bytes: &[u8]) -> Result<Self, HeaderError> {
        let not_a_ring = || HeaderError::NotARing { found: bytes.iter().take(8).copied().collect() };
        let Some(fixed) = bytes.first_chunk::<FIXED_BYTES>() else {
            return Err(if bytes.iter().all(|byte| *byte == 0) { HeaderError::Unfinished } else { not_a_ring() });
        };
        if fixed.iter().all(|byte| *byte == 0) {
            return Err(HeaderError::Unfinished);
        }
        if field::<0, 8>(fixed) != MAGIC {
            return Err(not_a_ring());
        }
        let version = u32::from_le_bytes(field::<8, 4>(fixed));
        if version > VERSION {
            return Err(HeaderError::Newer { found: version });
        }
        let (stored, computed) =
            (u32::from_le_bytes(field::<CRC_AT, 4>(fixed)), crc32c::crc32c(&field::<0, CRC_AT>(fixed)));
        if stored != computed {
            return Err(HeaderError::Damaged { what: format!("crc32c is {computed:08x}, it says {stored:08x}") });
        }
        let header = Self {
            names_bytes: u64::from_le_bytes(field::<16, 8>(fixed)),
            entry_bytes: u64::from_le_bytes(field::<24, 8>(fixed)),
            identity: Identity {
                run_id: field::<32, 16>(fixed),
                writer_id: u64::from_le_bytes(field::<48, 8>(fixed)),
                boot_id: field::<56, 16>(fixed),
                pid: u32::from_le_bytes(field::<72, 4>(fixed)),
                start_ticks: u64::from_le_bytes(field::<80, 8>(fixed)),
            },
        };
        for area_bytes in [header.names_bytes, header.entry_bytes] {
            if !area_bytes.is_power_of_two() || !(MIN_AREA_BYTES..=MAX_AREA_BYTES).contains(&area_bytes) {
                return Err(HeaderError::Damaged { what: format!("an area of {area_bytes} bytes cannot be") });
            }
        }
        Ok(header)
    }
}

/// What the consumer noted before it wrote a frame: seq `seq` holds the entries up to absolute offset `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intent {
    /// Number of the frame.
    pub seq: u64,
    /// Where the frame's last entry ends.
    pub end: u64,
}

/// One intent slot: generation, seq, end, check.
pub(crate) fn encode_intent(generation: u64, intent: Intent, nonce: u64) -> [u64; 4] {
    [generation, intent.seq, intent.end, intent_check([generation, intent.seq, intent.end], nonce)]
}

/// The slot's generation and intent, unless it was never written or a kill cut the writing of it.
pub(crate) fn decode_intent([generation, seq, end, check]: [u64; 4], nonce: u64) -> Option<(u64, Intent)> {
    (check == intent_check([generation, seq, end], nonce)).then_some((generation, Intent { seq, end }))
}

fn intent_check(fields: [u64; 3], nonce: u64) -> u64 {
    let crc = fields.iter().fold(nonce as u32, |crc, field| crc32c::crc32c_append(crc, &field.to_le_bytes()));
    // The upper half makes zeros no intent.
    u64::from(crc) | (u64::from(!crc) << 32)
}

/// `N` bytes of the header at `OFFSET`.
fn field<const OFFSET: usize, const N: usize>(header: &[u8; FIXED_BYTES]) -> [u8; N] {
    const { assert!(OFFSET + N <= FIXED_BYTES) };
    #[expect(clippy::indexing_slicing, reason = "in range by the assertion above")]
    std::array::from_fn(|index| header[OFFSET + index])
}

fn halves(bytes: [u8; 16]) -> [u64; 2] {
    let both = u128::from_le_bytes(bytes);
    [both as u64, (both >> 64) as u64]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header() -> Header {
        let identity = Identity { run_id: [1; 16], writer_id: 2, boot_id: [3; 16], pid: 4, start_ticks: 5 };
        Header { names_bytes: 64, entry_bytes: 1 << 22, identity }
    }

    #[test]
    fn a_header_reads_back() {
        assert_eq!(Header::decode(&header().encode()), Ok(header()));
    }

    #[test]
    fn a_flip_of_any_bit_is_noticed() {
        for bit in 0..FIXED_BYTES * 8 {
            let mut bytes = header().encode();
            bytes[bit / 8] ^= 1 << (bit % 8);

            assert!(Header::decode(&bytes).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn each_kind_of_foreign_header_has_its_own_answer() {
        let mut newer = header().encode();
        newer[8] = 2;

        assert_eq!(Header::decode(&[0; FIXED_BYTES]), Err(HeaderError::Unfinished));
        assert_eq!(Header::decode(&[]), Err(HeaderError::Unfinished));
        assert_eq!(Header::decode(b"hello"), Err(HeaderError::NotARing { found: b"hello".to_vec() }));
        assert_eq!(Header::decode(&newer), Err(HeaderError::Newer { found: 2 }));
    }

    #[test]
    fn impossible_sizes_are_damage_even_with_a_good_checksum() {
        for entry_bytes in [0, 63, 100, MAX_AREA_BYTES * 2, u64::MAX] {
            let bytes = Header { entry_bytes, ..header() }.encode();

            assert!(matches!(Header::decode(&bytes), Err(HeaderError::Damaged { .. })), "{entry_bytes}");
        }
    }

    proptest! {
        /// A kill between the four stores of a slot leaves some new words and some old ones.
        #[test]
        fn a_half_written_intent_is_not_taken(generation in 1..1000_u64, seq: u32, end: u32, written in 1..4_usize, nonce: u64) {
            let intent = Intent { seq: u64::from(seq), end: u64::from(end) };
            let next = Intent { seq: intent.seq + 2, end: intent.end + 64 };
            let mut slot = encode_intent(generation, intent, nonce);
            slot[..written].copy_from_slice(&encode_intent(generation + 2, next, nonce)[..written]);

            prop_assert_eq!(decode_intent(slot, nonce), None);
        }

        #[test]
        fn an_intent_reads_back_and_zeros_are_none(generation: u64, seq: u64, end: u64, nonce: u64) {
            let slot = encode_intent(generation, Intent { seq, end }, nonce);

            prop_assert_eq!(decode_intent(slot, nonce), Some((generation, Intent { seq, end })));
            prop_assert_eq!(decode_intent([0; 4], nonce), None);
        }
    }
}
