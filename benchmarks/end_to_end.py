"""How many scalars a second go from `log` calls of one process to durable on the embedded server on the same machine?

Rows of 10 scalars, logged as fast as the process can for a few seconds, then a wait until the server has acknowledged all of
them durable. Unit: scalars per second, over the logging alone and over the whole way. With the ring full a call waits, so the
logging figure is that of the slower of caller and packer.

Not measured: a network (loopback), several processes, the merge behind the ack (`ingest.py`). Caller, packer, sender and server share
the cores.
"""

from __future__ import annotations

import statistics
from time import perf_counter
from typing import TYPE_CHECKING

from benchmarks.figures import Figure
from benchmarks.scene import open_run, running_server
from benchmarks.workloads import loss_curve

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.workloads import Workload
    from tests.support.servers import RunningServer

ROWS, PASSES, REPEATS = 200_000, 20, 3
ACK_TIMEOUT_S = 120.0


def measure() -> Iterator[Figure]:
    """The median of a few runs on one server."""
    workload = loss_curve(ROWS)
    with running_server() as server:
        found = [_one(server, workload) for _ in range(REPEATS)]
    yield Figure(
        f"{PASSES * ROWS:,} rows x 10 scalars, median of {REPEATS}",
        {key: statistics.median(one[key] for one in found) for key in found[0]}
        | {"dropped_rows": sum(one["dropped_rows"] for one in found)},
    )


def _one(server: RunningServer, workload: Workload) -> dict[str, float]:
    with open_run(server) as run:
        run.log({"warm_up": 0})
        run.flush(acked=True, timeout=ACK_TIMEOUT_S)
        began_s = perf_counter()
        for _ in range(PASSES):
            workload.play(run)
        logged_s = perf_counter() - began_s
        if not run.flush(acked=True, timeout=ACK_TIMEOUT_S):
            raise RuntimeError(f"the server has not acknowledged everything: {run.status()}")
        durable_s = perf_counter() - began_s
        status = run.status()
    return {
        "logged_scalars_per_s": PASSES * workload.points / logged_s,
        "durable_scalars_per_s": PASSES * workload.points / durable_s,
        "dropped_rows": status.dropped_rows,
        "frames": status.packed_frames,
        "retries": status.retries,
    }
