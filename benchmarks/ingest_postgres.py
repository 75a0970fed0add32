"""How many points a second does a server over PostgreSQL take in, beside one over its own files in the same minutes?

As `ingest.py` (the same journals, the same write door), on each store in turn. PostgreSQL is a cluster of the benchmark's own on the same
disk and cores, `fsync` on, otherwise as it comes. `durable` is timed from the first Open to the ack of the last frame, `merged` until
the last point is in the chunks. `ratio` is that of the durable points to those of SQLite. CPU is of the server and of all of PostgreSQL.
Without PostgreSQL on this machine there are no figures.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import pytest
from runferry import _native

from benchmarks import ingest
from benchmarks.figures import Figure
from benchmarks.scene import PROJECT, running_server
from benchmarks.server_disk import MERGE_TIMEOUT_S, merged_bytes
from benchmarks.workloads import loss_curve
from tests.support.postgres import DURABLE, Cluster

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.scene import BenchServer

_POLL_S = 0.1


def measure() -> Iterator[Figure]:
    """One stream, then several at once; each on an empty store of each engine."""
    workload = loss_curve(ingest.ROWS)
    journals = [ingest.written(workload, ingest.run_id(number)) for number in range(max(ingest.WRITERS))]
    try:
        cluster = Cluster(DURABLE)
    except pytest.skip.Exception as reason:
        print(reason)
        return
    with cluster:
        for writers in ingest.WRITERS:
            points = ingest.PASSES * workload.points
            by_files = 0.0
            for store in ("SQLite", "PostgreSQL"):
                with _server(cluster if store == "PostgreSQL" else None) as (server, database):
                    pids = [server.process.pid] if database is None else [server.process.pid, cluster.pid]
                    cpu_before_s = sum(map(_cpu_of_all_s, pids))
                    began_s = perf_counter()
                    durable_s = ingest.send_all(server.write_address, journals[:writers])
                    for number in range(writers):
                        run_key = _native.run_key("local", PROJECT, ingest.run_id(number))
                        if database is None:
                            merged_bytes(server.data, run_key, points)
                        else:
                            _wait_until_merged(cluster, database, run_key, points)
                    merged_s = perf_counter() - began_s
                    cpu_s = sum(map(_cpu_of_all_s, pids)) - cpu_before_s
                durable = writers * points / durable_s
                by_files = by_files or durable
                yield Figure(
                    f"{store}, {writers} stream{'' if writers == 1 else 's'}, {writers * points:,} points",
                    {
                        "durable_points_per_s": durable,
                        "ratio": durable / by_files,
                        "merged_points_per_s": writers * points / merged_s,
                        "cpu_s_per_million_points": cpu_s / (writers * points) * 1e6,
                    },
                )


@contextlib.contextmanager
def _server(cluster: Cluster | None) -> Iterator[tuple[BenchServer, str | None]]:
    database = None if cluster is None else cluster.new_database()
    words = () if cluster is None or database is None else ("--store", cluster.url(database))
    with running_server(words=words) as server:
        yield server, database


def _wait_until_merged(cluster: Cluster, database: str, run_key: bytes, points: int) -> None:
    deadline_s = time.monotonic() + MERGE_TIMEOUT_S
    query = f"SELECT points FROM runferry.run WHERE run_id = '\\x{run_key.hex()}'"  # noqa: S608 - ours
    while cluster.execute(query, database) != [(points,)]:
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"{points} points are not merged after {MERGE_TIMEOUT_S:.0f} s")
        time.sleep(_POLL_S)


def _cpu_of_all_s(pid: int) -> float:
    """CPU time of a process and its children, those that have ended too."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    return ingest.cpu_time_s(pid) + sum(ingest.cpu_time_s(int(child)) for child in children if Path(f"/proc/{child}").exists())
