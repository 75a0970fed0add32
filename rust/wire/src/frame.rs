//! The frame: the one envelope of a batch, in the journal, on the wire and in the store.
//!
//! A batch is packed, compressed and checksummed once, by `rf-pack`. Header and payload have a checksum each:
//! recovery and routing read headers only, and a flipped payload bit costs one frame whose number is still known.
//!
//! # Layout
//! Little-endian; offset, field, bytes. `docs/format.md` is the reference.
//! ```text
//!  0 magic 4        8 payload_len 4   32 writer_id 8      56 payload_crc32c 4
//!  4 version 1     12 raw_len 4       40 seq 8            60 header_crc32c 4
//!  5 kind 1        16 run_id 16       48 record_count 4   64 payload, then zeros
//!  6 codec 1  7 flags 1               52 dict_id 4           to a multiple of 8
//! ```
//! # Invariants
//! - [`Header::decode`] never panics, whatever the bytes (`fuzz/fuzz_targets/frame_decode.rs`).
//! - A released version stays readable for ever (`tests/compat/`).

use thiserror::Error;

/// Bytes of a header.
pub const HEADER_BYTES: usize = 64;
/// First bytes of every frame: not ASCII, so that text is never taken for one.
pub const MAGIC: [u8; 4] = [0xF5, 0x9E, 0xD1, 0x8A];
/// The version written by this crate, and the newest it reads.
pub const VERSION: u8 = 1;
/// Most stored bytes of a payload.
pub const MAX_PAYLOAD_BYTES: u32 = 8 << 20;
/// Most bytes of a payload after decompression.
pub const MAX_RAW_BYTES: u32 = 64 << 20;
/// Frames start at multiples of this, which lets a scan resynchronise in steps.
pub const ALIGNMENT: usize = 8;

/// Bits of [`Header::flags`].
pub mod flags {
    /// Nothing follows from this writer.
    pub const LAST: u8 = 1;
    /// Packed by an adopter from the ring of a process that died.
    pub const RECOVERED: u8 = 2;
    /// The payload holds blocks other than ROWS, so the metadata has to look at it.
    pub const DOCS: u8 = 4;
}

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Blocks of rows and documents.
    Data,
    /// Who the writer is; opens every segment and every stream.
    Open,
    /// The last word of a writer: exit code and counters.
    Finish,
    /// A counted, reasoned absence of `record_count` numbers.
    Gap,
    /// A compression dictionary.
    Dict,
    /// A new clock anchor.
    Mark,
    /// A reference to a blob.
    BlobRef,
    /// Sums over what the writer has packed so far, see [`crate::receipt`].
    Receipt,
    /// A kind of a later version.
    Unknown(u8),
}

impl Kind {
    /// The kind of a header byte.
    pub fn from_byte(byte: u8) -> Self {
        match byte {
            1 => Self::Data,
            2 => Self::Open,
            3 => Self::Finish,
            4 => Self::Gap,
            5 => Self::Dict,
            6 => Self::Mark,
            7 => Self::BlobRef,
            8 => Self::Receipt,
            other => Self::Unknown(other),
        }
    }

    /// The header byte of a kind.
    pub fn to_byte(self) -> u8 {
        match self {
            Self::Data => 1,
            Self::Open => 2,
            Self::Finish => 3,
            Self::Gap => 4,
            Self::Dict => 5,
            Self::Mark => 6,
            Self::BlobRef => 7,
            Self::Receipt => 8,
            Self::Unknown(byte) => byte,
        }
    }

    /// Whether frames of this kind take a number of the writer's sequence. Unknown critical kinds do: a reader that
    /// keeps one aside must not see a hole behind it.
    pub fn is_numbered(self) -> bool {
        match self {
            Self::Data | Self::Finish | Self::Gap | Self::BlobRef => true,
            Self::Open | Self::Dict | Self::Mark | Self::Receipt => false,
            Self::Unknown(byte) => byte >= 128,
        }
    }
}

/// How a payload is compressed; the encoding is always msgpack-v1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    /// Stored as it is.
    Plain,
    /// One zstd frame with content size and checksum.
    Zstd,
    /// A codec of a later version.
    Unknown(u8),
}

impl Codec {
    fn from_byte(byte: u8) -> Self {
        match byte {
            0x10 => Self::Plain,
            0x11 => Self::Zstd,
            other => Self::Unknown(other),
        }
    }

    fn to_byte(self) -> u8 {
        match self {
            Self::Plain => 0x10,
            Self::Zstd => 0x11,
            Self::Unknown(byte) => byte,
        }
    }
}

/// Why bytes are not a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FrameError {
    /// The bytes end inside the frame: the usual mark of a crash in mid-write.
    #[error("frame is torn: {missing_bytes} bytes missing")]
    Torn {
        /// How many bytes would complete the header, or the frame.
        missing_bytes: usize,
    },
    /// The first bytes are not the magic.
    #[error("not a frame: expected f59ed18a, found {:08x}", u32::from_be_bytes(*found))]
    NotAFrame {
        /// What stands there instead.
        found: [u8; 4],
    },
    /// The header's checksum does not fit its bytes.
    #[error("frame header is corrupt: stored checksum {stored:08x}, computed {computed:08x}")]
    HeaderCorrupt {
        /// Checksum in the header.
        stored: u32,
        /// Checksum of the bytes.
        computed: u32,
    },
    /// The header is whole but of a later version.
    #[error("frame format version {found} is newer than this program reads ({VERSION})")]
    UnsupportedVersion {
        /// Version in the header.
        found: u8,
    },
    /// A length beyond the limits of the format.
    #[error(
        "frame {seq} is too large: payload {payload_len} bytes of at most {MAX_PAYLOAD_BYTES}, raw {raw_len} of at most {MAX_RAW_BYTES}"
    )]
    TooLarge {
        /// Number of the frame.
        seq: u64,
        /// Stored length.
        payload_len: u32,
        /// Length after decompression.
        raw_len: u32,
    },
    /// The payload's checksum does not fit its bytes; the header is good.
    #[error("payload of frame {seq} is corrupt: stored checksum {stored:08x}, computed {computed:08x}")]
    PayloadCorrupt {
        /// Number of the frame.
        seq: u64,
        /// Checksum in the header.
        stored: u32,
        /// Checksum of the bytes.
        computed: u32,
    },
}

/// A decoded header. Fields as in `docs/format.md`, section 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What the frame is.
    pub kind: Kind,
    /// How the payload is stored.
    pub codec: Codec,
    /// Bits of [`flags`].
    pub flags: u8,
    /// Stored bytes of the payload.
    pub payload_len: u32,
    /// Bytes of the payload after decompression.
    pub raw_len: u32,
    /// The run.
    pub run_id: [u8; 16],
    /// The writer.
    pub writer_id: u64,
    /// The frame's number, or the number of the next numbered frame (OPEN, DICT, MARK).
    pub seq: u64,
    /// Rows and documents in it; of a GAP the numbers it covers.
    pub record_count: u32,
    /// Compression dictionary, 0: none.
    pub dict_id: u32,
    /// CRC32C of the stored payload.
    pub payload_crc32c: u32,
}

impl Header {
    /// Reads the header at the start of `bytes`; the payload is not looked at.
    ///
    /// # Errors
    /// Any [`FrameError`] but `PayloadCorrupt`. Only `Torn` can be cured by more bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Err(FrameError::Torn { missing_bytes: HEADER_BYTES - bytes.len() });
        };
        let found = field::<0, 4>(header);
        if found != MAGIC {
            return Err(FrameError::NotAFrame { found });
        }
        let stored = u32::from_le_bytes(field::<60, 4>(header));
        let computed = crc32c::crc32c(&field::<0, 60>(header));
        if stored != computed {
            return Err(FrameError::HeaderCorrupt { stored, computed });
        }
        let [version, kind, codec, flags] = field::<4, 4>(header);
        if version != VERSION {
            return Err(FrameError::UnsupportedVersion { found: version });
        }
        let decoded = Self {
            kind: Kind::from_byte(kind),
            codec: Codec::from_byte(codec),
            flags,
            payload_len: u32::from_le_bytes(field::<8, 4>(header)),
            raw_len: u32::from_le_bytes(field::<12, 4>(header)),
            run_id: field::<16, 16>(header),
            writer_id: u64::from_le_bytes(field::<32, 8>(header)),
            seq: u64::from_le_bytes(field::<40, 8>(header)),
            record_count: u32::from_le_bytes(field::<48, 4>(header)),
            dict_id: u32::from_le_bytes(field::<52, 4>(header)),
            payload_crc32c: u32::from_le_bytes(field::<56, 4>(header)),
        };
        if decoded.payload_len > MAX_PAYLOAD_BYTES || decoded.raw_len > MAX_RAW_BYTES {
            let Self { seq, payload_len, raw_len, .. } = decoded;
            return Err(FrameError::TooLarge { seq, payload_len, raw_len });
        }
        Ok(decoded)
    }

    /// Bytes of the whole frame: header, payload, padding.
    pub fn frame_len(&self) -> usize {
        HEADER_BYTES + (self.payload_len as usize).next_multiple_of(ALIGNMENT)
    }

    /// The number of the frame behind this one.
    pub fn next_seq(&self) -> u64 {
        match self.kind {
            Kind::Gap => self.seq.saturating_add(u64::from(self.record_count.max(1))),
            kind if kind.is_numbered() => self.seq.saturating_add(1),
            _ => self.seq,
        }
    }

    fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        put::<0, 4>(&mut bytes, MAGIC);
        put::<4, 4>(&mut bytes, [VERSION, self.kind.to_byte(), self.codec.to_byte(), self.flags]);
        put::<8, 4>(&mut bytes, self.payload_len.to_le_bytes());
        put::<12, 4>(&mut bytes, self.raw_len.to_le_bytes());
        put::<16, 16>(&mut bytes, self.run_id);
        put::<32, 8>(&mut bytes, self.writer_id.to_le_bytes());
        put::<40, 8>(&mut bytes, self.seq.to_le_bytes());
        put::<48, 4>(&mut bytes, self.record_count.to_le_bytes());
        put::<52, 4>(&mut bytes, self.dict_id.to_le_bytes());
        put::<56, 4>(&mut bytes, self.payload_crc32c.to_le_bytes());
        let checksum = crc32c::crc32c(&field::<0, 60>(&bytes));
        put::<60, 4>(&mut bytes, checksum.to_le_bytes());
        bytes
    }
}

/// A whole frame at the start of some bytes, both checksums verified.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// The decoded header.
    pub header: Header,
    /// The stored payload, still compressed.
    pub payload: &'a [u8],
    /// The frame's own bytes: header, payload, padding.
    pub bytes: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Reads the frame at the start of `bytes` and verifies header and payload.
    ///
    /// # Errors
    /// Any [`FrameError`]. Only `Torn` can be cured by more bytes.
    pub fn read(bytes: &'a [u8]) -> Result<Self, FrameError> {
        let header = Header::decode(bytes)?;
        let len = header.frame_len();
        let Some(frame) = bytes.get(..len) else {
            return Err(FrameError::Torn { missing_bytes: len - bytes.len() });
        };
        let payload = frame.get(HEADER_BYTES..HEADER_BYTES + header.payload_len as usize).unwrap_or_default();
        let computed = crc32c::crc32c(payload);
        if computed != header.payload_crc32c {
            return Err(FrameError::PayloadCorrupt { seq: header.seq, stored: header.payload_crc32c, computed });
        }
        Ok(Self { header, payload, bytes: frame })
    }
}

/// The same frame under another writer and number; its payload is neither read nor verified.
///
/// # Errors
/// The header cannot be read.
pub fn renumbered(frame: &[u8], writer_id: u64, seq: u64) -> Result<Vec<u8>, FrameError> {
    let header = Header { writer_id, seq, ..Header::decode(frame)? };
    let mut bytes = Vec::with_capacity(frame.len());
    bytes.extend_from_slice(&header.encode());
    bytes.extend_from_slice(frame.get(HEADER_BYTES..).unwrap_or_default());
    Ok(bytes)
}

/// What a frame is to say about itself, before its payload is sealed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draft {
    /// What the frame is.
    pub kind: Kind,
    /// Bits of [`flags`].
    pub flags: u8,
    /// The run.
    pub run_id: [u8; 16],
    /// The writer.
    pub writer_id: u64,
    /// The frame's number.
    pub seq: u64,
    /// Rows and documents in it; of a GAP the numbers it covers.
    pub record_count: u32,
}

impl Draft {
    /// The finished frame around a stored payload of at most [`MAX_PAYLOAD_BYTES`].
    pub fn seal(&self, codec: Codec, raw_len: u32, payload: &[u8]) -> Vec<u8> {
        let header = Header {
            kind: self.kind,
            codec,
            flags: self.flags,
            payload_len: payload.len() as u32,
            raw_len,
            run_id: self.run_id,
            writer_id: self.writer_id,
            seq: self.seq,
            record_count: self.record_count,
            dict_id: 0,
            payload_crc32c: crc32c::crc32c(payload),
        };
        let mut bytes = Vec::with_capacity(header.frame_len());
        bytes.extend_from_slice(&header.encode());
        bytes.extend_from_slice(payload);
        bytes.resize(header.frame_len(), 0);
        bytes
    }
}

/// `N` bytes of the header at `OFFSET`.
fn field<const OFFSET: usize, const N: usize>(header: &[u8; HEADER_BYTES]) -> [u8; N] {
    const { assert!(OFFSET + N <= HEADER_BYTES) };
    #[expect(clippy::indexing_slicing, reason = "in range by the assertion above")]
    std::array::from_fn(|index| header[OFFSET + index])
}

/// Writes `N` bytes of the header at `OFFSET`.
fn put<const OFFSET: usize, const N: usize>(header: &mut [u8; HEADER_BYTES], value: [u8; N]) {
    const { assert!(OFFSET + N <= HEADER_BYTES) };
    #[expect(clippy::indexing_slicing, reason = "in range by the assertion above")]
    header[OFFSET..OFFSET + N].copy_from_slice(&value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn draft(seq: u64) -> Draft {
        Draft { kind: Kind::Data, flags: 0, run_id: [7; 16], writer_id: 9, seq, record_count: 1 }
    }

    #[test]
    fn crc32c_is_castagnoli() {
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn a_gap_covers_as_many_numbers_as_it_says() {
        let gap = Draft { kind: Kind::Gap, record_count: 5, ..draft(3) }.seal(Codec::Plain, 0, b"");

        assert_eq!(Header::decode(&gap).map(|header| header.next_seq()), Ok(8));
    }

    #[test]
    fn a_newer_version_is_told_apart_from_damage() {
        let mut bytes = draft(1).seal(Codec::Plain, 2, b"hi");
        bytes[4] = 2;
        let checksum = crc32c::crc32c(&bytes[..60]);
        bytes[60..64].copy_from_slice(&checksum.to_le_bytes());

        assert_eq!(Header::decode(&bytes), Err(FrameError::UnsupportedVersion { found: 2 }));
    }

    #[test]
    fn every_cut_of_a_frame_is_torn() {
        let bytes = draft(1).seal(Codec::Plain, 5, b"hello");
        for cut in 0..bytes.len() {
            let missing = if cut < HEADER_BYTES { HEADER_BYTES - cut } else { bytes.len() - cut };
            assert_eq!(Frame::read(&bytes[..cut]).err(), Some(FrameError::Torn { missing_bytes: missing }));
        }
    }

    #[test]
    fn every_flipped_bit_of_a_frame_is_noticed() {
        let bytes = draft(1).seal(Codec::Plain, 8, b"hello!!!");
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Frame::read(&damaged).is_err(), "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn a_sealed_frame_reads_back_as_it_was(
            payload in proptest::collection::vec(any::<u8>(), 0..300), kind: u8, flags: u8, run_id: [u8; 16], writer_id: u64, seq: u64, record_count: u32,
        ) {
            let draft = Draft { kind: Kind::from_byte(kind), flags, run_id, writer_id, seq, record_count };

            let bytes = draft.seal(Codec::Zstd, 77, &payload);

            let frame = Frame::read(&bytes).expect("just sealed");
            prop_assert_eq!(frame.payload, payload.as_slice());
            let header = frame.header;
            prop_assert_eq!((header.kind.to_byte(), header.flags, header.run_id, header.writer_id), (kind, flags, run_id, writer_id));
            prop_assert_eq!((header.seq, header.record_count, header.raw_len, header.codec), (seq, record_count, 77, Codec::Zstd));
        }

        // fault: 38
        #[test]
        fn a_renumbered_frame_differs_by_writer_and_number_alone(
            payload in proptest::collection::vec(any::<u8>(), 0..300), writer_id: u64, seq: u64, old_seq: u64,
        ) {
            let bytes = Draft { flags: 3, ..draft(old_seq) }.seal(Codec::Zstd, 77, &payload);

            let renumbered = renumbered(&bytes, writer_id, seq).expect("just sealed");

            let (before, after) = (Frame::read(&bytes).expect("as sealed"), Frame::read(&renumbered).expect("still whole"));
            prop_assert_eq!(after.header, Header { writer_id, seq, ..before.header });
            prop_assert_eq!(after.payload, before.payload);
            prop_assert_eq!(renumbered.len(), bytes.len());
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Frame::read(&bytes).is_err());
        }
    }
}
