//! The commit word: eight bytes that say an entry is whole.
//!
//! It is written last, so a reader that finds it knows that everything before it was written. An old lap leaves words in
//! the same place; the check covers the absolute offset and a number of this ring alone, so such a word, or user data that
//! happens to lie where a word is expected, is taken for one with a chance of 2^-32.
//!
//! # Layout
//! One little-endian `u64`: bits 0-23 payload length, bits 24-31 kind, bits 32-63 check (never 0, so zeros are no word). The
//! length `FF FF FF` is PAD: nothing until the end of this lap. Payloads end at 1 MiB, so no entry has that length.

use crate::MAX_PAYLOAD_BYTES;

/// Bytes of a commit word; entries start at multiples of it.
pub const WORD_BYTES: u64 = 8;
const PAD_LEN: u32 = 0xFF_FFFF;

/// What a valid commit word says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// The rest of this lap is empty; the next entry starts at the area's first byte.
    Pad,
    /// An entry of `payload_len` bytes follows.
    Entry {
        /// The caller's kind.
        kind: u8,
        /// Bytes of payload, at most [`MAX_PAYLOAD_BYTES`].
        payload_len: u32,
    },
}

impl Word {
    /// The word as it lies at absolute offset `at` of the ring numbered `nonce`.
    #[inline]
    pub fn encode(self, nonce: u64, at: u64) -> u64 {
        let low = match self {
            Self::Pad => PAD_LEN,
            Self::Entry { kind, payload_len } => payload_len | (u32::from(kind) << 24),
        };
        u64::from(low) | (u64::from(check(nonce, at, low)) << 32)
    }

    /// Reads the word found at `at`; `None` if none was committed there.
    #[inline]
    pub fn decode(raw: u64, nonce: u64, at: u64) -> Option<Self> {
        let low = raw as u32;
        if (raw >> 32) as u32 != check(nonce, at, low) {
            return None;
        }
        match low & 0xFF_FFFF {
            PAD_LEN => Some(Self::Pad),
            payload_len if payload_len as usize <= MAX_PAYLOAD_BYTES => {
                Some(Self::Entry { kind: (low >> 24) as u8, payload_len })
            }
            _ => None,
        }
    }
}

/// Where an entry of `payload_len` bytes that starts at `at` ends: the next entry's offset.
#[inline]
pub(crate) const fn entry_end(at: u64, payload_len: usize) -> u64 {
    at + WORD_BYTES + (payload_len as u64).next_multiple_of(WORD_BYTES)
}

/// Two rounds of multiply and fold: a few cycles, and each input bit reaches all bits kept.
#[inline]
fn check(nonce: u64, at: u64, low: u32) -> u32 {
    let mixed = fold((at ^ nonce).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let mixed = (mixed ^ u64::from(low)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    ((mixed >> 32) as u32).max(1)
}

#[inline]
pub(crate) fn fold(value: u64) -> u64 {
    value ^ (value >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_word_reads_back_and_only_at_its_own_place(
            kind: u8, payload_len in 0..=MAX_PAYLOAD_BYTES as u32, nonce: u64, at: u64, laps in 1..1000_u64,
        ) {
            let word = Word::Entry { kind, payload_len };
            let raw = word.encode(nonce, at);

            prop_assert_eq!(Word::decode(raw, nonce, at), Some(word));
            prop_assert_eq!(Word::decode(raw, nonce, at.wrapping_add(laps << 22)), None);
            prop_assert_eq!(Word::decode(raw, nonce.wrapping_add(laps), at), None);
        }

        #[test]
        fn a_flipped_bit_makes_it_no_word(kind: u8, payload_len in 0..=MAX_PAYLOAD_BYTES as u32, at: u64, bit in 0..64) {
            let raw = Word::Entry { kind, payload_len }.encode(7, at);

            prop_assert_eq!(Word::decode(raw ^ (1_u64 << bit), 7, at), None);
        }

        #[test]
        fn zeros_are_no_word(nonce: u64, at: u64) {
            prop_assert_eq!(Word::decode(0, nonce, at), None);
        }
    }

    /// The bytes of a released version: another build must find the entries that a killed process of this one left.
    #[test]
    fn the_check_is_the_one_of_version_1() {
        let raw = Word::Entry { kind: 3, payload_len: 80 }.encode(0x0123_4567_89AB_CDEF, 4096);

        assert_eq!(raw, 0x1B49_3300_0300_0050);
    }

    #[test]
    fn an_entry_ends_on_the_next_multiple_of_eight() {
        assert_eq!([entry_end(16, 0), entry_end(16, 1), entry_end(16, 8)], [24, 32, 32]);
    }
}
