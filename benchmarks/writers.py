"""How many writers does one server carry, and how soon are they back?

Simulated writers (`simulator.py`), each with a run and a stream of its own. First a thousand that send small frames (20 points, packed
before) as fast as they are allowed, several a message, each frame acked once it is durable. Then ten thousand that are connected and say
that they are alive: what the server's memory is then, less what it was without them; how long all wait for the answer to their beat; and,
after the server was killed and started again on the same port, until the last of them is connected again. Units: frames a second, us of
the server's CPU a frame, MiB and KiB, seconds.

Not measured: a network, TLS, connections (50 writers share one). The simulator takes its share of the cores.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.figures import Figure
from tests.support.ports import free_port
from tests.support.servers import ROOT, RunningServer, server_environment

if TYPE_CHECKING:
    from collections.abc import Iterator

SENDERS, FRAMES = 1_000, 64
WRITERS = 10_000
BEATS = 3
_KIB_PER_MIB = 1024
_TICKS_PER_S = 100


class Simulated:
    """A running simulator."""

    def __init__(self, server: RunningServer, writers: int, frames: int) -> None:
        """Start it."""
        command = [sys.executable, "-m", "benchmarks.simulator", server.write_address, str(writers), str(frames)]
        environment = server_environment() | {"PYTHONPATH": f"{ROOT / 'python'}:{ROOT}"}
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT)

    def ask(self, command: str) -> dict[str, Any]:
        """Its answer to a command.

        Raises:
            RuntimeError: It has ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the simulator ended at {command!r}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def end(self) -> None:
        """Kill it."""
        self._process.kill()
        self._process.communicate()


@contextlib.contextmanager
def simulated(server: RunningServer, writers: int, frames: int) -> Iterator[Simulated]:
    """A simulator for the length of a block."""
    simulator = Simulated(server, writers, frames)
    try:
        yield simulator
    finally:
        simulator.end()


def measure() -> Iterator[Figure]:
    """Small frames, then very many writers; each on an empty server."""
    yield small_frames(SENDERS, FRAMES)
    with tempfile.TemporaryDirectory(prefix="runferry-bench-") as folder:
        yield from _herd(Path(folder))


def small_frames(senders: int, frames: int) -> Figure:
    """So many writers, each with so many frames of 20 points, on an empty server."""
    with tempfile.TemporaryDirectory(prefix="runferry-bench-") as folder, RunningServer(Path(folder) / "data") as server:
        empty_mib = _memory_mib(server.process.pid)
        with simulated(server, senders, frames) as simulator:
            opened = simulator.ask("open")
            open_mib = _memory_mib(server.process.pid)
            simulator.ask("pack")
            before_s = _cpu_s(server.process.pid)
            sent = simulator.ask("send")
            cpu_s = _cpu_s(server.process.pid) - before_s
            sent_mib = _memory_mib(server.process.pid)
            server.kill()  # what waits for its merge is of no interest
    values = {
        "durable_frames_per_s": sent["frames_per_s"],
        "server_cpu_us_per_frame": cpu_s / (senders * frames) * 1e6,
        "opened_s": opened["took_s"],
        "kib_per_writer": (open_mib - empty_mib) / senders * _KIB_PER_MIB,
        "server_mib": sent_mib,
    }
    return Figure(f"{senders:,} writer{'' if senders == 1 else 's'}, {senders * frames:,} frames of 20 points", values)


def _herd(folder: Path) -> Iterator[Figure]:
    port = free_port()
    with RunningServer(folder / "data", port=port) as server:
        empty_mib = _memory_mib(server.process.pid)
        with simulated(server, WRITERS, 1) as simulator:
            opened = simulator.ask("open")
            beats = [simulator.ask("beat") for _ in range(BEATS)]
            full_mib = _memory_mib(server.process.pid)
            yield Figure(
                f"{WRITERS:,} writers are connected",
                {
                    "opened_s": opened["took_s"],
                    "server_mib": full_mib,
                    "kib_per_writer": (full_mib - empty_mib) / WRITERS * _KIB_PER_MIB,
                    "unanswered_beats": WRITERS * BEATS - sum(beat["answered"] for beat in beats),
                    "slowest_beat_s": max(beat["took_s"] for beat in beats),
                },
            )
            server.kill()
            killed_s = time.monotonic()
            with RunningServer(folder / "data", port=port) as again:
                started_s = time.monotonic()
                back = simulator.ask("back")
                back_s = time.monotonic()
                cpu_s = _cpu_s(again.process.pid)
                again.kill()  # how long ten thousand take to leave is not asked
                values = {
                    "back_s": back_s - started_s,
                    "since_kill_s": back_s - killed_s,
                    "throttled": back["throttled"] - opened["throttled"],
                    "server_cpu_s": cpu_s,
                }
                yield Figure(f"{WRITERS:,} writers come back", values)


def _memory_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    resident = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(resident.split()[1]) / _KIB_PER_MIB


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
