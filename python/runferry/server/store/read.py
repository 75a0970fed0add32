"""The read path: charts, summaries, histograms and exact scans of one run.

Everything reads chunks and the live tail in one transaction and lets `_native` put them together, so an answer is the
same before a merge as after it. A checksum that does not fit raises `DamagedError`: a wrong chart is worse than none.
"""

# ruff: noqa: S608 - every part of a statement is a constant of this package; values are parameters

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from runferry import _native
from runferry.server.store import schema
from runferry.server.store.protocol import DamagedError, Histogram, RunTotals, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runferry._native import Buckets
    from runferry.server.store.sql import Reading, Shard
    from runferry.server.store.tail import RunView, RunViews

MIN_STEP, MAX_STEP = -(1 << 63), (1 << 63) - 1
SNAP_POINTS = 512
"""Points per bucket from which the statistics of 256 points are read too (`SNAP_POINTS` in rust/columns)."""
WINDOW_ROWS = 8192
WINDOW_VALUES = 2_000_000
"""A scan holds about so many rows, and at most so many values, at a time."""

_Row: TypeAlias = tuple[Any, ...]
_ROWS = 1
_MOST_METRICS = 1 << 40
_MIXED = 15


def _prefixed(columns: str) -> str:
    return ", ".join("NULL" if column == "NULL" else f"c.{column}" for column in columns.split(", "))


_HEADS = _prefixed(schema.CHUNK_HEAD_COLUMNS)
_WITH_AXIS = "LEFT JOIN axis a ON a.run_id = c.run_id AND a.axis_id = c.axis_id AND a.step0 = c.step0"
_SNAPPED = f"{_HEADS}, a.time1_us, a.sub, NULL, NULL, NULL"
"""For a chart of statistics: values of few chunks are needed, and asked for then."""
_NO_HEADS = _native.Heads([])
_IF_NUMBERS = "CASE WHEN c.n_finite + c.n_nan + c.n_inf > 0 THEN"
_WITH_VALUES = f"{_HEADS[:-4]}{_IF_NUMBERS} c.data END, a.time1_us, a.sub, a.n, a.crc32c, {_IF_NUMBERS} a.data END"
"""For a chart whose buckets part most chunks: everything at once, but for what has no place on a chart."""


def _check(faults: Sequence[str | None], what: str) -> None:
    for fault in faults:
        if fault is not None:
            raise DamagedError(f"{what}: {fault}")


class _Axes:
    """Axis rows of one transaction, each read once."""

    def __init__(self, connection: Reading, run_id: bytes) -> None:
        self._connection = connection
        self._run_id = run_id
        self._rows: dict[tuple[object, object], _Row] = {}

    def row(self, axis_id: object, step0: object) -> _Row:
        found = self._rows.get((axis_id, step0))
        if found is None:
            query = f"SELECT {schema.AXIS_COLUMNS} FROM axis WHERE run_id = ? AND axis_id = ? AND step0 = ?"
            found = self._connection.execute(query, (self._run_id, axis_id, step0)).fetchone()
            if found is None:
                raise DamagedError(f"run {self._run_id.hex()}: axis {axis_id} at step {step0} is missing")
            self._rows[axis_id, step0] = found
        return found


def _chunks(  # noqa: PLR0913, PLR0917 - the parts of one statement
    connection: Reading, run_id: bytes, key_id: int, window: tuple[int, int], columns: str, joined: str = ""
) -> list[_Row]:
    """Chunks of a key that lie in a window of steps, ascending."""
    before = "SELECT max(step0) FROM chunk WHERE run_id = :run AND key_id = :key AND step0 <= :min"
    return connection.execute(
        f"SELECT {columns} FROM chunk c {joined} WHERE c.run_id = :run AND c.key_id = :key "
        f"AND c.step0 >= coalesce(({before}), :min) AND c.step0 <= :max AND c.step1 >= :min ORDER BY c.step0",
        {"run": run_id, "key": key_id, "min": window[0], "max": window[1]},
    ).fetchall()


def series(connection: Reading, view: RunView, names: Sequence[str], *, buckets: int, window: tuple[int, int]) -> list[Buckets]:
    """One chart per name and label, in the order of `names`; unknown names have none."""
    charts = []
    for name in dict.fromkeys(names):
        question = (name, buckets, window)
        is_merged = not view.tail.labels(name)
        found = view.known.charts(question) if is_merged else None
        if found is None:
            found = _charts(connection, view, name, buckets, window)
            if found and is_merged:  # what the tail has got meanwhile may be in it: then the tail has some for every other reader, too
                view.known.keep_charts(question, found)
        charts += found
    return charts


def _charts(connection: Reading, view: RunView, name: str, buckets: int, window: tuple[int, int]) -> list[Buckets]:
    query = "SELECT label, key_id, points, step0, step1 FROM key WHERE run_id = ? AND role = 0 AND name = ? AND points > 0"
    stored = {label: rest for label, *rest in connection.execute(query, (view.run_id, name))}
    labels = sorted({*stored, *view.tail.labels(name)})
    return [_chart(connection, view, (label, name), stored.get(label), buckets, window) for label in labels]


def _chart(  # noqa: PLR0913, PLR0917 - as `Store.series`, for one of them
    connection: Reading, view: RunView, of: tuple[str, str], key: list[int] | None, buckets: int, window: tuple[int, int]
) -> Buckets:
    axes = _Axes(connection, view.run_id)
    query = f"SELECT {schema.CHUNK_COLUMNS} FROM chunk WHERE run_id = ? AND key_id = ? AND step0 = ?"
    try:
        heads = _NO_HEADS if key is None else _heads(connection, view, key, buckets, window)
        key_id, span = (0, None) if key is None else (key[0], (key[2], key[3]))
        read = _native.SeriesRead(view.tail, *of, heads, span, window, max(buckets, 1))
        while needed := read.need():
            found = [connection.execute(query, (view.run_id, key_id, heads.step0(index))).fetchone() for index in needed]
            _check(read.feed([(index, row, axes.row(row[3], row[1])) for index, row in zip(needed, found, strict=True)]), "a chunk")
    except (ValueError, OverflowError, DamagedError) as error:
        raise DamagedError(f"run {view.run_id.hex()}, {of[1]!r}: {error}") from error
    return read.finish()


def _heads(connection: Reading, view: RunView, key: list[int], buckets: int, window: tuple[int, int]) -> _native.Heads:
    """The chunks of a key within a window. Those of a long series are kept for its other charts: zoomed ones, and the next reader's."""
    key_id, points, step0, step1 = key
    is_whole = window[0] <= step0 and step1 <= window[1]
    is_snapped = points >= SNAP_POINTS * buckets
    known = view.known.heads(key_id) if is_snapped else None
    if known is not None:
        return known
    made = _native.Heads(_chunks(connection, view.run_id, key_id, window, _SNAPPED if is_snapped else _WITH_VALUES, _WITH_AXIS))
    if is_whole and made.points != points:
        raise DamagedError(f"chunks hold other than the {points} points counted")
    if is_whole and is_snapped:
        view.known.keep_heads(key_id, made)
    return made


def tail_series(tail: _native.Tail, names: Sequence[str], *, buckets: int) -> list[Buckets]:
    """Charts of nothing but a tail."""
    charts = []
    for name in dict.fromkeys(names):
        for label in sorted(tail.labels(name)):
            read = _native.SeriesRead(tail, label, name, _NO_HEADS, None, (MIN_STEP, MAX_STEP), max(buckets, 1))
            read.need()
            charts.append(read.finish())
    return charts


def metrics(connection: Reading, view: RunView, after: tuple[str, str] | None, limit: int | None) -> _native.Metrics:
    """Series behind `after` by name and label, at most `limit`, from the summaries of the keys and the tail.

    `points` counts a tail value that will replace a merged one at its step as one more until the merge.
    """
    most = _MOST_METRICS if limit is None else limit
    return _native.Metrics(view.tail, view.known.metrics or _stored_metrics(connection, view, after, most), after, most)


def _stored_metrics(connection: Reading, view: RunView, after: tuple[str, str] | None, most: int) -> _native.StoredMetrics:
    """The first so many merged ones behind `after`; all of them, if they are not more, are kept for the next reader."""
    query = (
        "SELECT name, label, points, step0, step1, last, last_ordinal FROM key "
        f"WHERE run_id = ? AND role = 0 AND points > 0 {'AND (name, label) > (?, ?)' if after else ''} ORDER BY name, label LIMIT ?"
    )
    rows = connection.execute(query, (view.run_id, *(after or ()), most)).fetchall()
    for place in [place for place, row in enumerate(rows) if row[5] is None]:
        name, label, points, step0, step1, _, ordinal = rows[place]
        rows[place] = (name, label, points, step0, step1, _last_of_chunk(connection, view.run_id, name, label), ordinal)
    try:
        stored = _native.StoredMetrics(rows)
    except (ValueError, OverflowError) as error:
        raise DamagedError(f"run {view.run_id.hex()}: the summary of a metric: {error}") from error
    if after is None and len(stored) < most:
        view.known.keep_metrics(stored)
    return stored


def _last_of_chunk(connection: Reading, run_id: bytes, name: str, label: str) -> bytes | None:
    """A last value too large for the key's row is not copied there; the chunk has a short form or none."""
    query = (
        "SELECT c.last FROM key k JOIN chunk c ON c.run_id = k.run_id AND c.key_id = k.key_id AND c.step0 <= k.step1 "
        "WHERE k.run_id = ? AND k.role = 0 AND k.name = ? AND k.label = ? ORDER BY c.step0 DESC LIMIT 1"
    )
    row = connection.execute(query, (run_id, name, label)).fetchone()
    return row[0] or None if row is not None else None


def totals(connection: Reading, view: RunView) -> RunTotals:
    """Counts of chunks and tail; a tail value that replaces a merged one at its step counts as one more until the merge."""
    query = "SELECT max(step1) FROM key WHERE run_id = ? AND role = 1 AND points > 0"
    stored_last = connection.execute(query, (view.run_id,)).fetchone()[0]
    rows, points, tail_last = view.tail.totals()
    last_step = max((step for step in (stored_last, tail_last) if step is not None), default=-1)
    query = "SELECT coalesce(sum(length(data)), 0) FROM l0 WHERE run_id = ?"
    frame_bytes = connection.execute(query, (view.run_id,)).fetchone()[0]
    return RunTotals(view.points + points, view.rows + rows, last_step, view.chunk_bytes + frame_bytes)


class Scanner:
    """Rows of a run, window by window; a read transaction each, so that a slow reader holds nothing up."""

    def __init__(  # noqa: PLR0913 - as `Store.scan`
        self,
        shard: Shard,
        views: RunViews,
        run_id: bytes,
        names: Sequence[str] | None,
        *,
        window: tuple[int, int],
        only_histograms: bool = False,
    ) -> None:
        self._shard = shard
        self._views = views
        self._run_id = run_id
        self._names = None if names is None else list(dict.fromkeys(names))
        self._window = window
        self._only_histograms = only_histograms

    def _plan(self) -> list[tuple[int, int]]:
        """Windows of steps that part `window`, each of some thousand rows."""
        with self._views.of(self._shard, self._run_id) as (connection, view):
            if view is None:
                return []
            query = (
                "SELECT c.step1, c.n FROM chunk c JOIN key k ON k.run_id = c.run_id AND k.key_id = c.key_id "
                "WHERE k.run_id = ? AND k.role = 1 AND c.step1 >= ? AND c.step0 <= ?"
            )
            weights = connection.execute(query, (self._run_id, *self._window)).fetchall()
            weights += [(step, 1) for step in view.tail.row_steps() if self._window[0] <= step <= self._window[1]]
            width = len(self._names) if self._names is not None else max(len(self._keys(connection)), len(view.tail.names()))
        most_rows = max(256, min(WINDOW_ROWS, WINDOW_VALUES // max(width, 1)))
        windows = []
        begin, rows = self._window[0], 0
        for step, count in sorted(weights):
            rows += count
            if rows >= most_rows and begin <= step < self._window[1]:
                windows.append((begin, step))
                begin, rows = step + 1, 0
        windows.append((begin, self._window[1]))
        return windows

    def _keys(self, connection: Reading) -> list[tuple[int, int, str]]:
        query = "SELECT key_id, role, name FROM key WHERE run_id = ? AND points > 0"
        keys = connection.execute(query, (self._run_id,)).fetchall()
        wanted = None if self._names is None else set(self._names)
        return [key for key in keys if key[1] == _ROWS or wanted is None or key[2] in wanted]

    def _load(self, window: tuple[int, int], *, with_values: bool) -> _native.Scan | None:
        with self._views.of(self._shard, self._run_id) as (connection, view):
            return None if view is None else self._load_view(connection, view, window, with_values=with_values)

    def _load_view(self, connection: Reading, view: RunView, window: tuple[int, int], *, with_values: bool) -> _native.Scan:
        scan = _native.Scan(view.tail, self._names, self._only_histograms, window)
        axes = _Axes(connection, self._run_id)
        columns = _prefixed(schema.CHUNK_COLUMNS) if with_values else f"{_HEADS[:-4]}CASE c.kind WHEN {_MIXED} THEN c.data END"
        for key_id, role, name in self._keys(connection):
            if role == _ROWS and not with_values and self._names is not None:
                continue  # gives rows their times; which rows there are is up to the names
            rows = _chunks(connection, self._run_id, key_id, window, columns)
            chunks = [(role, name, row, axes.row(row[3], row[1])) for row in rows]
            _check(scan.add_chunks(chunks), f"run {self._run_id.hex()}, {name!r}")
        return scan

    def _counts(self, windows: list[tuple[int, int]]) -> list[int]:
        """How many rows of each window match."""
        counts = []
        for window in windows:
            scan = self._load(window, with_values=False)
            counts.append(0 if scan is None else len(scan.steps()))
        return counts

    def frames(self, samples: int | None) -> Iterator[bytes]:
        """DATA frames of all matching rows, or of `samples` evenly spaced ones."""
        seq = 1
        windows = self._plan()
        counts = [] if samples is None else self._counts(windows)
        picks = None if samples is None or samples >= sum(counts) else _spread(counts, samples)
        for number, window in enumerate(windows):
            if picks is not None and not picks[number]:
                continue
            scan = self._load(window, with_values=True)
            if scan is None:
                return
            steps = scan.steps()
            if picks is not None:
                steps = [steps[index] for index in picks[number] if index < len(steps)]
            try:
                frames = scan.frames(self._run_id, seq, steps)
            except ValueError as error:
                raise StoreError(f"run {self._run_id.hex()}: {error}") from error
            seq += len(frames)
            yield from frames

    def histograms(self, limit: int) -> tuple[int, list[Histogram]]:
        """How many histograms match, and at most `limit`, evenly spaced."""
        windows = self._plan()
        counts = self._counts(windows)
        found: list[Histogram] = []
        for window, picks in zip(windows, _spread(counts, limit), strict=True):
            if not picks:
                continue
            scan = self._load(window, with_values=True)
            if scan is not None:
                steps = scan.steps()
                keep = [steps[index] for index in picks if index < len(steps)]
                found += [Histogram(step, time_us, value) for step, time_us, value in scan.histograms(keep)]
        return sum(counts), found


def _spread(counts: Sequence[int], samples: int) -> list[list[int]]:
    """For each window the places of its share of `samples` evenly spaced rows of all, first and last included."""
    total = sum(counts)
    if samples >= total:
        return [list(range(count)) for count in counts]
    if samples <= 0:
        return [[] for _ in counts]
    chosen = iter([index * (total - 1) // max(samples - 1, 1) for index in range(samples)])
    picks = []
    begin = 0
    index = next(chosen, None)
    for count in counts:
        here = []
        while index is not None and index < begin + count:
            here.append(index - begin)
            index = next(chosen, None)
        picks.append(here)
        begin += count
    return picks
