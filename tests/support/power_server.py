"""Forks stores that commit to a disk and cuts its power under each: `python power_server.py DEVICE PATH CYCLES SEED FIRST`.

One warm process forks them all. A store commits groups of frames of several writers, merging meanwhile, and notes in memory that it shares
with its parent what the commits have made durable: what a server would ack. The parent reads that before it cuts the power, and another
fork opens the store again. All cycles use the same files, so each also cuts the power under the runs of the cycles before it.
For each cycle one JSON line: `{"id": "p7", "acked": 310, "kept": 312}`, in frames.
"""

from __future__ import annotations

import json
import mmap
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from runferry.server.store.protocol import Batch
from runferry.server.store.sqlite import SqliteStore

from tests.conformance.reading import bits, scan_rows
from tests.support.frames import START_US, ScriptedWriter
from tests.support.power import LoopDisk

if TYPE_CHECKING:
    from collections.abc import Callable

WRITERS = 4
START_TIMEOUT_S = 30.0
LONGEST_S = 0.08
BROKEN = 70


def writers_of(name: str) -> list[ScriptedWriter]:
    """The writers of a cycle: two runs of two, whose metrics differ."""
    return [ScriptedWriter(id=f"{name}-{index % 2}", writer_id=index + 1) for index in range(WRITERS)]


def rows_of(index: int) -> str:
    """The metric of a writer."""
    return f"m{index}"


def commit(name: str, folder: Path, chance: random.Random, acked: memoryview) -> None:
    """Commit groups until the power goes."""
    store = SqliteStore(folder, shards=2)
    writers = writers_of(name)
    for writer in writers:
        store.open_writer(writer.run_id, writer.writer_id, writer.open_frame(), label="", started_us=START_US, is_relative=False)
    while True:
        group = []
        for index, writer in enumerate(writers):
            first_seq = writer.next_seq
            frames = writer.rows(chance.choice((1, 1, 3, 20)), first_step=first_seq - 1, name=rows_of(index))
            group.append(Batch(writer.run_id, writer.writer_id, first_seq, writer.next_seq, frames))
        for index, answer in enumerate(store.append(group)):
            acked[index] = answer.next_seq


def check(name: str, folder: Path, acked: list[int], kept: memoryview) -> None:
    """Open the store again: all that was acked is there and can be read, and the ledger finds nothing wrong."""
    store = SqliteStore(folder, merging=False)
    for index, writer in enumerate(writers_of(name)):
        next_seq = store.next_seqs(writer.run_id, [writer.writer_id]).get(writer.writer_id, 1)
        assert next_seq >= acked[index], f"writer {index}: {acked[index]} was acked, {next_seq} is expected next"
        rows = [(row[0], row[2]) for row in scan_rows(store, writer.run_id, [rows_of(index)])]
        assert rows == [(step, {rows_of(index): bits(float(step))}) for step in range(next_seq - 1)], f"writer {index}: other rows are read"
        assert store.check(writer.run_id) == []
        kept[index] = next_seq
    store.close()


def fork(body: Callable[[], None]) -> int:
    """Run `body` in a fork; the fork's process id."""
    pid = os.fork()
    if pid == 0:
        code = BROKEN
        try:
            body()
            code = 0
        finally:
            os._exit(code)
    return pid


def cycle(disk: LoopDisk, name: str, chance: random.Random) -> dict[str, int | str]:
    """One power failure, and what is there after it."""
    folder = disk.path / "metrics"
    shared = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("Q")
    own = random.Random(chance.random())
    pid = fork(lambda: commit(name, folder, own, shared))
    deadline = time.monotonic() + START_TIMEOUT_S
    while not shared[0] and time.monotonic() < deadline:
        time.sleep(0.0005)
    time.sleep(chance.random() * LONGEST_S)
    acked = [max(1, shared[index]) for index in range(WRITERS)]
    disk.cut()
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    disk.restore(chance.randrange(4))
    if not shared[0]:
        raise SystemExit(f"cycle {name}: no commit in {START_TIMEOUT_S:.0f} s")

    kept = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("Q")
    _, status = os.waitpid(fork(lambda: check(name, folder, acked, kept)), 0)
    if status:
        raise SystemExit(f"cycle {name}: acked {acked}, and the check failed")
    return {"id": name, "acked": sum(acked) - WRITERS, "kept": sum(kept[index] for index in range(WRITERS)) - WRITERS}


def main() -> None:
    """All cycles."""
    disk = LoopDisk(Path(sys.argv[2]), sys.argv[1])
    cycles, seed, first = map(int, sys.argv[3:6])
    chance = random.Random(seed * 1_000_003 + first)
    for index in range(first, first + cycles):
        print(json.dumps(cycle(disk, f"p{index}", chance)), flush=True)  # noqa: T201 - the answer


if __name__ == "__main__":
    main()
