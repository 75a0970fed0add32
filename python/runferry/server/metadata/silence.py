"""How long a run is silent, counted only while the server listened.

A run that nobody could hear is not silent. So what passed while the server was down, stopped or suspended, and what its wall clock
jumped, is taken out of every silence: `silent_since_us` moves by as much. A run that is alive is not shown as lost because the server
was away, one that was lost stays lost, and a clock that goes back makes nobody seem alive for longer. Where several servers share a
database, one that listens is enough. Times that are shown
(`heartbeat_us`, `last_seen_us`) stay as they were.

# Order
`Listening.note` is called by one thread, every few seconds, in a transaction of its caller.

# Failure
Killed, a server has listened until half a minute before, at the earliest: silences come out too short by that much, never too long.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from runferry.server.metadata.schema import listening, run, writer

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

LONGEST_PAUSE_US = 10 * 1_000_000
"""Between two notes; the loop that makes them may be busy for so long and still have listened."""
WRITE_EVERY_US = 30 * 1_000_000
_ROW = 1


class Listening:
    """Until when the server has listened."""

    def __init__(self) -> None:
        """Nothing is known before the first note."""
        self._noted_us: int | None = None
        self._written_us = 0

    def is_due(self, now_us: int) -> bool:
        """Whether `note` has something to write: now and then, and whenever the clock or the server has stood still or jumped."""
        return self._noted_us is None or not 0 <= now_us - self._noted_us <= LONGEST_PAUSE_US or now_us - self._written_us >= WRITE_EVERY_US

    def heard(self, now_us: int) -> None:
        """The server listens, and nothing has to be written."""
        self._noted_us = now_us

    def note(self, connection: Connection, now_us: int) -> None:
        """Write that the server listens now, and take what it did not hear out of the silences."""
        stored_us = connection.scalar(sa.select(listening.c.until_us).where(listening.c.id == _ROW))
        if stored_us is None:
            stored_us = now_us
            connection.execute(sa.insert(listening).values(id=_ROW, until_us=now_us))
        until_us = stored_us if self._noted_us is None else self._noted_us
        if until_us < stored_us <= now_us:  # another server has listened meanwhile
            until_us = stored_us
        unheard_us = now_us - until_us
        if not 0 <= unheard_us <= LONGEST_PAUSE_US:
            for table in (run, writer):
                moved = sa.update(table).where(table.c.state == "running")
                connection.execute(moved.values(silent_since_us=table.c.silent_since_us + unheard_us))
        connection.execute(sa.update(listening).where(listening.c.id == _ROW).values(until_us=now_us))

    def noted(self, now_us: int) -> None:
        """What `note` wrote is committed."""
        self._noted_us = self._written_us = now_us
