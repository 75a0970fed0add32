"""The store's ledger: does every durably acked number lie somewhere, and is every stored byte what was written?

For each writer, numbers up to `merged_seq` were taken by merges (or set aside), the rest must lie in `l0` without a hole. For
each series, chunks must not overlap, must hold as many points as its key counts, and every checksum must fit.
"""

# ruff: noqa: S608 - every part of a statement is a constant of this package; values are parameters

from __future__ import annotations

from typing import TYPE_CHECKING

from runferry import _native
from runferry.server.store import schema
from runferry.server.store.append import to_unsigned

if TYPE_CHECKING:
    import sqlite3


def check_run(connection: sqlite3.Connection, run_id: bytes) -> list[str]:
    """What is wrong with a run, one sentence per finding; empty: nothing."""
    return [*_check_writers(connection, run_id), *_check_series(connection, run_id)]


def _check_writers(connection: sqlite3.Connection, run_id: bytes) -> list[str]:
    found = []
    writers = connection.execute("SELECT writer_id, next_seq, merged_seq FROM writer WHERE run_id = ?", (run_id,)).fetchall()
    for writer_id, next_seq, merged_seq in writers:
        name = f"writer {to_unsigned(writer_id):016x}"
        expected = merged_seq + 1
        query = "SELECT seq, next_seq, data FROM l0 WHERE run_id = ? AND writer_id = ? AND seq > ? ORDER BY seq"
        for seq, behind, data in connection.execute(query, (run_id, writer_id, merged_seq)):
            if seq != expected:
                found.append(f"{name}: frames {expected} to {seq - 1} were acked and are missing")
            ((*_, fault),) = _native.verify_frames([data])
            if fault is not None:
                found.append(f"{name}: frame {seq}: {fault}")
            expected = behind
        if expected != next_seq:
            found.append(f"{name}: frames {expected} to {next_seq - 1} were acked and are missing")
    return found


def _check_series(connection: sqlite3.Connection, run_id: bytes) -> list[str]:
    found = []
    axes = {}
    for axis in connection.execute(f"SELECT {schema.AXIS_COLUMNS} FROM axis WHERE run_id = ?", (run_id,)):
        axes[axis[0], axis[1]] = axis
    used = dict.fromkeys(axes, 0)
    keys = connection.execute("SELECT key_id, role, name, label, points FROM key WHERE run_id = ?", (run_id,)).fetchall()
    for key_id, role, name, label, points in keys:
        title = f"series {name!r} {label!r}" if role == 0 else f"rows {label!r}"
        stored = 0
        end: int | None = None
        query = f"SELECT {schema.CHUNK_COLUMNS} FROM chunk WHERE run_id = ? AND key_id = ? ORDER BY step0"
        for chunk in connection.execute(query, (run_id, key_id)):
            step0, step1, axis_id, count = chunk[1:5]
            stored += count
            if end is not None and step0 <= end:
                found.append(f"{title}: the chunk at step {step0} begins before the one ahead of it ends")
            end = step1
            axis = axes.get((axis_id, step0))
            if axis is None:
                found.append(f"{title}: the axis of the chunk at step {step0} is missing")
                continue
            used[axis_id, step0] += 1
            (fault,) = _native.verify_chunks([(chunk, axis)])
            if fault is not None:
                found.append(f"{title}: the chunk at step {step0}: {fault}")
        if stored != points:
            found.append(f"{title}: chunks hold {stored} points, the key counts {points}")
    for axis_id, step0, chunks in connection.execute("SELECT axis_id, step0, chunks FROM axis WHERE run_id = ?", (run_id,)):
        if used[axis_id, step0] != chunks:
            found.append(f"axis {axis_id} at step {step0}: used by {used[axis_id, step0]} chunks, counts {chunks}")
    return found
