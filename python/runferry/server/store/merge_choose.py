"""Which stored chunks a merge replaces: those that new values fall into, and small ones before them that become one.

A run may have thousands of metrics, each with a few values in a frame. So nothing is asked for each: one statement finds the heads of
all chunks in question, one reads those that were chosen, one their axes.
"""

# ruff: noqa: S608 - every part of a statement is a constant of this package; values are parameters

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from runferry.server.store import schema
from runferry.server.store.sql import PAGE, select_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runferry import _native
    from runferry.server.store.sql import Reading

JOIN_POINTS = 1024
"""Chunks below this are joined with their neighbours."""
JOINED = 4
"""So many of a size become one."""
JOIN_CHUNKS = 9
"""Most chunks joined with new values at once."""
_FIRST_STEP = -(1 << 63)

_HEADS = f"""SELECT chunk.key_id, chunk.step0, chunk.step1, chunk.n, chunk.axis_id, length(chunk.data) + length(chunk.sub)
FROM wanted CROSS JOIN chunk WHERE chunk.run_id = ? AND chunk.key_id = wanted.key_id AND chunk.step0 <= wanted.step1
AND chunk.step0 >= coalesce((
    SELECT coalesce(max(CASE WHEN near.n >= {JOIN_POINTS} THEN near.step0 END), min(near.step0)) FROM (
        SELECT e.step0, e.n FROM chunk e WHERE e.run_id = ? AND e.key_id = wanted.key_id
        AND e.step0 < wanted.step0 AND e.step1 < wanted.step0 ORDER BY e.step0 DESC LIMIT {JOIN_CHUNKS}
    ) AS near
), ?) ORDER BY chunk.key_id, chunk.step0 DESC"""
"""Of each series the chunks that its new values may fall into, and before them `JOIN_CHUNKS`, or up to the first large one."""
_CHUNKS = (
    f"SELECT {', '.join('chunk.' + name for name in schema.CHUNK_COLUMNS.split(', '))} "
    "FROM wanted CROSS JOIN chunk WHERE chunk.run_id = ? AND chunk.key_id = wanted.key_id AND chunk.step0 = wanted.step0"
)
_AXES = (
    f"SELECT {', '.join('axis.' + name for name in schema.AXIS_COLUMNS.split(', '))} "
    "FROM wanted CROSS JOIN axis WHERE axis.run_id = ? AND axis.axis_id = wanted.axis_id AND axis.step0 = wanted.step0"
)


class Head(NamedTuple):
    """A stored chunk without its values."""

    key_id: int
    step0: int
    step1: int
    n: int
    axis_id: int
    bytes: int


class StoredKey(NamedTuple):
    """What the row of a series says before the merge."""

    key_id: int
    points: int
    step0: int
    step1: int
    mn: float | None
    mx: float | None


class Series(NamedTuple):
    """A series of the merge, in the order of `_native.Merge.series`."""

    key_id: int
    role: int
    name: str
    label: str
    known: StoredKey | None


@dataclass(slots=True)
class Choice:
    """What a merge replaces."""

    series: list[Series] = field(default_factory=list)
    replaced: list[Head] = field(default_factory=list)
    damaged: list[tuple[int, int, int, int, str, bytes]] = field(default_factory=list)
    """`(key_id, step0, step1, n, reason, data)` of those among them that cannot be read."""


def choose(connection: Reading, run_id: bytes, merge: _native.Merge, *, next_key_id: int, is_final: bool) -> Choice:
    """Finds the ids of all series, and gives the merge every chunk it has to replace."""
    choice = Choice()
    query = "SELECT role, name, label, key_id, points, step0, step1, mn, mx FROM key WHERE run_id = ?"
    stored = {(role, name, label): StoredKey(*rest) for role, name, label, *rest in connection.execute(query, (run_id,))}
    told = merge.series()
    wanted = []
    numbers: dict[int, int] = {}
    for number, (role, label, name, _, step0, step1) in enumerate(told):
        known = stored.get((role, name, label))
        key_id = known.key_id if known is not None else next_key_id
        next_key_id += known is None
        choice.series.append(Series(key_id, role, name, label, known))
        if known is not None and known.points > 0:
            wanted.append((key_id, step0, step1))
            numbers[key_id] = number
    rows = select_of(connection, "key_id, step0, step1", wanted, _HEADS, (run_id, run_id, _FIRST_STEP))
    for key_id, heads in itertools.groupby(itertools.starmap(Head, rows), key=lambda head: head.key_id):
        number = numbers[key_id]
        choice.replaced += _choose_of(merge, number, choice.series[number], told[number], list(heads), is_final=is_final)
    _give(connection, run_id, merge, choice, numbers)
    return choice


def _choose_of(  # noqa: PLR0913 - a series from all sides
    merge: _native.Merge, number: int, series: Series, told: tuple[int, str, str, int, int, int], heads: Sequence[Head], *, is_final: bool
) -> list[Head]:
    *_, values, step0, _ = told
    overlapping = [head for head in reversed(heads) if head.step1 >= step0]
    if overlapping:
        ranges = [(head.step0, head.step1) for head in overlapping]
        touched = merge.touch(number, ranges)
        merge.leave(number, [ranges[index] for index, is_touched in enumerate(touched) if not is_touched])
        return list(itertools.compress(overlapping, touched))
    if series.known is not None and step0 > series.known.step1:
        return _small_neighbours(heads[:JOIN_CHUNKS], values, is_final=is_final)
    return []


def _small_neighbours(earlier: Sequence[Head], values: int, *, is_final: bool) -> list[Head]:
    """The chunks before the new values that are joined with them: four of a size become one."""
    if is_final:
        return list(itertools.takewhile(lambda head: head.n < JOIN_POINTS, earlier))
    joined: list[Head] = []
    points = values
    while len(earlier) >= JOINED - 1 and earlier[JOINED - 2].n < JOIN_POINTS and earlier[JOINED - 2].n <= 2 * points:
        joined += earlier[: JOINED - 1]
        points += sum(head.n for head in earlier[: JOINED - 1])
        earlier = earlier[JOINED - 1 :]
    return joined


def _give(connection: Reading, run_id: bytes, merge: _native.Merge, choice: Choice, numbers: dict[int, int]) -> None:
    """Reads the chosen chunks into the merge; those that cannot be read are set aside."""
    axis_keys = sorted({(head.axis_id, head.step0) for head in choice.replaced})
    axes: dict[tuple[int, int], tuple[Any, ...]] = {
        (axis[0], axis[1]): axis for axis in select_of(connection, "axis_id, step0", axis_keys, _AXES, (run_id,))
    }
    chosen = {(head.key_id, head.step0): head for head in choice.replaced}
    chunks = select_of(connection, "key_id, step0", list(chosen), _CHUNKS, (run_id,))
    while page := list(itertools.islice(chunks, PAGE)):
        given = []
        for chunk in page:
            head = chosen[chunk[0], chunk[1]]
            axis = axes.get((head.axis_id, head.step0))
            if axis is None:
                choice.damaged.append((*head[:4], "its axis is missing", chunk[-1]))
            else:
                given.append((numbers[head.key_id], chunk, axis))
        faults = merge.add_chunks(given)
        choice.damaged += [
            (*chosen[chunk[0], chunk[1]][:4], fault, chunk[-1])
            for (_, chunk, _), fault in zip(given, faults, strict=True)
            if fault is not None
        ]
