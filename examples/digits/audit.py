"""Ledgers against what the server holds: every row that was logged is there, once, bit for bit, and no other.

The rows are read back through `runferry.Api`, the way any user reads them; the server's word on counts is not taken for it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import ledger

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from ledger import Entry


@dataclass(frozen=True, slots=True)
class Audit:
    """One run, counted."""

    calls: int
    """Calls of `log` that returned."""
    stored_rows: int
    lost_rows: int
    """Calls without a row."""
    duplicated_rows: int
    """Rows above the first of their call, and rows that no call can have made."""
    changed_rows: int
    """Rows whose names, types or bits are not those of the call."""
    unseen_rows: int
    """Rows of calls that a kill cut off between the return of `log` and the ledger: at most one a kill."""
    points: int
    """Values in the stored rows, a histogram counted as one."""

    @property
    def is_exact(self) -> bool:
        """Nothing lost, doubled or changed."""
        return self.lost_rows == 0 and self.duplicated_rows == 0 and self.changed_rows == 0

    def __add__(self, other: Audit) -> Audit:
        """Both runs together."""
        return Audit(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))


def compare(entries: Sequence[Entry], stored_rows: Iterable[Mapping[str, Any]], *, kills: int) -> Audit:
    """Count what is missing, doubled and changed.

    Args:
        entries: The ledger of a run.
        stored_rows: Its rows as read back, each with `_step`.
        kills: How often its process was killed; each may leave one row that the ledger does not know.
    """
    digest_at = {entry.step: entry.digest for entry in entries}
    found: Counter[int] = Counter()
    changed_rows = points = 0
    for row in stored_rows:
        step = row["_step"]
        found[step] += 1
        points += sum(not name.startswith("_") for name in row)
        changed_rows += step in digest_at and ledger.digest_of(row) != digest_at[step]
    strangers = sum(times for step, times in found.items() if step not in digest_at)
    unseen_rows = min(strangers, kills)
    # A step that two calls were given would be a second row at one place: counted with the doubled ones.
    doubled = sum(times - 1 for step, times in found.items() if step in digest_at) + len(entries) - len(digest_at)
    return Audit(
        calls=len(entries),
        stored_rows=sum(found.values()),
        lost_rows=sum(step not in found for step in digest_at),
        duplicated_rows=doubled + strangers - unseen_rows,
        changed_rows=changed_rows,
        unseen_rows=unseen_rows,
        points=points,
    )
