"""Forks trainers that log as fast as they can and kills each at a random instant. Run as a program: `python kills.py KILLS SEED FOLDER`.

One warm process forks them all, so that a kill costs tens of milliseconds; `runferry.init` happens in the fork only. How many calls had
returned stands in memory that parent and child share, written after each call, so it survives the kill as exactly as a pipe would.
For each kill one JSON line: `{"id": "k7", "mode": "online", "returned": 4711}`.
"""

from __future__ import annotations

import json
import mmap
import os
import random
import signal
import struct
import sys
import time
from typing import Any

FIRST_CALL_TIMEOUT_S = 30.0
MOST_CALLS = 4_000
LATEST_KILL_S = 0.002
INIT_S = 0.03
KILLED_IN_INIT = 0.15
OFFLINE = 0.3


def call(number: int) -> tuple[dict[str, Any], bool]:
    """The dict of a call and whether it ends its row: scalars mostly; open rows, texts, histograms, lists in between."""
    import runferry  # noqa: PLC0415 - imported once in `main`, cheap here

    bits = number * 0x9E37_79B9_7F4A_7C15 & 0xFFFF_FFFF_FFFF_FFFF
    (value,) = struct.unpack("<d", struct.pack("<Q", bits))
    kind = number % 8
    if kind == 4:
        return {"open": number, "x/part": value}, False
    row: dict[str, Any] = {"n": number, "x": value}
    if kind == 5:
        row["text"] = f"call {number}"
    elif kind == 6:
        row["h"] = runferry.Histogram(np_histogram=([number % 7, 1, 2], [0.0, 1.0, 2.5, 3.0]))
    elif kind == 7:
        row |= {"flag": number % 16 == 7, "none": None, "list": [number, 0.5]}
    return row, True


def train(index: int, mode: str, folder: str, returned: memoryview) -> None:
    """Log until the kill comes."""
    import runferry  # noqa: PLC0415 - as above

    run = runferry.init(project="kills", id=f"k{index}", dir=folder, mode=mode, settings={"silent": True})
    number = 0
    while True:
        row, is_whole = call(number)
        run.log(row) if is_whole else run.log(row, commit=False)
        number += 1
        returned[0] = number


def kill_one(index: int, chance: random.Random, folder: str) -> dict[str, Any]:
    """Fork, wait, kill."""
    shared = mmap.mmap(-1, mmap.PAGESIZE)
    returned = memoryview(shared).cast("Q")
    mode = "offline" if chance.random() < OFFLINE else "online"
    wanted = 0 if chance.random() < KILLED_IN_INIT else chance.randrange(1, MOST_CALLS)
    pause_s = chance.random() * (LATEST_KILL_S if wanted else INIT_S)
    pid = os.fork()
    if pid == 0:
        try:
            train(index, mode, folder, returned)
        finally:
            os._exit(70)
    deadline = time.monotonic() + FIRST_CALL_TIMEOUT_S
    while returned[0] < wanted and time.monotonic() < deadline:
        time.sleep(0.0002)
    time.sleep(pause_s)
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    if os.WTERMSIG(status) != signal.SIGKILL or returned[0] < wanted:
        raise SystemExit(f"trainer {index} ended by itself or hung: status {status}, {returned[0]} of {wanted} calls")
    return {"id": f"k{index}", "mode": mode, "returned": returned[0]}


def main() -> None:
    """All kills."""
    import runferry._convert  # noqa: PLC0415 - the warm start
    import runferry._http  # noqa: PLC0415
    import runferry.data.histogram  # noqa: F401, PLC0415

    kills, seed, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    chance = random.Random(seed)
    for index in range(kills):
        print(json.dumps(kill_one(index, chance, folder)), flush=True)  # noqa: T201 - the answer


if __name__ == "__main__":
    main()
