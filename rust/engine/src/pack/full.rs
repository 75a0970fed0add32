//! What the packer does with a frame for which the journal has little room or none: the policy at work.
//!
//! # Ends
//! Rows that go leave a GAP behind the frame of those that stay. The frame lends its end to the GAP, so a kill between the two
//! packs the rows again, whole: repeated values, never an uncounted loss.
//!
//! # Failure
//! Nothing goes unless its GAP is in the journal. A disk that takes not even that keeps the rows in the ring, and the ring's own
//! rules follow.

use runferry_wire::record::Dropped;
use runferry_wire::rows::Rows;

use super::{Loop, Packed};
use crate::batch::{Closed, gap_frame};
use crate::pressure::{Margin, Policy, next_level};
use crate::shared::{Connection, Counters, LossReason};
use crate::thin::{self, MOST_LEVEL};

/// What the frames of a segment hold.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Tally {
    rows: u64,
    points: u64,
    /// What GAP frames among them count.
    gone: Dropped,
}

impl Loop {
    /// Writes what is closed, as far as the policy lets it.
    pub(super) fn write_ready(&mut self) {
        while let Some(closed) = self.batch.take() {
            if self.it.policy.holds() || !self.waiting.is_empty() || closed.rows().is_none() {
                self.write_closed(&closed);
                continue;
            }
            let margin = self.margin();
            match self.it.policy {
                Policy::DropNewest => self.write_or_drop(&closed, &margin),
                Policy::DropOldest => self.write_over_oldest(&closed, margin),
                _ => self.write_thinned(&closed, &margin),
            }
            self.tell_pressure();
        }
    }

    /// The room, after what the server has was taken out of a journal that is getting tight.
    fn margin(&mut self) -> Margin {
        let durable = self.it.shared.state().durable_next_seq;
        let is_disk_all = !self.may_send_directly();
        let margin = Margin::of(&self.it.journal.room(), is_disk_all);
        if margin.is_wide() || !self.it.is_online || self.it.journal.first_seq() >= durable {
            return margin;
        }
        self.trim(durable, true);
        Margin::of(&self.it.journal.room(), is_disk_all)
    }

    /// Whether a server takes what finds no room on the disk, or may do so in a moment: the first attempt to reach it is not over.
    fn may_send_directly(&self) -> bool {
        match self.it.shared.state().connection {
            Connection::Connected => true,
            Connection::Connecting => Counters::get(&self.it.shared.counters.retries) == 0,
            _ => false,
        }
    }

    fn write_closed(&mut self, closed: &Closed) {
        let packed = closed.pack(self.it.identity, self.next_seq, 0);
        self.write_packed(closed, packed);
    }

    /// Writes `packed`, made of `closed`: only now it is sure to become a frame, and the receipt covers it.
    fn write_packed(&mut self, closed: &Closed, packed: Packed) {
        let names = self.it.covered.add(closed.blocks(), packed.next_seq);
        self.it.shared.counters.packed_names.store(names as u64, std::sync::atomic::Ordering::Relaxed);
        self.write(packed);
    }

    /// `degrade`: the whole frame, or as much of it as the margin has room for.
    fn write_thinned(&mut self, closed: &Closed, margin: &Margin) {
        let mut level = self.pressure.update(margin);
        let Some(rows) = closed.rows() else { return self.write_closed(closed) };
        loop {
            let thinned = (level > 0).then(|| thin::thin(rows, level));
            let gone = thinned.as_ref().map_or(Dropped::default(), |thinned| thinned.gone);
            let points = closed.counts().1 - gone.points;
            let kept_end = if gone.points == 0 { closed.end } else { self.packed_end };
            let draft = thinned.as_ref().and_then(|it| closed.with_rows(Some(it.kept.clone()), points, kept_end));
            let draft = draft.as_ref().unwrap_or(closed);
            let packed = draft.pack(self.it.identity, self.next_seq, 0);
            let (found, allowed) = (packed.frame.len() as u64, margin.allowed_bytes(level));
            if found <= allowed {
                self.pressure.raise(level);
                self.pressure.is_shut = false;
                self.write_packed(draft, packed);
                if gone.points > 0 {
                    let detail = format!("the journal nears its cap: 1 row of {} is kept", 1_u64 << level);
                    self.write_gap("thinned", LossReason::Thinned, gone, &detail, closed, true);
                }
                self.let_go_of_held(draft.rows(), closed);
                return;
            }
            if level == MOST_LEVEL {
                break;
            }
            level = next_level(level, found, allowed);
        }
        self.pressure.raise(MOST_LEVEL);
        self.pressure.is_shut = true;
        self.drop_rows(closed, rows, true);
    }

    /// `drop_newest`: the whole frame, or its documents only until there is room again.
    fn write_or_drop(&mut self, closed: &Closed, margin: &Margin) {
        let Some(rows) = closed.rows() else { return self.write_closed(closed) };
        self.pressure.is_shut &= !margin.is_wide();
        if !self.pressure.is_shut {
            let packed = closed.pack(self.it.identity, self.next_seq, 0);
            if packed.frame.len() as u64 <= margin.left_bytes {
                return self.write_packed(closed, packed);
            }
            self.pressure.is_shut = true;
        }
        self.drop_rows(closed, rows, false);
    }

    /// `drop_oldest`: the whole frame, and as many of the oldest segments less as it needs.
    fn write_over_oldest(&mut self, closed: &Closed, mut margin: Margin) {
        let Some(rows) = closed.rows() else { return self.write_closed(closed) };
        let packed = closed.pack(self.it.identity, self.next_seq, 0);
        self.pressure.is_shut &= !margin.is_wide();
        while packed.frame.len() as u64 > margin.left_bytes {
            self.pressure.is_shut = true;
            if !self.drop_oldest_segment() {
                return self.drop_rows(closed, rows, false);
            }
            margin = self.margin();
        }
        self.write_packed(closed, packed);
    }

    /// Whether the oldest segment that the sender has not come to yet made room. None goes while one that went before still lies there.
    fn drop_oldest_segment(&mut self) -> bool {
        match self.it.journal.remove_dropped() {
            Ok(0) => {}
            Ok(_) => return true,
            Err(error) => {
                self.it.shared.set_error(super::chain(&error));
                return false;
            }
        }
        let Some(segment) = self.it.shared.hide(|asked| self.it.journal.droppable(asked)) else { return false };
        let tally = self.tallies.get(&segment.seq).copied().unwrap_or_default();
        let gone = Dropped {
            rows: tally.rows + tally.gone.rows,
            points: tally.points + tally.gone.points,
            bytes: segment.bytes + tally.gone.bytes,
        };
        let count = u32::try_from(segment.until_seq - segment.seq).unwrap_or(u32::MAX);
        // Not "dropped": these had been packed, and the receipt covers them.
        let detail = "the journal was full: the oldest went";
        let gap = gap_frame(self.it.identity, segment.seq, count, 0, "disk", gone, detail);
        let dropped = self.it.journal.drop_segment(segment, &gap);
        self.it.shared.unhide();
        match dropped {
            Ok(()) => {
                self.tallies.remove(&segment.seq);
                let counters = &self.it.shared.counters;
                Counters::add(&counters.gaps, 1);
                counters.lost(LossReason::Oldest, tally.rows, tally.points);
                true
            }
            Err(error) => {
                self.it.shared.set_error(super::chain(&error));
                false
            }
        }
    }

    /// Notes what a frame in the journal holds, by its segment: for the day that segment has to go.
    pub(super) fn tally(&mut self, rows: u64, points: u64, gone: Dropped) {
        if self.it.policy != Policy::DropOldest {
            return;
        }
        let first_seq = self.it.journal.first_seq();
        self.tallies.retain(|segment, _| *segment >= first_seq);
        if let Some(segment) = self.it.journal.active_first_seq() {
            let tally = self.tallies.entry(segment).or_default();
            tally.rows += rows;
            tally.points += points;
            add(&mut tally.gone, gone);
        }
    }

    /// The documents stay, the rows go; `holds_last`: but for the last values, which wait in memory for the end of the run.
    fn drop_rows(&mut self, closed: &Closed, rows: &Rows, holds_last: bool) {
        if let Some(documents) = closed.with_rows(None, 0, self.packed_end) {
            self.write_closed(&documents);
        }
        let mut gone = thin::everything(rows);
        if holds_last {
            let last = thin::last_values(rows);
            let held = self.held.take_in(&last.kept);
            gone = last.gone;
            add(&mut gone, held);
        }
        self.write_gap("dropped", LossReason::JournalFull, gone, "the journal is full", closed, false);
    }

    /// Values that were held back and are now behind the times are gone for good.
    fn let_go_of_held(&mut self, stored: Option<&Rows>, closed: &Closed) {
        let gone = stored.map_or(Dropped::default(), |rows| self.held.superseded_by(rows));
        if gone.points > 0 {
            self.write_gap("dropped", LossReason::JournalFull, gone, "the journal was full", closed, true);
        }
    }

    /// A GAP that takes the end of `closed`. Where it cannot be written the rows themselves wait, unless they are `split` over frames.
    fn write_gap(
        &mut self,
        reason: &str,
        cause: LossReason,
        gone: Dropped,
        detail: &str,
        closed: &Closed,
        split: bool,
    ) {
        let seq = self.next_seq;
        let frame = gap_frame(self.it.identity, seq, 1, 0, reason, gone, detail);
        let gap = Packed { frame, seq, next_seq: seq + 1, end: closed.end, rows: 0, points: 0, gone };
        self.it.consumer.set_intent(gap.seq, gap.end);
        let is_journaled = self.append_next(seq, &gap.frame, false);
        if !is_journaled && !split {
            return self.write_closed(closed);
        }
        self.it.covered.add(&[], gap.next_seq);
        self.it.shared.counters.lost(cause, gone.rows, gone.points);
        self.written(gap, is_journaled);
    }

    /// Room may have come while nothing was logged: what was refused is taken again then, and `status()` says so.
    pub(super) fn look_at_room(&mut self) {
        if !self.pressure.is_on() || self.it.policy.holds() {
            return;
        }
        let margin = self.margin();
        if self.it.policy == Policy::Degrade {
            self.pressure.update(&margin);
        }
        self.pressure.is_shut &= !margin.is_wide();
        self.tell_pressure();
    }

    /// Whether the policy is at work, for `status()` and for the one warning at each end of it.
    fn tell_pressure(&mut self) {
        let is_on = self.pressure.is_on();
        if is_on == self.was_pressed {
            return;
        }
        self.was_pressed = is_on;
        if is_on {
            let (bytes, dir) = (self.it.journal.bytes(), self.it.dir.display());
            self.it
                .shared
                .set_error(format!("the journal in {dir} nears its cap, or its disk is full: {bytes} bytes are in it"));
        }
        self.it.shared.set_pressed(is_on);
    }
}

fn add(to: &mut Dropped, more: Dropped) {
    to.rows += more.rows;
    to.points += more.points;
    to.bytes += more.bytes;
}
