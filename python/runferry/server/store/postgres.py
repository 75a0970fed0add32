"""The store in a PostgreSQL database that several server processes may share.

Everything is in the schema `runferry`; a URL names the database. Servers need no word of one another: a writer's number is locked and
moved in the transaction that stores its frames, a run is merged under an advisory lock, and `run.merges` is compared once more when a
merge is written. Frames that a server took and did not merge before it died are found by the others, which count now and then.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from runferry.server.store import postgres_schema
from runferry.server.store.chunked import ChunkedStore
from runferry.server.store.postgres_shard import PostgresShard
from runferry.server.store.slots import Slots

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from runferry.server.store.sql import Reading


QUIET_US = 90 * 1_000_000
"""Half as long again as a living server lets frames wait, for clocks that differ."""


def has_store(url: str) -> bool:
    """Whether a database has the store's tables, of whatever version.

    Raises:
        StoreError: It cannot be reached.
    """
    with contextlib.closing(PostgresShard(url)) as place, place.writing() as connection:
        return bool(connection.execute("SELECT to_regclass('runferry.store') IS NOT NULL").fetchone()[0])


class PostgresStore(ChunkedStore):
    """A `Store` (see `protocol`) in a PostgreSQL database.

    Args:
        url: `postgresql://user@host:port/database`, with any parameter that libpq knows.
        merging: Merge in a background thread; else only `merge` does.

    Raises:
        StoreError: The database cannot be reached or cannot hold a store, or holds one of another version.
    """

    def __init__(self, url: str, *, merging: bool = True) -> None:
        super().__init__()
        self._place = PostgresShard(url)
        try:
            with self._place.writing() as connection:
                self._epoch = postgres_schema.prepare(connection, self._place.place)
        except BaseException:
            self.close()
            raise
        self.slots = Slots(self._place, lambda run_id: self._merge_run(run_id, is_final=False), self._release, self.take_over)
        self._begin(merging=merging)
        if merging:
            self.slots.start()

    @property
    def epoch(self) -> bytes:
        """16 random bytes, new for each created database."""
        return self._epoch

    def reading(self) -> AbstractContextManager[Reading]:
        """A read transaction over all runs, for who checks them."""
        return self._place.reading()

    def _databases(self) -> Sequence[PostgresShard]:
        return [self._place]

    def _find_shard(self, run_id: bytes) -> PostgresShard:  # noqa: ARG002 - there is one
        return self._place

    def _shard(self, run_id: bytes) -> PostgresShard:  # noqa: ARG002 - as above
        return self._place

    def take_over(self) -> None:
        """Frames that a server took and did not merge before it died are merged by this one."""
        self._count_waiting(time.time_ns() // 1000 - QUIET_US)

    def close(self) -> None:
        """Ends the threads and closes every connection; calls after that raise `StoreError`."""
        slots = getattr(self, "slots", None)
        if slots is not None:
            slots.close()
        super().close()
