"""How long do readers wait while a million points a second arrive?

A server takes frames of a million points a second (paced; what really arrived is told) while it is asked, one question after the other:
a series of a million points in 1,000 buckets, one metric of 50 runs in 500 buckets each (in one request, and in one per run), the last
values of 2,000 metrics. Timed is the whole answer over loopback on an open connection, HTTP and JSON included; `server` is the part of it
that the server says it took (`server-timing`: from the whole request to the first byte of the answer). `door` is the smallest answer there
is, at the same time: what of it is not the question's. The server keeps what it reads of the merged part of a run until its next merge:
`first` is the answer of a server that was never asked. Units: milliseconds, median and 99th percentile; points per second.

Not measured: more readers at once; a browser; a network.
"""

from __future__ import annotations

import http.client
import queue
import statistics
import threading
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import grpc
from runferry import _native
from runferry.server._generated import ingest_pb2 as pb
from runferry.server._generated import ingest_pb2_grpc as services

from benchmarks.figures import Figure
from benchmarks.ingest import moved, send_all, written
from benchmarks.scene import PROJECT, running_server
from benchmarks.server_disk import merged_bytes
from benchmarks.workloads import Workload, loss_curve, wide

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.ingest import Journal
    from benchmarks.scene import BenchServer

LONG_ROWS, RUNS, RUN_ROWS, METRICS, METRIC_ROWS = 1_000_000, 50, 5_000, 2_000, 100
ARRIVING_PER_S, ARRIVING_ROWS = 1_000_000, 50_000
ANSWERS = 40
"""Of each kind."""
TIMEOUT_S = 300.0


def measure() -> Iterator[Figure]:
    """Fill a store, then ask it, first in silence and then while points arrive."""
    long = Workload("one long series", [{"loss": row["train/loss"]} for row in loss_curve(LONG_ROWS // 10).rows] * 10)
    several = written(Workload("one of several", loss_curve(RUN_ROWS).rows), "several", passes=1)
    stored = [
        (written(long, "long", passes=1), "long", LONG_ROWS),
        (written(wide(METRIC_ROWS, METRICS), "wide", passes=1), "wide", METRIC_ROWS * METRICS),
        *((moved(several, f"several-{number}"), f"several-{number}", RUN_ROWS * 10) for number in range(RUNS)),
    ]
    arriving = written(loss_curve(ARRIVING_ROWS), "arriving", passes=1)
    with running_server() as server:
        for journal, run_id, points in stored:
            send_all(server.write_address, [journal])
            merged_bytes(server.data, _native.run_key("local", PROJECT, run_id), points)
        yield from _asked(server, "nothing arrives", {})
        load = _Load(server.write_address, arriving)
        load.start()
        try:
            yield from _asked(server, "while points arrive", {"arriving_points_per_s": load.points_per_s})
        finally:
            load.stop()
        server.kill()


def _asked(server: BenchServer, when: str, more: dict[str, Callable[[], float]]) -> Iterator[Figure]:
    path = f"/api/v1/runs/local/{PROJECT}"
    several = "".join(f"&runs=local/{PROJECT}/several-{number}" for number in range(RUNS))
    questions = {
        "door": ["/api/v1/door"],
        "1 series of 1,000,000 points, 1,000 buckets": [f"{path}/long/history?keys=loss&buckets=1000"],
        f"{RUNS} runs, 500 buckets": ["/api/v1/history?keys=train%2Floss&buckets=500" + several],
        f"{RUNS} runs, 500 buckets, a request each": [
            f"{path}/several-{number}/history?keys=train%2Floss&buckets=500" for number in range(RUNS)
        ],
        "last values of 2,000 metrics": [f"{path}/wide/metrics"],
    }
    address = urlsplit(server.url)
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=TIMEOUT_S)
    took_ms: dict[str, list[float]] = {question: [] for question in questions}
    server_ms: dict[str, list[float]] = {question: [] for question in questions}
    for _ in range(ANSWERS):
        for question, targets in questions.items():
            began_s = time.perf_counter()
            told_ms = 0.0
            for target in targets:
                connection.request("GET", target)
                answer = connection.getresponse()
                answer.read()
                if answer.status != http.HTTPStatus.OK:
                    raise RuntimeError(f"{target}: {answer.status}")
                told_ms += float(answer.headers["server-timing"].rpartition("dur=")[2])
            took_ms[question].append((time.perf_counter() - began_s) * 1e3)
            server_ms[question].append(told_ms)
    connection.close()
    for question, samples in took_ms.items():
        told = {name: value() for name, value in more.items()}
        yield Figure(
            f"{question}, {when}",
            {
                "median_ms": statistics.median(samples),
                "p99_ms": sorted(samples)[int(0.99 * (len(samples) - 1))],
                "server_ms": statistics.median(server_ms[question]),
                **({} if more else {"first_ms": samples[0]}),
                **told,
            },
        )


class _Load:
    """A thread that sends the frames of one journal again and again, each time as another run, at a pace."""

    def __init__(self, address: str, journal: Journal) -> None:
        self._address = address
        self._journal = journal
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._points = 0
        self._began_s = 0.0

    def start(self) -> None:
        self._began_s = time.monotonic()
        self._thread.start()

    def stop(self) -> None:
        self._is_over.set()
        self._thread.join()

    def points_per_s(self) -> float:
        return self._points / (time.monotonic() - self._began_s)

    def _run(self) -> None:
        number = 0
        points = ARRIVING_ROWS * 10
        while not self._is_over.is_set():
            self._send(moved(self._journal, f"arriving-{number}"))
            number += 1
            self._points += points
            self._is_over.wait(max(0.0, self._began_s + self._points / ARRIVING_PER_S - time.monotonic()))

    def _send(self, journal: Journal) -> None:
        """Frame by frame over the time that so many points have."""
        outgoing: queue.SimpleQueue[pb.ClientMessage | None] = queue.SimpleQueue()
        outgoing.put(pb.ClientMessage(open=pb.Open(protocol=1, open_frame=journal.open_frame, first_available_seq=1, next_seq=1)))
        frames = [frame for message in journal.messages for frame in message]
        pause_s = ARRIVING_ROWS * 10 / ARRIVING_PER_S / len(frames)
        with grpc.insecure_channel(self._address) as channel:
            stub = services.IngestStub(channel)  # type: ignore[no-untyped-call]  # generated code
            answers = stub.Stream(iter(outgoing.get, None), timeout=TIMEOUT_S)
            next(answers)
            began_s = time.monotonic()
            for place, frame in enumerate(frames):
                outgoing.put(pb.ClientMessage(frames=pb.Frames(frames=[frame])))
                self._is_over.wait(max(0.0, began_s + (place + 1) * pause_s - time.monotonic()))
            for message in answers:
                if message.ack.durable_next_seq >= journal.next_seq:
                    break
            outgoing.put(pb.ClientMessage(bye=pb.Bye()))
            outgoing.put(None)
