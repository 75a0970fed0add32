"""A server that goes away again and again under traffic, by SIGTERM and by SIGKILL: nothing is lost, nothing is stored twice.

Bounded here; `RUNFERRY_EFFORT_RESTARTS_S=600` is ten minutes of it for each.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.support.effort import effort, record
from tests.support.exactly_once import Training
from tests.support.ports import free_port
from tests.support.servers import RunningServer

if TYPE_CHECKING:
    from pathlib import Path

RESTARTS_S = effort("restarts_s", 5)
UP_S = 2.0 if RESTARTS_S >= 30 else 0.5
TRAININGS = 2
MEASURED_FROM_S = 60


@pytest.mark.fault(34, 35)
@pytest.mark.timeout(300 + 2 * RESTARTS_S)
@pytest.mark.parametrize("way", ["SIGTERM", "SIGKILL"])
def test_a_server_that_ends_every_other_second_gets_each_row_once(tmp_path: Path, way: str) -> None:
    data, port = tmp_path / "data", free_port()
    begun, ends = time.monotonic(), 0
    trainings: list[Training] = []
    while time.monotonic() - begun < RESTARTS_S or ends < 2:
        with RunningServer(data, port=port) as server:
            trainings = trainings or [Training(server.url, tmp_path, f"t{number}", project=way) for number in range(TRAININGS)]
            go_on(trainings, UP_S)
            if way == "SIGTERM":
                assert server.stop() == 0, server.log.read_text()
            else:
                server.kill()
            ends += 1
        go_on(trainings, 0.1)
    assert any(training.run.status().retries for training in trainings) or way == "SIGTERM"
    with RunningServer(data, port=port) as server:
        duplicates = sum(training.check(server.url) for training in trainings)
        assert "Traceback" not in server.log.read_text(), server.log.read_text()
    rows = sum(training.logged for training in trainings)
    record(
        f"server ended by {way} under traffic", ends=ends, seconds=RESTARTS_S, rows=rows, lost=0, doubled=0, sent_again_in_vain=duplicates
    )


def go_on(trainings: list[Training], for_s: float) -> None:
    """All of them log for so long; slower in a long test, whose rows are all compared in the end."""
    burst, pause_s = (5, 0.02) if RESTARTS_S >= MEASURED_FROM_S else (20, 0.005)
    until = time.monotonic() + for_s
    while time.monotonic() < until:
        for training in trainings:
            training.log(burst)
        time.sleep(pause_s)
