"""Clocks that jump and processes that stand still: late is not lost, and silence is not death."""

from __future__ import annotations

import itertools
import signal
import time
from typing import TYPE_CHECKING

import pytest

from tests.support import stored
from tests.support.clock import WallClock
from tests.support.effort import effort
from tests.support.ports import free_port
from tests.support.servers import RunningServer
from tests.support.trainers import Trainer, wait_until

if TYPE_CHECKING:
    from pathlib import Path

DAY_S = 86_400
SILENT_FOR_S = {"quiet": 120, "lost": 1200}
"""How far a server's clock is set ahead for a run that it does not hear of."""

TRAINING = """
import os, sys, threading, time
import runferry
run = runferry.init(project="clocks", id=sys.argv[1] if len(sys.argv) > 1 else "it", settings={"silent": True})
number = 0
over = threading.Event()
def listen():
    for line in sys.stdin:
        if line == "end\\n":
            over.set()
        else:
            print("shown", number, time.time(), flush=True)
threading.Thread(target=listen, daemon=True).start()
print("ready", flush=True)
while not over.is_set():
    run.log({"n": number})
    number += 1
    over.wait(0.002)
assert run.flush(acked=True, timeout=60), run.status()
run.finish()
print("logged", number, flush=True)
"""
PATH = "local/clocks/it"


def state(server: RunningServer) -> str:
    return str(stored.run(server.url, PATH).state)


def shown(trainer: Trainer) -> tuple[int, float]:
    """How many rows it has logged, and what time it believes it is."""
    trainer.tell("show")
    number, seconds = trainer.line().removeprefix("shown ").split()
    return int(number), float(seconds)


def logged(trainer: Trainer) -> int:
    """End it; how many rows it has logged."""
    trainer.tell("end")
    line = trainer.line()
    while not line.startswith("logged "):
        assert line, trainer.errors.read_text()
        line = trainer.line()
    assert trainer.ended()[0] == 0
    return int(line.removeprefix("logged "))


@pytest.mark.fault(32)
@pytest.mark.timeout(180)
def test_a_trainer_whose_wall_clock_jumps_by_days_is_sent_in_order_and_reconnects_as_ever(tmp_path: Path) -> None:
    clock, port = WallClock(tmp_path), free_port()
    with (
        RunningServer(tmp_path / "data", port=port) as server,
        Trainer(TRAINING, tmp_path, prefix=clock.prefix, base_url=server.url) as trainer,
    ):
        trainer.wait_for("ready")
        stored.wait_for_state(server.url, PATH, "running")
        for days in (1, -1, 3650, 0):
            number, before_s = shown(trainer)
            clock.set(days * DAY_S)
            server.kill()  # backoff, timeouts and deadlines are measured while the clock is elsewhere
            _, now_s = shown(trainer)
            assert abs(now_s - before_s) > DAY_S / 2, "the clock of the trainer has jumped"
            server = RunningServer(tmp_path / "data", port=port)  # noqa: PLW2901 - the same place
            with server:
                wait_until(lambda: stored.run(server.url, PATH).stored["rows"] > number, "rows from behind the jump")  # noqa: B023
                assert state(server) == "running"
                if days == 0:
                    rows = logged(trainer)
                    found = stored.rows(server.url, PATH)
                    assert stored.gaps(server.url, PATH) == []

    assert [row["n"] for row in found] == list(range(rows))
    assert [row["_step"] for row in found] == list(range(rows))
    jumps = [later["_timestamp"] - earlier["_timestamp"] for earlier, later in itertools.pairwise(found)]
    assert sum(abs(jump) > DAY_S / 2 for jump in jumps) == 4, "times are kept as they were read"


@pytest.mark.fault(32, 74)
@pytest.mark.timeout(180)
def test_a_run_that_dies_behind_a_jump_of_the_servers_clock_is_quiet_in_time_and_not_a_day_later(tmp_path: Path) -> None:
    clock = WallClock(tmp_path)
    with (
        RunningServer(tmp_path / "data", prefix=clock.prefix) as server,
        Trainer(TRAINING, tmp_path, base_url=server.url) as trainer,
    ):
        trainer.wait_for("ready")
        stored.wait_for_state(server.url, PATH, "running")
        clock.set(-DAY_S)
        heard_us = int((time.time() - DAY_S / 2) * 1e6)
        wait_until(lambda: stored.run(server.url, PATH).stored["heartbeat_at_us"] < heard_us, "a beat of the new time")

        trainer.kill()
        clock.set(-DAY_S + SILENT_FOR_S["quiet"])

        stored.wait_for_state(server.url, PATH, "quiet")


@pytest.mark.fault(33)
@pytest.mark.timeout(240)
@pytest.mark.parametrize("server_is", ["there", "gone and back"])
def test_a_trainer_that_stood_still_is_quiet_then_lost_and_running_again_with_nothing_missing(tmp_path: Path, server_is: str) -> None:
    """As a laptop that sleeps, or a job that a scheduler stops. The ten minutes pass on the server's clock alone."""
    clock, port = WallClock(tmp_path), free_port()
    server = RunningServer(tmp_path / "data", port=port, prefix=clock.prefix)
    try:
        with Trainer(TRAINING, tmp_path, base_url=server.url) as trainer:
            trainer.wait_for("ready")
            stored.wait_for_state(server.url, PATH, "running")
            number, _ = shown(trainer)
            trainer.send(signal.SIGSTOP)
            try:
                if server_is == "gone and back":
                    server.kill()
                    server = RunningServer(tmp_path / "data", port=port, prefix=clock.prefix)
                for silent, seconds in SILENT_FOR_S.items():
                    clock.set(seconds)
                    stored.wait_for_state(server.url, PATH, silent)
                time.sleep(effort("stopped_s", 0))
            finally:
                trainer.send(signal.SIGCONT)

            stored.wait_for_state(server.url, PATH, "running")
            wait_until(lambda: stored.run(server.url, PATH).stored["rows"] > number, "what it goes on to log")
            rows = logged(trainer)
            stored.wait_for_state(server.url, PATH, "finished")
            assert [row["n"] for row in stored.rows(server.url, PATH)] == list(range(rows))
            assert len(stored.run(server.url, PATH).writers()) == 1
    finally:
        if server.process.poll() is None:
            server.stop()
