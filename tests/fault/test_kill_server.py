"""kill -9 of the server under load, at random instants and between its commit and its ack: every row is stored once all the same.

The client is left alone: it reconnects by itself to the server that comes up again on the same port and data.
"""

from __future__ import annotations

import os
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
from tests.support.exact import exact
from tests.support.ports import free_port
from tests.support.servers import RunningServer
from tests.support.trainers import END_TIMEOUT_S, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runferry._run import Run

KILLS = int(os.environ.get("RUNFERRY_SERVER_KILLS", "8"))
ROWS_A_BURST = 40
COMMIT_DELAY_US = 30_000
pytestmark = pytest.mark.fault


@contextmanager
def slow_commits(pid: int) -> Iterator[None]:
    """Each fdatasync of the server has reached the disk `COMMIT_DELAY_US` before the server learns of it."""
    inject = f"inject=fdatasync:delay_exit={COMMIT_DELAY_US}"
    tracer = subprocess.Popen(  # noqa: S603 - a fixed command
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


@pytest.mark.timeout(120 + 20 * KILLS)
@pytest.mark.parametrize("commits", [ordinary_commits, slow_commits], ids=["at any instant", "between commit and ack"])
def test_rows_are_stored_exactly_once_when_the_server_is_killed(tmp_path: Path, commits: object) -> None:
    if commits is slow_commits and shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    chance = random.Random(KILLS)
    data, port = tmp_path / "data", free_port()
    settings = {"base_url": f"http://127.0.0.1:{port}", "silent": True}
    unacked_commits = duplicates = 0
    for index in range(KILLS):
        logged = 0

        def burst(run: Run, until: float) -> None:
            nonlocal logged
            while time.monotonic() < until:
                for _ in range(ROWS_A_BURST):
                    run.log({"n": logged, "x": 1 / (logged + 1)})
                    logged += 1
                time.sleep(0.001)  # a training does something between its calls

        with RunningServer(data, port=port) as server:
            run = runferry.init(project="killed", id=f"s{commits is slow_commits:d}{index}", dir=tmp_path, settings=settings)
            burst(run, time.monotonic() + 0.2)
            wait_until(lambda run=run: run.status().acked_frames > 0, "the first ack")
            with commits(server.process.pid):  # type: ignore[operator]
                burst(run, time.monotonic() + 0.2 + 0.2 * chance.random())
                server.kill()
            burst(run, time.monotonic() + 0.05)
        acked = run.status().acked_frames
        unacked_commits += max(0, committed_next_seq(data, tmp_path / "copy", run) - 1 - acked)
        with RunningServer(data, port=port) as server:
            burst(run, time.monotonic() + 0.05)
            run.finish()
            status = run.status()
            assert (status.dropped_rows, status.backlog_frames, status.connection) == (0, 0, "done")
            expected = [(step, {"n": step, "x": exact(1 / (step + 1))}) for step in range(logged)]
            assert stored.cells(server.url, run.path) == expected
            found = stored.run(server.url, run.path)
            assert (found.state, found.stored["gaps"], found.stored["rows"]) == ("finished", 0, logged)
            assert found.stored["points"] == 2 * logged
            duplicates += found.stored["duplicates"]
    print(f"{KILLS} kills, {unacked_commits} frames committed and not acked, {duplicates} sent again in vain")  # noqa: T201 - the result
    if commits is slow_commits:
        assert unacked_commits > 0, "no kill fell between commit and ack"


@pytest.mark.timeout(180)
def test_a_server_that_restarts_cleanly_again_and_again_loses_and_repeats_nothing(tmp_path: Path) -> None:
    data, port = tmp_path / "data", free_port()
    run = None
    logged = 0
    for _ in range(4):
        with RunningServer(data, port=port) as server:
            if run is None:
                run = runferry.init(project="restarts", id="r", dir=tmp_path, settings={"base_url": server.url, "silent": True})
            seen = run.status().acked_frames
            for _ in range(2_000):
                run.log({"n": logged})
                logged += 1
            wait_until(lambda run=run, seen=seen: run.status().acked_frames > seen, "an ack of this server", 60)
            assert server.stop() == 0
    assert run is not None
    with RunningServer(data, port=port) as server:
        run.finish()
        assert stored.cells(server.url, run.path) == [(step, {"n": step}) for step in range(logged)]
        assert re.match(r"http://127\.0\.0\.1:\d+/runs/local/restarts/r", run.url or "")
