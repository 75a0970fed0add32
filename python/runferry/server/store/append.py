"""The write path: frames in, numbers out, one transaction for a group of batches.

`writer.next_seq` decides everything: what is below it is a duplicate, what begins at it is news, what begins above it is
a gap and is not stored. It is locked, compared and set in the transaction that stores the frames, so two servers on one database
cannot both accept a number. Payloads are not looked into, but for the few bytes of a FINISH.
"""

# ruff: noqa: S608 - every part of a statement is a constant of this package; values are parameters

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from runferry import _native
from runferry.server.store.protocol import Appended, Batch, StoreError, WriterState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runferry.server.store.sql import Reading, WriterKey, Writing

DATA, OPEN, FINISH, GAP, DICT, MARK = 1, 2, 3, 4, 5, 6
DOCS_FLAG = 4
_UNNUMBERED = frozenset({OPEN, DICT, MARK})
_HEADER_BYTES = 64
_HASH_BYTES = 8
_OF_A_GAP = b"-"
"""Behind the hash of a GAP: what its sender has under that number is another frame, and rightly so."""
_NUMBER_END = 1 << 63
CONFLICT_REASON = "a different frame of this number was stored before"
DOCUMENTS_REASON = "its documents cannot be applied: "
"""Reasons of copies in quarantine: beside the frame that counts, not in its place."""

_WRITER_COLUMNS = (
    "run_id, writer_id, label, next_seq, merged_seq, open_data, started_us, last_seen_us, "
    "finished_seq, exit_code, step_offset, gaps, duplicates, last_hash"
)


def to_signed(value: int) -> int:
    """A 64-bit id as SQL keeps it."""
    return value - (1 << 64) if value >= 1 << 63 else value


def to_unsigned(value: int) -> int:
    """The inverse of `to_signed`."""
    return value + (1 << 64) if value < 0 else value


@dataclass(frozen=True, slots=True)
class FrameHead:
    """What the write path reads of a frame's header."""

    kind: int
    flags: int
    seq: int
    next_seq: int
    records: int
    hash: bytes
    """Both checksums: two frames of one number that differ here differ."""


def frame_head(frame: bytes) -> FrameHead:
    """The header of a frame whose checksums were verified before."""
    if len(frame) < _HEADER_BYTES:
        raise StoreError(f"frame of {len(frame)} bytes, a header alone has {_HEADER_BYTES}")
    _, _, kind, _, flags = struct.unpack_from("<4sBBBB", frame, 0)
    seq, records = struct.unpack_from("<QI", frame, 40)
    covers = 0 if kind in _UNNUMBERED else max(records, 1) if kind == GAP else 1
    return FrameHead(kind, flags, seq, seq + covers, records, frame[56:64])


@dataclass(slots=True)
class Stored:
    """What a group added to one run, for the merge triggers."""

    frames: int = 0
    rows: int = 0
    bytes: int = 0
    has_finish: bool = False


def writer_state(row: Sequence[object]) -> WriterState:
    """A `WriterState` of a row of `_WRITER_COLUMNS`."""
    run_id, writer_id, *rest, last_hash = row
    is_of_a_frame = isinstance(last_hash, bytes) and len(last_hash) == _HASH_BYTES
    return WriterState(*(run_id, to_unsigned(writer_id), *rest, last_hash if is_of_a_frame else None))  # type: ignore[arg-type]


def select_writers(connection: Reading, run_id: bytes) -> list[WriterState]:
    """All writers of a run, in the order they were first seen."""
    rows = connection.execute(f"SELECT {_WRITER_COLUMNS} FROM writer WHERE run_id = ? ORDER BY ordinal", (run_id,))
    return [writer_state(row) for row in rows]


def select_writer(connection: Reading, run_id: bytes, writer_id: int) -> WriterState | None:
    """One writer, None if it was never opened."""
    query = f"SELECT {_WRITER_COLUMNS} FROM writer WHERE run_id = ? AND writer_id = ?"
    row = connection.execute(query, (run_id, to_signed(writer_id))).fetchone()
    return None if row is None else writer_state(row)


def insert_writer(  # noqa: PLR0913 - the columns of the row
    connection: Writing,
    run_id: bytes,
    writer_id: int,
    open_frame: bytes,
    *,
    label: str,
    started_us: int,
    now_us: int,
    step_offset: int,
) -> None:
    """Makes a writer's row, and the run's with its first one; leaves a row that is there as it is."""
    # The run's row is locked, whether it is new or not: two writers of a run must not get one ordinal.
    connection.execute("INSERT INTO run(run_id) VALUES (?) ON CONFLICT(run_id) DO UPDATE SET merges = run.merges", (run_id,))
    connection.execute(
        "INSERT INTO writer(run_id, writer_id, ordinal, label, open_data, started_us, last_seen_us, step_offset, "
        "merged_frames, merged_gaps, merged_rows) "
        "VALUES (?, ?, (SELECT coalesce(max(ordinal) + 1, 0) FROM writer WHERE run_id = ?), ?, ?, ?, ?, ?, 0, 0, 0) "
        "ON CONFLICT(run_id, writer_id) DO NOTHING",
        (run_id, to_signed(writer_id), run_id, label, open_frame, started_us, now_us, step_offset),
    )


@dataclass(slots=True)
class _Judged:
    """One batch, sorted into what is news and what is not."""

    old_seq: int
    next_seq: int
    last_hash: bytes | None
    stored: Stored = field(default_factory=Stored)
    rows: list[tuple[object, ...]] = field(default_factory=list)
    duplicates: int = 0
    conflicts: list[tuple[int, bytes]] = field(default_factory=list)
    gap_numbers: int = 0
    finish: tuple[int, int | None] | None = None


def append_group(connection: Writing, batches: Sequence[Batch], *, now_us: int) -> list[tuple[Appended, Stored]]:
    """Stores batches inside the caller's transaction.

    Raises:
        StoreError: A writer was never opened, or a batch is not contiguous.
    """
    keys = [(batch.run_id, to_signed(batch.writer_id)) for batch in batches]
    known = connection.lock_writers(sorted(set(keys)))
    group = []
    for key, batch in zip(keys, batches, strict=True):
        if key not in known:
            raise StoreError(f"writer {batch.writer_id:016x} of run {batch.run_id.hex()} was never opened")
        judged = _judge(key, batch, *known[key])
        known[key] = (judged.next_seq, judged.last_hash)
        for seq, frame in judged.conflicts:
            keep_aside(connection, key, seq, CONFLICT_REASON, frame)
        group.append(judged)
    _move_writers(connection, keys, group, now_us)
    connection.insert(
        "l0", "run_id, writer_id, seq, next_seq, is_document, records, data", [row for judged in group for row in judged.rows]
    )
    return [(_answer(batch, judged), judged.stored) for batch, judged in zip(batches, group, strict=True)]


def _judge(key: WriterKey, batch: Batch, old_seq: int, last_hash: bytes | None) -> _Judged:
    """The cases of the write door, in the order the format names them."""
    judged = _Judged(old_seq, old_seq, last_hash)
    expected = batch.first_seq
    for frame in batch.frames:
        head = frame_head(frame)
        if head.kind in _UNNUMBERED:
            continue
        if head.seq != expected:
            raise StoreError(f"batch of writer {batch.writer_id:016x} is not contiguous: frame {head.seq}, expected {expected}")
        expected = head.next_seq
        if expected >= _NUMBER_END:
            raise StoreError(f"writer {batch.writer_id:016x} is at frame {head.seq}: a number beyond {_NUMBER_END - 1} cannot be stored")
        if head.next_seq <= judged.next_seq:
            judged.duplicates += 1
            if head.next_seq == old_seq and last_hash is not None and head.hash != last_hash[:_HASH_BYTES]:
                judged.conflicts.append((head.seq, frame))
            continue
        if head.seq > judged.next_seq:
            break
        _take(key, judged, head, frame)
    return judged


def _take(key: WriterKey, judged: _Judged, head: FrameHead, frame: bytes) -> None:
    """A frame that is news. A GAP may begin below: numbers that did arrive are not missing."""
    is_document = head.kind in (FINISH, GAP) or (head.kind == DATA and bool(head.flags & DOCS_FLAG))
    records = head.records if head.kind == DATA else 0
    judged.rows.append((*key, judged.next_seq, head.next_seq, int(is_document), records, frame))
    judged.stored.frames += 1
    judged.stored.rows += records
    judged.stored.bytes += len(frame)
    if head.kind == GAP:
        judged.gap_numbers += head.next_seq - judged.next_seq
    if head.kind == FINISH:
        judged.finish = (head.seq, _exit_code(frame))
        judged.stored.has_finish = True
    judged.next_seq = head.next_seq
    judged.last_hash = head.hash + _OF_A_GAP if head.kind == GAP else head.hash


def _move_writers(connection: Writing, keys: Sequence[WriterKey], group: Sequence[_Judged], now_us: int) -> None:
    """Compares and sets every writer's number: `lock_writers` has made sure that nobody else can have moved it."""
    moved = [
        (judged.next_seq, now_us, judged.last_hash, judged.duplicates, judged.gap_numbers, *key, judged.old_seq)
        for key, judged in zip(keys, group, strict=True)
    ]
    changed = connection.executemany(
        "UPDATE writer SET next_seq = ?, last_seen_us = ?, last_hash = ?, duplicates = duplicates + ?, gaps = gaps + ? "
        "WHERE run_id = ? AND writer_id = ? AND next_seq = ?",
        moved,
    ).rowcount
    if changed != len(moved):
        raise StoreError(f"{len(moved) - changed} writers moved on inside the transaction")
    finished = [(*judged.finish, *key) for key, judged in zip(keys, group, strict=True) if judged.finish is not None]
    if finished:
        connection.executemany("UPDATE writer SET finished_seq = ?, exit_code = ? WHERE run_id = ? AND writer_id = ?", finished)


def _answer(batch: Batch, judged: _Judged) -> Appended:
    return Appended(
        next_seq=judged.next_seq,
        accepted_frames=judged.stored.frames,
        duplicate_frames=judged.duplicates,
        is_gap=judged.next_seq < batch.next_seq,
        conflicting_frames=len(judged.conflicts),
    )


def keep_aside(connection: Writing, key: tuple[bytes, int], seq: int, reason: str, frame: bytes) -> None:
    """Puts a copy of a frame into quarantine."""
    statement = "INSERT INTO quarantine(run_id, writer_id, seq, reason, data) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
    connection.execute(statement, (*key, seq, reason, frame))


def _exit_code(frame: bytes) -> int | None:
    """Exit code in a FINISH frame; a FINISH that cannot be read still finishes the writer."""
    try:
        documents = dict(_native.documents(frame))
    except ValueError:
        return None
    said = documents.get("finish")
    code = said.get("exit_code") if isinstance(said, dict) else None
    return code if isinstance(code, int) and -(1 << 31) <= code < 1 << 31 else None
