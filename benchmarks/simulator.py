"""Thousands of writers in one process, from prepared frames: `python -m benchmarks.simulator ADDRESS WRITERS FRAMES`.

What a client does as far as the protocol goes, and nothing besides: no ring, no journal, no packing. Each writer has a run and a
stream of its own, keeps to the credit, and comes back as the Rust client does when its stream breaks. Connections are shared by some
writers each, so that this process and not the kernel's tables is what is filled.

Commands on stdin, a line each, each answered with a line of JSON: `open` (all are connected), `beat` (each says that it is alive; how
many were answered), `pack` (all frames are packed), `send` (all frames, to the last durable ack), `back` (all are connected again after
the server has gone; timed by who asks).
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from dataclasses import dataclass, field
from typing import Any

import grpc
import msgpack
from runferry import _native
from runferry.server._generated import ingest_pb2 as pb
from runferry.server._generated import ingest_pb2_grpc as services

from tests.support.frames import DATA, ScriptedWriter, rows_block

WRITERS_A_CONNECTION = 50
FRAMES_A_MESSAGE = 16
ROWS, SCALARS = 2, 10
FIRST_RETRY_S, LONGEST_RETRY_S = 0.25, 8.0
BEAT_TIMEOUT_S = 60.0


def payloads(count: int) -> list[bytes]:
    """Of small frames: two rows of ten scalars each."""
    row = {f"train/metric_{index}": 0.5 + index for index in range(SCALARS)}
    steps = [range(number * ROWS, (number + 1) * ROWS) for number in range(count)]
    return [
        msgpack.packb([rows_block([(step, {name: value + step / 3 for name, value in row.items()}) for step in some])]) for some in steps
    ]


@dataclass(slots=True)
class Writer:
    """One of them."""

    writer_id: int
    run_id: bytes
    open_frame: bytes
    durable: int = 1
    frames: list[bytes] = field(default_factory=list)
    is_open: asyncio.Event = field(default_factory=asyncio.Event)
    beaten: asyncio.Event = field(default_factory=asyncio.Event)
    wishes: asyncio.Queue[str] = field(default_factory=asyncio.Queue)


class Credit:
    """Bytes that may be sent."""

    def __init__(self) -> None:
        self._left = 0
        self._granted = 0
        self._has_more = asyncio.Event()

    def grant(self, total: int) -> None:
        self._left += total - self._granted
        self._granted = total
        self._has_more.set()

    async def take(self, count: int) -> None:
        while self._left <= 0:
            self._has_more.clear()
            await self._has_more.wait()
        self._left -= count


class Simulator:
    """All of them."""

    def __init__(self, address: str, writers: int, frames: int) -> None:
        """Nobody is connected yet."""
        options = [
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.max_reconnect_backoff_ms", 1_000),
            ("grpc.initial_reconnect_backoff_ms", 100),
        ]
        channels = range(-(-writers // WRITERS_A_CONNECTION))
        self._stubs = [services.IngestStub(grpc.aio.insecure_channel(address, options=options)) for _ in channels]  # type: ignore[no-untyped-call]  # generated
        self._payloads = payloads(frames)
        self.end = frames + 1
        self.writers = [self._made(index) for index in range(writers)]
        self.is_sending = asyncio.Event()
        self.throttled = self.broken = 0

    @staticmethod
    def _made(index: int) -> Writer:
        scripted = ScriptedWriter(project="benchmarks", id=f"simulated-{index}", writer_id=index + 1)
        return Writer(index + 1, scripted.run_id, scripted.open_frame())

    async def live(self, index: int) -> None:
        """Keep a writer connected for ever."""
        retry_s = FIRST_RETRY_S
        while True:
            wait_s: float | None = None
            try:
                wait_s = await self._stream(index)
                retry_s = FIRST_RETRY_S
            except grpc.aio.AioRpcError:
                self.broken += 1
                retry_s = min(LONGEST_RETRY_S, 2 * retry_s)
            self.writers[index].is_open.clear()
            await asyncio.sleep(random.uniform(0, retry_s) if wait_s is None else wait_s)  # noqa: S311 - spreads, hides nothing

    async def _stream(self, index: int) -> float | None:
        writer = self.writers[index]
        call = self._stubs[index // WRITERS_A_CONNECTION].Stream()
        opening = pb.Open(protocol=1, open_frame=writer.open_frame, first_available_seq=1, next_seq=self.end)
        talking: asyncio.Task[None] | None = None
        credit = Credit()
        try:
            await call.write(pb.ClientMessage(open=opening))
            while (message := await call.read()) is not grpc.aio.EOF:
                kind = message.WhichOneof("kind")
                if kind == "throttle" and not writer.is_open.is_set():
                    self.throttled += 1
                    return float(message.throttle.retry_after_ms) / 1_000
                if kind == "reject":
                    raise RuntimeError(f"rejected: {message.reject.reason}")
                if kind == "open_ok":
                    writer.durable = message.open_ok.next_seq
                    credit.grant(message.open_ok.credit_bytes)
                    writer.is_open.set()
                    talking = asyncio.create_task(self._talk(call, writer, credit))
                elif kind == "credit":
                    credit.grant(message.credit.total_bytes)
                elif kind == "ack":
                    writer.durable = max(writer.durable, message.ack.durable_next_seq)
                    writer.beaten.set()
            return None
        finally:
            if talking is not None:
                talking.cancel()
            call.cancel()

    async def _talk(self, call: Any, writer: Writer, credit: Credit) -> None:
        while True:
            wish = await writer.wishes.get()
            if wish == "beat":
                await call.write(pb.ClientMessage(beat=pb.Beat(lag_s=0.1)))
                continue
            for begin in range(writer.durable, self.end, FRAMES_A_MESSAGE):
                frames = writer.frames[begin - 1 : begin - 1 + FRAMES_A_MESSAGE]
                await credit.take(sum(map(len, frames)))
                await call.write(pb.ClientMessage(frames=pb.Frames(frames=frames)))

    async def run(self, command: str) -> dict[str, float]:
        """Do what was asked for."""
        began_s = time.monotonic()
        if command in {"open", "back"}:
            await asyncio.gather(*(writer.is_open.wait() for writer in self.writers))
            return {"took_s": time.monotonic() - began_s, "throttled": self.throttled, "broken": self.broken}
        if command == "pack":
            for writer in self.writers:
                writer.frames = [
                    _native.pack_frame(DATA, 0, writer.run_id, writer.writer_id, seq, ROWS, payload)
                    for seq, payload in enumerate(self._payloads, start=1)
                ]
                await asyncio.sleep(0)  # the streams live on meanwhile
            return {"took_s": time.monotonic() - began_s}
        for writer in self.writers:
            writer.beaten.clear()
            writer.wishes.put_nowait(command)
        if command == "beat":
            answers = await asyncio.gather(*map(_beaten, self.writers))
            return {"took_s": time.monotonic() - began_s, "answered": sum(answers)}
        while any(writer.durable < self.end for writer in self.writers):  # noqa: ASYNC110 - nothing else to wait for
            await asyncio.sleep(0.01)
        took_s = time.monotonic() - began_s
        return {"took_s": took_s, "frames_per_s": len(self.writers) * (self.end - 1) / took_s}


async def _beaten(writer: Writer) -> bool:
    try:
        await asyncio.wait_for(writer.beaten.wait(), BEAT_TIMEOUT_S)
    except asyncio.TimeoutError:
        return False
    return True


async def _main() -> None:
    simulator = Simulator(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    living = [asyncio.create_task(simulator.live(index)) for index in range(len(simulator.writers))]
    while line := await asyncio.to_thread(sys.stdin.readline):
        answer = await simulator.run(line.strip())
        print(json.dumps(answer), flush=True)
    for task in living:
        task.cancel()


if __name__ == "__main__":
    asyncio.run(_main())
