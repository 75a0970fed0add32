"""How many points a second does the embedded server take in?

Real clients write journals offline first; then the frames, byte for byte, go through the gRPC write door, over one stream and over
several at once. `durable` is timed from the first Open to the ack of the last frame, `merged` until the last point has left the
frames for its metric's chunks, which the server does behind the ack. Units: points per second, MiB of frames per second, and the
server's CPU seconds per million points, the merge included.

Not measured: packing the frames (`end_to_end.py` has it), a network. The client takes its share of the cores.
"""

from __future__ import annotations

import queue
import threading
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import grpc
from runferry import _native
from runferry.server._generated import ingest_pb2 as pb
from runferry.server._generated import ingest_pb2_grpc as services

from benchmarks.figures import Figure
from benchmarks.scene import PROJECT, open_run, running_server
from benchmarks.server_disk import merged_bytes
from benchmarks.workloads import loss_curve

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.workloads import Workload

ROWS, PASSES, WRITERS = 100_000, 5, (1, 4)
MESSAGE_BYTES = 1 << 20
TIMEOUT_S = 120.0
_MIB_BYTES = 1 << 20
_OPEN = 2
_HEADER_BYTES, _ALIGNMENT_BYTES = 64, 8
_TICKS_PER_S = 100


@dataclass(frozen=True, slots=True)
class Journal:
    """The frames of one writer."""

    open_frame: bytes
    messages: Sequence[Sequence[bytes]]
    next_seq: int
    size_bytes: int


def measure() -> Iterator[Figure]:
    """One stream, then several at once; each on an empty server."""
    workload = loss_curve(ROWS)
    journals = [written(workload, run_id(number)) for number in range(max(WRITERS))]
    for writers in WRITERS:
        points = writers * PASSES * workload.points
        with running_server() as server:
            cpu_before_s = cpu_time_s(server.process.pid)
            began_s = perf_counter()
            durable_s = send_all(server.write_address, journals[:writers])
            for number in range(writers):
                merged_bytes(server.data, _native.run_key("local", PROJECT, run_id(number)), PASSES * workload.points)
            merged_s = perf_counter() - began_s
            cpu_s = cpu_time_s(server.process.pid) - cpu_before_s
        size_bytes = sum(journal.size_bytes for journal in journals[:writers])
        yield Figure(
            f"{writers} stream{'' if writers == 1 else 's'}, {points:,} points",
            {
                "durable_points_per_s": points / durable_s,
                "merged_points_per_s": points / merged_s,
                "durable_mib_per_s": size_bytes / _MIB_BYTES / durable_s,
                "frames": sum(journal.next_seq - 1 for journal in journals[:writers]),
                "server_cpu_s_per_million_points": cpu_s / points * 1e6,
            },
        )


def run_id(number: int) -> str:
    return f"writer-{number}"


def written(workload: Workload, run_id: str, *, passes: int = PASSES) -> Journal:
    """What a real client puts into its journal."""
    with open_run(run_id=run_id) as run:
        for _ in range(passes):
            workload.play(run)
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
    return Journal(opens[0], _messages(numbered), next_seq, sum(map(len, numbered)))


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


def send_all(address: str, journals: Sequence[Journal]) -> float:
    """Seconds until the last ack; a thread a stream."""
    failures: queue.SimpleQueue[Exception] = queue.SimpleQueue()

    def send(journal: Journal) -> None:
        try:
            _send(address, journal)
        except Exception as error:  # noqa: BLE001 - handed to the caller's thread
            failures.put(error)

    threads = [threading.Thread(target=send, args=(journal,)) for journal in journals]
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
