"""What does a run cost at both ends: `import runferry`, `init` with the first `log`, and `finish` with nothing waiting?

Unit: ms, each figure the median, least and greatest of fresh processes that find compiled modules, as those of an installed package
do. `init` brings its modules at its first use; they are mostly of the standard library, and a training has imported most of those
already. It is timed to the return of the first `log`. Before `finish` everything has been acknowledged, so it is the price of ending
threads, forcing the journal to the disk, and for an online run the exchange of the last frame.

Not measured: the start of Python itself, a cold file cache, a server beyond loopback, `resume` (one question more to the server).
"""

from __future__ import annotations

import statistics
import tempfile
from typing import TYPE_CHECKING

from benchmarks.figures import Figure
from benchmarks.scene import ask_child, running_server

if TYPE_CHECKING:
    from collections.abc import Iterator

PROCESSES = 9
_LIFE = """
import json, sys
from time import perf_counter

began_s = perf_counter()
import runferry
imported_s = perf_counter()
init = runferry.init
ready_s = perf_counter()
settings = {"base_url": sys.argv[1]} if sys.argv[1] else {}
run = init(project="benchmarks", settings=settings)
run.log({"loss": 0.5})
logged_s = perf_counter()
run.flush(durable=True, acked=bool(sys.argv[1]), timeout=30)
flushed_s = perf_counter()
run.finish()
finished_s = perf_counter()
print(json.dumps({"import runferry": imported_s - began_s, "import of what init needs": ready_s - imported_s,
                  "init and first log": logged_s - ready_s,
                  "flush of one row": flushed_s - logged_s, "finish with nothing waiting": finished_s - flushed_s}))
"""


def measure() -> Iterator[Figure]:
    """Offline, then with a server."""
    with tempfile.TemporaryDirectory(prefix="runferry-bench-") as bytecode:
        yield from _lives("offline", "", bytecode)
        with running_server() as server:
            yield from _lives("online", server.url, bytecode)


def _lives(mode: str, base_url: str, bytecode: str) -> Iterator[Figure]:
    ask_child(_LIFE, base_url, bytecode=bytecode)  # this one compiles
    lives = [ask_child(_LIFE, base_url, bytecode=bytecode) for _ in range(PROCESSES)]
    for part in lives[0]:
        ms = [1000 * life[part] for life in lives]
        yield Figure(f"{mode}: {part}", {"median_ms": statistics.median(ms), "least_ms": min(ms), "greatest_ms": max(ms)})
