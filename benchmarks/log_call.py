"""What does one `Run.log` call cost the training loop?

Unit: ns per call; median, 99th and 99.9th percentile over all calls, with the timer's own cost taken off. Calls come in bursts
that fit the ring several times over; between bursts a flush empties it, so nobody ever waits. Beside each burst the same rows
go through `rows.append(dict(row))`, the least that keeps a copy, and the ratio is that of the two medians of the same minute.

Not measured: making the values (a `.item()` of a tensor costs more than the call), a full ring, disk and network (`end_to_end.py`).
On a busy machine the upper percentiles show the scheduler.
"""

from __future__ import annotations

import gc
import statistics
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.figures import Figure, quantiles
from benchmarks.scene import open_run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from runferry import Run

    Rows = Sequence[dict[str, Any]]

BURST_CALLS, BURSTS, WARM_UP_BURSTS = 500, 40, 4
_TIMER_SAMPLES = 20_000


def measure() -> Iterator[Figure]:
    """Every shape of call."""
    for scalars in (1, 10, 100):
        yield _figure(f"{scalars} scalars" if scalars > 1 else "1 scalar", lambda run: run.log, _rows(scalars))
    yield _figure("10 scalars, step= given", _with_step, _rows(10))
    yield _figure("10 numpy float32 scalars", lambda run: run.log, _rows(10, kind=np.float32))
    yield _figure("10 scalars, fresh key objects", lambda run: run.log, _rows(10, fresh_keys=True))


def _figure(what: str, call_of: Callable[[Run], Callable[[dict[str, Any]], None]], rows: Rows) -> Figure:
    timer_ns = _timer_cost_ns()
    kept: list[dict[str, Any]] = []

    def append(row: dict[str, Any]) -> None:
        kept.append(dict(row))

    log_ns: list[int] = []
    append_ns: list[int] = []
    with open_run() as run:
        log = call_of(run)
        gc.collect()
        gc.freeze()  # the prepared rows are no part of what a collection during a burst should walk
        for burst in range(WARM_UP_BURSTS + BURSTS):
            logged = _burst(log, rows)
            run.flush(timeout=30)
            appended = _burst(append, rows)
            kept.clear()
            if burst >= WARM_UP_BURSTS:
                log_ns += logged
                append_ns += appended
        gc.unfreeze()
        status = run.status()
    found = quantiles([max(0, one - timer_ns) for one in log_ns], "ns")
    append_median_ns = max(1.0, statistics.median(append_ns) - timer_ns)
    lost = status.dropped_rows + status.behind_rows + status.dropped_values
    return Figure(what, {**found, "append_median_ns": append_median_ns, "ratio": found["median_ns"] / append_median_ns, "dropped": lost})


def _burst(call: Callable[[dict[str, Any]], None], rows: Rows) -> list[int]:
    durations_ns = []
    for row in rows:
        began_ns = perf_counter_ns()
        call(row)
        durations_ns.append(perf_counter_ns() - began_ns)
    return durations_ns


def _with_step(run: Run) -> Callable[[dict[str, Any]], None]:
    """`log` with a step that grows; the Python frame around it is part of the figure, as it is of the appending one."""
    log, step = run.log, -1

    def log_at_step(row: dict[str, Any]) -> None:
        nonlocal step
        step += 1
        log(row, step=step)

    return log_at_step


def _rows(scalars: int, kind: Callable[[float], Any] = float, *, fresh_keys: bool = False) -> Rows:
    """A burst of rows with values of their own, under the same key objects unless these shall be fresh."""
    names = [f"train/metric_{index}" for index in range(scalars)]
    values = np.random.default_rng(scalars).standard_normal((BURST_CALLS, scalars)).astype(np.float32).astype(np.float64).tolist()
    return [
        {("".join([*name]) if fresh_keys else name): kind(value) for name, value in zip(names, of_row, strict=True)} for of_row in values
    ]


def _timer_cost_ns() -> float:
    return statistics.median(-(perf_counter_ns() - perf_counter_ns()) for _ in range(_TIMER_SAMPLES))
