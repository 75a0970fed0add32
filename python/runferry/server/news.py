"""Thread `rf-news`: servers that share a database tell one another which runs moved, so that each one's pages follow all of them.

A NOTIFY a few times a second, in transactions of its own: one inside a commit of frames would make all commits queue for one lock. News
only say "look again", so nothing is lost with them but time: after a lost connection everybody who waits looks once.
"""

from __future__ import annotations

import json
import logging
import secrets
import threading
from typing import TYPE_CHECKING, Any

import psycopg

from runferry.server.store.postgres_shard import connect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CHANNEL = "runferry"
EVERY_S = 0.25
RETRY_S = 1.0
MOST_BYTES = 7_000
"""Of one notification; PostgreSQL takes 8,000."""

Item = tuple[bytes, "str | None", "str | None"]
"""A run that moved; with entity and project if a listing shows something new of it."""

logger = logging.getLogger(__name__)


class News:
    """Tells the others and hears them; `tell` may be called from any thread, `hear` and `look_all` are called by this one's."""

    def __init__(self, url: str, hear: Callable[[Item], None], look_all: Callable[[], None]) -> None:
        """Tell and hear through this database."""
        self._url = url
        self._hear = hear
        self._look_all = look_all
        self._own = secrets.token_hex(8)
        self._lock = threading.Lock()
        self._waiting: dict[bytes, Item] = {}
        self._is_stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rf-news", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def tell(self, run_id: bytes, entity: str | None, project: str | None) -> None:
        """Something of this run is new."""
        with self._lock:
            if entity is not None or run_id not in self._waiting:
                self._waiting[run_id] = (run_id, entity, project)

    def stop(self) -> None:
        """End; what was not told yet is told first, if the database takes it."""
        self._is_stopping.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._is_stopping.is_set():
            self._listen()

    def _listen(self) -> None:
        """Until the end, or until the connection breaks."""
        try:
            with connect(self._url) as connection:
                connection.execute(f"LISTEN {CHANNEL}")
                self._look_all()
                self._exchange(connection)
        except psycopg.Error as error:
            logger.warning("other servers are not heard: %s", str(error).strip().partition("\n")[0])
            self._is_stopping.wait(RETRY_S)

    def _exchange(self, connection: psycopg.Connection[Any]) -> None:
        is_last = False
        while not is_last:
            is_last = self._is_stopping.is_set()
            with self._lock:
                items, self._waiting = list(self._waiting.values()), {}
            for text in self._texts(items):
                connection.execute("SELECT pg_notify(%s, %s)", (CHANNEL, text))
            for notified in connection.notifies(timeout=0 if is_last else EVERY_S):
                self._read(notified.payload)

    def _texts(self, items: list[Item]) -> Iterator[str]:
        """Notifications that hold all items, each within its bound."""
        part: list[list[str]] = []
        size = 0
        for run_id, entity, project in items:
            item = [run_id.hex()] if entity is None or project is None else [run_id.hex(), entity, project]
            item_size = len(json.dumps(item))
            if item_size > MOST_BYTES // 2:
                item, item_size = item[:1], len(json.dumps(item[:1]))
            if size + item_size > MOST_BYTES:
                yield json.dumps([self._own, part])
                part, size = [], 0
            part.append(item)
            size += item_size + 2
        if part:
            yield json.dumps([self._own, part])

    def _read(self, text: str) -> None:
        try:
            sender, items = json.loads(text)
            heard = [(bytes.fromhex(item[0]), *(item[1:] or (None, None))) for item in items if sender != self._own]
        except (ValueError, TypeError, IndexError):
            return  # not one of ours
        for run_id, entity, project in heard:
            self._hear((run_id, entity, project))
