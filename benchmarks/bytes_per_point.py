"""How many bytes does a point take: on the wire, in the journal, and on the server after the merge?

Unit: bytes per point, step and time included; a histogram is one point. Wire and journal carry the same frames, so they are one
figure; what gRPC and TCP add per message is left out. `stored` is a run's chunks with their axes and statistics. `pages` is the
growth of the server's database files, indexes, half-filled pages and, until they are trimmed, the frames themselves included.

Not measured: metadata (config, summary), the write-ahead logs, which are of bounded size and reused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from runferry import _native

from benchmarks import workloads
from benchmarks.figures import Figure
from benchmarks.scene import PROJECT, open_run, running_server
from benchmarks.server_disk import merged_bytes, page_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.scene import BenchServer
    from benchmarks.workloads import Workload

ACK_TIMEOUT_S = 60.0


def measure() -> Iterator[Figure]:
    """Every workload as a run of its own on one server."""
    shapes = [
        workloads.loss_curve(50_000),
        workloads.wide(500),
        workloads.sparse(20_000),
        workloads.bursty(5_000),
        workloads.rank(80),
        workloads.histograms(500),
    ]
    with running_server() as server:
        for number, workload in enumerate(shapes):
            yield _one(server, f"shape-{number}", workload)


def _one(server: BenchServer, run_id: str, workload: Workload) -> Figure:
    pages_before = page_bytes(server.data)
    with open_run(server, run_id) as run:
        workload.play(run)
        if not run.flush(acked=True, timeout=ACK_TIMEOUT_S):
            raise RuntimeError(f"the server has not acknowledged everything: {run.status()}")
        status = run.status()
    stored = merged_bytes(server.data, _native.run_key("local", PROJECT, run_id), workload.points)
    return Figure(
        workload.name,
        {
            "points": workload.points,
            "frames": status.journaled_frames,
            "wire_journal_bytes": status.journaled_bytes / workload.points,
            "stored_bytes": stored / workload.points,
            "pages_bytes": (page_bytes(server.data) - pages_before) / workload.points,
        },
    )
