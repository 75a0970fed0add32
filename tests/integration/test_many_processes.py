"""Eight processes log at once to one server, a group of runs; every value is read back as it was computed."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import runferry

from tests.support import stored, workload
from tests.support.exact import exact
from tests.support.trainers import COMMAND_TIMEOUT_S, ROOT, client_environment

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.servers import RunningServer

PROCESSES, ROWS = 8, 3_000


@pytest.mark.timeout(240)
def test_eight_processes_at_once_are_read_back_exactly(server: RunningServer, tmp_path: Path) -> None:
    trainers = [
        subprocess.Popen(
            [sys.executable, str(ROOT / "tests/support/workload.py"), str(seed), str(ROWS)],
            env=client_environment(tmp_path, base_url=server.url),
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for seed in range(PROCESSES)
    ]
    said = [trainer.communicate(timeout=COMMAND_TIMEOUT_S)[0] for trainer in trainers]
    assert [trainer.returncode for trainer in trainers] == [0] * PROCESSES, said

    for seed in range(PROCESSES):
        stored.wait_for_state(server.url, f"local/many/seed{seed}", "finished")
    runs = list(runferry.Api({"base_url": server.url}).runs("local/many", {"group": "eight"}))
    assert {run.id for run in runs} == {f"seed{seed}" for seed in range(PROCESSES)}
    for seed in range(PROCESSES):
        expected = [(step, {name: exact(value) for name, value in workload.row(seed, step).items()}) for step in range(ROWS)]
        assert stored.cells(server.url, f"local/many/seed{seed}") == expected
        _compare_answers(server, seed, [workload.row(seed, step) for step in range(ROWS)])


def _compare_answers(server: RunningServer, seed: int, rows: list[dict[str, Any]]) -> None:
    """The other answers of the read door against sums over the rows."""
    with httpx.Client(base_url=server.url, timeout=30.0) as api:
        path = f"/api/v1/runs/local/many/seed{seed}"
        counts = {name: sum(name in row for row in rows) for name in {name for row in rows for name in row}}
        found = api.get(path).json()
        assert (found["rows"], found["points"], found["last_step"]) == (ROWS, sum(counts.values()), ROWS - 1)
        assert {metric["name"]: metric["points"] for metric in api.get(path + "/metrics").json()["metrics"]} == counts

        (series,) = api.get(path + "/history", params={"keys": "loss", "buckets": 100}).json()["series"]
        losses = [row["loss"] for row in rows if "loss" in row]
        assert series["raw_points"] == sum(series["count"]) == len(losses)
        assert 0 < len(series["count"]) <= 100
        assert (min(series["min"]), max(series["max"]), series["last"][-1]) == (min(losses), max(losses), losses[-1])
        for first, last, low, high, count in zip(
            *(series[part] for part in ("step_first", "step_last", "min", "max", "count")), strict=True
        ):
            inside = [row["loss"] for row in rows[first : last + 1] if "loss" in row]
            assert (min(inside), max(inside), len(inside)) == (low, high, count)

        few = api.get(path + "/history", params={"keys": "loss", "buckets": 500, "min_step": 10, "max_step": 20}).json()["series"][0]
        assert few["exact"] is True
        assert few["last"] == [row["loss"] for row in rows[10:21] if "loss" in row]
        assert found["summary"]["loss"] == losses[-1]


@pytest.mark.timeout(120)
@pytest.mark.fault(60)
def test_rows_whose_names_never_come_again_and_a_row_of_very_many_are_all_stored(server: RunningServer, tmp_path: Path) -> None:
    run = runferry.init(project="many", id="names", dir=tmp_path, settings={"base_url": server.url, "silent": True})
    for number in range(10_000):
        run.log({f"once/{number}": number})
    run.log({f"wide/{number}": number / 7 for number in range(20_000)})
    run.finish()
    status = run.status()
    assert (status.journal, status.backlog_frames, status.dropped_rows) == ("ok", 0, 0), status.last_error

    rows = stored.rows(server.url, run.path)

    own = [{name: value for name, value in row.items() if not name.startswith("_")} for row in rows]
    assert own[:-1] == [{f"once/{number}": number} for number in range(10_000)]
    assert own[-1] == {f"wide/{number}": number / 7 for number in range(20_000)}
