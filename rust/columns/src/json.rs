//! Answers about series as JSON text.
//!
//! The door that reads are asked at would have to make an object of each number and a text of each object; here a number becomes its text
//! at once, where no interpreter has to wait for it. The text is strict JSON: NaN and the infinities are `null`. A float has the fewest
//! digits that read back as the same float.

use crate::buckets::{Bucket, Chart};

/// What a series says of itself before its lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heading {
    /// `raw_points`, `drawn` and `exact`: a chart of all there is.
    Whole,
    /// `raw_points_added`: what came to a chart that is drawn already.
    Added,
}

/// About what a bucket takes, for the first guess at the memory of an answer.
const BUCKET_BYTES: usize = 144;

/// Writes a text with its quotes.
pub fn push_text(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|byte| *byte < 0x20 || matches!(byte, b'"' | b'\\')) {
        let (plain, special) = rest.split_at(at);
        out.extend_from_slice(plain);
        let Some((byte, behind)) = special.split_first() else { break };
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            _ => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
        }
        rest = behind;
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

/// Writes a whole number.
pub fn push_integer(out: &mut Vec<u8>, value: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Writes a float; `null` if JSON has none for it.
pub fn push_float(out: &mut Vec<u8>, value: f64) {
    if value.is_finite() {
        out.extend_from_slice(zmij::Buffer::new().format_finite(value).as_bytes());
    } else {
        out.extend_from_slice(b"null");
    }
}

fn push_name(out: &mut Vec<u8>, name: &str) {
    if !out.ends_with(b"{") {
        out.push(b',');
    }
    push_text(out, name);
    out.push(b':');
}

/// Writes `[...]`, each item by `push`.
pub fn push_list<T>(out: &mut Vec<u8>, items: impl IntoIterator<Item = T>, push: impl Fn(&mut Vec<u8>, T)) {
    out.push(b'[');
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        push(out, item);
    }
    out.push(b']');
}

/// Writes a chart: an object whose lists have one item per bucket.
pub fn push_chart(out: &mut Vec<u8>, label: &str, name: &str, chart: &Chart, heading: Heading) {
    let buckets = &chart.buckets;
    out.reserve(buckets.len() * BUCKET_BYTES);
    out.push(b'{');
    push_name(out, "key");
    push_text(out, name);
    push_name(out, "label");
    push_text(out, label);
    match heading {
        Heading::Whole => {
            push_name(out, "raw_points");
            push_integer(out, chart.raw_points);
            push_name(out, "drawn");
            push_integer(out, buckets.len());
            push_name(out, "exact");
            out.extend_from_slice(if chart.is_exact() { b"true" } else { b"false" });
        }
        Heading::Added => {
            push_name(out, "raw_points_added");
            push_integer(out, chart.raw_points);
        }
    }
    let integers = |out: &mut Vec<u8>, name: &str, of: fn(&Bucket) -> i64| {
        push_name(out, name);
        push_list(out, buckets.iter().map(of), push_integer);
    };
    let floats = |out: &mut Vec<u8>, name: &str, of: fn(&Bucket) -> f64| {
        push_name(out, name);
        push_list(out, buckets.iter().map(of), push_float);
    };
    integers(out, "step_first", |bucket| bucket.step_first);
    integers(out, "step_last", |bucket| bucket.step_last);
    integers(out, "time_last_us", |bucket| bucket.time_last_us);
    integers(out, "count", |bucket| i64::from(bucket.stats.numbers()));
    floats(out, "min", |bucket| bucket.stats.min().unwrap_or(f64::NAN));
    floats(out, "max", |bucket| bucket.stats.max().unwrap_or(f64::NAN));
    floats(out, "mean", |bucket| bucket.stats.mean().unwrap_or(f64::NAN));
    floats(out, "last", |bucket| bucket.last);
    integers(out, "nan_count", |bucket| i64::from(bucket.stats.nan));
    integers(out, "inf_count", |bucket| i64::from(bucket.stats.inf));
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(push: impl Fn(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        push(&mut out);
        String::from_utf8(out).expect("JSON is text")
    }

    #[test]
    fn a_text_is_escaped_where_json_wants_it_and_nowhere_else() {
        let text = written(|out| push_text(out, "a\"b\\c\nd\u{1}\u{7f}é😀/"));

        assert_eq!(text, "\"a\\\"b\\\\c\\u000ad\\u0001\u{7f}é😀/\"");
    }

    #[test]
    fn what_json_has_no_number_for_is_null() {
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(written(|out| push_float(out, value)), "null");
        }
    }

    proptest! {
        #[test]
        fn a_float_reads_back_as_the_same_bits(bits: u64) {
            let value = f64::from_bits(bits);
            prop_assume!(value.is_finite());

            let text = written(|out| push_float(out, value));

            prop_assert_eq!(text.parse::<f64>().map(f64::to_bits), Ok(bits), "{}", text);
        }
    }
}
