"""The write door's rule: below the expected number a duplicate, at it accepted, above it rewind."""

from __future__ import annotations

from runferry.server.ingest.sequence import KIND_GAP, KIND_OPEN, Checked, Numbers

RUN = b"r" * 16
WRITER = 7
DATA = 1


def frame(seq: int, *, count: int = 1, kind: int = DATA, error: str | None = None, writer_id: int = WRITER) -> Checked:
    """A frame that has been checked."""
    next_seq = seq if kind == KIND_OPEN else seq + count
    return Checked(b"frame %d" % seq, kind, 0, RUN, writer_id, seq, next_seq, count, error)


def numbers(expected: int = 1) -> Numbers:
    """A stream that goes on at `expected`."""
    return Numbers(RUN, WRITER, expected)


def stretches(found: Numbers, *frames: Checked) -> list[tuple[int, int]]:
    """What was passed on."""
    return [(stretch.first_seq, stretch.next_seq) for stretch in found.judge(frames).stretches]


def test_frames_in_order_are_one_stretch() -> None:
    stream = numbers()

    assert stretches(stream, frame(1), frame(2), frame(3)) == [(1, 4)]
    assert stream.expected == 4


def test_a_gap_frame_covers_its_count() -> None:
    stream = numbers()

    assert stretches(stream, frame(1), frame(2, count=5, kind=KIND_GAP), frame(7)) == [(1, 8)]


def test_duplicates_go_on_to_the_store_which_counts_them_and_move_nothing() -> None:
    stream = numbers(5)

    assert stretches(stream, frame(3), frame(4)) == [(3, 5)]
    assert stream.expected == 5


def test_a_hole_rewinds_once_however_many_frames_are_on_their_way() -> None:
    stream = numbers()

    first = stream.judge([frame(1), frame(3), frame(4)])
    second = stream.judge([frame(5), frame(6)])

    assert first.rewind_reason == "gap"
    assert [(stretch.first_seq, stretch.next_seq) for stretch in first.stretches] == [(1, 2)]
    assert second.rewind_reason is None
    assert second.stretches == []
    assert stretches(stream, frame(2), frame(3)) == [(2, 4)]


def test_going_back_to_a_wrong_place_rewinds_again() -> None:
    stream = numbers()
    stream.judge([frame(5), frame(6)])

    verdict = stream.judge([frame(4)])

    assert verdict.rewind_reason == "gap"


def test_a_bad_checksum_rewinds_to_the_damaged_frame_each_time() -> None:
    stream = numbers()

    first = stream.judge([frame(1), frame(2, error="corrupt"), frame(3)])
    again = stream.judge([frame(2, error="corrupt")])

    assert first.rewind_reason == "checksum"
    assert again.rewind_reason == "checksum"
    assert stream.expected == 2
    assert stretches(stream, frame(2), frame(3)) == [(2, 4)]


def test_a_header_that_cannot_be_read_rewinds_and_what_follows_it_is_dropped_silently() -> None:
    stream = numbers()
    unreadable = Checked(b"?", 0, 0, b"", 0, 0, 0, 0, "header is corrupt")

    verdict = stream.judge([unreadable, frame(2), frame(3)])
    later = stream.judge([frame(4)])

    assert verdict.rewind_reason == "checksum"
    assert verdict.stretches == []
    assert later.rewind_reason is None
    assert stretches(stream, frame(1), frame(2)) == [(1, 3)]


def test_a_damaged_duplicate_is_no_reason_to_go_back() -> None:
    stream = numbers(5)

    assert stream.judge([frame(3, error="corrupt")]).rewind_reason is None


def test_an_open_frame_between_others_has_no_number() -> None:
    stream = numbers()

    assert stretches(stream, frame(1), frame(2, kind=KIND_OPEN), frame(2)) == [(1, 3)]


def test_a_frame_of_another_writer_stops_the_judging() -> None:
    stream = numbers()

    verdict = stream.judge([frame(1), frame(2, writer_id=8), frame(2)])

    assert verdict.foreign is not None
    assert [(stretch.first_seq, stretch.next_seq) for stretch in verdict.stretches] == [(1, 2)]


def test_after_a_restart_only_the_number_told_is_accepted() -> None:
    stream = numbers()
    stream.judge([frame(1), frame(2), frame(3)])

    stream.restart(2)

    assert stretches(stream, frame(4), frame(5)) == []
    assert stretches(stream, frame(2), frame(3)) == [(2, 4)]
