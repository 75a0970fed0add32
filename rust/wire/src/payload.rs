//! Payloads: compression with bounds.
//!
//! A thread keeps its contexts from payload to payload: setting one up costs more than all the rest of a small frame, several times over
//! where it is read ([decision 19](../../../docs/decisions/0019-no-dictionary-for-small-frames.md) has the figures).

use std::cell::RefCell;
use std::io::Read;

use thiserror::Error;
use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe;

use crate::frame::{Codec, Header, MAX_RAW_BYTES};

thread_local! {
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Largest window a payload may ask for memory for: 8 MiB, far above what this crate writes.
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
    let compressed =
        COMPRESSOR.try_with(|kept| zstd_frame(kept.try_borrow_mut().ok()?.get_or_insert_default(), raw, level).ok());
    match compressed.ok().flatten() {
        Some(bytes) if bytes.len() < raw.len() => (Codec::Zstd, bytes),
        // zstd fails only for lack of memory; stored plain, nothing is lost.
        Some(_) | None => (Codec::Plain, raw.to_vec()),
    }
}

fn zstd_frame(compressor: &mut Compressor<'static>, raw: &[u8], level: i32) -> std::io::Result<Vec<u8>> {
    compressor.set_compression_level(level)?;
    compressor.include_checksum(true)?;
    compressor.include_contentsize(true)?;
    compressor.compress(raw)
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

/// At most one byte more than expected, whatever the payload would unfold to.
fn inflate(payload: &[u8], expected: u32) -> std::io::Result<Vec<u8>> {
    inflate_at_once(payload, expected).map_or_else(|| inflate_bit_by_bit(payload, expected), Ok)
}

/// A payload that is what it should be: into its place in one pass, in which no window takes memory. `None`: it is not.
fn inflate_at_once(payload: &[u8], expected: u32) -> Option<Vec<u8>> {
    let frame = payload.get(..zstd_safe::find_frame_compressed_size(payload).ok()?)?;
    let inflated = DECOMPRESSOR.try_with(|kept| {
        let mut raw = Vec::with_capacity(expected as usize);
        kept.try_borrow_mut().ok()?.get_or_insert_default().decompress_to_buffer(frame, &mut raw).ok()?;
        (raw.len() == expected as usize).then_some(raw)
    });
    inflated.ok().flatten()
}

/// Any other payload, as far as it can be read: its length or zstd's words say what is wrong with it.
fn inflate_bit_by_bit(payload: &[u8], expected: u32) -> std::io::Result<Vec<u8>> {
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

        /// In one pass, in a context that has seen other payloads. It may take one more: whole, and asking for a window it does not need.
        #[test]
        fn a_payload_in_one_pass_is_what_it_is_bit_by_bit(
            raw: Vec<u8>, repeat in 1_usize..50, flipped in proptest::option::of(any::<proptest::sample::Index>()), behind: Vec<u8>, off in -1_i64..2,
        ) {
            let raw = raw.repeat(repeat);
            let mut payload = compress(&raw, 1).1;
            if let (Some(flipped), false) = (flipped, payload.is_empty()) {
                let bit = flipped.index(payload.len() * 8);
                payload[bit / 8] ^= 1 << (bit % 8);
            }
            payload.extend_from_slice(&behind);
            let expected = u32::try_from(raw.len() as i64 + off).unwrap_or_default();

            let at_once = inflate_at_once(&payload, expected);

            let bit_by_bit = inflate_bit_by_bit(&payload, expected).ok().filter(|found| found.len() == expected as usize);
            prop_assert_eq!(&at_once, if off == 0 && bit_by_bit.is_none() && at_once.as_ref() == Some(&raw) { &at_once } else { &bit_by_bit });
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
