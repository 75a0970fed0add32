//! What happened in a simulated world, in order: one number to compare two runs by, and the lines where somebody wants to read them.

use std::hash::{DefaultHasher, Hasher};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use crate::net::lock;

#[derive(Debug)]
struct State {
    started: Instant,
    digest: DefaultHasher,
    events: u64,
    lines: Option<Vec<String>>,
}

/// The events of one world.
#[derive(Debug, Clone)]
pub struct Trace(Arc<Mutex<State>>);

impl Trace {
    /// An empty trace that begins now; `keeps_lines` for a reader.
    pub fn new(keeps_lines: bool) -> Self {
        let lines = keeps_lines.then(Vec::new);
        Self(Arc::new(Mutex::new(State { started: Instant::now(), digest: DefaultHasher::new(), events: 0, lines })))
    }

    /// Notes an event.
    pub fn note(&self, event: impl FnOnce() -> String) {
        let mut state = lock(&self.0);
        let at = state.started.elapsed();
        let line = event();
        state.digest.write_u128(at.as_nanos());
        state.digest.write(line.as_bytes());
        state.events += 1;
        if let Some(lines) = &mut state.lines {
            lines.push(format!("{:>12.6} {line}", at.as_secs_f64()));
        }
    }

    /// A digest of all events and their times, and how many they are.
    pub fn digest(&self) -> (u64, u64) {
        let state = lock(&self.0);
        (state.digest.finish(), state.events)
    }

    /// Time since the beginning.
    pub fn elapsed(&self) -> Duration {
        lock(&self.0).started.elapsed()
    }

    /// The kept lines.
    pub fn lines(&self) -> Vec<String> {
        lock(&self.0).lines.clone().unwrap_or_default()
    }
}
