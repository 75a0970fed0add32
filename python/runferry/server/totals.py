"""Counts and last values of runs, from the store into the metadata: by and by, and never for more than a share of the time.

What a run adds up to is read from its series, and there may be ten thousand runs or a million series. So runs wait here for their
turn, are read for a moment at a time and written together; then nothing is read until that moment was a tenth of the time passed.
Whoever finishes does not wait for it: `apply` writes the totals of a run with its FINISH.

Used on the apply thread only.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from runferry.server.metadata import writes
from runferry.server.store.protocol import StoreError
from runferry.server.values import last_summary

if TYPE_CHECKING:
    from runferry.server.metadata.database import Database
    from runferry.server.store.protocol import Store

logger = logging.getLogger(__name__)

SHARE = 10
"""Of the time one part in so many is given to all runs together."""
RUN_SHARE = 20
"""And to each run one part in so many."""
AGAIN_S = 1.0
"""A run is not read more often."""
TURN_S = 0.1
MOST_NAMES = 1 << 16
"""Metrics with a last value in a summary; of those beyond only the number is."""
LAST_TURN_S = 5.0
"""At the end of the server; what is not reached then is wanted at its next start."""


class Totals:
    """The runs that wait."""

    def __init__(self, database: Database, store: Store) -> None:
        """Nobody waits."""
        self._database = database
        self._store = store
        self._wanted: dict[bytes, float] = {}
        """Run to when it may be read, the longest waiting first."""
        self._rests_until: dict[bytes, float] = {}
        self._free_at = 0.0

    def want(self, run_id: bytes) -> None:
        """A run has got frames."""
        self._wanted.setdefault(run_id, self._rests_until.get(run_id, 0.0))

    def forget(self, run_id: bytes) -> None:
        """The totals of a run were written elsewhere."""
        self._wanted.pop(run_id, None)

    def due_at(self) -> float:
        """When `write` has something to do; infinite if nobody waits."""
        return max(self._free_at, min(self._wanted.values())) if self._wanted else float("inf")

    def read(self, run_id: bytes) -> writes.Totals:
        """What a run adds up to now, as far as a document may hold it."""
        totals = self._store.totals(run_id)
        metrics = self._store.metrics(run_id, limit=MOST_NAMES + 1)
        beyond = max(self._store.metric_count(run_id) - MOST_NAMES, 1) if len(metrics) > MOST_NAMES else 0
        values = last_summary(metrics[:MOST_NAMES], beyond)
        duplicates = self._store.duplicates(run_id)
        return writes.Totals(totals.points, totals.rows, totals.last_step, duplicates, values)

    def write(self, *, is_last: bool) -> list[bytes]:
        """Read and write the runs whose turn it is; returns those written.

        Raises:
            sqlalchemy.exc.OperationalError: The metadata do not take them now: they wait again.
        """
        began_s = time.monotonic()
        if not is_last and began_s < self._free_at:
            return []
        due = [run_id for run_id, at_s in self._wanted.items() if is_last or at_s <= began_s]
        found: dict[bytes, writes.Totals] = {}
        for run_id in due:
            started_s = time.monotonic()
            if started_s > began_s + (LAST_TURN_S if is_last else TURN_S):
                break
            del self._wanted[run_id]
            try:
                found[run_id] = self.read(run_id)
            except StoreError:
                logger.exception("the totals of run %s cannot be read", run_id.hex())
                self._rest(run_id, started_s)
                self.want(run_id)
            else:
                self._rest(run_id, started_s)
        try:
            if found:
                with self._database.write() as connection:
                    for run_id, totals in found.items():
                        writes.write_totals(connection, run_id, totals)
        except BaseException:
            for run_id in found:
                self.want(run_id)
            raise
        finally:
            ended_s = time.monotonic()
            self._free_at = ended_s + (ended_s - began_s) * (SHARE - 1)
        return list(found)

    def _rest(self, run_id: bytes, started_s: float) -> None:
        now_s = time.monotonic()
        if len(self._rests_until) > 2 * len(self._wanted) + 1_000:
            self._rests_until = {key: until_s for key, until_s in self._rests_until.items() if until_s > now_s}
        self._rests_until[run_id] = now_s + max(AGAIN_S, (now_s - started_s) * RUN_SHARE)
