"""How many points a second does a server over PostgreSQL take in, beside one over its own files in the same minutes?

As `ingest.py` (the same journals, the same write door), on each store in turn. PostgreSQL is a cluster of the benchmark's own on the same
disk and cores, `fsync` on, otherwise as it comes. `durable` is timed from the first Open to the ack of the last frame, `merged` until
the last point is in the chunks. `ratio` is that of the durable points to those of SQLite. CPU is of the server and of all of PostgreSQL.
The most points that waited for their merge are told as in `ingest.py`. Without PostgreSQL on this machine there are no figures.
"""

from __future__ import annotations

import time
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import pytest

from benchmarks import ingest
from benchmarks.figures import Figure
from benchmarks.scene import running_server
from benchmarks.server_disk import MERGE_TIMEOUT_S, unmerged_frames, wait_until_merged
from benchmarks.workloads import loss_curve
from tests.support.postgres import DURABLE, Cluster

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_POLL_S = 0.1


def measure() -> Iterator[Figure]:
    """One stream, then several at once; each on an empty store of each engine."""
    journals = [ingest.written(loss_curve(ingest.ROWS), ingest.run_id(number)) for number in range(max(ingest.WRITERS))]
    try:
        cluster = Cluster(DURABLE)
    except pytest.skip.Exception as reason:
        yield Figure("PostgreSQL", {}, absent=str(reason))
        return
    with cluster:
        for writers in ingest.WRITERS:
            files = _taken_in(None, journals[:writers])
            postgres = _taken_in(cluster, journals[:writers])
            for figure in (files, postgres):
                ratio = figure.values["durable_points_per_s"] / files.values["durable_points_per_s"]
                yield Figure(figure.what, {**figure.values, "ratio": ratio})


def _taken_in(cluster: Cluster | None, journals: Sequence[ingest.Journal]) -> Figure:
    points = sum(journal.points for journal in journals)
    frames = sum(journal.next_seq - 1 for journal in journals)
    database = None if cluster is None else cluster.new_database()
    with running_server(words=() if cluster is None or database is None else ("--store", cluster.url(database))) as server:
        pids = [server.process.pid, *([] if cluster is None else [cluster.pid])]

        def unmerged() -> int:
            if cluster is None or database is None:
                return unmerged_frames(server.data)
            return int(cluster.execute("SELECT coalesce(sum(next_seq - 1 - merged_seq), 0) FROM runferry.writer", database)[0][0])

        cpu_before_s = sum(map(_cpu_of_all_s, pids))
        with ingest.largest_of(unmerged, _POLL_S) as largest:
            began_s = perf_counter()
            durable_s = ingest.send_all(server.write_address, journals)
            if cluster is None or database is None:
                wait_until_merged(server.data, points)
            else:
                _wait_until_merged(cluster, database, points)
            merged_s = perf_counter() - began_s
        cpu_s = sum(map(_cpu_of_all_s, pids)) - cpu_before_s
    return Figure(
        f"{'SQLite' if cluster is None else 'PostgreSQL'}, {len(journals)} stream{'' if len(journals) == 1 else 's'}, {points:,} points",
        {
            "durable_points_per_s": points / durable_s,
            "merged_points_per_s": points / merged_s,
            "largest_unmerged_points": largest() * points / frames,
            "cpu_s_per_million_points": cpu_s / points * 1e6,
        },
    )


def _wait_until_merged(cluster: Cluster, database: str, points: int) -> None:
    deadline_s = time.monotonic() + MERGE_TIMEOUT_S
    while (found := cluster.execute("SELECT coalesce(sum(points), 0) FROM runferry.run", database)[0][0]) < points:
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"{found} of {points} points are merged after {MERGE_TIMEOUT_S:.0f} s")
        time.sleep(_POLL_S)


def _cpu_of_all_s(pid: int) -> float:
    """CPU time of a process and its children, those that have ended too."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    return ingest.cpu_time_s(pid) + sum(ingest.cpu_time_s(int(child)) for child in children if Path(f"/proc/{child}").exists())
