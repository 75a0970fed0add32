//! What must hold once every fault is over: every row is stored once or its absence is named, and nothing is stored that was not logged.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use runferry_wire::{Block, Doc, Frame, Header, Kind, Values, block, payload};

use crate::ledger::{Facts, Ledger, text_of};
use crate::server::{Memory, Store};

/// What the faults of a world excuse.
#[derive(Debug, Clone, Default)]
pub struct Excuses {
    /// For each writer the number below which the server may have lost what it had.
    pub lost_by_server: BTreeMap<u64, u64>,
    /// The store was lost or restored at least once.
    pub store_was_replaced: bool,
    /// Writes to the machines' disks failed.
    pub disks_failed: bool,
}

/// What a checked world had in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Calls of `log()` that returned.
    pub returned: u64,
    /// Rows stored.
    pub stored: u64,
    /// Rows under a named gap.
    pub gapped: u64,
    /// Rows that went with a machine's power, or with a server's disk.
    pub excused: u64,
    /// Frames stored.
    pub frames: u64,
    /// Frames that came more than once.
    pub duplicates: u64,
}

/// The rows of a frame; a row whose text is not its own is an error.
fn rows_of(frame: &Bytes) -> Result<Vec<u64>, String> {
    let frame = Frame::read(frame).map_err(|error| error.to_string())?;
    let raw = payload::decompress(&frame.header, frame.payload).map_err(|error| error.to_string())?;
    let mut found = Vec::new();
    for block in block::decode_all(&raw).map_err(|error| error.to_string())? {
        let Block::Rows(rows) = block else { continue };
        let column = |name: &str| rows.columns.iter().find(|column| column.name == name).map(|column| &column.values);
        let (Some(Values::I64(ids)), Some(Values::Str(texts))) = (column("id"), column("text")) else {
            return Err("a column is missing".to_owned());
        };
        for ((row, text), step) in ids.iter().zip(texts).zip(&rows.steps) {
            if *text != text_of(*row as u64) || step != row {
                return Err(format!("row {row} is not what was logged"));
            }
            found.push(*row as u64);
        }
    }
    Ok(found)
}

fn reason_of(frame: &Bytes) -> String {
    let map = Frame::read(frame).ok().and_then(|frame| payload::decompress(&frame.header, frame.payload).ok());
    let map = map.and_then(|raw| Doc::decode(&raw).ok());
    map.and_then(|map| map.get_str("reason").map(ToOwned::to_owned)).unwrap_or_default()
}

/// The checker's own books.
struct Books<'a> {
    memory: &'a Memory,
    excuses: &'a Excuses,
    facts: BTreeMap<u64, Facts>,
    /// Where each row is stored.
    stored: BTreeMap<u64, Vec<u64>>,
    /// Numbers under a gap, by writer.
    gaps: BTreeSet<(u64, u64)>,
    problems: Vec<String>,
}

/// Compares what the callers know with what the server has.
///
/// # Errors
/// Every rule that was broken.
pub fn check(store: &Store, memory: &Memory, ledgers: &[&Ledger], excuses: &Excuses) -> Result<Counts, Vec<String>> {
    let facts = ledgers.iter().flat_map(|ledger| ledger.writers.clone()).collect();
    let mut books = Books {
        memory,
        excuses,
        facts,
        stored: BTreeMap::new(),
        gaps: BTreeSet::new(),
        problems: memory.alarms.clone(),
    };
    for ledger in ledgers {
        books.problems.extend(ledger.violations.iter().cloned());
    }
    let mut counts = Counts { duplicates: memory.duplicates, ..Counts::default() };
    for (writer_id, writer) in &store.writers {
        counts.frames += writer.frames.len() as u64;
        books.read_writer(*writer_id, &writer.frames, writer.next_seq);
    }

    let mut places: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    let known = ledgers.iter().flat_map(|ledger| &ledger.frames).chain(&memory.seen);
    for ((writer_id, seq), frame) in known {
        if Header::decode(frame).is_ok_and(|header| header.kind == Kind::Data) {
            for row in rows_of(frame).unwrap_or_default() {
                places.insert(row, (*writer_id, *seq));
            }
        }
    }
    for ledger in ledgers {
        for (row, writer_id) in &ledger.returned {
            counts.returned += 1;
            if books.stored.remove(row).is_some() {
                counts.stored += 1;
                continue;
            }
            match places.get(row) {
                Some(place) if books.gaps.contains(place) => counts.gapped += 1,
                place => {
                    counts.excused += 1;
                    let next_seq = |writer_id: &u64| store.writers.get(writer_id).map_or(1, |writer| writer.next_seq);
                    books.excuse(*row, *writer_id, place.copied(), next_seq);
                }
            }
        }
    }
    if let Some((row, _)) = books.stored.first_key_value() {
        books.problems.push(format!("row {row} is stored and was never logged"));
    }
    if books.problems.is_empty() { Ok(counts) } else { Err(books.problems) }
}

impl Books<'_> {
    /// Order, contents and gaps of one writer.
    fn read_writer(&mut self, writer_id: u64, frames: &[Bytes], next_seq: u64) {
        let mut expected = 1;
        let mut last_row = None;
        for frame in frames {
            let Ok(header) = Header::decode(frame) else {
                self.problems.push(format!("{writer_id:x}: an unreadable frame is stored"));
                return;
            };
            if header.seq != expected {
                self.problems.push(format!("{writer_id:x}: frame {} is stored where {expected} was next", header.seq));
            }
            expected = header.next_seq();
            match header.kind {
                Kind::Gap => self.read_gap(writer_id, &header, &reason_of(frame)),
                Kind::Data => match rows_of(frame) {
                    Err(error) => self.problems.push(format!("{writer_id:x}: frame {}: {error}", header.seq)),
                    Ok(rows) => {
                        for row in rows {
                            if last_row.is_some_and(|last| last >= row) {
                                self.problems.push(format!("{writer_id:x}: row {row} behind row {last_row:?}"));
                            }
                            last_row = Some(row);
                            self.store(row, writer_id);
                        }
                    }
                },
                _ => {}
            }
        }
        if expected != next_seq {
            self.problems.push(format!("{writer_id:x}: the store holds up to {expected} and says {next_seq}"));
        }
        if let Some(facts) = self.facts.get(&writer_id) {
            let lost = self.excuses.lost_by_server.get(&writer_id).copied().unwrap_or(1);
            if next_seq < facts.acked_next_seq && next_seq >= lost {
                let acked = facts.acked_next_seq;
                self.problems.push(format!("{writer_id:x}: {acked} was acked durable, {next_seq} is all there is"));
            }
        }
    }

    fn store(&mut self, row: u64, writer_id: u64) {
        let holders = self.stored.entry(row).or_default();
        holders.push(writer_id);
        // An heir may send once more what nobody could tell was sent.
        let others = holders.iter().filter(|holder| !self.facts.get(holder).is_some_and(|facts| facts.is_heir)).count();
        if others > 1 {
            self.problems.push(format!("row {row} is stored {others} times"));
        }
    }

    fn read_gap(&mut self, writer_id: u64, header: &Header, reason: &str) {
        let facts = self.facts.get(&writer_id);
        let went_with_power = facts.is_some_and(|facts| facts.lost_power && header.seq >= facts.synced_next_seq);
        // What the server took while the disk took nothing is in no journal: the server alone can lose it.
        let was_nowhere_else = self.excuses.disks_failed && self.excuses.store_was_replaced;
        let first_seq = facts.map_or(u64::MAX, |facts| facts.first_seq);
        let was_acked = self.excuses.store_was_replaced && header.next_seq() <= first_seq;
        // The note of the ack is not forced to the device: after a power cut nobody can tell acked frames from those that never were.
        let was_acked_unknown = was_acked && facts.is_some_and(|facts| facts.lost_power);
        let is_excused = match reason {
            "server_regressed" => was_acked,
            "rejected" => self.memory.refused.contains(&(writer_id, header.seq)),
            "corrupt" => self.memory.checksums > 0 || went_with_power || was_nowhere_else,
            "missing" => went_with_power || was_nowhere_else || was_acked_unknown,
            _ => false,
        };
        let (seq, next_seq) = (header.seq, header.next_seq());
        if !is_excused {
            self.problems.push(format!("{writer_id:x}: a gap from {seq} to {next_seq} without a cause: {reason:?}"));
        }
        self.gaps.extend((seq..next_seq).map(|seq| (writer_id, seq)));
    }

    /// Whether a fault explains that a row is nowhere.
    fn excuse(&mut self, row: u64, writer_id: u64, place: Option<(u64, u64)>, next_seq: impl Fn(&u64) -> u64) {
        let lost_power = self.facts.get(&writer_id).is_some_and(|facts| facts.lost_power);
        let excuse = match place {
            // It never came out of a ring that is gone.
            None => lost_power,
            Some((holder, seq)) => {
                let went_with_power =
                    lost_power && self.facts.get(&holder).is_some_and(|facts| seq >= facts.safe_next_seq());
                let lost_below = self.excuses.lost_by_server.get(&holder).copied().unwrap_or(0);
                next_seq(&holder) <= seq && (went_with_power || seq < lost_below)
            }
        };
        if !excuse {
            self.problems.push(format!("row {row} of {writer_id:x} is lost; it was in frame {place:x?}"));
        }
    }
}
