"""kill -9 of the server under load, at random instants and between its commit and its ack: every row is stored once all the same.

The client is left alone: it reconnects by itself to the server that comes up again on the same port and data.
"""

from __future__ import annotations

import random
import re
import shutil
import sqlite3
import subprocess
import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import pytest
import runferry

from tests.support import stored
from tests.support.effort import effort, record
from tests.support.exact import exact
from tests.support.ports import free_port
from tests.support.servers import RunningServer
from tests.support.trainers import END_TIMEOUT_S, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from runferry._run import Run

KILLS = effort("server_kills", 4)
ROWS_A_BURST = 40
COMMIT_DELAY_US = 100_000
MOST_KILLS = max(40, KILLS)


@contextmanager
def slow_commits(pid: int) -> Iterator[None]:
    """Each fdatasync of the server has reached the disk `COMMIT_DELAY_US` before the server learns of it."""
    inject = f"inject=fdatasync:delay_exit={COMMIT_DELAY_US}"
    tracer = subprocess.Popen(
        ["strace", "-f", "-p", str(pid), "-e", "trace=fdatasync", "-e", inject],  # noqa: S607 - where the system has it
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert tracer.stderr is not None
        first = tracer.stderr.readline()
        if "attached" not in first:
            pytest.skip(f"strace may not attach here: {first}")
        yield
    finally:
        tracer.terminate()
        tracer.communicate(timeout=END_TIMEOUT_S)


@contextmanager
def ordinary_commits(_pid: int) -> Iterator[None]:
    """Nothing is slowed."""
    yield


def committed_next_seq(data: Path, copy: Path, run: Run) -> int:
    """What the dead server's store holds of a run's writer, read from a copy."""
    shutil.copytree(data / "metrics", copy)
    found = 1
    for shard in copy.glob("metrics-*.db"):
        with closing(sqlite3.connect(shard)) as connection:
            for (next_seq,) in connection.execute("SELECT next_seq FROM writer WHERE writer_id = ?", (run._writer.writer_id,)):  # noqa: SLF001
                found = max(found, next_seq)
    shutil.rmtree(copy)
    return found


class Training:
    """A run, and how many rows it has logged: `n` from 0 on."""

    def __init__(self, run_id: str, folder: Path, port: int) -> None:
        self.run = runferry.init(project="killed", id=run_id, dir=folder, settings={"base_url": f"http://127.0.0.1:{port}", "silent": True})
        self.logged = 0

    def go_on(self, for_s: float) -> None:
        """Log bursts of rows for so long."""
        until = time.monotonic() + for_s
        while time.monotonic() < until:
            for _ in range(ROWS_A_BURST):
                self.run.log({"n": self.logged, "x": 1 / (self.logged + 1)})
                self.logged += 1
            time.sleep(0.001)  # a training does something between its calls

    @property
    def acked(self) -> int:
        """Frames that the server said are durable."""
        return self.run.status().acked_frames


@pytest.mark.fault(7, 9, 35)
@pytest.mark.timeout(120 + 20 * MOST_KILLS)
@pytest.mark.parametrize("commits", [ordinary_commits, slow_commits], ids=["at any instant", "between commit and ack"])
def test_rows_are_stored_exactly_once_when_the_server_is_killed(
    tmp_path: Path, commits: Callable[[int], AbstractContextManager[None]]
) -> None:
    if commits is slow_commits and shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    chance = random.Random(KILLS)
    data, port = tmp_path / "data", free_port()
    unacked = duplicates = kills = 0
    # Where a kill falls is chance; it goes on until one has fallen between commit and ack.
    while kills < KILLS or (commits is slow_commits and unacked == 0 and kills < MOST_KILLS):
        kills += 1
        with RunningServer(data, port=port) as server:
            training = Training(f"k{kills}", tmp_path, port)
            training.go_on(0.2)
            wait_until(lambda: training.acked > 0, "the first ack")  # noqa: B023 - called before the next round
            with commits(server.process.pid):
                training.go_on(0.2 + 0.2 * chance.random())
                server.kill()
        training.go_on(0.05)
        unacked += max(0, committed_next_seq(data, tmp_path / "copy", training.run) - 1 - training.acked)
        with RunningServer(data, port=port) as server:
            training.go_on(0.05)
            duplicates += check_all_stored(server, training)
    way = "between commit and ack" if commits is slow_commits else "at any instant"
    record(f"servers killed {way}", kills=kills, frames_committed_and_not_acked=unacked, sent_again_in_vain=duplicates, lost=0, doubled=0)
    if commits is slow_commits:
        assert unacked > 0, "no kill fell between commit and ack"


def check_all_stored(server: RunningServer, training: Training) -> int:
    """Finish the run and compare what is stored with what was logged; returns the duplicates the server has dropped."""
    run, logged = training.run, training.logged
    run.finish()
    status = run.status()
    assert (status.dropped_rows, status.backlog_frames, status.connection) == (0, 0, "done")
    assert stored.cells(server.url, run.path) == [(step, {"n": step, "x": exact(1 / (step + 1))}) for step in range(logged)]
    stored.wait_for_state(server.url, run.path, "finished")
    found = stored.run(server.url, run.path).stored
    assert (found["gaps"], found["rows"], found["points"]) == (0, logged, 2 * logged)
    return int(found["duplicates"])


@pytest.mark.fault(34)
@pytest.mark.timeout(180)
def test_a_server_that_restarts_cleanly_again_and_again_loses_and_repeats_nothing(tmp_path: Path) -> None:
    data, port = tmp_path / "data", free_port()
    run = None
    logged = 0
    for _ in range(4):
        with RunningServer(data, port=port) as server:
            if run is None:
                run = runferry.init(project="restarts", id="r", dir=tmp_path, settings={"base_url": server.url, "silent": True})
            for _ in range(2_000):
                run.log({"n": logged})
                logged += 1
            assert run.flush(acked=True, timeout=60), run.status()
            assert server.stop() == 0
    assert run is not None
    with RunningServer(data, port=port) as server:
        run.finish()
        assert stored.cells(server.url, run.path) == [(step, {"n": step}) for step in range(logged)]
        assert re.match(r"http://127\.0\.0\.1:\d+/runs/local/restarts/r", run.url or "")
