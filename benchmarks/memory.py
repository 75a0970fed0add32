"""What does an active run cost its process: memory beyond a bare Python's, and CPU of the background threads?

A child logs 1,000 rows a second of 10 scalars to the embedded server for some seconds, then reads its own /proc. Units: MiB of
resident memory, split as the kernel splits it (anonymous, mapped files such as the native module, shared memory such as the ring),
each less that of a bare Python with the same imports but runferry; percent of one core for the threads behind the run
(process time less the calling thread's) and for the calling thread, which is mostly the pacing loop.

Not measured: the server's share; memory while the server is away (the backlog is in the journal, not in memory).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.figures import Figure
from benchmarks.scene import ask_child, running_server

if TYPE_CHECKING:
    from collections.abc import Iterator

ROWS_PER_S, SECONDS = 1000, 8
_KIB_PER_MIB = 1024

_MEMORY = """
import json, sys, time

def memory_kib():
    lines = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return {name: int(lines[name].split()[0]) for name in ("VmRSS", "RssAnon", "RssFile", "RssShmem")}
"""
_BARE = _MEMORY + "print(json.dumps(memory_kib()))"
_WORKER = (
    _MEMORY
    + """
import runferry

base_url, rows_per_s, seconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
rows = [{f"train/metric_{name}": 1.5 * row + name for name in range(10)} for row in range(rows_per_s)]
with runferry.init(project="benchmarks", settings={"base_url": base_url}) as run:
    run.log(rows[0])
    run.flush(acked=True, timeout=30)
    idle = memory_kib()
    process_s, thread_s, began_s = time.process_time(), time.thread_time(), time.monotonic()
    for tick in range(100 * seconds):
        first = tick * rows_per_s // 100
        for row in range(first, first + rows_per_s // 100):
            run.log(rows[row % rows_per_s])
        time.sleep(max(0.0, began_s + (tick + 1) / 100 - time.monotonic()))
    wall_s, thread_s = time.monotonic() - began_s, time.thread_time() - thread_s
    background_s = time.process_time() - process_s - thread_s
    print(json.dumps({"busy": memory_kib(), "idle": idle, "rows_per_s": rows_per_s * seconds / wall_s, "dropped": run.status().dropped_rows,
                      "background": 100 * background_s / wall_s, "caller": 100 * thread_s / wall_s}))
"""
)


def measure() -> Iterator[Figure]:
    """Memory of an idle and of a busy run, then the CPU of the busy one."""
    bare = ask_child(_BARE)
    with running_server() as server:
        found = ask_child(_WORKER, server.url, str(ROWS_PER_S), str(SECONDS))
    yield Figure("bare Python", _mib(bare, {}))
    yield Figure("beyond it: a run that has logged one row", _mib(found["idle"], bare))
    yield Figure(f"beyond it: after {SECONDS} s at {ROWS_PER_S:,} rows/s", _mib(found["busy"], bare))
    cpu = {
        "background_cpu_percent": found["background"],
        "caller_cpu_percent": found["caller"],
        "rows_per_s": found["rows_per_s"],
        "dropped_rows": found["dropped"],
    }
    yield Figure(f"at {ROWS_PER_S:,} rows/s x 10 scalars", cpu)


def _mib(found: dict[str, int], less: dict[str, int]) -> dict[str, float]:
    shown = {"VmRSS": "resident_mib", "RssAnon": "anonymous_mib", "RssFile": "file_mib", "RssShmem": "shared_mib"}
    return {shown[name]: (value - less.get(name, 0)) / _KIB_PER_MIB for name, value in found.items()}
