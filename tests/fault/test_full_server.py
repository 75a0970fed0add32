"""The server's disk is full, or fails: nothing is acked that is not there, writers wait and go on, and rows are stored once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import runferry

from tests.support import stored
from tests.support.mounts import mounted
from tests.support.ports import free_port
from tests.support.servers import RunningServer
from tests.support.syscalls import injected
from tests.support.told import noise
from tests.support.trainers import wait_until

if TYPE_CHECKING:
    from pathlib import Path


NOISE_BYTES = 200_000
"""A row's text: half as much once it is packed."""


@pytest.mark.fault(72)
@pytest.mark.timeout(120)
@pytest.mark.parametrize("keep_free", ["1GiB", "0"], ids=["stops before it is full", "runs into the end"])
def test_a_full_disk_of_the_server_makes_writers_wait_and_costs_nothing(tmp_path: Path, keep_free: str) -> None:
    with mounted(tmp_path / "disk", "size=32m") as disk, RunningServer(disk.path, "--keep-free", keep_free) as server:
        run = runferry.init(project="full", id="r", dir=tmp_path, settings={"base_url": server.url, "silent": True})
        for number in range(400):
            run.log({"n": number, "noise": noise(number, NOISE_BYTES)})
            if number % 10 == 9:
                assert run.flush()  # twenty fill the ring: none shall go because this machine's own disk is busy
        wait_until(lambda: "frames wait" in server.log.read_text(), "the server says that it takes nothing")
        assert run.status().backlog_frames > 0
        first = next(line for line in server.log.read_text().splitlines() if "frames wait" in line)
        assert ("have to stay free" in first) == (keep_free != "0")
        seen = [row["n"] for row in stored.rows(server.url, run.path, keys=["n"])]
        assert seen == list(range(len(seen))), "reads go on"

        disk.resize(400)
        assert run.flush(acked=True, timeout=60), run.status()
        run.finish()

        rows = stored.rows(server.url, run.path)
        assert [row["n"] for row in rows] == list(range(400))
        assert all(row["noise"] == noise(row["n"], NOISE_BYTES) for row in rows)
        assert stored.gaps(server.url, run.path) == []
        assert len(server.log.read_text()) < 20_000, "trouble that lasts is not told at each attempt"


@pytest.mark.fault(72)
@pytest.mark.timeout(120)
@pytest.mark.parametrize(("call", "when"), [("fdatasync", "1"), ("fdatasync", "4+3"), ("pwrite64", "3")])
def test_a_commit_of_unknown_outcome_is_asked_for_and_no_row_is_lost_or_doubled(tmp_path: Path, call: str, when: str) -> None:
    with RunningServer(tmp_path / "data") as server:
        run = runferry.init(project="eio", id="r", dir=tmp_path, settings={"base_url": server.url, "silent": True})
        run.log({"n": 0})
        assert run.flush(acked=True, timeout=30)
        with injected(server.process.pid, f"{call}:error=EIO:when={when}"):
            for number in range(1, 400):
                run.log({"n": number})
                if number % 25 == 0:
                    run.flush(acked=True, timeout=0.2)
        assert run.flush(acked=True, timeout=60), run.status()
        run.finish()

        assert [row["n"] for row in stored.rows(server.url, run.path)] == list(range(400))
        stored.wait_for_state(server.url, run.path, "finished")
        assert stored.gaps(server.url, run.path) == []
        assert server.stop() == 0


@pytest.mark.fault(72, 9)
@pytest.mark.timeout(180)
@pytest.mark.parametrize("call", ["fdatasync", "pwrite64"])
def test_a_server_killed_inside_a_commit_that_fails_loses_nothing_it_acked(tmp_path: Path, call: str) -> None:
    data, port = tmp_path / "data", free_port()
    run = None
    logged = 0
    for kill_at in (2, 9):
        with RunningServer(data, port=port) as server:
            if run is None:
                run = runferry.init(project="eio", id="killed", dir=tmp_path, settings={"base_url": server.url, "silent": True})
            with injected(server.process.pid, f"{call}:error=EIO:signal=SIGKILL:when={kill_at}"):
                while server.process.poll() is None:
                    run.log({"n": logged})
                    logged += 1
                    run.flush(acked=True, timeout=0.05)
            server.wait()
    assert run is not None
    with RunningServer(data, port=port) as server:
        run.finish()
        assert [row["n"] for row in stored.rows(server.url, run.path)] == list(range(logged))
        wait_until(lambda: stored.run(server.url, run.path).stored["gaps"] == 0, "no gaps")
