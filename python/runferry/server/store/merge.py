"""The merge: waiting frames of a run become chunks, off the path that acks.

Order: one read transaction takes frames and the chunks they touch (`merge_choose`); decoding, sorting and encoding happen with no
transaction open; one write transaction replaces the rows (`merge_write`), `merged_seq` last. `run.merges` is compared and set there: if
another process merged the run meanwhile, nothing is written and the caller starts over. Killed at any point, a merge has either happened
or not.

What does not decode stops nothing: frames go into `quarantine`, chunks with a wrong checksum into `damaged`, both with
their bytes and a reason. A frame that decodes and then makes the merge fail is found by merging one frame at a time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from runferry import _native
from runferry.server.store.append import GAP, frame_head, to_signed
from runferry.server.store.merge_choose import choose
from runferry.server.store.merge_write import ConflictError, Made, replace
from runferry.server.store.tail import writers_for_native

if TYPE_CHECKING:
    from runferry.server.store.sql import Reading, Shard, WriterKey, Writing

FRAME_BYTES = 16 << 20
"""Stored bytes of frames taken by one merge."""
MOST_BYTES = 32 << 20
"""Memory of frames taken by one merge: a few bytes may unfold to a thousand times as many."""


@dataclass(slots=True)
class _Counted:
    """A writer's part in a merge."""

    merged_before: int
    merged_after: int
    frames: int = 0
    gap_numbers: int = 0
    rows: int = 0


@dataclass(slots=True)
class _Taken:
    """Everything one merge read."""

    merges: int
    next_axis_id: int
    next_key_id: int
    writers: list[tuple[int, int, int, str, int]]
    frames: list[tuple[int, int, int, bytes]] = field(default_factory=list)
    """`(ordinal, seq, next seq, frame)`."""
    merged_seqs: dict[int, int] = field(default_factory=dict)
    """By ordinal, before."""
    counted: dict[int, _Counted] = field(default_factory=dict)
    """By ordinal."""


def merge_once(shard: Shard, run_id: bytes, *, is_final: bool, most_frames: int | None = None) -> int:
    """Merges up to `FRAME_BYTES` of waiting frames of a run; returns how many frames, 0 when none wait.

    Raises:
        ConflictError: Start over.
        StoreError: As `Shard.writing`.
    """
    with shard.reading() as connection:
        taken = _take(connection, run_id, most_frames)
        if taken is None or not taken.frames:
            return 0
        merge = _native.Merge()
        merge.set_writers(taken.writers)
        faults = _add_frames(merge, taken)
        choice = choose(connection, run_id, merge, next_key_id=taken.next_key_id, is_final=is_final)
    made = Made(*merge.finish([series.key_id for series in choice.series], taken.next_axis_id))
    with shard.writing() as connection:
        replace(connection, run_id, choice, made, merges=taken.merges)
        _set_aside(connection, run_id, taken, faults)
        _advance(connection, run_id, taken, is_final=is_final)
    return len(taken.frames)


def _add_frames(merge: _native.Merge, taken: _Taken) -> list[str | None]:
    """Gives the merge as many frames as weigh `MOST_BYTES` once they are decoded, counts them, and leaves the others for the next."""
    added = merge.add_frames([(ordinal, frame) for ordinal, _, _, frame in taken.frames], MOST_BYTES)
    del taken.frames[len(added) :]
    for (ordinal, seq, next_seq, frame), (rows, fault) in zip(taken.frames, added, strict=True):
        counted = taken.counted.setdefault(ordinal, _Counted(taken.merged_seqs[ordinal], next_seq - 1))
        counted.merged_after = next_seq - 1
        counted.rows += rows
        if fault is None and frame_head(frame).kind == GAP:
            counted.gap_numbers += next_seq - seq
        elif fault is None:
            counted.frames += 1
    return [fault for _, fault in added]


def set_first_aside(shard: Shard, run_id: bytes, reason: str) -> None:
    """Moves the frame that a merge of one frame would take into quarantine: it cannot be merged, and the others shall go on.

    Raises:
        ConflictError: Another process merged the run meanwhile.
        StoreError: As `Shard.writing`.
    """
    with shard.reading() as connection:
        taken = _take(connection, run_id, 1)
    if taken is None or not taken.frames:
        return
    ((ordinal, _, next_seq, _),) = taken.frames
    taken.counted[ordinal] = _Counted(taken.merged_seqs[ordinal], next_seq - 1)
    with shard.writing() as connection:
        _set_aside(connection, run_id, taken, [reason])
        _advance(connection, run_id, taken, is_final=False)


def _take(connection: Reading, run_id: bytes, most_frames: int | None) -> _Taken | None:
    row = connection.execute("SELECT merges, next_axis_id, next_key_id FROM run WHERE run_id = ?", (run_id,)).fetchone()
    if row is None:
        return None
    merges, next_axis_id, next_key_id = row
    taken = _Taken(merges, next_axis_id, next_key_id, writers_for_native(connection, run_id))
    waiting = connection.execute(
        "SELECT writer_id, ordinal, merged_seq FROM writer WHERE run_id = ? AND merged_seq + 1 < next_seq ORDER BY ordinal", (run_id,)
    ).fetchall()
    budget = FRAME_BYTES
    for writer_id, ordinal, merged_seq in waiting:
        query = "SELECT seq, next_seq, data FROM l0 WHERE run_id = ? AND writer_id = ? AND seq > ? ORDER BY seq"
        frames = connection.stream(query, (run_id, writer_id, merged_seq))
        for seq, next_seq, data in frames:
            if budget <= 0 or len(taken.frames) == most_frames:
                return taken
            budget -= len(data)
            taken.frames.append((ordinal, seq, next_seq, data))
            taken.merged_seqs[ordinal] = merged_seq
    return taken


def _set_aside(connection: Writing, run_id: bytes, taken: _Taken, faults: list[str | None]) -> None:
    """Moves frames that did not decode into quarantine."""
    writer_ids = dict(connection.execute("SELECT ordinal, writer_id FROM writer WHERE run_id = ?", (run_id,)).fetchall())
    for (ordinal, seq, _, frame), fault in zip(taken.frames, faults, strict=True):
        if fault is not None:
            connection.execute(
                "INSERT INTO quarantine(run_id, writer_id, seq, reason, data) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (run_id, writer_ids[ordinal], seq, fault, frame),
            )
            connection.execute("DELETE FROM l0 WHERE run_id = ? AND writer_id = ? AND seq = ?", (run_id, writer_ids[ordinal], seq))


def _advance(connection: Writing, run_id: bytes, taken: _Taken, *, is_final: bool) -> None:
    """Moves `merged_seq`; frames of the merge before this one are released, of this one too when the run is over."""
    writer_ids = {ordinal: writer_id for ordinal, _, writer_id, *_ in taken.writers}
    connection.lock_writers(sorted((run_id, to_signed(writer_ids[ordinal])) for ordinal in taken.counted))
    for ordinal, counted in taken.counted.items():
        before = counted.merged_before
        changed = connection.execute(
            "UPDATE writer SET merged_seq = ?, released_seq = ?, merged_frames = merged_frames + ?, merged_gaps = merged_gaps + ?, "
            "merged_rows = merged_rows + ? WHERE run_id = ? AND ordinal = ? AND merged_seq = ?",
            (counted.merged_after, before, counted.frames, counted.gap_numbers, counted.rows, run_id, ordinal, before),
        ).rowcount
        if changed != 1:
            raise ConflictError
    if is_final:
        release(connection, run_id)
    else:
        delete_released(connection, run_id)


def delete_released(connection: Writing, run_id: bytes) -> None:
    """Deletes the frames of a run that nobody needs any more."""
    if connection.keeps_frames:
        return
    query = "SELECT writer_id, released_seq, applied_seq FROM writer WHERE run_id = ? AND released_seq > 0"
    writers = connection.execute(query, (run_id,)).fetchall()
    for writer_id, released_seq, applied_seq in writers:
        connection.execute(
            "DELETE FROM l0 WHERE run_id = ? AND writer_id = ? AND seq <= ? AND next_seq <= ? AND (is_document = 0 OR seq <= ?)",
            (run_id, writer_id, released_seq, released_seq + 1, applied_seq),
        )


def delete_applied(connection: Writing, key: WriterKey, applied_seq: int) -> None:
    """Deletes the frames of a writer that were kept for nothing but their documents."""
    if not connection.keeps_frames:
        connection.execute(
            "DELETE FROM l0 WHERE run_id = ? AND writer_id = ? AND seq <= ? AND seq <= "
            "(SELECT released_seq FROM writer WHERE run_id = ? AND writer_id = ?)",
            (*key, applied_seq, *key),
        )


def release(connection: Writing, run_id: bytes) -> None:
    """Gives up the live tail of a run that has gone quiet."""
    connection.execute("UPDATE writer SET released_seq = merged_seq WHERE run_id = ? AND released_seq < merged_seq", (run_id,))
    delete_released(connection, run_id)
