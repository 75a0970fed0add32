"""Very many writers: all come back at once after the server was killed in the midst of their frames, and they are more than it can take."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from runferry.server import check

from tests.support import stored
from tests.support.effort import effort, record
from tests.support.memory_group import memory_group
from tests.support.ports import free_port
from tests.support.servers import ROOT, RunningServer, server_environment
from tests.support.swarm import writer_of

if TYPE_CHECKING:
    from collections.abc import Iterator

HERD = effort("swarm_herd", 150)
CROWD = effort("swarm_crowd", 50)
FRAMES = 20
CROWD_FRAMES = 100
MIDDLE = 4
MEMORY_BYTES = (512 << 20) + HERD * (192 << 10)
CPU_GROUPS = Path("/sys/fs/cgroup/cpu")
PERIOD_US = 100_000

pytestmark = pytest.mark.timeout(240 + (HERD + CROWD) // 5)


@contextlib.contextmanager
def swarm(server: RunningServer, writers: int, frames: int = FRAMES) -> Iterator[subprocess.Popen[str]]:
    """All writers, connected; each has sent some of its frames and waits."""
    command = [sys.executable, "-m", "tests.support.swarm", server.write_address, str(writers), str(frames), str(MIDDLE)]
    environment = server_environment() | {"PYTHONPATH": f"{ROOT / 'python'}:{ROOT}"}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT) as running:
        try:
            assert running.stdout is not None
            assert json.loads(running.stdout.readline()) == {"middle": True}
            yield running
        finally:
            running.kill()


def go_on(running: subprocess.Popen[str]) -> None:
    """Let them send the rest; returns when half of it is acked."""
    assert running.stdin is not None
    assert running.stdout is not None
    running.stdin.write("go\n")
    running.stdin.flush()
    assert json.loads(running.stdout.readline()) == {"half": True}


def rest_of(running: subprocess.Popen[str]) -> dict[str, Any]:
    """Wait for their end; what they saw."""
    assert running.stdout is not None
    answer = running.stdout.readline()
    assert running.wait() == 0
    told: dict[str, Any] = json.loads(answer)
    assert told["acked_in_vain"] == 0, "the server has acked what it does not have"
    return told


def assert_all_there(server: RunningServer, writers: int, frames: int = FRAMES) -> None:
    """Every row, once, of all writers or of fifty; the ledger is checked for all."""
    for index in range(0, writers, max(1, writers // 50)):
        path = f"local/demo/{writer_of(index).id}"
        stored.wait_for_state(server.url, path, "finished")
        assert [row["_step"] for row in stored.rows(server.url, path)] == list(range(frames - 1))


@pytest.mark.fault(69)
def test_after_a_kill_all_writers_come_back_at_once_and_none_is_left_out(tmp_path: Path) -> None:
    data, port = tmp_path / "data", free_port()
    with memory_group(MEMORY_BYTES) as group:
        with RunningServer(data, port=port, prefix=group.prefix) as server, swarm(server, HERD) as running:
            go_on(running)
            server.kill()
            with RunningServer(data, port=port, prefix=group.prefix) as again:
                told = rest_of(running)
                assert_all_there(again, HERD)
                assert again.stop() == 0
        assert group.kills() == 0
        record("a herd comes back", writers=HERD, server_mib=group.take_peak_bytes() >> 20, **told)
    assert check.main(["--data", str(data)]) == 0


@contextlib.contextmanager
def slowed(pid: int, share: float) -> Iterator[None]:
    """The process gets so much of one processor."""
    group = CPU_GROUPS / f"runferry-test-{os.getpid()}-{secrets.token_hex(2)}"
    try:
        group.mkdir()
        (group / "cpu.cfs_period_us").write_text(str(PERIOD_US), encoding="ascii")
        (group / "cpu.cfs_quota_us").write_text(str(int(PERIOD_US * share)), encoding="ascii")
        (group / "cgroup.procs").write_text(str(pid), encoding="ascii")
    except OSError as error:
        pytest.skip(f"not run: needs the right to make processor cgroups (version 1): {error}")
    try:
        yield
    finally:
        (CPU_GROUPS / "cgroup.procs").write_text(str(pid), encoding="ascii")
        group.rmdir()


@pytest.mark.fault(70)
def test_more_writers_than_the_server_can_take_all_get_on_and_lose_nothing(tmp_path: Path) -> None:
    with RunningServer(tmp_path / "data") as server, swarm(server, CROWD, CROWD_FRAMES) as running:
        with slowed(server.process.pid, 0.1):
            go_on(running)
            told = rest_of(running)

        assert told["least_at_half"] > MIDDLE, "a writer had not got on when the others were half through"
        assert_all_there(server, CROWD, CROWD_FRAMES)
        record("more writers than it can take", writers=CROWD, **told)
        assert server.stop() == 0
    assert check.main(["--data", str(tmp_path / "data")]) == 0
