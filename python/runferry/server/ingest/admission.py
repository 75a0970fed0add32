"""Who may open a stream now: openings of all connections in turn, and a polite no when there are too many.

Opening a writer costs transactions in both databases. A client that opens without end must delay itself and nobody else, so
each connection has a queue of its own and the queues are served in turn. While some are opened the next gather, and share their
transactions. What cannot be served soon is shed at once, with a time to come back that is spread over the writers: after an outage all
of them come together, and shall not do so again.

Used on the event loop only; one thread opens.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict, deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runferry.server._generated import ingest_pb2 as pb
    from runferry.server.ingest.opening import Opened, Outcome
    from runferry.server.settings import Limits

MOST_AT_ONCE = 256
MOST_BYTES_AT_ONCE = 4 << 20
BASE_RETRY_MS = 500
SPREAD_RETRY_MS = 10_000


class ShedError(Exception):
    """Not now; the message says why."""


class _Waiting(NamedTuple):
    message: pb.Open
    outcome: asyncio.Future[Outcome]


class Admission:
    """The queues, and the thread that opens."""

    def __init__(self, limits: Limits, open_group: Callable[[Sequence[pb.Open]], Sequence[Outcome]]) -> None:
        """Nobody waits yet; `open_group` blocks and gives an outcome for each message."""
        self._limits = limits
        self._open_group = open_group
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rf-open")
        self._opening: asyncio.Task[None] | None = None
        self._queues: OrderedDict[str, deque[_Waiting]] = OrderedDict()
        self._waiting = 0
        self._waiting_bytes = 0

    async def open(self, peer: str, message: pb.Open) -> Opened | pb.Reject:
        """Open a writer when it is this connection's turn.

        Raises:
            ShedError: Too many wait.
            Exception: What `open_group` said.
        """
        size_bytes = len(message.open_frame)
        queue = self._queues.get(peer, ())
        if self._waiting >= self._limits.max_waiting_opens or len(queue) >= self._limits.max_waiting_opens_per_connection:
            raise ShedError(f"{self._waiting} writers wait to be opened")
        if self._waiting_bytes + size_bytes > self._limits.max_waiting_open_bytes:
            raise ShedError(f"openings of {self._waiting_bytes} bytes wait")
        mine = _Waiting(message, asyncio.get_running_loop().create_future())
        self._queues.setdefault(peer, deque()).append(mine)
        self._waiting += 1
        self._waiting_bytes += size_bytes
        if self._opening is None:
            self._opening = asyncio.create_task(self._run())
        try:
            outcome = await mine.outcome
        finally:
            self._waiting_bytes -= size_bytes
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def _run(self) -> None:
        """Open what waits, until nobody does."""
        try:
            while group := self._take():
                messages = [waiting.message for waiting in group]
                outcomes: Sequence[Outcome]
                try:
                    outcomes = await asyncio.get_running_loop().run_in_executor(self._thread, self._open_group, messages)
                except Exception as error:  # noqa: BLE001 - nobody may wait for ever
                    outcomes = [error] * len(group)
                for waiting, outcome in zip(group, outcomes, strict=True):
                    if not waiting.outcome.done():
                        waiting.outcome.set_result(outcome)
        finally:
            self._opening = None

    def _take(self) -> list[_Waiting]:
        """The next of each connection in turn."""
        group: list[_Waiting] = []
        group_bytes = 0
        while self._queues and len(group) < MOST_AT_ONCE and group_bytes < MOST_BYTES_AT_ONCE:
            peer, queue = self._queues.popitem(last=False)
            waiting = queue.popleft()
            self._waiting -= 1
            if queue:
                self._queues[peer] = queue  # behind all others
            if not waiting.outcome.done():
                group.append(waiting)
                group_bytes += len(waiting.message.open_frame)
        return group

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=False)


def retry_after_ms(open_frame: bytes) -> int:
    """When a writer that was shed shall come back: a moment of its own within ten seconds."""
    drawn = int.from_bytes(hashlib.blake2s(open_frame[:64], digest_size=4).digest(), "little")
    return BASE_RETRY_MS + drawn % SPREAD_RETRY_MS
