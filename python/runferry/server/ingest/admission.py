"""Who may open a stream now: openings of all connections in turn, and a polite no when there are too many.

Opening a writer costs transactions in both databases. A client that opens without end must delay itself and nobody else, so
each connection has a queue of its own and the queues are served in turn. What cannot be served soon is shed at once, with a time
to come back that is spread over the writers: after an outage all of them come together, and shall not do so again.

Used on the event loop only.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict, deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from runferry.server.settings import Limits

OPENING_THREADS = 2
BASE_RETRY_MS = 500
SPREAD_RETRY_MS = 10_000
_Answer = TypeVar("_Answer")


class ShedError(Exception):
    """Not now; the message says why."""


class Admission:
    """The queues, and the threads that open."""

    def __init__(self, limits: Limits) -> None:
        """Nobody waits yet."""
        self._limits = limits
        self._threads = ThreadPoolExecutor(OPENING_THREADS, thread_name_prefix="rf-open")
        self._free = OPENING_THREADS
        self._queues: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        self._waiting = 0
        self._waiting_bytes = 0

    async def open(self, peer: str, size_bytes: int, call: Callable[..., _Answer], *arguments: object) -> _Answer:
        """Run an opening when it is this connection's turn.

        Raises:
            ShedError: Too many wait.
        """
        queue = self._queues.get(peer, ())
        if self._waiting >= self._limits.max_waiting_opens or len(queue) >= self._limits.max_waiting_opens_per_connection:
            raise ShedError(f"{self._waiting} writers wait to be opened")
        if self._waiting_bytes + size_bytes > self._limits.max_waiting_open_bytes:
            raise ShedError(f"openings of {self._waiting_bytes} bytes wait")
        self._waiting_bytes += size_bytes
        try:
            await self._turn(peer)
            try:
                return await asyncio.get_running_loop().run_in_executor(self._threads, call, *arguments)
            finally:
                self._free += 1
                self._next()
        finally:
            self._waiting_bytes -= size_bytes

    async def _turn(self, peer: str) -> None:
        """Wait for a thread; on return it is ours."""
        mine = asyncio.get_running_loop().create_future()
        self._queues.setdefault(peer, deque()).append(mine)
        self._waiting += 1
        self._next()
        try:
            await mine
        except asyncio.CancelledError:
            if mine.done() and not mine.cancelled():  # it was our turn, and nobody is here to take it
                self._free += 1
                self._next()
            raise

    def _next(self) -> None:
        """Give free threads to the connections in turn."""
        while self._free and self._queues:
            peer, queue = self._queues.popitem(last=False)
            mine = queue.popleft()
            self._waiting -= 1
            if queue:
                self._queues[peer] = queue  # behind all others
            if not mine.done():
                self._free -= 1
                mine.set_result(None)

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(wait=False)


def retry_after_ms(open_frame: bytes) -> int:
    """When a writer that was shed shall come back: a moment of its own within ten seconds."""
    drawn = int.from_bytes(hashlib.blake2s(open_frame[:64], digest_size=4).digest(), "little")
    return BASE_RETRY_MS + drawn % SPREAD_RETRY_MS
