//! LEB128 variable-length integers and zigzag, for deltas that are mostly small.

/// Appends `value` in 1 to 10 bytes.
pub fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes one value off the front of `bytes`; `None` when they end inside it or it does not fit 64 bits.
pub fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let low = u64::from(byte & 0x7f);
        if shift == 63 && low > 1 {
            return None;
        }
        value |= low << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// Signed to unsigned, small magnitudes to small numbers.
pub fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// The inverse of [`zigzag`].
pub fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// The values as zigzag varints: the first, then wrapping differences.
pub fn encode_deltas(values: impl IntoIterator<Item = i64>, first: i64) -> Vec<u8> {
    let mut out = Vec::new();
    let mut previous = first;
    for value in values {
        put(&mut out, zigzag(value.wrapping_sub(previous)));
        previous = value;
    }
    out
}

/// Reads exactly `count` values written by [`encode_deltas`]; `None` unless they end where `bytes` end.
pub fn decode_deltas(mut bytes: &[u8], count: usize, first: i64) -> Option<Vec<i64>> {
    if count > bytes.len() {
        return None;
    }
    let mut values = Vec::with_capacity(count);
    let mut previous = first;
    for _ in 0..count {
        previous = previous.wrapping_add(unzigzag(take(&mut bytes)?));
        values.push(previous);
    }
    bytes.is_empty().then_some(values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn deltas_read_back(values: Vec<i64>, first: i64) {
            let bytes = encode_deltas(values.iter().copied(), first);

            prop_assert_eq!(decode_deltas(&bytes, values.len(), first), Some(values));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, count in 0_usize..100) {
            decode_deltas(&bytes, count, 0);
        }
    }
}
