"""What the routes of one server share, and how they get from a path to a run."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from runferry.server.http.answers import ApiError

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import ThreadPoolExecutor

    from runferry.server.auth import Gate
    from runferry.server.live import Hub
    from runferry.server.query import Query
    from runferry.server.settings import Advertised, Limits
    from runferry.server.store.protocol import Store

_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class ReadContext:
    """The parts that the read door reads from."""

    query: Query
    store: Store
    hub: Hub
    gate: Gate
    limits: Limits
    threads: ThreadPoolExecutor
    """Every blocking call runs here, never on the event loop."""
    version: str
    write: Advertised
    """Where writers are sent."""
    has_tls: bool
    """Both doors speak TLS."""

    async def call(self, call: Callable[..., _Answer], *arguments: object) -> _Answer:
        """Run a blocking call off the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self.threads, call, *arguments)

    async def of_run(self, entity: str, project: str, id: str, read: Callable[[bytes], _Answer]) -> _Answer:  # noqa: A002 - the field's name everywhere
        """What `read` says of the run with this key. Both are done in one thread: each way there and back waits for its turn.

        Raises:
            ApiError: There is no such run.
        """

        def find_and_read() -> _Answer:
            found = self.query.find(entity, project, id)
            if found is None:
                raise ApiError(404, "not_found", f"run {entity}/{project}/{id} does not exist")
            return read(found)

        return await self.call(find_and_read)
