"""A trainer that gets next to no processor time: its beats still come, its rows are late and complete."""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support import stored
from tests.support.effort import effort, record
from tests.support.trainers import Trainer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.servers import RunningServer

GROUPS = Path("/sys/fs/cgroup/cpu")
PERIOD_US = 100_000
BEATS_MAX_S = 30.0
"""In which a run that lives must have been heard of."""

# Busy threads take the interpreter's lock in turns with the one that logs, and the group's little time from those that pack and send.
TRAINING = """
import sys, threading
import runferry
run = runferry.init(project="starved", id="it", settings={"silent": True})
over = threading.Event()
def busy():
    while not over.is_set():
        sum(range(1000))
rows = 0
def work():
    global rows
    while not over.is_set():
        run.log({"n": rows})
        rows += 1
        over.wait(0.01)
threads = [threading.Thread(target=work), *(threading.Thread(target=busy) for _ in range(BUSY))]
for thread in threads:
    thread.start()
print("ready", flush=True)
sys.stdin.readline()
over.set()
for thread in threads:
    thread.join()
status = run.status()
assert status.dropped_rows == 0, status
run.finish()
print("logged", rows, flush=True)
"""


@contextlib.contextmanager
def starving(pid: int, share_percent: int) -> Iterator[None]:
    """A process gets so much of one processor, whatever the machine has to give; then what it wants again."""
    path = GROUPS / f"runferry-test-{os.getpid()}-{secrets.token_hex(2)}"
    try:
        path.mkdir()
        (path / "cpu.cfs_period_us").write_text(str(PERIOD_US), encoding="ascii")
        (path / "cpu.cfs_quota_us").write_text(str(PERIOD_US * share_percent // 100), encoding="ascii")
        (path / "cgroup.procs").write_text(str(pid), encoding="ascii")
    except OSError as error:
        pytest.skip(f"not run: needs the right to make cpu cgroups (version 1): {error}")
    try:
        yield
    finally:
        (path / "cpu.cfs_quota_us").write_text("-1", encoding="ascii")
        with contextlib.suppress(ProcessLookupError):
            (GROUPS / "cgroup.procs").write_text(str(pid), encoding="ascii")
        path.rmdir()


@pytest.mark.fault(68)
@pytest.mark.timeout(240)
def test_a_trainer_starved_of_the_processor_is_heard_of_and_loses_nothing(server: RunningServer, tmp_path: Path) -> None:
    if sys.platform != "linux":
        pytest.skip("not run: no cgroups")
    code = TRAINING.replace("BUSY", str(effort("busy_threads", 8)))
    beats, longest_s = 0, 0.0
    with Trainer(code, tmp_path, base_url=server.url) as trainer:
        trainer.wait_for("ready")
        stored.wait_for_state(server.url, "local/starved/it", "running")
        with starving(trainer.process.pid, share_percent=2):
            heard_us, heard_at = 0, time.monotonic()
            until = time.monotonic() + effort("starved_s", 8)
            while time.monotonic() < until or beats < 2:
                now_us = stored.run(server.url, "local/starved/it").stored["heartbeat_at_us"]
                if now_us > heard_us:
                    longest_s = max(longest_s, time.monotonic() - heard_at)
                    beats, heard_us, heard_at = beats + 1, now_us, time.monotonic()
                assert time.monotonic() - heard_at < BEATS_MAX_S, "the server hears nothing"
                time.sleep(0.1)
            assert stored.run(server.url, "local/starved/it").state == "running"
        trainer.tell("end")
        rows = int(trainer.line().removeprefix("logged "))
        assert trainer.ended()[0] == 0, trainer.errors.read_text()

    assert [row["n"] for row in stored.rows(server.url, "local/starved/it")] == list(range(rows))
    assert stored.gaps(server.url, "local/starved/it") == []
    record("a trainer that gets 2 % of a processor", rows=rows, beats=beats, longest_silence_s=round(longest_s, 1))
