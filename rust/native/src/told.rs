//! What a run warns about, on the terminal: each thing once, since a loop would say it a thousand times.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use pyo3::prelude::*;
use runferry_engine::LossReason;

use crate::fork::{self, Inside};
use crate::writer::Writer;

/// A journal that fills and empties all the time is not told about all the time.
const MOST_TURNS_TOLD: u64 = 20;

/// Distinct metric names in one run that are worth a warning.
pub(crate) const MANY_NAMES: usize = 10_000;

/// What is worth one warning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Topic {
    Behind,
    Full,
    TooLarge,
    Value,
    Fault,
    Step,
    Names,
}

/// What a writer has said.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// A bit for each topic.
    topics: AtomicU8,
    /// Beginnings and ends of a full journal.
    turns: AtomicU64,
}

impl Writer {
    /// Whether the journal has come to its cap, or away from it, since that was last told.
    #[inline]
    pub(crate) fn has_pressure_to_tell(&self) -> bool {
        self.engine().pressure_turns() != self.told.turns.load(Ordering::Relaxed)
    }

    /// Says once when rows begin to go because the journal is at its cap, and once when that is over.
    #[cold]
    pub(crate) fn tell_pressure(&self, py: Python<'_>) {
        let _inside = Inside::enter();
        let turns = self.engine().pressure_turns();
        if self.told.turns.swap(turns, Ordering::Relaxed) == turns || turns > MOST_TURNS_TOLD {
            return;
        }
        let status = self.engine().status();
        let text = if turns % 2 == 1 {
            format!(
                "the journal nears its cap ({} bytes, server: {}); {} (counts: status(), settings: journal_cap_bytes, backpressure)",
                status.journal_bytes,
                status.connection,
                self.engine().policy().in_words(),
            )
        } else {
            let (mut thinned, mut dropped) = (0, 0);
            for (reason, rows, _) in status.losses {
                *(if reason == LossReason::Thinned { &mut thinned } else { &mut dropped }) += rows;
            }
            format!("the journal has room again; {thinned} rows were thinned out and {dropped} dropped so far")
        };
        let module = py.import("runferry._term");
        // A warning that cannot be printed is still counted.
        module.and_then(|module| module.call_method1("termwarn", (text,))).ok();
    }

    /// Says once that names are made up as a run goes: each costs memory here for a while, and on the server for good.
    pub(crate) fn tell_many_names(&self, py: Python<'_>, names: &[&str]) {
        if self.told.topics.load(Ordering::Relaxed) & (1 << Topic::Names as u8) != 0 {
            return;
        }
        let earlier = self.intake(py, |intake| intake.any_name(names.first().copied().unwrap_or_default()));
        let examples: Vec<String> =
            names.iter().copied().chain(earlier.as_deref()).take(2).map(|name| format!("{name:?}")).collect();
        let text = format!(
            "run {} has more than {MANY_NAMES} distinct metric names, such as {}: all are stored, but charts and the server pay for each. \
             Is a step, a time or an id part of a name?",
            self.run_name,
            examples.join(" and "),
        );
        self.tell(py, Topic::Names, &text);
    }

    /// Prints a warning, once per topic and writer.
    pub(crate) fn tell(&self, py: Python<'_>, topic: Topic, text: &str) {
        let bit = 1 << topic as u8;
        if fork::is_ending() {
            return;
        }
        if self.told.topics.fetch_or(bit, Ordering::Relaxed) & bit == 0 {
            let module = py.import("runferry._term");
            // A warning that cannot be printed is still counted.
            module.and_then(|module| module.call_method1("termwarn", (text,))).ok();
        }
    }
}
