"""What does one `Run.log` call cost the training loop while something behind it fails?

A child process logs 10,000 rows a second of 10 scalars, 100 at a time, for some seconds under each fault, and under none. Units: median
in ns, 99.9th percentile and slowest call in us, over all calls, the timer's own cost taken off; then what became of the rows. The faults
last from before `init` to the end, but for the server that is killed every 2 s and comes back at once.

Not measured: how the fault ends (`tests/fault`). On a busy machine the upper percentiles show the scheduler, in the case without
a fault too: compare within one run. The full disk is a small tmpfs and needs root; it is left out otherwise.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from benchmarks.figures import Figure
from benchmarks.scene import ask_child, running_server
from tests.support.fakeserver import FakeServer, FakeStream
from tests.support.ports import free_port
from tests.support.servers import RunningServer

if TYPE_CHECKING:
    from collections.abc import Iterator

CALLS_PER_S, SECONDS = 10_000, 8
KILL_EVERY_S = 2.0
TINY_DISK = "size=8m"

_TRAINER = """
import gc, json, random, statistics, sys, time
from time import perf_counter_ns
import runferry

base_url, folder, settings, calls_per_s, seconds = sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5])
timer_ns = statistics.median(-(perf_counter_ns() - perf_counter_ns()) for _ in range(20_000))
names = [f"train/metric_{number}" for number in range(10)]
rows = [{name: random.random() for name in names} for _ in range(calls_per_s)]
durations_ns = [0] * (calls_per_s * seconds)
run = runferry.init(project="benchmarks", dir=folder, settings={"base_url": base_url, **settings})
for row in rows[:1_000]:
    run.log(row)
gc.collect()
gc.freeze()
began_s, call = time.monotonic(), 0
for tick in range(100 * seconds):
    for _ in range(calls_per_s // 100):
        row = rows[call % calls_per_s]
        began_ns = perf_counter_ns()
        run.log(row)
        durations_ns[call] = perf_counter_ns() - began_ns
        call += 1
    time.sleep(max(0.0, began_s + (tick + 1) / 100 - time.monotonic()))
wall_s = time.monotonic() - began_s
run.finish(timeout=0, quiet=True)
status = run.status()
ordered = sorted(max(0, one - timer_ns) for one in durations_ns)
print(json.dumps({
    "median_ns": statistics.median(ordered), "p99.9_us": ordered[int(0.999 * (call - 1))] / 1e3, "max_us": ordered[-1] / 1e3,
    "calls_per_s": call / wall_s, "thinned_rows": status.thinned_rows, "dropped_rows": status.dropped_rows,
}))
"""


def measure() -> Iterator[Figure]:
    """The case without a fault, then each fault."""
    with running_server() as server:
        yield _figure("no fault", server.url)
    yield _figure("no server", _nobody())
    with running_server() as server, _stopped(server):
        yield _figure("silent server (SIGSTOP)", server.url)
    with tempfile.TemporaryDirectory(prefix="runferry-bench-") as folder, _killed_again_and_again(Path(folder)) as url:
        yield _figure(f"server killed every {KILL_EVERY_S:.0f} s", url)
    with tempfile.TemporaryDirectory(prefix="runferry-bench-") as folder, running_server() as server, _full_disk(Path(folder)) as is_there:
        if is_there:
            yield _figure("full disk, with a server", server.url, folder)
            yield _figure("full disk, no server", _nobody(), folder)
    for policy in ("degrade", "drop_oldest", "drop_newest"):
        yield _figure(f"journal at its cap, no server, {policy}", _nobody(), journal_cap_bytes=1 << 20, backpressure=policy)
    with FakeServer(_busy) as fake:
        yield _figure("throttled (RESOURCE_EXHAUSTED, 1 s)", fake.url)


def _figure(what: str, base_url: str, folder: str = ".", **settings: int | str) -> Figure:
    return Figure(what, ask_child(_TRAINER, base_url, folder, json.dumps(settings), str(CALLS_PER_S), str(SECONDS)))


def _nobody() -> str:
    return f"http://127.0.0.1:{free_port()}"


@contextlib.contextmanager
def _stopped(server: RunningServer) -> Iterator[None]:
    server.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.process.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def _killed_again_and_again(folder: Path) -> Iterator[str]:
    """A server's address; the server there is killed and started anew until the block ends."""
    port, is_over = free_port(), threading.Event()
    server = RunningServer(folder / "data", port=port)
    url = server.url

    def kill() -> None:
        nonlocal server
        while not is_over.wait(KILL_EVERY_S):
            server.kill()
            server = RunningServer(folder / "data", port=port)

    killer = threading.Thread(target=kill, name="killer")
    killer.start()
    try:
        yield url
    finally:
        is_over.set()
        killer.join()
        server.kill()


@contextlib.contextmanager
def _full_disk(folder: Path) -> Iterator[bool]:
    """A file system at `folder` with less room than a journal leaves to others; False: this user may not mount."""
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", TINY_DISK, "tmpfs", str(folder)], capture_output=True, check=False)  # noqa: S607 - mount as installed
    try:
        yield mounted.returncode == 0
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)  # noqa: S607 - umount as installed


async def _busy(stream: FakeStream) -> None:
    await stream.hear_open()
    await stream.fail(grpc.StatusCode.RESOURCE_EXHAUSTED, retry_after_s=1.0)
