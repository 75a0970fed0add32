"""The write path: frames in, numbers out, one transaction per shard.

`writer.next_seq` decides everything: what is below it is a duplicate, what begins at it is news, what begins above it is
a gap and is not stored. It moves by compare-and-set in the transaction that stores the frames, so two servers on one file
cannot both accept a number. Payloads are not looked into, but for the few bytes of a FINISH.
"""

# ruff: noqa: S608 - every part of a statement is a constant of this package; values are parameters

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runferry import _native
from runferry.server.store.protocol import Appended, Batch, StoreError, WriterState

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

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
    """A 64-bit id as SQLite keeps it."""
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


def select_writers(connection: sqlite3.Connection, run_id: bytes) -> list[WriterState]:
    """All writers of a run, in the order they were first seen."""
    rows = connection.execute(f"SELECT {_WRITER_COLUMNS} FROM writer WHERE run_id = ? ORDER BY ordinal", (run_id,))
    return [writer_state(row) for row in rows]


def select_writer(connection: sqlite3.Connection, run_id: bytes, writer_id: int) -> WriterState | None:
    """One writer, None if it was never opened."""
    query = f"SELECT {_WRITER_COLUMNS} FROM writer WHERE run_id = ? AND writer_id = ?"
    row = connection.execute(query, (run_id, to_signed(writer_id))).fetchone()
    return None if row is None else writer_state(row)


def insert_writer(  # noqa: PLR0913 - the columns of the row
    connection: sqlite3.Connection,
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
    connection.execute("INSERT INTO run(run_id) VALUES (?) ON CONFLICT DO NOTHING", (run_id,))
    connection.execute(
        "INSERT INTO writer(run_id, writer_id, ordinal, label, open_data, started_us, last_seen_us, step_offset, "
        "merged_frames, merged_gaps, merged_rows) "
        "VALUES (?, ?, (SELECT coalesce(max(ordinal) + 1, 0) FROM writer WHERE run_id = ?), ?, ?, ?, ?, ?, 0, 0, 0) "
        "ON CONFLICT(run_id, writer_id) DO NOTHING",
        (run_id, to_signed(writer_id), run_id, label, open_frame, started_us, now_us, step_offset),
    )


def append_batch(  # noqa: C901, PLR0915 - the cases of the write door, in the order the format names them
    connection: sqlite3.Connection, batch: Batch, *, now_us: int
) -> tuple[Appended, Stored]:
    """Stores one batch inside the caller's transaction.

    Raises:
        StoreError: The writer was never opened, or the batch is not contiguous.
    """
    key = (batch.run_id, to_signed(batch.writer_id))
    query = "SELECT next_seq, last_hash FROM writer WHERE run_id = ? AND writer_id = ?"
    row = connection.execute(query, key).fetchone()
    if row is None:
        raise StoreError(f"writer {batch.writer_id:016x} of run {batch.run_id.hex()} was never opened")
    old_seq, last_hash = row
    next_seq = old_seq
    stored = Stored()
    duplicates = conflicts = 0
    gap_numbers = 0
    finish: tuple[int, int | None] | None = None
    rows = []
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
        if head.next_seq <= next_seq:
            duplicates += 1
            if head.next_seq == old_seq and last_hash is not None and head.hash != last_hash[:_HASH_BYTES]:
                keep_aside(connection, key, head.seq, CONFLICT_REASON, frame)
                conflicts += 1
            continue
        if head.seq > next_seq:
            break
        # A GAP may begin below: numbers that did arrive are not missing.
        is_document = head.kind in (FINISH, GAP) or (head.kind == DATA and bool(head.flags & DOCS_FLAG))
        records = head.records if head.kind == DATA else 0
        rows.append((*key, next_seq, head.next_seq, is_document, records, frame))
        stored.frames += 1
        stored.rows += records
        stored.bytes += len(frame)
        if head.kind == GAP:
            gap_numbers += head.next_seq - next_seq
        if head.kind == FINISH:
            finish = (head.seq, _exit_code(frame))
            stored.has_finish = True
        next_seq = head.next_seq
        last_hash = head.hash + _OF_A_GAP if head.kind == GAP else head.hash
    changed = connection.execute(
        "UPDATE writer SET next_seq = ?, last_seen_us = ?, last_hash = ?, duplicates = duplicates + ?, gaps = gaps + ? "
        "WHERE run_id = ? AND writer_id = ? AND next_seq = ?",
        (next_seq, now_us, last_hash, duplicates, gap_numbers, *key, old_seq),
    ).rowcount
    if changed != 1:
        raise StoreError(f"writer {batch.writer_id:016x} moved on from {old_seq} inside the transaction")
    if finish is not None:
        connection.execute("UPDATE writer SET finished_seq = ?, exit_code = ? WHERE run_id = ? AND writer_id = ?", (*finish, *key))
    connection.executemany(
        "INSERT INTO l0(run_id, writer_id, seq, next_seq, is_document, records, data) VALUES (?, ?, ?, ?, ?, ?, ?)", rows
    )
    is_gap = next_seq < batch.next_seq
    appended = Appended(
        next_seq=next_seq, accepted_frames=stored.frames, duplicate_frames=duplicates, is_gap=is_gap, conflicting_frames=conflicts
    )
    return appended, stored


def keep_aside(connection: sqlite3.Connection, key: tuple[bytes, int], seq: int, reason: str, frame: bytes) -> None:
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
