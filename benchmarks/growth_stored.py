"""How do ingest, reading, start and memory change while a server's store grows from 10^6 to 10^9 points?

One server over its own files. Runs of a million points each (ten metrics, 100,000 rows; the frames of one real client, sent again as
another run's, four streams at a time) until as many are stored; after each power of ten the server is ended and started again on what it
has, and asked. Then once more, up to 10^8, with all points in a single series of a single run, which is resumed for each further million.

Units: points per second, durable and merged, of the last stretch (at most 20 million points) before that size; bytes per point that the
files in the metric store's folder take, write-ahead logs and free pages included, once the server has ended; seconds from the start of
the process to its ready line; milliseconds, median of some answers over loopback, for a chart of one series in 1,000 buckets (of
another run each time), for one of the last hundredth of its steps, and for the first page of 50 runs; MiB that are the server's own
(anonymous) when the stretch is merged, and those after it was asked, which is a fresh server's.

Not measured: a disk that is slower than memory (what was written last may still be cached); several servers.
"""

from __future__ import annotations

import http.client
import shutil
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from benchmarks import ingest
from benchmarks.figures import Figure
from benchmarks.scene import PROJECT, BenchServer
from benchmarks.server_disk import wait_until_merged
from benchmarks.workloads import Workload, loss_curve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from benchmarks.ingest import Journal
    from tests.support.servers import RunningServer

SIZES = (10**6, 10**7, 10**8, 10**9)
LONGEST = 10**8
ROWS = 100_000
STRETCH_POINTS, STREAMS = 20_000_000, 4
ANSWERS = 21
BYTES_PER_POINT = 8
"""Room on the disk to begin with: twice what a point takes."""
TIMEOUT_S = 120.0
_KIB_PER_MIB = 1024


@dataclass(frozen=True, slots=True)
class Growth:
    """A store that grows by one journal after the other."""

    sizes: Sequence[int]
    journal: Journal
    made: Callable[[int], Journal]
    """The journal of that number, as it is sent."""
    streams: int
    key: str

    def name(self, size: int) -> str:
        """What a figure of that size is called."""
        if self.streams == 1:
            return f"{size:,} points in one series"
        runs = size // self.journal.points
        return f"{size:,} points in {runs:,} run{'' if runs == 1 else 's'} of ten series"

    def runs(self, size: int) -> list[str]:
        """Those that are asked about."""
        count = size // self.journal.points
        return ["long"] * ANSWERS if self.streams == 1 else [f"run-{count * number // ANSWERS}" for number in range(ANSWERS)]

    def steps(self, size: int) -> int:
        """Of each of those."""
        return size if self.streams == 1 else ROWS


def measure(at_most: int = max(SIZES)) -> Iterator[Figure]:
    """Many runs, then one series; each up to `at_most` points."""
    sizes = [size for size in SIZES if size <= at_most]
    journal = ingest.written(loss_curve(ROWS), "prepared", passes=1)
    yield from _figures(Growth(sizes, journal, lambda number: ingest.moved(journal, f"run-{number}"), STREAMS, "train%2Floss"))
    rows = Workload("one series", [{"loss": row["train/loss"]} for row in loss_curve(ROWS).rows])
    single = ingest.written(rows, "prepared", passes=journal.points // ROWS)

    def resumed(number: int) -> Journal:
        """A writer goes on behind the last step of the one before."""
        return ingest.moved(single, "long", writer=number + 1, relative=True)

    yield from _figures(Growth([size for size in sizes if size <= LONGEST], single, resumed, 1, "loss"))


def _figures(growth: Growth) -> Iterator[Figure]:
    each = growth.journal.points
    with tempfile.TemporaryDirectory(prefix="runferry-bench-") as folder:
        data = Path(folder) / "data"
        stored = 0
        for size in growth.sizes:
            if reason := _no_room(Path(folder), size - stored):
                yield Figure(growth.name(size), {}, absent=reason)
                return
            with BenchServer(data) as server:
                grown: dict[str, float] = {}
                while stored < size:
                    first, end = stored // each, min(stored + STRETCH_POINTS, size) // each
                    grown = _grown(server, data, [growth.made(number) for number in range(first, end)], stored, growth.streams)
                    stored = end * each
            yield Figure(growth.name(size), {**grown, **_asked(data, growth, size)})


def _grown(server: RunningServer, data: Path, journals: Sequence[Journal], before: int, streams: int) -> dict[str, float]:
    points = sum(journal.points for journal in journals)
    began_s = time.perf_counter()
    durable_s = ingest.send_all(server.write_address, journals, streams)
    wait_until_merged(data, before + points)
    merged_s = time.perf_counter() - began_s
    own_mib = _anonymous_mib(server.process.pid)
    return {"durable_points_per_s": points / durable_s, "merged_points_per_s": points / merged_s, "filling_mib": own_mib}


def _asked(data: Path, growth: Growth, size: int) -> dict[str, float]:
    """What a fresh server on that data needs to start and to answer."""
    file_bytes = sum(file.stat().st_size for file in (data / "metrics").iterdir())
    began_s = time.perf_counter()
    with BenchServer(data) as server:
        start_s = time.perf_counter() - began_s
        paths = [f"/api/v1/runs/local/{PROJECT}/{run}/history?keys={growth.key}&buckets=1000" for run in growth.runs(size)]
        chart_ms = _answered_ms(server, paths)
        zoom_ms = _answered_ms(server, [f"{path}&min_step={growth.steps(size) * 99 // 100}" for path in paths])
        list_ms = _answered_ms(server, [f"/api/v1/runs?entity=local&project={PROJECT}&limit=50"] * ANSWERS)
        asked_mib = _anonymous_mib(server.process.pid)
    return {
        "file_bytes_per_point": file_bytes / size,
        "start_s": start_s,
        "chart_ms": chart_ms,
        "zoom_ms": zoom_ms,
        "list_ms": list_ms,
        "asked_mib": asked_mib,
    }


def _answered_ms(server: RunningServer, paths: Sequence[str]) -> float:
    address = urlsplit(server.url)
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=TIMEOUT_S)
    took_ms = []
    for path in paths:
        began_s = time.perf_counter()
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        took_ms.append((time.perf_counter() - began_s) * 1e3)
        if answer.status != http.HTTPStatus.OK:
            raise RuntimeError(f"{path}: {answer.status}")
    connection.close()
    return statistics.median(took_ms)


def _no_room(folder: Path, points: int) -> str:
    needed_bytes, free_bytes = points * BYTES_PER_POINT, shutil.disk_usage(folder).free
    return (
        ""
        if free_bytes > needed_bytes
        else f"{free_bytes / 1e9:.0f} GB are free where temporary files lie, {needed_bytes / 1e9:.0f} are needed"
    )


def _anonymous_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(next(line for line in status.splitlines() if line.startswith("RssAnon:")).split()[1]) / _KIB_PER_MIB
