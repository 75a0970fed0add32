"""The merge: waiting frames of a run become chunks, off the path that acks.

Order: one read transaction takes frames and the chunks they touch; decoding, sorting and encoding happen with no
transaction open; one write transaction replaces the rows, `merged_seq` last. `run.merges` is compared and set there: if
another process merged the run meanwhile, nothing is written and the caller starts over. Killed at any point, a merge has
either happened or not.

What does not decode stops nothing: frames go into `quarantine`, chunks with a wrong checksum into `damaged`, both with
their bytes and a reason. A frame that decodes and then makes the merge fail is found by merging one frame at a time.
"""

# ruff: noqa: S608 - every part of a statement is a constant of this package; values are parameters

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from runferry import _native
from runferry.server.store import schema
from runferry.server.store.append import GAP, frame_head, to_signed
from runferry.server.store.tail import writers_for_native

if TYPE_CHECKING:
    from runferry.server.store.sql import Reading, Shard, WriterKey, Writing

FRAME_BYTES = 16 << 20
"""Stored bytes of frames taken by one merge."""
MOST_BYTES = 32 << 20
"""Memory of frames taken by one merge: a few bytes may unfold to a thousand times as many."""
JOIN_POINTS = 1024
"""Chunks below this are joined with their neighbours."""
JOINED = 4
"""So many of a size become one."""
JOIN_CHUNKS = 9
"""Most chunks joined with new values at once."""
MAX_LAST_BYTES = 64 << 10
"""Last values above this are read from the chunk instead of the key's row."""

_Key = tuple[int, str, str]
"""Role, name, label."""


@dataclass(slots=True)
class _StoredKey:
    key_id: int
    points: int
    step0: int
    step1: int
    mn: float | None
    mx: float | None


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


class ConflictError(Exception):
    """Another process merged the run meanwhile."""


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
        plan = _Plan(connection, run_id, taken, merge, is_final=is_final)
        plan.choose_chunks()
    axes, chunks, superseded, lasts = merge.finish(plan.key_ids, taken.next_axis_id)
    with shard.writing() as connection:
        plan.write(connection, axes, chunks, superseded, lasts)
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


class _Plan:
    """Which stored chunks a merge replaces, and the rows it writes."""

    def __init__(self, connection: Reading, run_id: bytes, taken: _Taken, merge: _native.Merge, *, is_final: bool) -> None:
        self.run_id = run_id
        self.taken = taken
        self.merge = merge
        self.is_final = is_final
        self.series = merge.series()
        self.keys: dict[int, tuple[_Key, _StoredKey | None]] = {}
        self.key_ids: list[int] = []
        self.replaced: list[tuple[int, int, int, int, int, int, int]] = []
        """`(key_id, step0, step1, axis_id, n, role, bytes)`."""
        self.damaged: list[tuple[int, int, int, int, str, bytes]] = []
        self._connection = connection
        self._axes: dict[tuple[int, int], tuple[Any, ...] | None] = {}

    def choose_chunks(self) -> None:
        """Finds the ids of all series, and gives the merge every chunk it has to replace."""
        query = "SELECT role, name, label, key_id, points, step0, step1, mn, mx FROM key WHERE run_id = ?"
        stored = {(role, name, label): _StoredKey(*rest) for role, name, label, *rest in self._connection.execute(query, (self.run_id,))}
        next_key_id = self.taken.next_key_id
        for number, (role, label, name, values, step0, step1) in enumerate(self.series):
            known = stored.get((role, name, label))
            key_id = known.key_id if known is not None else next_key_id
            next_key_id += known is None
            self.key_ids.append(key_id)
            self.keys[key_id] = ((role, name, label), known)
            if known is not None and known.points > 0:
                self._choose_of(number, known, role, values, step0, step1)

    def _choose_of(  # noqa: PLR0913, PLR0917 - what `Merge.series` says of one
        self, number: int, key: _StoredKey, role: int, values: int, step0: int, step1: int
    ) -> None:
        heads = self._connection.execute(
            "SELECT step0, step1, n, axis_id, length(data) + length(sub) FROM chunk "
            "WHERE run_id = ? AND key_id = ? AND step0 <= ? ORDER BY step0 DESC",
            (self.run_id, key.key_id, step1),
        )
        overlapping = []
        earlier = []
        for head in heads:
            if head[1] >= step0:
                overlapping.append(head)
                continue
            earlier.append(head)
            if len(earlier) == JOIN_CHUNKS or head[2] >= JOIN_POINTS:
                break
        overlapping.reverse()
        touched = self.merge.touch(number, [head[:2] for head in overlapping]) if overlapping else []
        chosen = [head for head, is_touched in zip(overlapping, touched, strict=True) if is_touched]
        self.merge.leave(number, [head[:2] for head, is_touched in zip(overlapping, touched, strict=True) if not is_touched])
        if not overlapping and step0 > key.step1:
            chosen += self._small_neighbours(earlier, values)
        given = []
        for head in chosen:
            query = f"SELECT {schema.CHUNK_COLUMNS} FROM chunk WHERE run_id = ? AND key_id = ? AND step0 = ?"
            chunk = self._connection.execute(query, (self.run_id, key.key_id, head[0])).fetchone()
            axis = self._axis(head[3], head[0])
            self.replaced.append((key.key_id, head[0], head[1], head[3], head[2], role, head[4]))
            if axis is None:
                self._set_chunk_aside(key.key_id, head, "its axis is missing", chunk[-1])
            else:
                given.append((head, chunk, axis))
        faults = self.merge.add_chunks([(number, chunk, axis) for _, chunk, axis in given])
        for (head, chunk, _), fault in zip(given, faults, strict=True):
            if fault is not None:
                self._set_chunk_aside(key.key_id, head, fault, chunk[-1])

    def _set_chunk_aside(self, key_id: int, head: tuple[int, ...], reason: str, data: bytes) -> None:
        self.damaged.append((key_id, head[0], head[1], head[2], reason, data))

    def _small_neighbours(self, earlier: list[tuple[int, ...]], values: int) -> list[tuple[int, ...]]:
        """The chunks before the new values that are joined with them: four of a size become one."""
        if self.is_final:
            return list(itertools.takewhile(lambda head: head[2] < JOIN_POINTS, earlier))
        joined: list[tuple[int, ...]] = []
        points = values
        while len(earlier) >= JOINED - 1 and earlier[JOINED - 2][2] < JOIN_POINTS and earlier[JOINED - 2][2] <= 2 * points:
            joined += earlier[: JOINED - 1]
            points += sum(head[2] for head in earlier[: JOINED - 1])
            earlier = earlier[JOINED - 1 :]
        return joined

    def _axis(self, axis_id: int, step0: int) -> tuple[Any, ...] | None:
        if (axis_id, step0) not in self._axes:
            query = f"SELECT {schema.AXIS_COLUMNS} FROM axis WHERE run_id = ? AND axis_id = ? AND step0 = ?"
            self._axes[axis_id, step0] = self._connection.execute(query, (self.run_id, axis_id, step0)).fetchone()
        return self._axes[axis_id, step0]

    def write(
        self,
        connection: Writing,
        axes: list[tuple[Any, ...]],
        chunks: list[tuple[Any, ...]],
        superseded: list[tuple[int, int, int, int]],
        lasts: list[tuple[int, int, bytes]],
    ) -> None:
        """Replaces the rows, inside the caller's transaction."""
        run_id = self.run_id
        changed = connection.execute(
            "UPDATE run SET merges = merges + 1, next_axis_id = next_axis_id + ? WHERE run_id = ? AND merges = ?",
            (len(axes), run_id, self.taken.merges),
        ).rowcount
        if changed != 1:
            raise ConflictError
        connection.executemany(
            "DELETE FROM chunk WHERE run_id = ? AND key_id = ? AND step0 = ?", [(run_id, row[0], row[1]) for row in self.replaced]
        )
        freed = Counter((row[3], row[1]) for row in self.replaced)
        connection.executemany(
            "UPDATE axis SET chunks = chunks - ? WHERE run_id = ? AND axis_id = ? AND step0 = ?",
            [(count, run_id, *axis) for axis, count in freed.items()],
        )
        freed_bytes = 0
        for axis in freed:
            query = "SELECT length(data) + length(sub) FROM axis WHERE run_id = ? AND axis_id = ? AND step0 = ? AND chunks <= 0"
            unused = connection.execute(query, (run_id, *axis)).fetchone()
            if unused is not None:
                freed_bytes += unused[0]
                connection.execute("DELETE FROM axis WHERE run_id = ? AND axis_id = ? AND step0 = ?", (run_id, *axis))
        connection.insert("axis", f"run_id, {schema.AXIS_COLUMNS}, chunks", [(run_id, *axis) for axis in axes])
        connection.insert("chunk", f"run_id, {schema.CHUNK_COLUMNS}", [(run_id, *chunk) for chunk in chunks])
        grown_bytes = sum(len(chunk[18]) + len(chunk[14]) for chunk in chunks) - sum(row[6] for row in self.replaced)
        grown_bytes += sum(len(axis[6]) + len(axis[4]) for axis in axes) - freed_bytes
        self._write_keys(connection, chunks, lasts, grown_bytes=grown_bytes)
        self._write_superseded(connection, superseded)
        connection.insert("damaged", "run_id, key_id, step0, step1, n, reason, data", [(run_id, *row) for row in self.damaged])

    def _write_keys(
        self, connection: Writing, chunks: list[tuple[Any, ...]], lasts: list[tuple[int, int, bytes]], *, grown_bytes: int
    ) -> None:
        added: dict[int, list[tuple[Any, ...]]] = {}
        for chunk in chunks:
            added.setdefault(chunk[0], []).append(chunk)
        gone: dict[int, list[tuple[int, ...]]] = {}
        for row in self.replaced:
            gone.setdefault(row[0], []).append(row)
        last_values = {key_id: (ordinal, value if len(value) <= MAX_LAST_BYTES else None) for key_id, ordinal, value in lasts}
        new_keys, changes = [], []
        points = rows = 0
        for key_id, ((role, name, label), known) in self.keys.items():
            new = added.get(key_id, [])
            old = gone.get(key_id, [])
            change: int = sum(chunk[4] for chunk in new) - sum(row[4] for row in old)
            points, rows = points + change * (role == 0), rows + change * (role == 1)
            if known is None:
                new_keys.append((self.run_id, key_id, role, name, label))
            if not new:
                continue
            ends = [(chunk[1], chunk[2]) for chunk in new] + ([(known.step0, known.step1)] if known is not None and known.points else [])
            step0, step1 = min(end[0] for end in ends), max(end[1] for end in ends)
            numeric = [chunk for chunk in new if chunk[6]]
            lows, highs = [chunk[9] for chunk in numeric], [chunk[10] for chunk in numeric]
            if old:  # a minimum may have lost its point: ask all chunks that are left
                query = "SELECT min(mn), max(mx) FROM chunk WHERE run_id = ? AND key_id = ? AND n_finite > 0"
                low, high = connection.execute(query, (self.run_id, key_id)).fetchone()
            else:
                if known is not None and known.mn is not None and known.mx is not None:
                    lows.append(known.mn)
                    highs.append(known.mx)
                low, high = min(lows, default=None), max(highs, default=None)
            is_newest = max(chunk[2] for chunk in new) == step1
            ordinal, value = last_values[key_id] if is_newest else (None, None)
            changes.append((change, step0, step1, low, high, is_newest, value, is_newest, ordinal, self.run_id, key_id))
        connection.insert("key", "run_id, key_id, role, name, label", new_keys)
        connection.executemany(
            "UPDATE key SET points = points + ?, step0 = ?, step1 = ?, mn = ?, mx = ?, "
            "last = CASE WHEN ? THEN ? ELSE last END, last_ordinal = CASE WHEN ? THEN ? ELSE last_ordinal END "
            "WHERE run_id = ? AND key_id = ?",
            changes,
        )
        connection.execute(
            "UPDATE run SET next_key_id = next_key_id + ?, points = points + ?, rows = rows + ?, chunk_bytes = chunk_bytes + ? "
            "WHERE run_id = ?",
            (len(new_keys), points, rows, grown_bytes, self.run_id),
        )

    def _write_superseded(self, connection: Writing, superseded: list[tuple[int, int, int, int]]) -> None:
        writer_ids = dict(connection.execute("SELECT ordinal, writer_id FROM writer WHERE run_id = ?", (self.run_id,)).fetchall())
        for ordinal, key_id, points, sum_hash in superseded:
            where = (self.run_id, writer_ids[ordinal], key_id)
            query = "SELECT points, sum_hash FROM superseded WHERE run_id = ? AND writer_id = ? AND key_id = ?"
            before = connection.execute(query, where).fetchone() or (0, 0)
            total = (before[1] + sum_hash) % (1 << 64)
            signed = total - (1 << 64) if total >= 1 << 63 else total
            connection.execute(
                "INSERT INTO superseded(run_id, writer_id, key_id, points, sum_hash) VALUES (?, ?, ?, ?, ?) "
                "ON CONFLICT(run_id, writer_id, key_id) DO UPDATE SET points = excluded.points, sum_hash = excluded.sum_hash",
                (*where, before[0] + points, signed),
            )


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
