"""What does one `Run.log` call cost the training loop, with ring, journal and server on?

Units: ns per call, median and upper percentiles; `times_append` is the ratio to `rows.append(dict(row))` on the same rows, the least
that keeps a copy, `times_same_keys` that to our own call with a row of the same width, plain floats, the same key objects and no
more arguments. All kinds of call of one table line took turns, burst by burst (`bursts.py`); a burst fits the ring several times
over and the server has acknowledged it before the next one, so nobody waits. `10,000 calls/s` are ten calls at once, then sleep.

Not measured: making the values (a `.item()` of a tensor costs more than the call), a full ring (`end_to_end.py`), failures behind the
call (`log_under_faults.py`). On a busy machine the upper percentiles show the scheduler: those of the appending call tell how much.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

import numpy as np
import runferry

from benchmarks import bursts
from benchmarks.bursts import appending, calling, in_turns, paced, quantiles, stepping
from benchmarks.figures import Figure
from benchmarks.scene import open_run, running_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.bursts import Kind
    from benchmarks.scene import BenchServer

BURSTS = 40
WIDTHS = {1: 500, 10: 500, 100: 500, 1000: 100}
"""Scalars in a row to rows in a burst."""
CALLS_PER_S, PACED_ROWS = 10_000, 2_000
FLUSH_TIMEOUT_S = 60.0


def measure() -> Iterator[Figure]:
    """Every shape of call, each on a run of its own."""
    with running_server() as server:
        for width, count in WIDTHS.items():
            yield _figure(server, f"{width:,} scalar{'' if width == 1 else 's'}", "same keys", bursts.rows(width, count=count))
        for variant in ("step= given", "numpy float32", "fresh key objects", "runferry.log"):
            yield _figure(server, f"10 scalars, {variant}", variant, bursts.rows(10))
        yield _paced(server)


def _figure(server: BenchServer, what: str, variant: str, rows: bursts.Rows) -> Figure:
    width = len(rows[0])
    with open_run(server) as run, open_run(server) as plain:  # the first one is that of the module-level names

        def rest() -> None:
            for one in (plain, run):
                one.flush(acked=True, timeout=FLUSH_TIMEOUT_S)

        variants: dict[str, Kind] = {
            "step= given": stepping(run.log, rows, rest),
            "numpy float32": calling(run.log, bursts.rows(width, np.float32), rest),
            "fresh key objects": calling(run.log, bursts.rows(width, fresh_keys=True), rest),
            "runferry.log": calling(runferry.log, rows, rest),
        }
        kinds = {"append": appending(rows), "same keys": calling(plain.log, rows, rest)}
        if variant in variants:
            kinds[variant] = variants[variant]
        timed_ns = in_turns(kinds, bursts=BURSTS)
        dropped = sum(one.status().dropped_rows + one.status().behind_rows + one.status().dropped_values for one in (plain, run))
    median_ns = {name: statistics.median(samples) for name, samples in timed_ns.items()}
    values = {
        **quantiles(timed_ns[variant], "ns"),
        "append_median_ns": median_ns["append"],
        "times_append": median_ns[variant] / median_ns["append"],
        "dropped": dropped,
    }
    if variant in variants:
        values["times_same_keys"] = median_ns[variant] / median_ns["same keys"]
    return Figure(what, values)


def _paced(server: BenchServer) -> Figure:
    rows = bursts.rows(10, count=PACED_ROWS)
    kept: list[dict[str, float]] = []
    with open_run(server) as run:
        timed_ns = in_turns(
            {
                "append": paced(lambda row: kept.append(dict(row)), rows, kept.clear, per_s=CALLS_PER_S),
                "log": paced(run.log, rows, lambda: run.flush(acked=True, timeout=FLUSH_TIMEOUT_S), per_s=CALLS_PER_S),
            },
            bursts=BURSTS,
        )
        dropped = run.status().dropped_rows
    append = quantiles(timed_ns["append"], "ns")
    return Figure(
        f"10 scalars, {CALLS_PER_S:,} calls/s",
        {
            **quantiles(timed_ns["log"], "ns"),
            "append_median_ns": append["median_ns"],
            "append_p99.9_ns": append["p99.9_ns"],
            "dropped": dropped,
        },
    )
