"""The store over any SQL database: frames as they come, chunks that merges make of them, and what readers ask of both.

Everything here is common to the engines. An engine adds its databases (`Shard`: transactions, and what their errors mean), says
which of them holds a run, and how its SQL differs (`sql`). Groups for different databases are committed one after the other, and a
failure in one says nothing about the others.
"""

from __future__ import annotations

import abc
import base64
import binascii
import contextlib
import logging
import struct
import threading
import time
from typing import TYPE_CHECKING

from runferry import _native
from runferry.server.store import append, read
from runferry.server.store.check import check_run
from runferry.server.store.merge import delete_applied, merge_once, release, set_first_aside
from runferry.server.store.merge_write import ConflictError
from runferry.server.store.merger import Merger
from runferry.server.store.protocol import (
    Appended,
    Batch,
    Delta,
    Histogram,
    Metric,
    RunTotals,
    StoreError,
    WriterOpening,
    WriterState,
    WriterSums,
)
from runferry.server.store.sums import run_sums
from runferry.server.store.tail import MAX_TAIL_BYTES, RunViews, TailCache, writers_for_native

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from runferry._native import Buckets, Metrics
    from runferry.server.store.sql import Shard

_log = logging.getLogger(__name__)

_DOCUMENT_PAGE = 100
_DELTA_PAGE = 32
_CURSOR_VERSION = "v1."
_LAST_STEP = (1 << 63) - 1
_FOREVER = (1 << 63) - 1


class ChunkedStore(abc.ABC):
    """A `Store` (see `protocol`) but for where its runs lie. An engine opens its databases, then calls `_begin`."""

    def __init__(self) -> None:
        self._tails = TailCache()
        self._views = RunViews(self._tails, lambda run_id: self._merge_run(run_id, is_final=False))
        self._run_lock = threading.Lock()
        self._run_locks: dict[bytes, threading.Lock] = {}
        self._merger = Merger(lambda run_id, is_final: self._merge_run(run_id, is_final=is_final), self._release, time.monotonic)

    def _begin(self, *, merging: bool) -> None:
        """Counts what waits; with `merging` a thread merges it."""
        self._count_waiting()
        if merging:
            self._merger.start()

    @abc.abstractmethod
    def _databases(self) -> Sequence[Shard]:
        """All that hold runs."""

    @abc.abstractmethod
    def _find_shard(self, run_id: bytes) -> Shard | None:
        """The database of a run, None if it has none."""

    @abc.abstractmethod
    def _shard(self, run_id: bytes) -> Shard:
        """The database of a run; chosen if it has none."""

    # Writing.

    def open_writer(  # noqa: PLR0913 - the contract's
        self, run_id: bytes, writer_id: int, open_frame: bytes, *, label: str, started_us: int, is_relative: bool, predecessor: int = 0
    ) -> WriterState:
        """Make the writer's row unless it exists, and return it; durable on return."""
        opening = WriterOpening(run_id, writer_id, open_frame, label, started_us, is_relative, predecessor)
        return self.open_writers([opening])[0]

    def open_writers(self, openings: Sequence[WriterOpening]) -> list[WriterState]:
        """As `open_writer`, many in as few transactions as there are databases; one answer per opening, in order."""
        shards = self._choose_shards([opening.run_id for opening in openings])
        groups: dict[Shard, list[int]] = {}
        for index, opening in enumerate(openings):
            groups.setdefault(shards[opening.run_id], []).append(index)
        states: dict[int, WriterState] = {}
        for shard, indices in groups.items():
            with shard.reading() as connection:
                for index in indices:
                    found = append.select_writer(connection, openings[index].run_id, openings[index].writer_id)
                    if found is not None:
                        states[index] = found
            fresh = [index for index in indices if index not in states]
            if fresh:
                self._insert_writers(shard, {index: openings[index] for index in fresh}, states)
        return [states[index] for index in range(len(openings))]

    def _insert_writers(self, shard: Shard, openings: Mapping[int, WriterOpening], states: dict[int, WriterState]) -> None:
        behind = {opening.run_id for opening in openings.values() if opening.is_relative}
        begins = {run_id: min(self.totals(run_id).last_step + 1, _LAST_STEP) for run_id in behind}
        with shard.writing() as connection:
            # Runs in one order everywhere: two servers that open many writers at once must not wait for one another.
            for index, opening in sorted(openings.items(), key=lambda item: item[1].run_id):
                run_id, writer_id = opening.run_id, opening.writer_id
                before = append.select_writer(connection, run_id, opening.predecessor) if opening.predecessor else None
                offset = begins[run_id] if opening.is_relative else 0
                append.insert_writer(
                    connection,
                    run_id,
                    writer_id,
                    opening.open_frame,
                    label=opening.label,
                    started_us=opening.started_us,
                    now_us=_now_us(),
                    step_offset=offset if before is None else before.step_offset,
                )
                made = append.select_writer(connection, run_id, writer_id)
                if made is None:
                    raise StoreError(f"writer {writer_id:016x} was inserted and is not there")
                states[index] = made

    def _choose_shards(self, run_ids: Sequence[bytes]) -> Mapping[bytes, Shard]:
        """The databases of some runs; chosen where they have none."""
        return {run_id: self._shard(run_id) for run_id in dict.fromkeys(run_ids)}

    def append(self, batches: Sequence[Batch]) -> list[Appended]:
        """Store a group of batches in one transaction per shard; durable on return. One answer per batch, in order."""
        groups = self._by_shard(batches)
        answers: dict[int, Appended] = {}
        for shard, indices in groups.items():
            stored: dict[bytes, append.Stored] = {}
            finished: dict[bytes, bool] = {}
            with shard.writing() as connection:
                group = append.append_group(connection, [batches[index] for index in indices], now_us=_now_us())
                for index, (answer, added) in zip(indices, group, strict=True):
                    answers[index] = answer
                    total = stored.setdefault(batches[index].run_id, append.Stored())
                    total.frames += added.frames
                    total.rows += added.rows
                    total.bytes += added.bytes
                    total.has_finish |= added.has_finish
                for run_id, total in stored.items():
                    query = "SELECT count(*) FROM writer WHERE run_id = ? AND finished_seq IS NULL"
                    finished[run_id] = total.has_finish and connection.execute(query, (run_id,)).fetchone()[0] == 0
            for run_id, total in stored.items():
                if total.frames:
                    self._merger.stored(run_id, total, is_finished=finished[run_id])
        return [answers[index] for index in range(len(batches))]

    def commit_groups(self, batches: Sequence[Batch]) -> list[list[int]]:
        """The places of those batches that `append` would commit together: what fails in one group says nothing of the others."""
        return list(self._by_shard(batches).values())

    def _by_shard(self, batches: Sequence[Batch]) -> dict[Shard, list[int]]:
        groups: dict[Shard, list[int]] = {}
        for index, batch in enumerate(batches):
            shard = self._find_shard(batch.run_id)
            if shard is None:
                raise StoreError(f"run {batch.run_id.hex()} was never opened")
            groups.setdefault(shard, []).append(index)
        return groups

    def writers(self, run_id: bytes) -> list[WriterState]:
        """All writers of a run, in the order they were first seen."""
        shard = self._find_shard(run_id)
        if shard is None:
            return []
        with shard.reading() as connection:
            return append.select_writers(connection, run_id)

    def next_seqs(self, run_id: bytes, writer_ids: Sequence[int]) -> dict[int, int]:
        """The number each of the known writers continues with."""
        shard = self._find_shard(run_id)
        if shard is None:
            return {}
        query = "SELECT next_seq FROM writer WHERE run_id = ? AND writer_id = ?"
        with shard.reading() as connection:
            found = [(writer_id, connection.execute(query, (run_id, append.to_signed(writer_id))).fetchone()) for writer_id in writer_ids]
        return {writer_id: row[0] for writer_id, row in found if row is not None}

    def duplicates(self, run_id: bytes) -> int:
        """Frames that writers of a run have sent again."""
        shard = self._find_shard(run_id)
        if shard is None:
            return 0
        with shard.reading() as connection:
            return int(connection.execute("SELECT coalesce(sum(duplicates), 0) FROM writer WHERE run_id = ?", (run_id,)).fetchone()[0])

    # Documents.

    def documents_after(self, run_id: bytes, writer_id: int, applied_seq: int) -> Iterator[tuple[int, bytes]]:
        """`(seq, frame)` of stored frames above `applied_seq` that carry DOCS, FINISH or GAP, in order."""
        shard = self._find_shard(run_id)
        query = "SELECT seq, data FROM l0 WHERE run_id = ? AND writer_id = ? AND is_document = 1 AND seq > ? ORDER BY seq LIMIT ?"
        while shard is not None:
            with shard.reading() as connection:
                page = connection.execute(query, (run_id, append.to_signed(writer_id), applied_seq, _DOCUMENT_PAGE)).fetchall()
            yield from page
            if len(page) < _DOCUMENT_PAGE:
                return
            applied_seq = page[-1][0]

    def set_document_aside(self, run_id: bytes, writer_id: int, seq: int, reason: str, frame: bytes) -> None:
        """Keep a copy of a frame whose documents cannot be applied in quarantine."""
        shard = self._find_shard(run_id)
        if shard is not None:
            with shard.writing() as connection:
                append.keep_aside(connection, (run_id, append.to_signed(writer_id)), seq, append.DOCUMENTS_REASON + reason, frame)

    def mark_applied(self, applied: Sequence[tuple[bytes, int, int]]) -> None:
        """`(run_id, writer_id, seq)`: the metadata database holds everything up to `seq`; frames merged and applied may go."""
        groups: dict[Shard, list[tuple[bytes, int, int]]] = {}
        for run_id, writer_id, seq in applied:
            shard = self._find_shard(run_id)
            if shard is not None:
                groups.setdefault(shard, []).append((run_id, append.to_signed(writer_id), seq))
        for shard, told in groups.items():
            marks = self._new_marks(shard, told)
            if not marks:
                continue
            with shard.writing() as connection:
                for run_id, writer_id, seq in sorted(marks):
                    query = "UPDATE writer SET applied_seq = ? WHERE run_id = ? AND writer_id = ? AND applied_seq < ?"
                    connection.execute(query, (seq, run_id, writer_id, seq))
                    delete_applied(connection, (run_id, writer_id), seq)

    def unapplied(self, quiet_since_us: int) -> list[tuple[bytes, int]]:
        """`(run_id, writer_id)` of writers with frames above what `mark_applied` said of them, none of which is as young as that."""
        query = "SELECT run_id, writer_id FROM writer WHERE applied_seq + 1 < next_seq AND last_seen_us < ?"
        found = []
        for shard in self._databases():
            with shard.reading() as connection:
                rows = connection.execute(query, (quiet_since_us,)).fetchall()
            found += [(run_id, append.to_unsigned(writer_id)) for run_id, writer_id in rows]
        return found

    @staticmethod
    def _new_marks(shard: Shard, marks: Sequence[tuple[bytes, int, int]]) -> list[tuple[bytes, int, int]]:
        """Those that say more than the store knows: most of them do not after a restart."""
        query = "SELECT 1 FROM writer WHERE run_id = ? AND writer_id = ? AND applied_seq < ?"
        with shard.reading() as connection:
            return [mark for mark in marks if connection.execute(query, mark).fetchone() is not None]

    def quarantined(self, run_id: bytes) -> list[tuple[int, int, str]]:
        """`(writer_id, seq, reason)` of frames kept aside because they did not decode, and of damaged chunks (writer 0)."""
        shard = self._find_shard(run_id)
        if shard is None:
            return []
        with shard.reading() as connection:
            query = "SELECT writer_id, seq, reason FROM quarantine WHERE run_id = ? ORDER BY writer_id, seq"
            frames = [(append.to_unsigned(writer_id), seq, reason) for writer_id, seq, reason in connection.execute(query, (run_id,))]
            query = (
                "SELECT k.name, d.step0, d.step1, d.n, d.reason FROM damaged d "
                "JOIN key k ON k.run_id = d.run_id AND k.key_id = d.key_id WHERE d.run_id = ? ORDER BY k.name, d.step0"
            )
            chunks = connection.execute(query, (run_id,)).fetchall()
        return frames + [
            (0, 0, f"{count} points of {name!r}, steps {step0} to {step1}: {reason}") for name, step0, step1, count, reason in chunks
        ]

    # Reading.

    def metrics(self, run_id: bytes, *, after: tuple[str, str] | None = None, limit: int | None = None) -> list[Metric]:
        """The series of a run by name and label, in the order of code points: those behind `after`, at most `limit` of them."""
        found = self.metric_page(run_id, after=after, limit=limit)
        return [] if found is None else [Metric(*row) for row in found.rows()]

    def metric_page(self, run_id: bytes, *, after: tuple[str, str] | None = None, limit: int | None = None) -> Metrics | None:
        """As `metrics`, as what writes itself as JSON; None: there is no such run."""
        shard = self._find_shard(run_id)
        if shard is None:
            return None
        with self._views.of(shard, run_id) as (connection, view):
            return None if view is None else read.metrics(connection, view, after, limit)

    def metric_count(self, run_id: bytes) -> int:
        """How many series a run has; those that wait to be merged are counted as far as there are more of them than merged ones."""
        shard = self._find_shard(run_id)
        if shard is None:
            return 0
        with self._views.of(shard, run_id) as (connection, view):
            query = "SELECT count(*) FROM key WHERE run_id = ? AND role = 0 AND points > 0"
            return 0 if view is None else max(connection.execute(query, (run_id,)).fetchone()[0], view.tail.metric_count())

    def totals(self, run_id: bytes) -> RunTotals:
        """Counts over a run, tail included."""
        shard = self._find_shard(run_id)
        if shard is not None:
            with self._views.of(shard, run_id) as (connection, view):
                if view is not None:
                    return read.totals(connection, view)
        return RunTotals(points=0, rows=0, last_step=-1, stored_bytes=0)

    def series(
        self, run_id: bytes, names: Sequence[str], *, buckets: int, min_step: int | None = None, max_step: int | None = None
    ) -> list[Buckets]:
        """One chart per name and label, in the order of `names`; unknown names have none.

        Raises:
            DamagedError: A checksum does not fit.
        """
        return self.history(run_id, names, buckets=buckets, min_step=min_step, max_step=max_step)[1]

    def history(
        self, run_id: bytes, names: Sequence[str], *, buckets: int, min_step: int | None = None, max_step: int | None = None
    ) -> tuple[str, list[Buckets]]:
        """As `series`, and the cursor of what it shows: a `delta` from there may repeat some of it, and leaves nothing out.

        Raises:
            DamagedError: A checksum does not fit.
        """
        shard = self._find_shard(run_id)
        if shard is not None:
            with self._views.of(shard, run_id) as (connection, view):
                if view is not None:
                    series = read.series(connection, view, names, buckets=buckets, window=_window(min_step, max_step))
                    return _encode_cursor(view.next_seqs), series
        return self.cursor(run_id), []

    def histograms(
        self, run_id: bytes, name: str, *, limit: int, min_step: int | None = None, max_step: int | None = None
    ) -> tuple[int, list[Histogram]]:
        """Number of stored histograms that match, and at most `limit` of them, evenly spaced."""
        shard = self._find_shard(run_id)
        if shard is None:
            return 0, []
        scanner = read.Scanner(shard, self._views, run_id, [name], window=_window(min_step, max_step), only_histograms=True)
        return scanner.histograms(limit)

    def scan(
        self,
        run_id: bytes,
        names: Sequence[str] | None,
        *,
        min_step: int | None = None,
        max_step: int | None = None,
        samples: int | None = None,
    ) -> Iterator[bytes]:
        """DATA frames of ROWS, rows by ascending step, each step once (the later writer wins per name); None: all names."""
        shard = self._find_shard(run_id)
        if shard is None:
            return iter(())
        return read.Scanner(shard, self._views, run_id, names, window=_window(min_step, max_step)).frames(samples)

    def cursor(self, run_id: bytes) -> str:
        """A cursor for `delta` that stands for everything stored now."""
        return _encode_cursor((writer.writer_id, writer.next_seq) for writer in self.writers(run_id))

    def delta(self, run_id: bytes, cursor: str, names: Sequence[str], known_keys: Sequence[str], *, max_points: int) -> Delta:
        """What arrived in a run since a cursor; `is_snapshot_needed` when the frames behind it are gone."""
        shard = self._find_shard(run_id)
        since = _decode_cursor(cursor)
        if shard is None or since is None:
            return Delta(cursor=self.cursor(run_id), is_snapshot_needed=shard is not None or bool(cursor), series=[], new_keys=[])
        tail = _native.Tail()
        now: list[tuple[int, int]] = []
        with shard.reading() as connection:
            query = "SELECT writer_id, ordinal, next_seq, released_seq FROM writer WHERE run_id = ? ORDER BY ordinal"
            writers = connection.execute(query, (run_id,)).fetchall()
            tail.set_writers(writers_for_native(connection, run_id))
            is_lost = False
            for writer_id, ordinal, next_seq, released_seq in writers:
                now.append((append.to_unsigned(writer_id), next_seq))
                begin = since.get(append.to_unsigned(writer_id), 1)
                if begin >= next_seq:
                    is_lost |= begin > next_seq
                    continue
                if begin <= released_seq:
                    is_lost = True
                    continue
                query = "SELECT data FROM l0 WHERE run_id = ? AND writer_id = ? AND seq >= ? ORDER BY seq"
                frames = connection.stream(query, (run_id, writer_id, begin))
                while not is_lost and (page := frames.fetchmany(_DELTA_PAGE)):
                    added = tail.add_frames([(ordinal, frame) for (frame,) in page], MAX_TAIL_BYTES)
                    is_lost = len(added) < len(page)  # more than a delta may be: a snapshot says it shorter
        if is_lost:
            return Delta(cursor=_encode_cursor(now), is_snapshot_needed=True, series=[], new_keys=[])
        known = set(known_keys)
        series = read.tail_series(tail, names, buckets=max_points)
        numbers = {item.name for item in series if item.raw_points}
        return Delta(
            cursor=_encode_cursor(now),
            is_snapshot_needed=False,
            series=series,
            new_keys=[name for name in tail.names() if name not in known],
            other_keys=[name for name in tail.names() if name not in numbers],
        )

    # Merging.

    def merge(self, run_id: bytes | None = None, *, final: bool = False) -> int:
        """Merge waiting frames into chunks (of one run, or of those that are due); returns frames merged. `final`: small chunks too."""
        if run_id is not None:
            return self._merge_run(run_id, is_final=final)
        return sum(self._merge_run(run_id, is_final=final or is_final) for run_id, is_final in self._merger.due())

    def _merge_run(self, run_id: bytes, *, is_final: bool) -> int:
        shard = self._find_shard(run_id)
        if shard is None:
            return 0
        with self._run_lock:
            lock = self._run_locks.setdefault(run_id, threading.Lock())
        total = 0
        most_frames: int | None = None
        with lock:
            while True:
                try:
                    with shard.merging(run_id):
                        frames = merge_once(shard, run_id, is_final=is_final, most_frames=most_frames)
                except ConflictError:
                    continue
                except StoreError:
                    raise
                except BaseException as error:  # noqa: BLE001 - a panic of `_native` is no Exception
                    if most_frames is None:
                        _log.exception("merge of run %s failed; its frames are merged one by one", run_id.hex())
                        most_frames = 1
                    else:
                        _log.exception("a frame of run %s cannot be merged and goes into quarantine", run_id.hex())
                        with contextlib.suppress(ConflictError):
                            set_first_aside(shard, run_id, f"merging it failed: {error}")
                        most_frames = None
                    continue
                if frames == 0:
                    break
                total += frames
                self._merger.merged(run_id, frames, is_final=is_final)
        if is_final and total == 0:  # merged before it was known to be the last time
            self._release(run_id)
        return total

    def _release(self, run_id: bytes) -> None:
        shard = self._find_shard(run_id)
        if shard is not None:
            with shard.writing() as connection:
                release(connection, run_id)
            self._tails.forget(run_id)

    def sums(self, run_id: bytes) -> list[WriterSums]:
        """What the stored bytes of a run add up to, writer by writer, superseded points included; reads every byte of it."""
        shard = self._find_shard(run_id)
        if shard is None:
            return []
        with shard.reading() as connection:
            return run_sums(connection, run_id)

    def check(self, run_id: bytes) -> list[str]:
        """What is wrong with a stored run, one sentence per finding; reads every byte of it."""
        shard = self._find_shard(run_id)
        if shard is None:
            return []
        with shard.reading() as connection:
            return check_run(connection, run_id)

    def _count_waiting(self, quiet_since_us: int = _FOREVER) -> None:
        """Rebuilds the counters of the merge triggers for runs that have none; of those whose writers were quiet since then."""
        query = (
            "SELECT l.run_id, count(*), sum(l.records), sum(length(l.data)), "
            "(SELECT count(*) FROM writer o WHERE o.run_id = l.run_id AND o.finished_seq IS NULL) "
            "FROM l0 l JOIN writer w ON w.run_id = l.run_id AND w.writer_id = l.writer_id AND l.seq > w.merged_seq GROUP BY l.run_id "
            "HAVING max(w.last_seen_us) < ?"
        )
        for shard in self._databases():
            with shard.reading() as connection:
                waiting = connection.execute(query, (quiet_since_us,)).fetchall()
            for run_id, frames, rows, frame_bytes, open_writers in waiting:
                if not self._merger.knows(run_id):
                    self._merger.stored(run_id, append.Stored(frames, rows, frame_bytes), is_finished=open_writers == 0)

    def close(self) -> None:
        """Ends the merger and closes every connection; calls after that raise `StoreError`."""
        self._merger.close()
        for shard in self._databases():
            shard.close()


def _now_us() -> int:
    return time.time_ns() // 1000


def _window(min_step: int | None, max_step: int | None) -> tuple[int, int]:
    return (read.MIN_STEP if min_step is None else min_step, read.MAX_STEP if max_step is None else max_step)


def _encode_cursor(positions: Iterable[tuple[int, int]]) -> str:
    packed = b"".join(struct.pack("<QQ", writer_id, next_seq) for writer_id, next_seq in positions)
    return _CURSOR_VERSION + base64.urlsafe_b64encode(packed).decode().rstrip("=")


def _decode_cursor(cursor: str) -> dict[int, int] | None:
    """Writer to next number, None for anything that is not a cursor of this version."""
    if not cursor.startswith(_CURSOR_VERSION):
        return None
    text = cursor.removeprefix(_CURSOR_VERSION)
    try:
        packed = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        return dict(struct.iter_unpack("<QQ", packed))
    except (binascii.Error, struct.error, ValueError):
        return None
