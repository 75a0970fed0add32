"""What do the calls cost that are not `run.log` of plain numbers?

Each is timed by pytest-benchmark on an offline run (`python -m pytest benchmarks/small_calls.py` shows its own table). Unit: us per call;
calls are timed in groups, so there are no percentiles of single ones. The ring is emptied in the background, and a call that finds
it full waits: the least stands beside the median for that.

Not measured: numbers given to `run.log` (`log_call.py`), histograms of large arrays (`histogram.py`).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import runferry

from benchmarks.figures import ROOT, Figure
from benchmarks.scene import open_run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_benchmark.fixture import BenchmarkFixture

TIMEOUT_S = 300
ROWS: dict[str, dict[str, Any]] = {
    "one text": {"note": "a text of some words"},
    "ten numbers in a nested dict": {"train": {f"metric_{index}": 0.5 for index in range(10)}},
    "a list of ten numbers": {"weights": [0.5] * 10},
    "a histogram of 64 bins": {"gradients": runferry.Histogram([0.5 * index for index in range(1000)])},
}


@pytest.fixture(name="run", scope="module")
def an_offline_run() -> Iterator[runferry.Run]:
    with open_run() as run:
        yield run


@pytest.mark.parametrize("what", ROWS)
def test_log_of(what: str, run: runferry.Run, benchmark: BenchmarkFixture) -> None:
    benchmark(run.log, ROWS[what])


def test_log_without_commit_of_ten_numbers(run: runferry.Run, benchmark: BenchmarkFixture) -> None:
    row = {f"train/metric_{index}": 0.5 for index in range(10)}
    benchmark(lambda: run.log(row, commit=False))


def test_status(run: runferry.Run, benchmark: BenchmarkFixture) -> None:
    benchmark(run.status)


def test_summary_of_one_metric_set(run: runferry.Run, benchmark: BenchmarkFixture) -> None:
    benchmark(lambda: run.summary.update({"best": 0.5}))


def test_histogram_made_of_1000_floats(benchmark: BenchmarkFixture) -> None:
    values = [0.5 * index for index in range(1000)]
    benchmark(runferry.Histogram, values)


def measure() -> Iterator[Figure]:
    """The tests of this file, by pytest."""
    with tempfile.TemporaryDirectory(prefix="runferry-bench-") as folder:
        answer = Path(folder) / "answer.json"
        command = [sys.executable, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider", f"--benchmark-json={answer}", __file__]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"pytest ended with {done.returncode}: {done.stdout[-2000:]}")
        found = json.loads(answer.read_text(encoding="utf-8"))
    for one in found["benchmarks"]:
        name = one["name"].removeprefix("test_").replace("_", " ").replace("[", " ").rstrip("]")
        stats = one["stats"]
        yield Figure(
            name, {"median_us": stats["median"] * 1e6, "least_us": stats["min"] * 1e6, "calls": stats["rounds"] * stats["iterations"]}
        )
