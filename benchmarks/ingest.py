"""How many points a second does the embedded server take in?

Real clients write journals offline first; then the frames, byte for byte, go through the gRPC write door, over one stream and over
several at once: rows of ten scalars in frames as large as they come, then 2,000 metrics with ten steps a frame. `durable` is timed from
the first Open to the ack of the last frame, `merged` until the last point has left the frames for its metric's chunks, which the server
does behind the ack; a merge that keeps up makes both alike. Units: points per second, MiB of frames per second, the most points that
were durable and not merged yet (looked at all the while; frames times the mean of one), and the server's CPU seconds per million points,
the merge included.

Not measured: packing the frames (`end_to_end.py` has it), a network. The client takes its share of the cores.
"""

from __future__ import annotations

import contextlib
import dataclasses
import queue
import struct
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import grpc
from runferry import _native
from runferry.server._generated import ingest_pb2 as pb
from runferry.server._generated import ingest_pb2_grpc as services

from benchmarks.figures import Figure
from benchmarks.scene import PROJECT, open_run, running_server
from benchmarks.server_disk import unmerged_frames, wait_until_merged
from benchmarks.workloads import loss_curve, wide
from tests.support.frames import ScriptedWriter, crc32c

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from benchmarks.workloads import Workload

ROWS, PASSES, WRITERS = 100_000, 5, (1, 4)
METRICS, FRAME_ROWS, WIDE_ROWS, WIDE_PASSES = 2_000, 10, 100, 25
MESSAGE_BYTES = 1 << 20
TIMEOUT_S = 120.0
PAUSE_ROWS = 20_000
_MIB_BYTES = 1 << 20
_OPEN = 2
_HEADER_BYTES, _ALIGNMENT_BYTES, _IDENTITY_OFFSET = 64, 8, 16
_TICKS_PER_S = 100


@dataclass(frozen=True, slots=True)
class Journal:
    """The frames of one writer."""

    open_frame: bytes
    messages: Sequence[Sequence[bytes]]
    next_seq: int
    size_bytes: int
    points: int = 0


def measure() -> Iterator[Figure]:
    """One stream, then several at once, then wide rows; each on an empty server."""
    journals = [written(loss_curve(ROWS), run_id(number), passes=PASSES) for number in range(max(WRITERS))]
    for writers in WRITERS:
        yield _taken_in("", journals[:writers])
    wide_rows = wide(WIDE_ROWS, METRICS)
    journals = [written(wide_rows, run_id(number), passes=WIDE_PASSES, frame_rows=FRAME_ROWS) for number in range(max(WRITERS))]
    yield _taken_in(f"wide, {METRICS:,} metrics x {FRAME_ROWS} steps a frame, ", journals)


def _taken_in(what: str, journals: Sequence[Journal]) -> Figure:
    points = sum(journal.points for journal in journals)
    frames = sum(journal.next_seq - 1 for journal in journals)
    with running_server() as server:
        cpu_before_s = cpu_time_s(server.process.pid)
        with largest_of(lambda: unmerged_frames(server.data)) as largest:
            began_s = perf_counter()
            durable_s = send_all(server.write_address, journals)
            wait_until_merged(server.data, points)
            merged_s = perf_counter() - began_s
        cpu_s = cpu_time_s(server.process.pid) - cpu_before_s
    return Figure(
        f"{what}{len(journals)} stream{'' if len(journals) == 1 else 's'}, {points:,} points",
        {
            "durable_points_per_s": points / durable_s,
            "merged_points_per_s": points / merged_s,
            "largest_unmerged_points": largest() * points / frames,
            "durable_mib_per_s": sum(journal.size_bytes for journal in journals) / _MIB_BYTES / durable_s,
            "frames": frames,
            "server_cpu_s_per_million_points": cpu_s / points * 1e6,
        },
    )


@contextlib.contextmanager
def largest_of(look: Callable[[], int], pause_s: float = 0.05) -> Iterator[Callable[[], int]]:
    """For the length of a block a thread looks again and again; what the block gets answers the largest it has seen."""
    seen = [0]
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(pause_s):
            seen[0] = max(seen[0], look())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield lambda: seen[0]
    finally:
        is_over.set()
        thread.join()


def run_id(number: int) -> str:
    return f"writer-{number}"


def written(workload: Workload, run_id: str, *, passes: int = PASSES, frame_rows: int = 0) -> Journal:
    """What a real client puts into its journal; with `frame_rows` it makes a frame of so many rows, as one that logs slowly does."""
    with open_run(run_id=run_id) as run:
        for _ in range(passes):
            for first in range(0, len(workload.rows), frame_rows or len(workload.rows)):
                for number, row in enumerate(workload.rows[first : first + (frame_rows or len(workload.rows))], 1):
                    run.log(row)
                    if number % PAUSE_ROWS == 0:
                        time.sleep(0.05)  # the packer's turn: a ring that stands full for long refuses rows, and nothing is timed here
                if frame_rows:
                    run.flush()
        if run.status().dropped_rows:
            raise RuntimeError(f"the client dropped rows: {run.status()}")
        folder = Path(run.dir)
        run.finish()
        frames = [frame for segment in sorted(folder.glob("seg-*.rfj")) for frame in _frames_in(segment.read_bytes())]
    opens = [frame for frame in frames if frame[5] == _OPEN]
    numbered = [frame for frame in frames if frame[5] != _OPEN]
    _, _, _, _, _, next_seq, _, error = _native.verify_frames([numbered[-1]])[0]
    if error is not None:
        raise RuntimeError(f"the journal of {run_id} ends in a broken frame: {error}")
    return Journal(opens[0], _messages(numbered), next_seq, sum(map(len, numbered)), passes * workload.points)


def moved(journal: Journal, run_id: str, writer: int = 1, **opening: Any) -> Journal:
    """The same frames as another writer's, of any run: what a server gets of many costs no more to prepare than of one."""
    scripted = ScriptedWriter(project=PROJECT, id=run_id, writer_id=writer)
    identity = scripted.run_id + struct.pack("<Q", writer)

    def renamed(frame: bytes) -> bytes:
        head = frame[:_IDENTITY_OFFSET] + identity + frame[_IDENTITY_OFFSET + len(identity) : _HEADER_BYTES - 4]
        return head + struct.pack("<I", crc32c(head)) + frame[_HEADER_BYTES:]

    messages = [[renamed(frame) for frame in message] for message in journal.messages]
    return dataclasses.replace(journal, open_frame=scripted.open_frame(**opening), messages=messages)


def _frames_in(segment: bytes) -> Iterator[bytes]:
    offset = 0
    while offset < len(segment):
        payload_bytes = int.from_bytes(segment[offset + 8 : offset + 12], "little")
        padded_bytes = -(-(_HEADER_BYTES + payload_bytes) // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
        yield segment[offset : offset + padded_bytes]
        offset += padded_bytes


def _messages(frames: Sequence[bytes]) -> list[list[bytes]]:
    messages: list[list[bytes]] = [[]]
    size_bytes = 0
    for frame in frames:
        if messages[-1] and size_bytes + len(frame) > MESSAGE_BYTES:
            messages.append([])
            size_bytes = 0
        messages[-1].append(frame)
        size_bytes += len(frame)
    return messages


def send_all(address: str, journals: Sequence[Journal], streams: int = 0) -> float:
    """Seconds until the last ack; a thread a stream, each journal in one of its own or in the next that is free of so many."""
    failures: queue.SimpleQueue[Exception] = queue.SimpleQueue()
    waiting: queue.SimpleQueue[Journal] = queue.SimpleQueue()
    for journal in journals:
        waiting.put(journal)

    def send() -> None:
        try:
            with contextlib.suppress(queue.Empty):
                while True:
                    _send(address, waiting.get_nowait())
        except Exception as error:  # noqa: BLE001 - handed to the caller's thread
            failures.put(error)

    threads = [threading.Thread(target=send) for _ in range(streams or len(journals))]
    began_s = perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    durable_s = perf_counter() - began_s
    if not failures.empty():
        raise failures.get()
    return durable_s


def _send(address: str, journal: Journal) -> None:
    """One stream: Open, everything that the server's credit allows, Bye after the last durable ack."""
    outgoing: queue.SimpleQueue[pb.ClientMessage | None] = queue.SimpleQueue()
    outgoing.put(
        pb.ClientMessage(open=pb.Open(protocol=1, open_frame=journal.open_frame, first_available_seq=1, next_seq=journal.next_seq))
    )
    with grpc.insecure_channel(address) as channel:
        sent_bytes, waiting = 0, list(journal.messages)
        stub = services.IngestStub(channel)  # type: ignore[no-untyped-call]  # generated code
        for message in stub.Stream(iter(outgoing.get, None), timeout=TIMEOUT_S):
            kind = message.WhichOneof("kind")
            if kind in {"reject", "rewind"}:
                raise RuntimeError(f"the server answered {message}")
            if kind == "ack" and message.ack.durable_next_seq >= journal.next_seq:
                outgoing.put(pb.ClientMessage(bye=pb.Bye()))
                outgoing.put(None)
            credit_bytes = {"open_ok": message.open_ok.credit_bytes, "credit": message.credit.total_bytes}.get(kind, 0)
            while waiting and sent_bytes < credit_bytes:
                frames = waiting.pop(0)
                sent_bytes += sum(map(len, frames))
                outgoing.put(pb.ClientMessage(frames=pb.Frames(frames=frames)))


def cpu_time_s(pid: int) -> float:
    """User and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
