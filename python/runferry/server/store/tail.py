"""The live tail: frames that no merge has taken yet, decoded once and kept while a run is hot.

A tail belongs to one value of `run.merges`: with the next merge its frames are chunks. It only grows, so a reader may see
frames a moment newer than its transaction, never fewer, and never one that is in its chunks too. What was read of the merged part is
kept beside it, since it is as good for as long.
"""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from runferry import _native
from runferry.server.store.append import to_unsigned
from runferry.server.store.protocol import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from runferry.server.store.sql import Reading, Shard

MAX_CACHED_BYTES = 256 << 20
"""Memory of all cached tails."""
MAX_TAIL_BYTES = 96 << 20
"""Memory of one: what is more is merged before it is read."""
MAX_KNOWN_BYTES = 16 << 20
"""Memory of what is kept of the merged part of one run, finished charts left aside."""
MAX_CHART_BYTES = 16 << 20
"""Memory of the finished charts of one run, and of their JSON: a hundred of 1,000 buckets."""
_CHART_ENTRY_BYTES = 512
_FRAMES_AT_ONCE = 32

ChartQuestion: TypeAlias = tuple[str, int, tuple[int, int]]
"""Name, buckets, first and last step."""


class TailTooLargeError(Exception):
    """More frames wait for their merge than may be decoded at once: merge the run, then read it."""

    def __init__(self, merges: int) -> None:
        super().__init__(f"too many frames wait since merge {merges}")
        self.merges = merges


class Known:
    """What was read of the merged part of a run. Safe from any thread.

    Chunks of long series without their values, of some that were read last, the summaries of all metrics, and charts of series that
    have nothing in the tail: many look at the same page of a run.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._heads: dict[int, _native.Heads] = {}
        self.metrics: _native.StoredMetrics | None = None
        """All of them, if they are known."""
        self._charts: dict[ChartQuestion, list[_native.Buckets]] = {}
        self._known_bytes = 0
        self._chart_bytes = 0

    @property
    def weight_bytes(self) -> int:
        """About how much memory it takes."""
        return self._known_bytes + self._chart_bytes

    def charts(self, question: ChartQuestion) -> list[_native.Buckets] | None:
        """The answer to a question, if it was asked before. Good only while no label of the metric is in the tail."""
        return self._charts.get(question)

    def keep_charts(self, question: ChartQuestion, charts: list[_native.Buckets]) -> None:
        """Remembers an answer in which is nothing of the tail; the others are forgotten where it would be too much together."""
        weight_bytes = _CHART_ENTRY_BYTES + len(question[0]) + sum(chart.keep() for chart in charts)
        with self._lock:
            if question in self._charts or weight_bytes > MAX_CHART_BYTES:
                return
            if self._chart_bytes + weight_bytes > MAX_CHART_BYTES:
                self._charts.clear()
                self._chart_bytes = 0
            self._charts[question] = charts
            self._chart_bytes += weight_bytes

    def heads(self, key_id: int) -> _native.Heads | None:
        """All chunks of a key, if they are known."""
        return self._heads.get(key_id)

    def keep_heads(self, key_id: int, heads: _native.Heads) -> None:
        """Remembers all chunks of a key."""
        with self._lock:
            if key_id not in self._heads and self._make_room(heads.weight_bytes):
                self._heads[key_id] = heads

    def keep_metrics(self, metrics: _native.StoredMetrics) -> None:
        """Remembers all metrics."""
        with self._lock:
            if self.metrics is None and self._make_room(metrics.weight_bytes):
                self.metrics = metrics

    def _make_room(self, weight_bytes: int) -> bool:
        """Forgets the rest where it would be too much together; False: this alone is."""
        if weight_bytes > MAX_KNOWN_BYTES:
            return False
        if self._known_bytes + weight_bytes > MAX_KNOWN_BYTES:
            self._heads.clear()
            self.metrics = None
            self._known_bytes = 0
        self._known_bytes += weight_bytes
        return True


@dataclass(frozen=True, slots=True)
class RunView:
    """A run in one read transaction."""

    run_id: bytes
    merges: int
    points: int
    rows: int
    chunk_bytes: int
    tail: _native.Tail
    known: Known
    next_seqs: list[tuple[int, int]]
    """Of each writer its id and the number it goes on with, in the order they were first seen. The tail may know more, never less."""


@dataclass(slots=True)
class _CachedTail:
    merges: int
    tail: _native.Tail = field(default_factory=_native.Tail)
    known: Known = field(default_factory=Known)
    lock: threading.Lock = field(default_factory=threading.Lock)
    next_seqs: dict[int, int] = field(default_factory=dict)
    """Signed writer id to the first number not in the tail."""
    writers: int = 0
    counted_bytes: int = 0
    """Its share of what the cache holds itself to have."""

    @property
    def weight_bytes(self) -> int:
        """About how much memory it takes."""
        return self.tail.weight_bytes + self.known.weight_bytes


def writers_for_native(connection: Reading, run_id: bytes) -> list[tuple[int, int, int, str, int]]:
    """All writers of a run as `_native` takes them."""
    rows = connection.execute("SELECT ordinal, started_us, writer_id, label, step_offset FROM writer WHERE run_id = ?", (run_id,))
    return [(ordinal, started_us, to_unsigned(writer_id), label, offset) for ordinal, started_us, writer_id, label, offset in rows]


class TailCache:
    """Tails of the runs read last. Safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tails: OrderedDict[bytes, _CachedTail] = OrderedDict()
        self._counted_bytes = 0

    def view(self, connection: Reading, run_id: bytes) -> RunView | None:
        """The run as the connection's transaction sees it, None if there is no such run.

        Raises:
            TailTooLargeError: The run has to be merged first.
        """
        row = connection.execute("SELECT merges, points, rows, chunk_bytes FROM run WHERE run_id = ?", (run_id,)).fetchone()
        if row is None:
            return None
        merges, points, rows, chunk_bytes = row
        cached = self._entry(run_id, merges)
        with cached.lock:
            next_seqs = self._fill(connection, run_id, cached)
        self.count(run_id)
        return RunView(run_id, merges, points, rows, chunk_bytes, cached.tail, cached.known, next_seqs)

    def _entry(self, run_id: bytes, merges: int) -> _CachedTail:
        with self._lock:
            found = self._tails.get(run_id)
            if found is not None and found.merges == merges:
                self._tails.move_to_end(run_id)
                return found
            made = _CachedTail(merges)
            if found is None or found.merges < merges:
                self._drop(run_id)
                self._tails[run_id] = made
            return made  # of an older transaction: for this reader alone

    def _fill(self, connection: Reading, run_id: bytes, cached: _CachedTail) -> list[tuple[int, int]]:
        """Decodes what the tail lacks; returns `RunView.next_seqs`."""
        query = "SELECT writer_id, ordinal, next_seq, merged_seq FROM writer WHERE run_id = ? ORDER BY ordinal"
        writers = connection.execute(query, (run_id,)).fetchall()
        if len(writers) > cached.writers:  # also without frames: their order decides between chunks
            cached.tail.set_writers(writers_for_native(connection, run_id))
            cached.writers = len(writers)
        behind = [row for row in writers if cached.next_seqs.get(row[0], row[3] + 1) < row[2]]
        for writer_id, ordinal, next_seq, merged_seq in behind:
            begin = cached.next_seqs.get(writer_id, merged_seq + 1)
            frames = connection.stream(
                "SELECT next_seq, data FROM l0 WHERE run_id = ? AND writer_id = ? AND seq >= ? AND seq < ? ORDER BY seq",
                (run_id, writer_id, begin, next_seq),
            )
            while page := frames.fetchmany(_FRAMES_AT_ONCE):
                # What does not decode goes into quarantine at the merge, and is in no reading.
                added = cached.tail.add_frames([(ordinal, data) for _, data in page], MAX_TAIL_BYTES)
                if added:
                    cached.next_seqs[writer_id] = page[len(added) - 1][0]
                if len(added) < len(page):
                    raise TailTooLargeError(cached.merges)
            cached.next_seqs[writer_id] = next_seq
        return [(to_unsigned(writer_id), next_seq) for writer_id, _, next_seq, _ in writers]

    def count(self, run_id: bytes) -> None:
        """What is kept of a run may have grown: the runs that were read longest ago go, if all together are too much."""
        with self._lock:
            cached = self._tails.get(run_id)
            if cached is None:
                return
            weight_bytes = cached.weight_bytes
            self._counted_bytes += weight_bytes - cached.counted_bytes
            cached.counted_bytes = weight_bytes
            while self._counted_bytes > MAX_CACHED_BYTES and len(self._tails) > 1:
                self._drop(next(iter(self._tails)))

    def _drop(self, run_id: bytes) -> None:
        cached = self._tails.pop(run_id, None)
        if cached is not None:
            self._counted_bytes -= cached.counted_bytes

    def forget(self, run_id: bytes) -> None:
        """Gives the memory of a run back."""
        with self._lock:
            self._drop(run_id)


class RunViews:
    """How readers get at a run: a view in a read transaction, after a merge where too much would have to be decoded."""

    def __init__(self, tails: TailCache, merge: Callable[[bytes], int]) -> None:
        """Views with these tails; `merge` merges a run and returns how many frames that were."""
        self._tails = tails
        self._merge = merge

    @contextlib.contextmanager
    def of(self, shard: Shard, run_id: bytes) -> Iterator[tuple[Reading, RunView | None]]:
        """The run and the connection that sees it, for the length of a block.

        Raises:
            StoreError: The database cannot be read.
        """
        stuck_at: int | None = None
        while True:
            with shard.reading() as connection:
                try:
                    view = self._tails.view(connection, run_id)
                except TailTooLargeError as error:
                    merges = error.merges
                else:
                    try:
                        yield connection, view
                    finally:
                        if view is not None:
                            self._tails.count(run_id)  # the reader may have kept something
                    return
            if self._merge(run_id) == 0:  # somebody else has merged it meanwhile, or nobody can
                if merges == stuck_at:
                    raise StoreError(f"run {run_id.hex()} has a frame that cannot be held in memory")
                stuck_at = merges
