"""The store's ledger: does every durably acked number lie somewhere, and is every stored byte what was written?

For each writer: numbers acked = frames merged + numbers of gaps + frames in quarantine + frames that wait in `l0`, without a hole. For
each run: rows taken from frames = rows in chunks + rows that a later one replaced. For each series: chunks do not overlap, hold as
many points as their key counts, and every checksum fits. What belongs to no run or writer is named too.
"""

# ruff: noqa: S608 - every part of a statement is a constant of this package; values are parameters

from __future__ import annotations

from typing import TYPE_CHECKING

from runferry import _native
from runferry.server.store import schema
from runferry.server.store.append import CONFLICT_REASON, DOCUMENTS_REASON, to_unsigned

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runferry.server.store.sql import Reading


def check_run(connection: Reading, run_id: bytes) -> list[str]:
    """What is wrong with a run, one sentence per finding; empty: nothing."""
    try:
        return _check_run(connection, run_id)
    except (TypeError, ValueError, OverflowError) as error:  # a column holds what was never written
        return [f"what is stored cannot be understood: {error}"]


def _check_run(connection: Reading, run_id: bytes) -> list[str]:
    return [*_check_writers(connection, run_id), *_check_series(connection, run_id), *_check_rows(connection, run_id)]


def _check_writers(connection: Reading, run_id: bytes) -> list[str]:
    found = []
    query = (
        "SELECT writer_id, next_seq, merged_seq, applied_seq, released_seq, gaps, merged_frames, merged_gaps FROM writer WHERE run_id = ?"
    )
    for writer_id, next_seq, merged_seq, applied_seq, released_seq, gaps, merged_frames, merged_gaps in connection.execute(
        query, (run_id,)
    ):
        name = f"writer {to_unsigned(writer_id):016x}"
        aside = _set_aside(connection, run_id, writer_id)
        found += [f"{name}: {finding}" for finding in _check_waiting(connection, (run_id, writer_id), merged_seq, next_seq, aside)]
        if not released_seq <= merged_seq < next_seq or applied_seq >= next_seq:
            marks = f"released {released_seq}, merged {merged_seq}, applied {applied_seq}, next {next_seq}"
            found.append(f"{name}: its marks do not fit one another: {marks}")
        merged_aside = sum(seq <= merged_seq for seq in aside)
        if merged_frames is not None and merged_frames + merged_gaps + merged_aside != merged_seq:
            parts = f"{merged_frames} frames, {merged_gaps} numbers of gaps and {merged_aside} in quarantine"
            found.append(f"{name}: {merged_seq} numbers were merged, and {parts} are accounted for")
        if merged_gaps is not None and merged_gaps > gaps:
            found.append(f"{name}: merges met {merged_gaps} numbers of gaps, {gaps} were acked")
    return found


def _set_aside(connection: Reading, run_id: bytes, writer_id: int) -> set[int]:
    """Numbers whose frame lies in quarantine instead of being merged; copies beside a frame that counts are none."""
    query = "SELECT seq, reason FROM quarantine WHERE run_id = ? AND writer_id = ?"
    rows = connection.execute(query, (run_id, writer_id))
    return {seq for seq, reason in rows if reason != CONFLICT_REASON and not reason.startswith(DOCUMENTS_REASON)}


def _check_waiting(connection: Reading, key: tuple[bytes, int], merged_seq: int, next_seq: int, aside: set[int]) -> Iterator[str]:
    """Every number above the merged ones has a frame that waits, and each frame is what was sent."""
    expected = merged_seq + 1
    query = "SELECT seq, next_seq, data FROM l0 WHERE run_id = ? AND writer_id = ? ORDER BY seq"
    for seq, behind, data in connection.stream(query, key):
        ((*_, fault),) = _native.verify_frames([data])
        if fault is not None:
            yield f"frame {seq}: {fault}"
        if seq <= merged_seq:
            continue
        while expected in aside:
            expected += 1
        if seq != expected:
            yield f"frames {expected} to {seq - 1} were acked and are missing"
        expected = behind
    while expected in aside:
        expected += 1
    if expected != next_seq:
        yield f"frames {expected} to {next_seq - 1} were acked and are missing"


def _check_rows(connection: Reading, run_id: bytes) -> list[str]:
    """Rows that merges took from frames = rows in chunks, rows a later one of their step replaced, rows in damaged chunks."""
    query = "SELECT sum(merged_rows), count(*) - count(merged_rows) FROM writer WHERE run_id = ?"
    taken, uncounted = connection.execute(query, (run_id,)).fetchone()
    if uncounted or taken is None:
        return []  # merges of before version 2 counted nothing
    of_rows = "SELECT coalesce(sum(t.{count}), 0) FROM {table} t JOIN key k USING(run_id, key_id) WHERE t.run_id = ? AND k.role = 1"
    tables = {"chunk": "n", "superseded": "points", "damaged": "n"}
    parts = {
        table: connection.execute(of_rows.format(table=table, count=count), (run_id,)).fetchone()[0] for table, count in tables.items()
    }
    if sum(parts.values()) == taken:
        return []
    held = f"{parts['chunk']} in chunks, {parts['superseded']} replaced and {parts['damaged']} in damaged chunks"
    return [f"rows: merges took {taken} from frames, {held} are accounted for"]


def _check_series(connection: Reading, run_id: bytes) -> list[str]:
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
        for chunk in connection.stream(query, (run_id, key_id)):
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


def check_owners(connection: Reading) -> list[str]:
    """Rows of a shard that belong to nothing."""
    found = []
    owners = {
        "l0": "writer o ON o.run_id = t.run_id AND o.writer_id = t.writer_id",
        "quarantine": "writer o ON o.run_id = t.run_id AND o.writer_id = t.writer_id",
        "writer": "run o ON o.run_id = t.run_id",
        "key": "run o ON o.run_id = t.run_id",
        "chunk": "key o ON o.run_id = t.run_id AND o.key_id = t.key_id",
        "damaged": "key o ON o.run_id = t.run_id AND o.key_id = t.key_id",
        "axis": "run o ON o.run_id = t.run_id",
    }
    for table, owner in owners.items():
        query = f"SELECT count(*) FROM {table} t LEFT JOIN {owner} WHERE o.run_id IS NULL"
        (dangling,) = connection.execute(query).fetchone()
        if dangling:
            found.append(f"{dangling} rows of the table {table} belong to no {owner.split(' ')[0]}")
    return found
