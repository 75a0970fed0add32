"""What does logging the histogram of an array cost the caller, against copying its buffer once?

An array of float32 values, as the gradients of a layer, given to `run.log` as it is and as `runferry.Histogram(array)`; with both
`array.copy()`, the least that keeps its values, takes turns. Units: ms per call; `times_copy` is the ratio of the two medians.

Not measured: the memory that a copy would hold until its values are binned.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

import numpy as np
import runferry

from benchmarks.bursts import calling, in_turns
from benchmarks.figures import Figure
from benchmarks.scene import open_run, running_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from benchmarks.scene import BenchServer

VALUES = (10_000, 1_000_000)
CALLS, BURSTS, WARM_UP = 5, 20, 2
FLUSH_TIMEOUT_S = 60.0


def measure() -> Iterator[Figure]:
    """Both sizes in both forms, each on a run of its own."""
    with running_server() as server:
        for size in VALUES:
            array = np.random.default_rng(size).standard_normal(size).astype(np.float32)
            yield _figure(server, f"{size:,} float32 values, the array", array, lambda array: array)
            yield _figure(server, f"{size:,} float32 values, Histogram(array)", array, runferry.Histogram)


def _figure(server: BenchServer, what: str, array: NDArray[np.float32], given: Callable[[Any], Any]) -> Figure:
    rows: list[dict[str, Any]] = [{"gradients": array}] * CALLS
    copied: list[Any] = []
    with open_run(server) as run:
        kinds = {
            "copy": calling(lambda row: copied.append(row["gradients"].copy()), rows, copied.clear),
            "log": calling(
                lambda row: run.log({"gradients": given(row["gradients"])}), rows, lambda: run.flush(acked=True, timeout=FLUSH_TIMEOUT_S)
            ),
        }
        timed_ns = in_turns(kinds, bursts=BURSTS, warm_up=WARM_UP)
        dropped = run.status().dropped_rows + run.status().dropped_values
    copy_ns, log_ns = (statistics.median(timed_ns[name]) for name in ("copy", "log"))
    return Figure(
        what,
        {
            "log_median_ms": log_ns / 1e6,
            "log_greatest_ms": max(timed_ns["log"]) / 1e6,
            "copy_median_ms": copy_ns / 1e6,
            "times_copy": log_ns / copy_ns,
            "dropped": dropped,
        },
    )
