"""Slots of `l0` in PostgreSQL: filled one at a time, drained, and emptied by TRUNCATE, which gives the room back at once.

Ingest writes into the current slot. When that is old or large the next one becomes current, if it is empty; what lies in the others is
merged and released soon. A slot is emptied once no frame of it is needed: none waits for its merge, for its documents to be applied,
or is kept as a live tail.

# Readers
TRUNCATE heeds no snapshot: a reader that began before a merge would find neither the frames nor their chunks. So every reader locks
the frames before its snapshot is taken, and TRUNCATE waits for all of them; those that come while it waits begin after it, and see the
chunks. It waits a fraction of a second at most, then tries again later: readers and ingest queue behind it.

# Several servers
One of them at a time looks after the slots, whoever gets the advisory lock. An ingest that read the number of a slot just before it
ceased to be current still writes there: its frames are needed, and are found by the next look.
"""

from __future__ import annotations

import itertools
import logging
import threading
from typing import TYPE_CHECKING

from runferry.server.store.postgres_schema import SLOTS
from runferry.server.store.protocol import StoreBusyError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from runferry.server.store.postgres_shard import PostgresShard
    from runferry.server.store.sql import Writing

LOOK_EVERY_S = 1.0
TAKE_OVER_LOOKS = 30
"""After so many looks at the slots, one for frames that a server left when it died."""
SLOT_AGE_S = 120.0
SLOT_BYTES = 128 << 20
DRAIN_AGE_S = 5.0
"""So long after a slot ceased to be current its runs are merged, whatever they wait for."""
EMPTY_TIMEOUT_MS = 200
_LOCK = 0x52465331

_NEEDED = (
    "FROM l0_{slot} l JOIN writer w ON w.run_id = l.run_id AND w.writer_id = l.writer_id "
    "WHERE l.next_seq > w.released_seq + 1 OR (l.is_document = 1 AND l.seq > w.applied_seq)"
)

_log = logging.getLogger(__name__)


class Slots:
    """The thread `rf-slots`; `look` is what it does every second."""

    def __init__(
        self, place: PostgresShard, merge: Callable[[bytes], int], release: Callable[[bytes], None], take_over: Callable[[], None]
    ) -> None:
        self._take_over = take_over
        self._place = place
        self._merge = merge
        self._release = release
        self._is_closing = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begins to look after the slots."""
        self._thread = threading.Thread(target=self._work, name="rf-slots", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        is_well = True
        for number in itertools.count(1):
            if self._is_closing.wait(LOOK_EVERY_S):
                return
            is_well = self._try(self.look, tell=is_well)
            if number % TAKE_OVER_LOOKS == 0:
                is_well = self._try(self._take_over, tell=is_well)

    @staticmethod
    def _try(step: Callable[[], None], *, tell: bool) -> bool:
        try:
            step()
        except StoreError as error:
            if tell:
                _log.warning("the slots of frames are looked after again later: %s", error)
            return False
        return True

    def look(self, *, age_s: float = SLOT_AGE_S, drain_age_s: float = DRAIN_AGE_S) -> None:
        """Empties what can be emptied, drains what is due, and moves on to the next slot if the current one is old or large.

        Raises:
            StoreError: The database does not answer; nothing is lost by it.
        """
        with self._place.writing() as connection:
            if not connection.execute("SELECT pg_try_advisory_xact_lock(?)", (_LOCK,)).fetchone()[0]:
                return
            query = "SELECT current, CAST(extract(epoch FROM clock_timestamp() - since) AS double precision) FROM slots"
            current, current_age_s = connection.execute(query).fetchone()
            filled = {slot for slot in range(SLOTS) if _has_frames(connection, slot)}
            following = (current + 1) % SLOTS
            is_due = current in filled and (current_age_s >= age_s or _size_bytes(connection, current) >= SLOT_BYTES)
            if is_due and following not in filled:
                connection.execute("UPDATE slots SET current = ?, since = clock_timestamp()", (following,))
        for slot in sorted(filled - {current}):
            if not self._empty(slot) and current_age_s >= drain_age_s:
                self._drain(slot)
                self._empty(slot)

    def _empty(self, slot: int) -> bool:
        """TRUNCATE, if nobody needs a frame of the slot and no reader keeps us waiting; whether the slot is empty now."""
        try:
            with self._place.writing() as connection:
                if _is_needed(connection, slot):
                    return False
                connection.execute(f"SET LOCAL lock_timeout = {EMPTY_TIMEOUT_MS}")
                connection.execute(f"LOCK TABLE l0_{slot} IN ACCESS EXCLUSIVE MODE")
                if _is_needed(connection, slot):  # an ingest that was on its way
                    return False
                connection.execute(f"TRUNCATE l0_{slot}")
        except StoreBusyError:
            return False
        return True

    def _drain(self, slot: int) -> None:
        """Merges and releases the runs that still need frames of the slot."""
        with self._place.reading() as connection:
            query = f"SELECT DISTINCT l.run_id {_NEEDED.format(slot=slot)}"
            waiting = [run_id for (run_id,) in connection.execute(query).fetchall()]
        for run_id in waiting:
            if self._is_closing.is_set():
                return
            try:
                self._merge(run_id)
                self._release(run_id)
            except StoreError as error:
                _log.warning("slot %d waits for run %s: %s", slot, run_id.hex(), error)

    def close(self) -> None:
        """Ends the thread."""
        self._is_closing.set()
        if self._thread is not None:
            self._thread.join()


def _has_frames(connection: Writing, slot: int) -> bool:
    return bool(connection.execute(f"SELECT EXISTS(SELECT FROM l0_{slot})").fetchone()[0])  # noqa: S608 - a number


def _size_bytes(connection: Writing, slot: int) -> int:
    size: int = connection.execute(f"SELECT pg_total_relation_size('l0_{slot}')").fetchone()[0]
    return size


def _is_needed(connection: Writing, slot: int) -> bool:
    return bool(connection.execute(f"SELECT EXISTS(SELECT {_NEEDED.format(slot=slot)})").fetchone()[0])
