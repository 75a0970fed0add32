//! GAP frames that go out in the place of frames: of those that the server refuses for good, and of those that nobody has any more.
//!
//! They lie in memory alone. A process that ends before their ack makes them again: the frames are still in the journal and refused
//! once more, or missing once more.

use std::collections::HashMap;

use bytes::Bytes;
use runferry_transport::TransportError;
use runferry_transport::session::Resume;
use runferry_wire::record::Dropped;
use runferry_wire::{Header, Kind};

use crate::batch::gap_frame;
use crate::shared::{Counters, Shared};
use crate::source::Source;

/// The GAPs that are not durably acked yet, by their first number.
#[derive(Debug, Default)]
pub(super) struct Gaps(HashMap<u64, Bytes>);

impl Gaps {
    /// The GAP that goes out as frame `seq`.
    pub(super) fn get(&self, seq: u64) -> Option<Bytes> {
        self.0.get(&seq).cloned()
    }

    /// Whether a GAP goes out as frame `seq`.
    pub(super) fn holds(&self, seq: u64) -> bool {
        self.0.contains_key(&seq)
    }

    /// The server has those below `durable_next_seq`.
    pub(super) fn forget_below(&mut self, durable_next_seq: u64) {
        self.0.retain(|seq, _| *seq >= durable_next_seq);
    }

    /// Prepares for what the server expects next.
    pub(super) fn go_on(
        &mut self,
        resume: &Resume,
        source: &impl Source,
        shared: &Shared,
    ) -> Result<(), TransportError> {
        match *resume {
            Resume::From { lost: 0, .. } => Ok(()),
            Resume::From { next_seq, lost } => {
                shared.set_error(format!(
                    "the server has lost {lost} frames it had acked; they are sent again from {next_seq}"
                ));
                Ok(())
            }
            Resume::Regressed { gap_seq, first_available_seq } => {
                // What was acked the server has lost; the rest was lost here, with the power or with a disk.
                let acked_below = source.acked_below().clamp(gap_seq, first_available_seq);
                let mut seq = gap_seq;
                while seq < first_available_seq {
                    let (until, reason, detail) = if seq < acked_below {
                        (acked_below, "server_regressed", "the server lost frames that were trimmed after its ack")
                    } else {
                        (first_available_seq, "missing", "neither the journal nor the server has these frames")
                    };
                    let count = (until - seq).min(u64::from(u32::MAX));
                    let gap = gap_frame(source.identity(), seq, count as u32, 0, reason, Dropped::default(), detail);
                    self.0.insert(seq, gap.into());
                    seq += count;
                }
                let who = if gap_seq < acked_below { "the server has" } else { "the journal has" };
                shared.set_error(format!("{who} lost frames {gap_seq} to {} for good", first_available_seq - 1));
                Ok(())
            }
            Resume::NewWriter { server_next_seq, client_next_seq } => Err(TransportError::Blocked {
                reason: format!(
                    "it has frames up to {} of this writer, which made {}: its journal is an old copy",
                    server_next_seq - 1,
                    client_next_seq - 1
                ),
            }),
        }
    }

    /// Puts a GAP in the place of a frame, and a copy of the frame where the journal's trimming does not reach it.
    pub(super) fn put(&mut self, frame: &Bytes, source: &mut impl Source, shared: &Shared, reason: &str, detail: &str) {
        let Ok(header) = Header::decode(frame) else { return };
        if header.kind != Kind::Gap {
            let kept = match source.set_aside(&header, frame) {
                Ok(folder) => format!("it is kept in {}", folder.display()),
                Err(why) => format!("it is not kept ({why})"),
            };
            shared.set_error(format!(
                "the server refuses frame {} with {} records ({detail}); a gap takes its place, {kept}",
                header.seq, header.record_count
            ));
            if !self.0.contains_key(&header.seq) {
                Counters::add(&shared.counters.rejected_frames, 1);
                Counters::add(&shared.counters.gaps, 1);
            }
        }
        let counts = Dropped { rows: u64::from(header.record_count), points: 0, bytes: frame.len() as u64 };
        let count = header.next_seq().saturating_sub(header.seq).min(u64::from(u32::MAX)) as u32;
        let gap = gap_frame(source.identity(), header.seq, count, 0, reason, counts, detail);
        self.0.insert(header.seq, gap.into());
    }
}
