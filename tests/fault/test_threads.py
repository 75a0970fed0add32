"""`log()` from very many threads at once: no row is torn or lost, none is counted twice, and each thread keeps its order."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest
import runferry

from tests.support import stored
from tests.support.effort import effort, record

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.servers import RunningServer

THREADS = 64
ROWS = effort("thread_rows", 2_000)
BURSTS = effort("bursts", 3)
BURST_ROWS = 100_000
"""Of the smallest entries about what a ring holds."""


@pytest.mark.fault(61)
@pytest.mark.timeout(180)
def test_64_threads_that_log_as_fast_as_they_can_are_stored_row_by_row_and_counted_exactly(server: RunningServer, tmp_path: Path) -> None:
    run = runferry.init(project="threads", id="many", dir=tmp_path, settings={"base_url": server.url, "silent": True})
    longest_s = [0.0] * THREADS
    together = threading.Barrier(THREADS)

    def work(thread: int) -> None:
        together.wait()
        for number in range(ROWS):
            began_s = time.perf_counter()
            run.log({"thread": thread, "number": number, "sum": thread + number})
            longest_s[thread] = max(longest_s[thread], time.perf_counter() - began_s)

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    run.finish()

    status = run.status()
    assert status.accepted_rows + status.dropped_by_reason.get("ring_full", 0) == THREADS * ROWS
    rows = stored.rows(server.url, run.path)
    assert len(rows) == THREADS * ROWS - status.dropped_rows - status.thinned_rows
    assert all(row["sum"] == row["thread"] + row["number"] for row in rows)
    last = [-1] * THREADS
    for row in rows:
        assert row["number"] > last[row["thread"]], "the rows of a thread stay in order"
        last[row["thread"]] = row["number"]
    record("64 threads at once", rows=len(rows), dropped_rows=status.dropped_rows, longest_log_ms=round(max(longest_s) * 1e3, 1))


@pytest.mark.fault(61)
@pytest.mark.timeout(180)
@pytest.mark.parametrize("number", range(BURSTS))
def test_a_burst_that_fills_the_ring_is_in_the_journal_once_flush_returns_and_wholly_before_the_end(
    number: int, server: RunningServer, tmp_path: Path
) -> None:
    run = runferry.init(project="threads", id=f"burst{number}", dir=tmp_path, settings={"base_url": server.url, "silent": True})
    log = run.log
    for _ in range(BURST_ROWS):
        log({"x": 1.0})
    assert run.flush()
    assert run.status().packed_points == BURST_ROWS
    for _ in range(BURST_ROWS):
        log({"x": 1.0})
    run.finish(timeout=60)

    status = run.status()
    assert (status.accepted_rows, status.packed_points, status.backlog_frames) == (2 * BURST_ROWS, 2 * BURST_ROWS, 0), status.last_error
    stored.wait_for_state(server.url, run.path, "finished")
    assert stored.run(server.url, run.path).metadata["rows"] == 2 * BURST_ROWS
