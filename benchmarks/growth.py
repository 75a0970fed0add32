"""How do the cost of a call and the bytes of a point grow with the metrics in a row, from 1 to 10,000?

Rows of noisy floats under the same key objects, bursts as in `log_call.py`, with the server on. Units: us per call and ns per scalar,
medians; `times_append` is the ratio to `rows.append(dict(row))` of the same rows in the same minute; bytes per point as the frames
have them, in the journal as on the wire.

Not measured: the first rows with new names (`warm_up` has them).
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from benchmarks import bursts
from benchmarks.bursts import appending, calling, in_turns
from benchmarks.figures import Figure
from benchmarks.scene import open_run, running_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.scene import BenchServer

WIDTHS = (1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000)
BURST_SCALARS, MOST_ROWS, BURSTS = 100_000, 500, 12
"""A burst is smaller than the ring, which holds half a million scalars."""
FLUSH_TIMEOUT_S = 60.0


def measure() -> Iterator[Figure]:
    """One run for each width."""
    with running_server() as server:
        for width in WIDTHS:
            yield _figure(server, width)


def _figure(server: BenchServer, width: int) -> Figure:
    rows = bursts.rows(width, count=min(MOST_ROWS, BURST_SCALARS // width))
    with open_run(server) as run:
        kinds = {
            "append": appending(rows),
            "log": calling(run.log, rows, lambda: run.flush(acked=True, timeout=FLUSH_TIMEOUT_S)),
        }
        median_ns = {name: statistics.median(timed_ns) for name, timed_ns in in_turns(kinds, bursts=BURSTS).items()}
        status = run.status()
    return Figure(
        f"{width:,} metric{'' if width == 1 else 's'}",
        {
            "median_us": median_ns["log"] / 1000,
            "ns_per_scalar": median_ns["log"] / width,
            "append_median_us": median_ns["append"] / 1000,
            "times_append": median_ns["log"] / median_ns["append"],
            "bytes_per_point": status.journaled_bytes / (status.accepted_rows * width),
            "dropped": status.dropped_rows,
        },
    )
