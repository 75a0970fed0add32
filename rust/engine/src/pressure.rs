//! What is to be done as the journal nears its cap: decisions only, no I/O.
//!
//! # Levels
//! Up to four fifths of the room everything is kept. Each halving of what is then left is a level, and each level keeps every
//! other row of the one before ([`crate::thin`]): so every level lasts as long as the first, and the end of the room is
//! approached, not met. A level is left only with a good deal more room than it was entered with.
//!
//! # Reserve
//! A sixty-fourth of the room is not for rows: config, summary and whatever else is small and must not go.

use std::time::Duration;

use runferry_journal::Room;

use crate::thin::MOST_LEVEL;

/// The reserve never needs more than this.
const MOST_RESERVE_BYTES: u64 = 64 << 20;

/// What happens to rows when the journal is at its cap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Fewer and fewer rows are kept as the cap nears, counted.
    Degrade,
    /// The oldest segment that was not sent goes, counted.
    DropOldest,
    /// New rows go, counted.
    DropNewest,
    /// `log()` waits, at most so long; then the row goes, counted.
    Block(Duration),
    /// `log()` raises; the row goes, counted.
    Raise,
}

impl Policy {
    /// What it does, for the warning when it begins to.
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Degrade => "from now on fewer rows are kept, the last values always",
            Self::DropOldest => "from now on the oldest rows go for newer ones",
            Self::DropNewest => "from now on new rows are dropped",
            Self::Block(_) => "from now on log() waits for room",
            Self::Raise => "from now on log() raises",
        }
    }

    /// Whether a frame without room is kept in memory, so that the ring fills and callers meet the policy.
    pub(crate) fn holds(self) -> bool {
        matches!(self, Self::Block(_) | Self::Raise)
    }
}

/// How much room rows have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Margin {
    /// All that rows may take together.
    whole_bytes: u64,
    /// And what is left of it.
    pub(crate) left_bytes: u64,
}

impl Margin {
    /// Where frames can go to a server at once, a full disk is no reason to let rows go: then only the cap counts.
    pub(crate) fn of(room: &Room, counts_disk: bool) -> Self {
        let left = if counts_disk { room.cap_left_bytes.min(room.disk_left_bytes) } else { room.cap_left_bytes };
        let whole = room.used_bytes.saturating_add(left);
        let reserve = (whole / 64).min(MOST_RESERVE_BYTES);
        Self { whole_bytes: whole - reserve, left_bytes: left.saturating_sub(reserve) }
    }

    /// The level for `left_bytes`.
    fn level_of(&self, left_bytes: u64) -> u32 {
        let mut quota = self.whole_bytes / 5;
        if left_bytes == 0 {
            return MOST_LEVEL;
        }
        if left_bytes >= quota {
            return 0;
        }
        let mut level = 1;
        while level < MOST_LEVEL && left_bytes < quota / 2 {
            quota /= 2;
            level += 1;
        }
        level
    }

    /// Whether rows that were refused may be taken again.
    pub(crate) fn is_wide(&self) -> bool {
        self.left_bytes > self.whole_bytes / 10 * 3
    }

    /// Bytes that a frame thinned to `level` may take: never more than half of what is left, but for the thinnest.
    pub(crate) fn allowed_bytes(&self, level: u32) -> u64 {
        if level == MOST_LEVEL { self.left_bytes } else { self.left_bytes / 2 }
    }
}

/// Where the writer stands.
#[derive(Debug, Default)]
pub(crate) struct Pressure {
    level: u32,
    /// Rows are being refused.
    pub(crate) is_shut: bool,
}

impl Pressure {
    /// The level for this margin: up at once, down only with 30 % of room to spare.
    pub(crate) fn update(&mut self, margin: &Margin) -> u32 {
        let wanted = margin.level_of(margin.left_bytes);
        let with_less = margin.level_of(margin.left_bytes / 10 * 7);
        self.level = if wanted > self.level { wanted } else { self.level.min(with_less) };
        self.level
    }

    /// A frame had to be thinned more.
    pub(crate) fn raise(&mut self, level: u32) {
        self.level = self.level.max(level);
    }

    /// Whether anything goes at present.
    pub(crate) fn is_on(&self) -> bool {
        self.level > 0 || self.is_shut
    }

    /// How long rows gather under pressure before they are packed: few rows can only be thinned to few.
    pub(crate) fn linger(&self) -> Duration {
        if self.is_on() { Duration::from_secs(1 << self.level.clamp(1, 5)) } else { Duration::ZERO }
    }
}

/// The level to try after `level` gave a frame of `found_bytes`.
pub(crate) fn next_level(level: u32, found_bytes: u64, allowed_bytes: u64) -> u32 {
    let halvings = (found_bytes / allowed_bytes.max(1)).checked_ilog2().unwrap_or(0);
    (level + halvings.max(1)).min(MOST_LEVEL)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn margin(used_bytes: u64, cap_bytes: u64) -> Margin {
        let cap_left_bytes = cap_bytes - used_bytes;
        Margin::of(&Room { used_bytes, cap_left_bytes, disk_left_bytes: u64::MAX }, true)
    }

    #[test]
    fn below_four_fifths_nothing_goes_and_each_halving_of_the_rest_is_a_level() {
        let level = |percent: u64| Pressure::default().update(&margin(percent * 10_000, 1_000_000));

        assert_eq!([0, 50, 78].map(level), [0, 0, 0]);
        assert_eq!([81, 90, 95, 97].map(level), [1, 2, 3, 4]);
        assert_eq!([99, 100].map(level), [MOST_LEVEL, MOST_LEVEL], "the reserve is not for rows");
    }

    #[test]
    fn a_level_is_not_left_by_the_room_that_one_frame_less_makes() {
        let mut pressure = Pressure::default();

        let levels = [81, 79, 78, 75, 60].map(|percent| pressure.update(&margin(percent * 10_000, 1_000_000)));

        assert_eq!(levels, [1, 1, 1, 1, 0]);
    }

    #[test]
    fn a_writer_that_logs_for_ever_never_meets_the_end_of_its_room() {
        let (mut used, mut logged, mut pressure) = (0, 0_u64, Pressure::default());
        while pressure.level < MOST_LEVEL {
            let level = pressure.update(&margin(used, 1 << 30));
            used += (1 << 20) >> level;
            logged += 1 << 20;
        }

        assert!(logged > 3 << 30, "{logged}");
    }

    #[test]
    fn a_full_disk_counts_only_where_frames_have_nowhere_else_to_go() {
        let room = Room { used_bytes: 0, cap_left_bytes: 1 << 30, disk_left_bytes: 0 };

        assert_eq!(Pressure::default().update(&Margin::of(&room, true)), MOST_LEVEL);
        assert_eq!(Pressure::default().update(&Margin::of(&room, false)), 0);
    }
}
