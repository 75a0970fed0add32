//! What a dead process left may be much larger than its ring; an adopter takes it frame by frame. Alone in its process, whose memory is measured.

#![cfg(target_os = "linux")]

mod support;

use std::fmt::Write;
use std::path::Path;

use runferry_engine::adopt::adopt;
use runferry_engine::rowspool;
use runferry_ring::Pushed;
use runferry_wire::record::{RowNames, SPOOLED, Value, encode_row};

use support::{Begun, Scratch};

const CALLS: u64 = 150;
const CALL_BYTES: usize = 1 << 20;
/// Of a hundred and fifty; a frame is closed at 640 KiB, and unfolds to a few times that.
const MOST_BYTES: u64 = 40 << 20;

/// Text that does not compress to nothing.
fn noise(mut random: u64) -> String {
    let mut text = String::with_capacity(CALL_BYTES);
    while text.len() < CALL_BYTES {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        write!(text, "{random:016x}").expect("memory takes all");
    }
    text
}

fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux tells");
    let line = status.lines().find(|line| line.starts_with("VmHWM")).expect("Linux tells");
    let kibibytes = line.split_ascii_whitespace().nth(1).and_then(|number| number.parse::<u64>().ok());
    kibibytes.expect("a number") << 10
}

/// A writer that died with calls in its ring whose payloads lie in files.
fn die(dir: &Path) {
    let mut doomed = Begun::new(dir);
    for call in 0..CALLS {
        let text = noise(call + 1);
        let (kind, row) = encode_row(RowNames::Inline(&["text"]), call as i64, 0, &[Value::Str(&text)]);
        let entry = rowspool::write(dir, call, kind, &row).expect("there is room");
        assert_eq!(doomed.producer.push(SPOOLED, &[&entry]), Pushed::Done);
    }
}

// fault: 60
#[test]
fn an_adopter_needs_memory_for_a_few_frames_however_much_was_left() {
    let scratch = Scratch::new();
    die(&scratch.0);
    let before_bytes = peak_bytes();

    let adopted = adopt(&scratch.0);
    let needed_bytes = peak_bytes() - before_bytes;

    assert_eq!(adopted.expect("adopted").recovered_rows, CALLS);
    assert!(needed_bytes < MOST_BYTES, "{} MiB", needed_bytes >> 20);
}
