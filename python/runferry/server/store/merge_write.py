"""What a merge writes, in one transaction: chunks and axes go and come, and the rows of their series and of the run say so.

As in `merge_choose` nothing is asked or written for each metric alone.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from runferry.server.store import schema
from runferry.server.store.append import to_signed
from runferry.server.store.sql import select_of

if TYPE_CHECKING:
    from runferry.server.store.merge_choose import Choice, Head
    from runferry.server.store.sql import Writing

MAX_LAST_BYTES = 64 << 10
"""Last values above this are read from the chunk instead of the key's row."""

_KEY_COLUMNS = "run_id, key_id, role, name, label, points, step0, step1, mn, mx, last, last_ordinal"
_CHANGE_OF_KEY = (
    "ON CONFLICT(run_id, key_id) DO UPDATE SET points = key.points + excluded.points, step0 = excluded.step0, step1 = excluded.step1, "
    "mn = excluded.mn, mx = excluded.mx, last = CASE WHEN excluded.last_ordinal IS NULL THEN key.last ELSE excluded.last END, "
    "last_ordinal = coalesce(excluded.last_ordinal, key.last_ordinal)"
)


class ConflictError(Exception):
    """Another process merged the run meanwhile."""


class Made(NamedTuple):
    """What `_native.Merge.finish` gives."""

    axes: list[tuple[Any, ...]]
    chunks: list[tuple[Any, ...]]
    superseded: list[tuple[int, int, int, int]]
    """`(writer's ordinal, key_id, points, sum of their hashes)`."""
    lasts: list[tuple[int, int, bytes]]
    """`(key_id, writer's ordinal, value)`."""


def replace(connection: Writing, run_id: bytes, choice: Choice, made: Made, *, merges: int) -> None:
    """Replaces the rows, inside the caller's transaction.

    Raises:
        ConflictError: The run has been merged more often than `merges` times.
    """
    changed = connection.execute(
        "UPDATE run SET merges = merges + 1, next_axis_id = next_axis_id + ? WHERE run_id = ? AND merges = ?",
        (len(made.axes), run_id, merges),
    ).rowcount
    if changed != 1:
        raise ConflictError
    connection.executemany(
        "DELETE FROM chunk WHERE run_id = ? AND key_id = ? AND step0 = ?", [(run_id, head.key_id, head.step0) for head in choice.replaced]
    )
    grown_bytes = -_free_axes(connection, run_id, choice.replaced) - sum(head.bytes for head in choice.replaced)
    connection.insert("axis", f"run_id, {schema.AXIS_COLUMNS}, chunks", [(run_id, *axis) for axis in made.axes])
    connection.insert("chunk", f"run_id, {schema.CHUNK_COLUMNS}", [(run_id, *chunk) for chunk in made.chunks])
    grown_bytes += sum(len(chunk[18]) + len(chunk[14]) for chunk in made.chunks)
    grown_bytes += sum(len(axis[6]) + len(axis[4]) for axis in made.axes)
    _write_keys(connection, run_id, choice, made, grown_bytes=grown_bytes)
    _write_superseded(connection, run_id, made.superseded)
    connection.insert("damaged", "run_id, key_id, step0, step1, n, reason, data", [(run_id, *row) for row in choice.damaged])


def _free_axes(connection: Writing, run_id: bytes, replaced: list[Head]) -> int:
    """Counts the chunks that are gone from their axes, and deletes those that have none left; returns their bytes."""
    freed = Counter((head.axis_id, head.step0) for head in replaced)
    connection.executemany(
        "UPDATE axis SET chunks = chunks - ? WHERE run_id = ? AND axis_id = ? AND step0 = ?",
        [(count, run_id, *axis) for axis, count in freed.items()],
    )
    query = (
        "SELECT axis.axis_id, axis.step0, length(axis.data) + length(axis.sub) FROM wanted "
        "CROSS JOIN axis WHERE axis.run_id = ? AND axis.axis_id = wanted.axis_id AND axis.step0 = wanted.step0 AND axis.chunks <= 0"
    )
    unused = list(select_of(connection, "axis_id, step0", list(freed), query, (run_id,)))
    connection.executemany("DELETE FROM axis WHERE run_id = ? AND axis_id = ? AND step0 = ?", [(run_id, *row[:2]) for row in unused])
    return sum(row[2] for row in unused)


def _write_keys(connection: Writing, run_id: bytes, choice: Choice, made: Made, *, grown_bytes: int) -> None:
    added: dict[int, list[tuple[Any, ...]]] = {}
    for chunk in made.chunks:
        added.setdefault(chunk[0], []).append(chunk)
    gone = Counter[int]()
    for head in choice.replaced:
        gone[head.key_id] += head.n
    last_values = {key_id: (value if len(value) <= MAX_LAST_BYTES else None, ordinal) for key_id, ordinal, value in made.lasts}
    ends_left = _ends_left(connection, run_id, choice, made)
    changes: list[tuple[Any, ...]] = []
    points = rows = new_keys = 0
    for key_id, role, name, label, known in choice.series:
        new = added.get(key_id, [])
        change: int = sum(chunk[4] for chunk in new) - gone[key_id]
        points, rows, new_keys = points + change * (role == 0), rows + change * (role == 1), new_keys + (known is None)
        if not new:
            if known is None:
                changes.append((run_id, key_id, role, name, label, 0, None, None, None, None, None, None))
            continue
        step0, step1 = min(chunk[1] for chunk in new), max(chunk[2] for chunk in new)
        is_newest = True
        lows, highs = [chunk[9] for chunk in new if chunk[6]], [chunk[10] for chunk in new if chunk[6]]
        if known is not None and known.points:
            is_newest = step1 >= known.step1
            step0, step1 = min(step0, known.step0), max(step1, known.step1)
            if known.mn is not None and known.mx is not None:
                lows.append(known.mn)
                highs.append(known.mx)
        low, high = ends_left.get(key_id) or (min(lows, default=None), max(highs, default=None))
        last = last_values[key_id] if is_newest else (None, None)
        changes.append((run_id, key_id, role, name, label, change, step0, step1, low, high, *last))
    connection.insert("key", _KEY_COLUMNS, changes, _CHANGE_OF_KEY)
    connection.execute(
        "UPDATE run SET next_key_id = next_key_id + ?, points = points + ?, rows = rows + ?, chunk_bytes = chunk_bytes + ? "
        "WHERE run_id = ?",
        (new_keys, points, rows, grown_bytes, run_id),
    )


def _ends_left(connection: Writing, run_id: bytes, choice: Choice, made: Made) -> dict[int, tuple[float | None, float | None]]:
    """Least and greatest value of the series that have lost points, perhaps those: asked of all chunks that are left."""
    losing = sorted({key_id for _, key_id, _, _ in made.superseded} | {row[0] for row in choice.damaged})
    query = (
        "SELECT wanted.key_id, min(chunk.mn), max(chunk.mx) FROM wanted "
        "LEFT JOIN chunk ON chunk.run_id = ? AND chunk.key_id = wanted.key_id AND chunk.n_finite > 0 GROUP BY wanted.key_id"
    )
    found = select_of(connection, "key_id", [(key_id,) for key_id in losing], query, (run_id,))
    return {key_id: (low, high) for key_id, low, high in found}


def _write_superseded(connection: Writing, run_id: bytes, superseded: list[tuple[int, int, int, int]]) -> None:
    if not superseded:
        return
    writer_ids = dict(connection.execute("SELECT ordinal, writer_id FROM writer WHERE run_id = ?", (run_id,)).fetchall())
    lost = {(writer_ids[ordinal], key_id): (points, sum_hash) for ordinal, key_id, points, sum_hash in superseded}
    query = (
        "SELECT wanted.writer_id, wanted.key_id, superseded.points, superseded.sum_hash FROM wanted CROSS JOIN superseded "
        "WHERE superseded.run_id = ? AND superseded.writer_id = wanted.writer_id AND superseded.key_id = wanted.key_id"
    )
    for writer_id, key_id, points, sum_hash in select_of(connection, "writer_id, key_id", list(lost), query, (run_id,)):
        more_points, more_hash = lost[writer_id, key_id]
        lost[writer_id, key_id] = (points + more_points, sum_hash + more_hash)
    rows = [(run_id, *key, points, to_signed(sum_hash % (1 << 64))) for key, (points, sum_hash) in lost.items()]
    kept = "ON CONFLICT(run_id, writer_id, key_id) DO UPDATE SET points = excluded.points, sum_hash = excluded.sum_hash"
    connection.insert("superseded", "run_id, writer_id, key_id, points, sum_hash", rows, kept)
