"""Who waits for what: wakes the subscribers of a run or a project when something of it arrived.

Nothing is queued: a wake only says "look again". A subscriber that is slow finds, when it looks, everything that has
happened since, in one answer; so memory is bounded by the number of subscribers.

Belongs to the event loop: every method is called there, `*_from_thread` excepted.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_Key = TypeVar("_Key")
ProjectKey = tuple[str | None, str | None]
"""Entity and project; None: any."""


class Subscription:
    """One reader's wake-up: an event, and for a project the runs that changed."""

    def __init__(self) -> None:
        """Nothing has happened yet."""
        self._event = asyncio.Event()
        self._runs: dict[bytes, None] = {}
        self._is_closed = False

    @property
    def is_closed(self) -> bool:
        """The server is going: end the answer."""
        return self._is_closed

    async def wait(self, timeout_s: float) -> bool:
        """Wait until something happened; False: the time is up."""
        try:
            await asyncio.wait_for(self._event.wait(), timeout_s)
        except asyncio.TimeoutError:
            return False
        self._event.clear()
        return True

    def take_runs(self, limit: int) -> list[bytes]:
        """Runs that changed since the last call, the longest waiting first; what is left wakes again."""
        taken = list(self._runs)[:limit]
        for run_id in taken:
            del self._runs[run_id]
        if self._runs:
            self._event.set()
        return taken

    def wake(self, run_id: bytes | None = None) -> None:
        """Something happened (to this run)."""
        if run_id is not None:
            self._runs[run_id] = None
        self._event.set()

    def close(self) -> None:
        """End it."""
        self._is_closed = True
        self._event.set()


class Hub:
    """All subscriptions of one server."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Live on this loop."""
        self._loop = loop
        self.tell_others: Callable[[bytes, str | None, str | None], None] = _nobody_else
        """Called with each run that changed here, and entity and project if a listing shows it: other servers may have its readers."""
        self._of_run: dict[bytes, set[Subscription]] = {}
        self._of_project: dict[ProjectKey, set[Subscription]] = {}
        self._is_closed = False

    @contextmanager
    def follow_run(self, run_id: bytes) -> Iterator[Subscription]:
        """Be woken by everything of this run, for the length of the block."""
        with self._follow(self._of_run, run_id) as subscription:
            yield subscription

    @contextmanager
    def follow_project(self, entity: str | None, project: str | None) -> Iterator[Subscription]:
        """Be woken by each change of a run of this project; None: of any."""
        with self._follow(self._of_project, (entity, project)) as subscription:
            yield subscription

    def run_changed(self, run_id: bytes) -> None:
        """Frames of the run have become durable."""
        self.tell_others(run_id, None, None)
        self._wake(run_id, None, None)

    def metadata_changed(self, run_id: bytes, entity: str, project: str) -> None:
        """The run appeared, or something that a listing shows of it changed."""
        self.tell_others(run_id, entity, project)
        self._wake(run_id, entity, project)

    def heard_from_thread(self, run_id: bytes, entity: str | None, project: str | None) -> None:
        """The run changed at another server."""
        self._from_thread(self._wake, run_id, entity, project)

    def look_all_from_thread(self) -> None:
        """Nobody knows what changed: each reader of a run looks."""
        self._from_thread(self._wake_all)

    def _wake(self, run_id: bytes, entity: str | None, project: str | None) -> None:
        for subscription in self._of_run.get(run_id, ()):
            subscription.wake()
        if entity is None or project is None:
            return
        for key in ((entity, project), (entity, None), (None, project), (None, None)):
            for subscription in self._of_project.get(key, ()):
                subscription.wake(run_id)

    def _wake_all(self) -> None:
        for subscriptions in self._of_run.values():
            for subscription in subscriptions:
                subscription.wake()

    def metadata_changed_from_thread(self, run_id: bytes, entity: str, project: str) -> None:
        """As `metadata_changed`, from any thread."""
        self._from_thread(self.metadata_changed, run_id, entity, project)

    def _from_thread(self, call: Callable[..., None], *arguments: object) -> None:
        """After the loop has ended nobody is left to be told."""
        try:
            self._loop.call_soon_threadsafe(call, *arguments)
        except RuntimeError:
            if not self._loop.is_closed():
                raise

    def close(self) -> None:
        """End every subscription, and each later one at once."""
        self._is_closed = True
        for subscriptions in (*self._of_run.values(), *self._of_project.values()):
            for subscription in subscriptions:
                subscription.close()

    @contextmanager
    def _follow(self, where: dict[_Key, set[Subscription]], key: _Key) -> Iterator[Subscription]:
        subscription = Subscription()
        if self._is_closed:
            subscription.close()
        where.setdefault(key, set()).add(subscription)
        try:
            yield subscription
        finally:
            where[key].discard(subscription)
            if not where[key]:
                del where[key]


def _nobody_else(_run_id: bytes, _entity: str | None, _project: str | None) -> None:
    """This server has its database for itself."""
