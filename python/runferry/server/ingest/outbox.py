"""What a stream still has to say, and the task that says it.

Acks and credit are cumulative, so only the newest is kept: a slow reader costs no memory. Everything else is rare and queued.
The order is: what was queued, then the ack, then the credit; so an ack never overtakes the rewind it follows. What was
received behind the place a writer rewinds to is not received any more: the ack behind a rewind says so.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from runferry.server._generated import ingest_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

MAX_QUEUED = 64
"""A writer that lets so many rewinds and throttles pile up reads nothing: its stream is ended."""


class Outbox:
    """Messages of one stream on their way; used on the event loop only."""

    def __init__(self, write: Callable[[pb.ServerMessage], Awaitable[None]]) -> None:
        """Send with this function, one message at a time."""
        self._write = write
        self._changed = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._queued: list[pb.ServerMessage] = []
        self._received = 0
        self._durable = 0
        self._is_ack_due = False
        self._credit_bytes: int | None = None

    def put(self, message: pb.ServerMessage) -> None:
        """Queue a message.

        Raises:
            BufferError: The writer does not read.
        """
        if len(self._queued) >= MAX_QUEUED:
            raise BufferError("the writer does not read its messages")
        self._queued.append(message)
        self._wake()

    def rewind(self, next_seq: int, reason: str) -> None:
        """Send the writer back to `next_seq`.

        Raises:
            BufferError: As `put`.
        """
        self._received = max(self._durable, min(self._received, next_seq))
        self.put(pb.ServerMessage(rewind=pb.Rewind(next_seq=next_seq, reason=reason)))

    def ack(self, *, received: int, durable: int, is_forced: bool = False) -> None:
        """Acknowledge; numbers go back by `rewind` only, and what is no news is not sent unless forced."""
        if received > self._received or durable > self._durable or is_forced:
            self._received = max(self._received, received, durable)
            self._durable = max(self._durable, durable)
            self._is_ack_due = True
            self._wake()

    def credit(self, total_bytes: int) -> None:
        """Raise the grant."""
        self._credit_bytes = total_bytes
        self._wake()

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            for message in self._take():
                await self._write(message)
            if not self._changed.is_set():
                self._idle.set()

    async def flushed(self) -> None:
        """Wait until everything is sent."""
        await self._idle.wait()

    def _wake(self) -> None:
        self._idle.clear()
        self._changed.set()

    def _take(self) -> list[pb.ServerMessage]:
        messages, self._queued = self._queued, []
        if self._is_ack_due:
            self._is_ack_due = False
            ack = pb.Ack(received_next_seq=self._received, durable_next_seq=self._durable)
            messages.append(pb.ServerMessage(ack=ack))
        if self._credit_bytes is not None:
            messages.append(pb.ServerMessage(credit=pb.Credit(total_bytes=self._credit_bytes)))
            self._credit_bytes = None
        return messages
