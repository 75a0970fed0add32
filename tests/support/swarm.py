"""Very many writers in one process, each with its own stream: `python -m tests.support.swarm ADDRESS WRITERS FRAMES MIDDLE`.

They do what a client does as far as the protocol goes: keep to the credit, come back when they are told to or when the stream breaks,
and go on where the server says. Each sends `MIDDLE` frames, then all wait for each other and for a line on stdin, then they send the rest.
Lines of JSON on stdout: one when the middle is reached, one when half of the rest is acked, one at the end.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from typing import Any

import grpc
from runferry.server._generated import ingest_pb2 as pb
from runferry.server._generated import ingest_pb2_grpc as services

from tests.support.frames import ScriptedWriter

WRITERS_A_CONNECTION = 50
RETRY_S = 0.25
LONGEST_RETRY_S = 4.0


def writer_of(index: int) -> ScriptedWriter:
    """Each has a run of its own."""
    return ScriptedWriter(id=f"swarm{index}", writer_id=index + 1)


class Swarm:
    """What the writers share."""

    def __init__(self, address: str, writers: int, frames: int, middle: int) -> None:
        """Nobody is connected yet. `acked_in_vain`: frames that the server had acked and did not have when a writer came back."""
        channels = range(-(-writers // WRITERS_A_CONNECTION))
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_reconnect_backoff_ms", 1_000)]
        self._stubs = [services.IngestStub(grpc.aio.insecure_channel(address, options=options)) for _ in channels]  # type: ignore[no-untyped-call]  # generated
        self._frames, self._middle = frames, middle
        self.durable = [0] * writers
        self.least_at_half = -1
        self.throttled = self.broken = 0
        self.acked_in_vain = 0
        self.back_at_s: list[float] = []
        self.go_on = asyncio.Event()
        self._has_moved = asyncio.Condition()

    async def run(self) -> None:
        """To the last ack."""
        tasks = [asyncio.create_task(self._live(index)) for index in range(len(self.durable))]
        async with self._has_moved:
            await self._has_moved.wait_for(lambda: min(self.durable) >= self._middle)
        print(json.dumps({"middle": True}), flush=True)  # noqa: T201 - the answer
        await asyncio.to_thread(sys.stdin.readline)
        began_s = time.monotonic()
        self.go_on.set()
        await asyncio.gather(*tasks)
        told = {
            "throttled": self.throttled,
            "broken": self.broken,
            "least_at_half": self.least_at_half,
            "acked_in_vain": self.acked_in_vain,
        }
        last_back_s = max(self.back_at_s, default=began_s) - began_s
        print(json.dumps({**told, "last_back_s": round(last_back_s, 2), "took_s": round(time.monotonic() - began_s, 2)}), flush=True)  # noqa: T201 - as above

    async def _live(self, index: int) -> None:
        writer = writer_of(index)
        opening = writer.open_frame()
        frames = [*writer.rows(self._frames - 1), writer.finish()]
        retry_s = RETRY_S
        while self.durable[index] < len(frames):
            wait_s = random.uniform(0, retry_s)
            try:
                told_s = await self._stream(index, opening, frames)
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):  # the second: it ended before it was written to
                self.broken += 1
                retry_s = min(LONGEST_RETRY_S, 2 * retry_s)
            else:
                wait_s = told_s if told_s is not None else wait_s
            if self.durable[index] < len(frames):
                await asyncio.sleep(wait_s)

    async def _stream(self, index: int, opening: bytes, frames: list[bytes]) -> float | None:  # noqa: C901 - a case a message
        """One stream; when to come back, if the server has said so."""
        call = self._stubs[index // WRITERS_A_CONNECTION].Stream()
        await call.write(pb.ClientMessage(open=pb.Open(protocol=1, open_frame=opening, first_available_seq=1, next_seq=len(frames) + 1)))
        reading: asyncio.Future[Any] = asyncio.ensure_future(call.read())
        going_on = asyncio.ensure_future(self.go_on.wait())
        sent, sent_bytes, credit_bytes = -1, 0, 0
        try:
            while True:
                await asyncio.wait({reading} if going_on.done() else {reading, going_on}, return_when=asyncio.FIRST_COMPLETED)
                if reading.done():
                    message = reading.result()
                    if message is grpc.aio.EOF:
                        return None
                    reading = asyncio.ensure_future(call.read())
                    kind = message.WhichOneof("kind")
                    if kind == "throttle" and sent < 0:
                        self.throttled += 1
                        return float(message.throttle.retry_after_ms) / 1_000
                    if kind == "open_ok":
                        sent, credit_bytes = message.open_ok.next_seq - 1, message.open_ok.credit_bytes
                        self.acked_in_vain += max(0, self.durable[index] - sent)
                        await self._moved(index, sent)
                        if self.go_on.is_set():
                            self.back_at_s.append(time.monotonic())
                    elif kind == "credit":
                        credit_bytes = message.credit.total_bytes
                    elif kind == "rewind":
                        sent = message.rewind.next_seq - 1
                    elif kind == "ack":
                        await self._moved(index, message.ack.durable_next_seq - 1)
                        if self.durable[index] == len(frames):
                            await call.write(pb.ClientMessage(bye=pb.Bye()))
                            return None
                end = len(frames) if self.go_on.is_set() else self._middle
                while 0 <= sent < end and sent_bytes < credit_bytes:
                    await call.write(pb.ClientMessage(frames=pb.Frames(frames=[frames[sent]])))
                    sent_bytes += len(frames[sent])
                    sent += 1
        finally:
            reading.cancel()
            going_on.cancel()
            call.cancel()

    async def _moved(self, index: int, durable: int) -> None:
        async with self._has_moved:
            self.durable[index] = max(self.durable[index], durable)
            if self.least_at_half < 0 and sum(self.durable) >= len(self.durable) * (self._middle + self._frames) // 2:
                self.least_at_half = min(self.durable)
                print(json.dumps({"half": True}), flush=True)  # noqa: T201 - as above
            self._has_moved.notify_all()


async def _main() -> None:
    await Swarm(sys.argv[1], *map(int, sys.argv[2:5])).run()


if __name__ == "__main__":
    asyncio.run(_main())
