"""When to merge: triggers per run, and the threads that obey them.

A run is merged once enough waits: rows (short chunks cost space and reads), frames or bytes (a long tail costs readers),
age, or its last writer's FINISH. Counters live in memory and are rebuilt from the tables at start.

A run is merged by one thread at a time, several runs side by side: what a merge computes needs no interpreter, and what it writes takes
turns in the store.

Shutdown: `close` ends the threads after the merges they are in; what still waits stays in the frames, where it is as safe.
Failure: a merge that fails, or a release, is logged and tried again with growing pauses; ingest and readers go on meanwhile.
"""

from __future__ import annotations

import logging
import os
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from runferry.server.store.append import Stored

ROWS = 512
FRAMES = 64
BYTES = 8 << 20
AGE_S = 60.0
QUIET_S = 300.0
"""A merged tail nobody adds to is kept so long for live readers."""
THREADS = max(1, min(4, os.cpu_count() or 1))
"""Each holds the memory of one merge."""
_POLL_S = 1.0
_MAX_PAUSE_S = 60.0

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Waiting:
    frames: int = 0
    rows: int = 0
    bytes: int = 0
    since_s: float | None = None
    is_finished: bool = False
    changed_s: float = 0.0
    is_released: bool = True
    retry_s: float = 0.0
    failures: int = 0
    stores: int = 0
    """How often something was counted."""

    def is_due(self, now_s: float) -> bool:
        if now_s < self.retry_s:
            return False
        if self.frames == 0:
            return self.is_finished
        is_old = self.since_s is not None and now_s - self.since_s >= AGE_S
        return self.is_finished or is_old or self.rows >= ROWS or self.frames >= FRAMES or self.bytes >= BYTES


class Merger:
    """The threads `rf-merge-N` and the counters behind them. `clock` counts seconds and never goes back."""

    def __init__(self, merge: Callable[[bytes, bool], int], release: Callable[[bytes], None], clock: Callable[[], float]) -> None:
        self._merge = merge
        self._release = release
        self._clock = clock
        self._runs: dict[bytes, _Waiting] = {}
        self._condition = threading.Condition()
        self._is_closed = False
        self._merging: set[bytes] = set()
        self._looked_s = 0.0
        """When quiet runs were looked for."""
        self._threads = [threading.Thread(target=self._work, name=f"rf-merge-{number}", daemon=True) for number in range(THREADS)]

    def start(self) -> None:
        """Begins to merge in the background."""
        for thread in self._threads:
            thread.start()

    def knows(self, run_id: bytes) -> bool:
        """Whether something of the run is counted."""
        with self._condition:
            return run_id in self._runs

    def stored(self, run_id: bytes, stored: Stored, *, is_finished: bool) -> None:
        """Counts what an append added."""
        with self._condition:
            waiting = self._runs.setdefault(run_id, _Waiting())
            waiting.stores += 1
            waiting.frames += stored.frames
            waiting.rows += stored.rows
            waiting.bytes += stored.bytes
            waiting.is_finished = is_finished
            waiting.changed_s = self._clock()
            if waiting.since_s is None and stored.frames:
                waiting.since_s = waiting.changed_s
            if waiting.is_due(waiting.changed_s):
                self._condition.notify()

    def merged(self, run_id: bytes, frames: int, *, is_final: bool) -> None:
        """Counts what a merge took; below zero is a start before the counters were rebuilt."""
        with self._condition:
            waiting = self._runs.get(run_id)
            if waiting is None:
                return
            waiting.frames = max(waiting.frames - frames, 0)
            waiting.rows = waiting.bytes = 0
            waiting.since_s = self._clock() if waiting.frames else None
            waiting.is_released = is_final
            waiting.failures = 0
            if waiting.frames == 0 and is_final:
                del self._runs[run_id]

    def _stores(self, run_id: bytes) -> int:
        with self._condition:
            waiting = self._runs.get(run_id)
            return 0 if waiting is None else waiting.stores

    def _found_nothing(self, run_id: bytes, stores: int, *, is_final: bool) -> None:
        """A merge began after so many `stored` and found no frames: the counters ran ahead of the tables, unless more was stored since."""
        with self._condition:
            if self._stores(run_id) == stores:
                self.merged(run_id, 1 << 62, is_final=is_final)

    def due(self) -> list[tuple[bytes, bool]]:
        """Runs to be merged now, and whether it is their last merge for the time being."""
        now_s = self._clock()
        with self._condition:
            return [(run_id, waiting.is_finished) for run_id, waiting in self._runs.items() if waiting.is_due(now_s)]

    def _claim(self) -> tuple[bytes, bool] | None:
        """A due run that nobody merges, the one that has waited longest for its turn; the caller merges it."""
        now_s = self._clock()
        for run_id, waiting in self._runs.items():
            if run_id not in self._merging and waiting.is_due(now_s):
                self._merging.add(run_id)
                self._runs[run_id] = self._runs.pop(run_id)  # behind all others
                return run_id, waiting.is_finished
        return None

    def _claim_quiet(self) -> list[tuple[bytes, int]]:
        """Quiet runs, with how often something was counted for them, as `_claim` does; none between two looks."""
        now_s = self._clock()
        with self._condition:
            if now_s - self._looked_s < _POLL_S:
                return []
            self._looked_s = now_s
            quiet = [
                (run_id, waiting.stores)
                for run_id, waiting in self._runs.items()
                if waiting.frames == 0
                and not waiting.is_released
                and now_s - waiting.changed_s >= QUIET_S
                and now_s >= waiting.retry_s
                and run_id not in self._merging
            ]
            self._merging.update(run_id for run_id, _ in quiet)
            return quiet

    def _failed(self, run_id: bytes) -> None:
        with self._condition:
            waiting = self._runs.setdefault(run_id, _Waiting())
            waiting.failures += 1
            waiting.retry_s = self._clock() + min(2.0**waiting.failures, _MAX_PAUSE_S)

    def _work(self) -> None:
        while True:
            with self._condition:
                claimed = self._claim()
                if claimed is None and not self._is_closed:
                    self._condition.wait(_POLL_S)
                    claimed = self._claim()
                if self._is_closed:
                    return
            if claimed is not None:
                self._merge_one(*claimed)
                with self._condition:
                    self._merging.discard(claimed[0])
            self._release_quiet()

    def _merge_one(self, run_id: bytes, is_final: bool) -> None:  # noqa: FBT001 - as it was claimed
        stores = self._stores(run_id)
        try:
            if self._merge(run_id, is_final) == 0:
                self._found_nothing(run_id, stores, is_final=is_final)
        except BaseException:  # noqa: BLE001 - one run's trouble, a panic of `_native` too, must not end the merges of all
            _log.exception("merge of run %s failed; it will be tried again", run_id.hex())
            self._failed(run_id)

    def _release_quiet(self) -> None:
        for run_id, stores in self._claim_quiet():
            is_released = False
            try:
                self._release(run_id)
                is_released = True
            except BaseException:  # noqa: BLE001 - as in `_merge_one`: this run's trouble, not that of the thread or of other runs
                _log.exception("frames of the quiet run %s were not released; it will be tried again", run_id.hex())
                self._failed(run_id)
            with self._condition:
                self._merging.discard(run_id)
                if is_released and self._stores(run_id) == stores:
                    self._runs.pop(run_id, None)

    def close(self) -> None:
        """Ends the threads after the merges they are in."""
        with self._condition:
            self._is_closed = True
            self._condition.notify_all()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()
