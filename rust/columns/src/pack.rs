//! The bytes below chunks and axes: zstd blobs, bounded reading.
//!
//! A blob is one tag byte, then the body as it is (tag 0), or the length of the body as a varint and one zstd frame
//! with checksum (tag 1). Contexts are kept between calls: a chunk is a few KiB, and setting zstd up costs as much as
//! compressing that.

use std::cell::RefCell;

use runferry_wire::varint;
use thiserror::Error;
use zstd::bulk::{Compressor, Decompressor};

/// Most bytes of a body; far above any chunk, it bounds what a damaged length can ask for.
const MAX_BODY_BYTES: usize = 256 << 20;
/// Most points of a chunk and rows of an axis: far above any that is written, it bounds what a damaged count can ask for.
pub(crate) const MAX_POINTS: u32 = 1 << 20;
/// Bodies below this are not worth a zstd frame's header and checksum.
const MIN_COMPRESSED_BYTES: usize = 32;

/// Why the bytes of a chunk or an axis cannot be read back.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ChunkError {
    /// The stored checksum does not fit the bytes: they changed on the disk.
    #[error("checksum of the {part} is {computed:08x}, stored is {stored:08x}")]
    Checksum {
        /// "data", "head" or "axis".
        part: &'static str,
        /// The checksum in the row.
        stored: u32,
        /// The checksum of the bytes found.
        computed: u32,
    },
    /// Written by a later version.
    #[error("codec {found} is newer than this program reads ({expected})")]
    UnknownCodec {
        /// The codec in the row.
        found: u8,
        /// The newest codec known.
        expected: u8,
    },
    /// The checksum fits but the bytes do not add up: a defect of the program that wrote them.
    #[error("malformed {part}")]
    Malformed {
        /// Which part of the row.
        part: &'static str,
    },
}

impl ChunkError {
    /// Shorthand for the error that no checksum explains.
    pub(crate) fn malformed(part: &'static str) -> Self {
        Self::Malformed { part }
    }
}

/// Compresses bodies into blobs.
pub struct Packer {
    zstd: Option<Compressor<'static>>,
    /// Where frames are made before it is known how long they are.
    room: Vec<u8>,
}

impl Default for Packer {
    fn default() -> Self {
        Self::new()
    }
}

impl Packer {
    /// A packer of level 1. Without memory for a context blobs are stored uncompressed.
    pub fn new() -> Self {
        let zstd = Compressor::new(1).ok().and_then(|mut zstd| {
            let is_set = zstd.set_parameter(zstd::zstd_safe::CParameter::ChecksumFlag(true)).is_ok();
            is_set.then_some(zstd)
        });
        Self { zstd, room: Vec::new() }
    }

    /// The blob of a body.
    pub(crate) fn pack(&mut self, body: &[u8]) -> Vec<u8> {
        if body.len() >= MIN_COMPRESSED_BYTES
            && let Some(frame) = self.compress(body)
            && frame.len() + 5 < body.len()
        {
            let mut blob = Vec::with_capacity(frame.len() + 6);
            blob.push(1);
            varint::put(&mut blob, body.len() as u64);
            blob.extend_from_slice(frame);
            return blob;
        }
        let mut blob = Vec::with_capacity(body.len() + 1);
        blob.push(0);
        blob.extend_from_slice(body);
        blob
    }

    fn compress(&mut self, body: &[u8]) -> Option<&[u8]> {
        self.room.clear();
        self.room.reserve(zstd::zstd_safe::compress_bound(body.len()));
        self.zstd.as_mut()?.compress_to_buffer(body, &mut self.room).ok()?;
        Some(&self.room)
    }
}

thread_local! {
    /// The context of the last unpacker that this thread was done with: a chart of some chunks takes less time than making one.
    static SPARE: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Reads blobs back.
pub struct Unpacker {
    zstd: Option<Decompressor<'static>>,
}

impl Default for Unpacker {
    fn default() -> Self {
        Self::new()
    }
}

impl Unpacker {
    /// An unpacker; it holds one decompression context.
    pub fn new() -> Self {
        let spare = SPARE.try_with(RefCell::take).ok().flatten();
        Self { zstd: spare.or_else(|| Decompressor::new().ok()) }
    }

    /// The body of a blob.
    pub(crate) fn unpack(&mut self, blob: &[u8], part: &'static str) -> Result<Vec<u8>, ChunkError> {
        let malformed = || ChunkError::malformed(part);
        let (&tag, mut rest) = blob.split_first().ok_or_else(malformed)?;
        match tag {
            0 => Ok(rest.to_vec()),
            1 => {
                let len = varint::take(&mut rest).ok_or_else(malformed)? as usize;
                if len > MAX_BODY_BYTES {
                    return Err(malformed());
                }
                let zstd = self.zstd.as_mut().ok_or_else(malformed)?;
                let body = zstd.decompress(rest, len).map_err(|_corrupt| malformed())?;
                if body.len() == len { Ok(body) } else { Err(malformed()) }
            }
            _ => Err(malformed()),
        }
    }
}

impl Drop for Unpacker {
    fn drop(&mut self) {
        let zstd = self.zstd.take();
        SPARE.try_with(|spare| spare.replace(zstd)).ok();
    }
}

/// Takes `count` bytes off the front.
pub(crate) fn take_bytes<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (head, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(head)
}

/// Takes a varint that counts something in memory.
pub(crate) fn take_len(bytes: &mut &[u8]) -> Option<usize> {
    usize::try_from(varint::take(bytes)?).ok()
}

/// Takes a fixed number of bytes.
pub(crate) fn take_array<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_blob_unpacks_to_its_body(body: Vec<u8>, repeat in 1_usize..40) {
            let body = body.repeat(repeat);

            let blob = Packer::new().pack(&body);

            prop_assert_eq!(Unpacker::new().unpack(&blob, "data"), Ok(body));
        }

        #[test]
        fn no_blob_makes_it_panic(blob: Vec<u8>) {
            Unpacker::new().unpack(&blob, "data").ok();
        }
    }
}
