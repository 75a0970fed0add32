"""What a run's stored bytes add up to, writer by writer: the other side of a writer's receipt.

A point is in a chunk, or was superseded and is in the sums kept for that, or waits in a frame that no merge has taken. Every axis
names the writer of each row. So the three together must be what the writer packed; what is in quarantine or damaged is missing here.
"""

# ruff: noqa: S608 - every part of a statement is a constant of this package; values are parameters

from __future__ import annotations

from typing import TYPE_CHECKING

from runferry import _native
from runferry.server.store import schema
from runferry.server.store.append import to_unsigned
from runferry.server.store.protocol import WriterSums

if TYPE_CHECKING:
    from runferry.server.store.sql import Reading

_CHUNKS_AT_ONCE = 256
_FRAMES_AT_ONCE = 64
_2_TO_64 = 1 << 64


def run_sums(connection: Reading, run_id: bytes) -> list[WriterSums]:
    """The sums of every writer of a run, in one read transaction of the caller's; reads every chunk of the run."""
    query = "SELECT ordinal, writer_id, step_offset, next_seq FROM writer WHERE run_id = ? ORDER BY ordinal"
    writers = connection.execute(query, (run_id,)).fetchall()
    sums = _native.StoredSums([(ordinal, offset) for ordinal, _, offset, _ in writers])
    _add_chunks(connection, run_id, sums)
    kept = connection.execute(
        "SELECT w.ordinal, k.name, s.points, s.sum_hash FROM superseded s "
        "JOIN writer w ON w.run_id = s.run_id AND w.writer_id = s.writer_id "
        "JOIN key k ON k.run_id = s.run_id AND k.key_id = s.key_id WHERE s.run_id = ?",
        (run_id,),
    )
    sums.add([(ordinal, name, points, hash_sum % _2_TO_64) for ordinal, name, points, hash_sum in kept])
    waiting = connection.stream(
        "SELECT w.ordinal, l.data FROM l0 l JOIN writer w ON w.run_id = l.run_id AND w.writer_id = l.writer_id "
        "WHERE l.run_id = ? AND l.seq > w.merged_seq",
        (run_id,),
    )
    while frames := waiting.fetchmany(_FRAMES_AT_ONCE):
        sums.add_frames(frames)
    found = sums.finish()
    return [WriterSums(to_unsigned(writer_id), next_seq, found.get(ordinal, [])) for ordinal, writer_id, _, next_seq in writers]


def _add_chunks(connection: Reading, run_id: bytes, sums: _native.StoredSums) -> None:
    chunk_columns = ", ".join(f"c.{name}" for name in schema.CHUNK_COLUMNS.split(", "))
    axis_columns = ", ".join(f"a.{name}" for name in schema.AXIS_COLUMNS.split(", "))
    chunk_width = len(schema.CHUNK_COLUMNS.split(", "))
    rows = connection.stream(
        f"SELECT k.name, {chunk_columns}, {axis_columns} FROM chunk c "
        "JOIN key k ON k.run_id = c.run_id AND k.key_id = c.key_id "
        "JOIN axis a ON a.run_id = c.run_id AND a.axis_id = c.axis_id AND a.step0 = c.step0 WHERE c.run_id = ?",
        (run_id,),
    )
    while part := rows.fetchmany(_CHUNKS_AT_ONCE):
        sums.add_chunks([(row[0], row[1 : 1 + chunk_width], row[1 + chunk_width :]) for row in part])
