"""A loop for a profiler to look at: 2,000 rows of 10 floats, a pause of a millisecond, and so on for some seconds, offline.

perf record -D 2500 -e cpu-clock -F 4999 -o out.data .venv/bin/python -m benchmarks.steady 8
perf report -i out.data --no-children --percentage relative --sort sym --comm python     # the caller
perf report -i out.data --no-children --percentage relative --sort sym --comm rf-pack    # the packer
"""

from __future__ import annotations

import sys
import time

from benchmarks import bursts
from benchmarks.scene import open_run

ROWS, SCALARS, PAUSE_S = 2_000, 10, 0.001


def main() -> None:
    """For as many seconds as the first argument says."""
    rows = bursts.rows(SCALARS, count=ROWS)
    with open_run() as run:
        log, deadline_s = run.log, time.monotonic() + float(sys.argv[1])
        while time.monotonic() < deadline_s:
            for row in rows:
                log(row)
            time.sleep(PAUSE_S)


if __name__ == "__main__":
    main()
