"""Forks trainers that log to a disk and cuts its power under each: `python power_client.py DEVICE PATH CYCLES SEED FIRST`.

One warm process forks them all, so that a cycle costs tens of milliseconds. A trainer logs as fast as it can and calls
`flush(durable=True)` every few rows; how many rows are promised by that stands in memory it shares with its parent, which reads it before
it cuts the power. Then the trainer is killed and its ring removed, since no shared memory survives a power failure.
For each cycle one JSON line: `{"id": "p7", "promised": 120, "kept": 131, "dir": "..."}`.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

from tests.support.power import LoopDisk

START_TIMEOUT_S = 30.0
LONGEST_S = 0.06
LARGE = 0.05
"""Share of trainers whose rows are large enough to fill segments."""
LARGE_BYTES = 120_000
PROMISED, DIRECTORY = 0, 64


def row(number: int, large_bytes: int) -> dict[str, Any]:
    """What is logged as number `number`."""
    values: dict[str, Any] = {"n": number, "x": 1 / (number + 1)}
    if large_bytes:
        values["noise"] = random.Random(number).randbytes(large_bytes // 2).hex()
    return values


def train(name: str, folder: Path, chance: random.Random, shared: mmap.mmap) -> None:
    """Log until the power goes."""
    import runferry  # noqa: PLC0415 - the warm process has imported it

    is_large = chance.random() < LARGE
    server = {"base_url": "http://127.0.0.1:9"} if is_large else {}  # nobody listens there: small segments, nothing is ever acked
    # A disk that stands still for long makes a full ring refuse calls, counted; here every call is to be taken.
    settings = {"silent": True, "backpressure": "block", "backpressure_block_ms": 30_000, **server}
    run = runferry.init(project="power", id=name, dir=folder, mode="online" if server else "offline", settings=settings)
    directory = str(run._writer.journal_dir).encode()  # noqa: SLF001 - how its ring and its journal are found
    shared[DIRECTORY : DIRECTORY + len(directory)] = directory
    promised = memoryview(shared).cast("Q")
    burst = chance.choice((1, 5, 40, 400))
    number = 0
    while True:
        for _ in range(burst):
            run.log(row(number, LARGE_BYTES if is_large else 0))
            number += 1
        if run.flush(durable=True, timeout=START_TIMEOUT_S):
            promised[PROMISED] = number


def cycle(disk: LoopDisk, name: str, chance: random.Random, *, keeps_promises: bool) -> dict[str, Any]:
    """One power failure, and what is there after it."""
    from runferry import _native  # noqa: PLC0415 - as above

    shared = mmap.mmap(-1, mmap.PAGESIZE)
    promised = memoryview(shared).cast("Q")
    pid = os.fork()
    if pid == 0:
        try:
            train(name, disk.path, random.Random(chance.random()), shared)
        finally:
            os._exit(70)
    deadline = time.monotonic() + START_TIMEOUT_S
    while not promised[PROMISED] and time.monotonic() < deadline:
        time.sleep(0.0005)
    time.sleep(chance.random() * LONGEST_S)
    heard = promised[PROMISED]
    disk.cut()
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    directory = Path(shared[DIRECTORY:].partition(b"\0")[0].decode())
    Path("/dev/shm", f"runferry-{directory.name}.ring").unlink(missing_ok=True)  # noqa: S108 - where rings lie
    disk.restore(chance.randrange(4))
    if os.WTERMSIG(status) != signal.SIGKILL or not heard:
        raise SystemExit(f"trainer {name} ended by itself or made no promise in {START_TIMEOUT_S:.0f} s: status {status}")

    found = _native.journal_fsck(str(directory))
    # Behind the promised rows anything may be missing, but what is there is whole.
    report = {"id": name, "promised": heard, "kept": found["rows"], "gaps": found["gaps"], "errors": found["errors"]}
    if keeps_promises and (found["rows"] < heard or found["errors"] or found["gaps"]):
        raise SystemExit(f"a promise was broken: {report}")
    return report


def main() -> None:
    """All cycles."""
    import runferry._convert  # noqa: PLC0415 - the warm start
    import runferry._http  # noqa: F401, PLC0415

    disk = LoopDisk(Path(sys.argv[2]), sys.argv[1])
    cycles, seed, first = map(int, sys.argv[3:6])
    chance = random.Random(seed * 1_000_003 + first)
    keeps_promises = not hasattr(ctypes.CDLL(None), "runferry_lying_fsync")
    for index in range(first, first + cycles):
        print(json.dumps(cycle(disk, f"p{index}", chance, keeps_promises=keeps_promises)), flush=True)  # noqa: T201 - the answer


if __name__ == "__main__":
    main()
