//! Processes that were set back: a snapshot of a machine or a container that ran on, and then began again from where it was taken.
//!
//! Such a process numbers frames anew that the server has from the life before. It is told by what the server answers at the opening: more
//! frames than were made here, or another frame under the newest number. A writer that lives goes on as a new one, so that nothing of
//! either life is lost; a journal without its writer is left to the user.

use runferry_transport::{Dial, TransportError};
use runferry_wire::{Header, Kind, flags};

use super::gaps::Gaps;
use super::{Parted, Sender};
use crate::outward::Outward;
use crate::shared::Shared;
use crate::source::Source;

/// Both checksums of a frame, in its header.
const HASH_AT: std::ops::Range<usize> = 56..64;
/// Whether the newest frame that the server has, and has not been known to have, is another one than the frame of that number here: then
/// so are the numbers before it, and to go on behind them would lose what they hold here.
pub(super) fn is_of_another_life(
    source: &mut Outward<impl Source>,
    gaps: &Gaps,
    next_seq: u64,
    hash: Option<[u8; 8]>,
    shared: &Shared,
) -> bool {
    let (seq, Some(hash)) = (next_seq.saturating_sub(1), hash) else { return false };
    if seq == 0 || gaps.holds(seq) || source.local(next_seq) <= shared.state().durable_next_seq {
        return false;
    }
    let Ok(Some(frame)) = source.frame(seq) else { return false };
    // A GAP may have taken the frame's place since it was sent, and an adopter packs a frame anew under its number.
    let is_as_sent = Header::decode(&frame)
        .is_ok_and(|header| header.seq == seq && header.kind != Kind::Gap && header.flags & flags::RECOVERED == 0);
    is_as_sent && frame.get(HASH_AT) != Some(&hash[..])
}

/// The living writer was set back: it goes on as a new one, from the first frame that it has no ack for.
pub(super) fn succeed(
    sender: &Sender<impl Dial>,
    source: &mut Outward<impl Source>,
    reason: &str,
) -> Result<Parted, TransportError> {
    let shared = &*sender.shared;
    let first_seq = shared.state().durable_next_seq;
    source.succeed(first_seq, (sender.clock.wall_us)())?;
    shared.set_error(format!(
        "the server answers that {reason}: this process was set back; frames from {first_seq} on are sent as those of a new writer, \
         {:016x}",
        source.identity().writer_id,
    ));
    Ok(Parted::Succeeded)
}
