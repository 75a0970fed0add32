//! What the callers of `log()` know, and what was seen on the way: the checker's evidence.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use runferry_engine::steps::Progress;
use runferry_journal::{Next, Reader, scan};
use runferry_simdisk::SimDisk;
use runferry_wire::Header;

use crate::net::lock;
use crate::server::Server;

/// What is known of a writer, for the checker.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Its machine lost power: what the disk had not kept may be gone.
    pub lost_power: bool,
    /// Frames below were on the device when the power went.
    pub synced_next_seq: u64,
    /// The most its process heard to be durable.
    pub acked_next_seq: u64,
    /// The highest number that its journal was seen to begin with.
    pub first_seq: u64,
    /// It took over what another one had left in its ring.
    pub is_heir: bool,
}

impl Facts {
    /// Frames below are safe whatever happens to the machine.
    pub(crate) fn safe_next_seq(&self) -> u64 {
        self.synced_next_seq.max(self.acked_next_seq)
    }
}

/// What a machine's callers of `log()` know, and what was seen of frames on the way.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Rows whose call has returned, with the writer that took each.
    pub returned: BTreeMap<u64, u64>,
    /// By writer id.
    pub writers: BTreeMap<u64, Facts>,
    /// Frames found in journals, by writer and number.
    pub frames: BTreeMap<(u64, u64), Bytes>,
    /// What must never happen, and did.
    pub violations: Vec<String>,
    /// Rows that found no room for long: their calls are still waiting.
    pub waits: u64,
}

impl Ledger {
    /// A writer's facts.
    pub fn facts(&mut self, writer_id: u64) -> &mut Facts {
        self.writers.entry(writer_id).or_insert(Facts {
            lost_power: false,
            synced_next_seq: 1,
            acked_next_seq: 1,
            first_seq: 1,
            is_heir: false,
        })
    }

    /// Reads what a journal holds.
    pub(crate) fn read_journal(&mut self, disk: &Arc<SimDisk>, dir: &Path, writer_id: u64) {
        let Ok(found) = scan::scan(&**disk, dir) else { return };
        let facts = self.facts(writer_id);
        facts.first_seq = found.first_seq.max(facts.first_seq);
        let mut reader = Reader::open(Arc::clone(disk) as _, dir, found.first_seq);
        reader.live(false);
        while let Ok(next) = reader.next() {
            match next {
                Next::Frame(bytes) => {
                    if let Ok(header) = Header::decode(&bytes) {
                        self.frames.entry((writer_id, header.seq)).or_insert_with(|| bytes.into());
                    }
                }
                Next::Gap(_) => {}
                Next::CaughtUp => return,
            }
        }
    }
}

/// The text that goes with a row, so that a wrong byte shows.
pub fn text_of(row: u64) -> String {
    let length = (row.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 52) as usize; // below 4,096
    let length = if row.is_multiple_of(16) { length } else { length / 64 };
    let pattern = format!("{row}:");
    let mut text = pattern.repeat(length / pattern.len() + 1);
    text.truncate(length);
    text
}

/// What must hold at all times of a process.
pub(crate) fn check_progress(progress: &Progress, server: &Server, ledger: &Mutex<Ledger>, writer_id: u64) {
    let highest = server.recall(|memory| memory.highest.get(&writer_id).copied().unwrap_or(1));
    let mut ledger = lock(ledger);
    let facts = ledger.facts(writer_id);
    let (acked, durable, first) = (facts.acked_next_seq, progress.durable_next_seq, progress.first_seq);
    facts.acked_next_seq = acked.max(durable);
    facts.first_seq = first.max(facts.first_seq);
    if durable < acked {
        ledger.violations.push(format!("{writer_id:x}: the durable ack went back from {acked} to {durable}"));
    }
    if durable > highest {
        ledger.violations.push(format!("{writer_id:x}: believes {durable} durable, the server had {highest} at most"));
    }
    if first > highest {
        ledger
            .violations
            .push(format!("{writer_id:x}: the journal begins at {first}, the server had {highest} at most"));
    }
}
