"""The rule of the write door, for one stream: which frames go on to the store, and when the writer must go back.

Below the expected number a frame is a duplicate (the store drops and counts it), at it it is accepted, above it the writer
is told to rewind. The store decides again by compare-and-set; here the decision is only made early, before the commit.

# After a rewind
Frames that were on their way still arrive, each above the expected number. They follow one upon the other from where the
stream broke (`_broken_at`), so they are dropped silently; a frame that is neither the expected one nor the next of those means
that the writer has gone back to a wrong place, and it is told again.

Pure: no I/O, no clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

KIND_OPEN = 2
KIND_FINISH = 3
KIND_GAP = 4
FLAG_DOCS = 4


class Checked(NamedTuple):
    """A frame as `_native.verify_frames` saw it; a header that cannot be read leaves zeros."""

    frame: bytes
    kind: int
    flags: int
    run_id: bytes
    writer_id: int
    seq: int
    next_seq: int
    record_count: int
    error: str | None

    @property
    def has_documents(self) -> bool:
        """Something in it is for the metadata."""
        return bool(self.flags & FLAG_DOCS) or self.kind in {KIND_FINISH, KIND_GAP}


@dataclass(slots=True)
class Stretch:
    """Frames that follow one upon the other."""

    first_seq: int
    next_seq: int
    frames: list[bytes] = field(default_factory=list)
    has_documents: bool = False


@dataclass(slots=True)
class Verdict:
    """What becomes of the frames of a message."""

    stretches: list[Stretch] = field(default_factory=list)
    rewind_reason: str | None = None
    foreign: Checked | None = None
    """A frame of another run or writer: the stream is refused, nothing behind it was looked at."""


class Numbers:
    """The numbers of one stream."""

    def __init__(self, run_id: bytes, writer_id: int, expected: int) -> None:
        """A stream of this writer that goes on at `expected`."""
        self._run_id = run_id
        self._writer_id = writer_id
        self._is_rewinding = False
        self._broken_at: int | None = None
        self.expected = expected

    def restart(self, expected: int) -> None:
        """The writer is being told to go back to `expected` for a reason that is not in its frames."""
        self.expected = expected
        self._is_rewinding = True
        self._broken_at = None

    def advance(self, next_seq: int) -> None:
        """The store is further: another stream of the same writer was faster."""
        self.expected = max(self.expected, next_seq)

    def judge(self, frames: Iterable[Checked]) -> Verdict:
        """Sort the frames of one message, in order."""
        verdict = Verdict()
        for checked in frames:
            if checked.error is not None:
                self._judge_bad(checked, verdict)
            elif checked.run_id != self._run_id or checked.writer_id != self._writer_id:
                verdict.foreign = checked
                break
            elif checked.next_seq > checked.seq:  # else it has no number of its own: an OPEN at the head of a segment
                self._judge_good(checked, verdict)
        return verdict

    def _judge_good(self, checked: Checked, verdict: Verdict) -> None:
        if checked.seq > self.expected:
            self._break(checked, verdict, "gap")
            return
        if checked.next_seq > self.expected:
            self._is_rewinding = False
            self.expected = checked.next_seq
        last = verdict.stretches[-1] if verdict.stretches else None
        if last is None or last.next_seq != checked.seq:
            last = Stretch(checked.seq, checked.seq)
            verdict.stretches.append(last)
        last.frames.append(checked.frame)
        last.next_seq = checked.next_seq
        last.has_documents = last.has_documents or checked.has_documents

    def _judge_bad(self, checked: Checked, verdict: Verdict) -> None:
        if checked.seq and checked.next_seq <= self.expected:
            return  # a damaged duplicate: the first copy is here already
        self._break(checked, verdict, "checksum")

    def _break(self, checked: Checked, verdict: Verdict, reason: str) -> None:
        is_on_its_way = self._is_rewinding and checked.seq > self.expected and self._broken_at in {None, checked.seq}
        if not is_on_its_way:
            verdict.rewind_reason = verdict.rewind_reason or reason
        self._is_rewinding = True
        self._broken_at = checked.next_seq if checked.seq else None


def checked_frames(frames: Sequence[bytes], verified: Iterable[tuple[int, int, bytes, int, int, int, int, str | None]]) -> list[Checked]:
    """Frames with what `_native.verify_frames` said of them."""
    return [Checked(frame, *found) for frame, found in zip(frames, verified, strict=True)]
