//! Payloads: compression with bounds.

use std::io::Read;

use thiserror::Error;

use crate::frame::{Codec, Header, MAX_RAW_BYTES};

/// Largest window a payload may ask the decompressor for: 8 MiB, far above what this crate writes.
const MAX_WINDOW_LOG: u32 = 23;

/// Most bytes that a payload of a writer unfolds to: what is read back may have more, up to what a header can say.
///
/// A writer closes a frame at 640 KiB, and a row, a value or a document has 4 MiB at most.
pub const MAX_WRITTEN_BYTES: u32 = 16 << 20;

/// Why a stored payload gives no bytes.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PayloadError {
    /// A codec of a later version.
    #[error("payload codec {0:#04x} is not known")]
    UnknownCodec(u8),
    /// Not zstd, damaged, or asking for too much memory.
    #[error("payload does not decompress: {0}")]
    Corrupt(String),
    /// More than a writer makes.
    #[error("a payload of {0} bytes, at most {MAX_WRITTEN_BYTES} are taken from a writer")]
    TooLarge(u32),
    /// The header promised another length.
    #[error("payload has {found} bytes, the header says {expected}")]
    Length {
        /// Bytes promised by the header.
        expected: u32,
        /// Bytes found, or one more than promised.
        found: usize,
    },
}

/// Compresses `raw`, or keeps it as it is where that is not larger.
pub fn compress(raw: &[u8], level: i32) -> (Codec, Vec<u8>) {
    let compressed = zstd::bulk::Compressor::new(level).and_then(|mut compressor| {
        compressor.include_checksum(true)?;
        compressor.include_contentsize(true)?;
        compressor.compress(raw)
    });
    match compressed {
        Ok(bytes) if bytes.len() < raw.len() => (Codec::Zstd, bytes),
        // zstd fails only for lack of memory; stored plain, nothing is lost.
        Ok(_) | Err(_) => (Codec::Plain, raw.to_vec()),
    }
}

/// The decompressed payload of a frame: exactly `raw_len` bytes, never more memory than that.
///
/// # Errors
/// [`PayloadError`].
pub fn decompress(header: &Header, payload: &[u8]) -> Result<Vec<u8>, PayloadError> {
    let expected = header.raw_len.min(MAX_RAW_BYTES);
    let raw = match header.codec {
        Codec::Plain => payload.to_vec(),
        Codec::Zstd => inflate(payload, expected).map_err(|error| PayloadError::Corrupt(error.to_string()))?,
        Codec::Unknown(byte) => return Err(PayloadError::UnknownCodec(byte)),
    };
    if raw.len() != expected as usize {
        return Err(PayloadError::Length { expected, found: raw.len() });
    }
    Ok(raw)
}

/// As [`decompress`], of a frame that came from a writer.
///
/// # Errors
/// [`PayloadError`].
pub fn decompress_written(header: &Header, payload: &[u8]) -> Result<Vec<u8>, PayloadError> {
    if header.raw_len > MAX_WRITTEN_BYTES {
        return Err(PayloadError::TooLarge(header.raw_len));
    }
    decompress(header, payload)
}

/// At most one byte more than expected, whatever the stream would unfold to.
fn inflate(payload: &[u8], expected: u32) -> std::io::Result<Vec<u8>> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(payload)?.single_frame();
    decoder.window_log_max(MAX_WINDOW_LOG)?;
    // Room for all of it, and for the byte too much: growing by doubling would copy, and hold a payload twice. Where the header lies,
    // pages that nothing is written to cost no memory.
    let mut raw = Vec::with_capacity(expected as usize + 1);
    decoder.take(u64::from(expected) + 1).read_to_end(&mut raw)?;
    Ok(raw)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Draft, Frame, Kind};
    use proptest::prelude::*;

    fn header(codec: Codec, raw_len: u32, payload: &[u8]) -> Header {
        let draft = Draft { kind: Kind::Data, flags: 0, run_id: [0; 16], writer_id: 1, seq: 1, record_count: 0 };
        Frame::read(&draft.seal(codec, raw_len, payload)).expect("just sealed").header
    }

    proptest! {
        #[test]
        fn a_payload_decompresses_to_what_it_was(raw: Vec<u8>, repeat in 1_usize..50) {
            let raw = raw.repeat(repeat);

            let (codec, stored) = compress(&raw, 1);

            prop_assert_eq!(decompress(&header(codec, raw.len() as u32, &stored), &stored), Ok(raw));
        }

        #[test]
        fn no_payload_makes_it_panic(payload: Vec<u8>, raw_len: u32) {
            decompress(&header(Codec::Zstd, raw_len.min(MAX_RAW_BYTES), &payload), &payload).ok();
        }
    }

    #[test]
    fn a_bomb_is_cut_at_the_promised_length() {
        let (_, bomb) = compress(&vec![0; 50 << 20], 1);
        assert!(bomb.len() < 10_000);

        assert_eq!(
            decompress(&header(Codec::Zstd, 100, &bomb), &bomb),
            Err(PayloadError::Length { expected: 100, found: 101 })
        );
    }
}
