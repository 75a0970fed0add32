"""What the store's statements may rely on, whichever SQL database runs them.

Statements are written once, in the SQL that SQLite and PostgreSQL share, with `?` and `:name` for parameters. Where the two differ, a
connection says how, and these are all the differences there are.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

Row = tuple[Any, ...]
WriterKey = tuple[bytes, int]
"""Run and writer, the latter as the signed integer that SQL keeps."""


class Rows(Protocol):
    """What a statement answers."""

    @property
    def rowcount(self) -> int:
        """Rows that it changed."""
        ...

    def fetchone(self) -> Any:
        """The next row, None behind the last."""
        ...

    def fetchmany(self, size: int, /) -> list[Any]:
        """At most so many of the next rows."""
        ...

    def fetchall(self) -> list[Any]:
        """All that are left."""
        ...

    def __iter__(self) -> Iterator[Any]:
        """One by one."""
        ...


class Reading(Protocol):
    """A read transaction: everything in it is of one moment."""

    def execute(self, statement: str, parameters: Sequence[Any] | Mapping[str, Any] = ..., /) -> Rows:
        """Run a statement."""
        ...

    def stream(self, statement: str, parameters: Sequence[Any], /) -> Rows:
        """Run a statement whose rows are many or large: they are fetched as they are asked for."""
        ...


class Writing(Reading, Protocol):
    """A write transaction."""

    @property
    def keeps_frames(self) -> bool:
        """Frames that nobody needs any more stay: the engine gets rid of many at once."""
        ...

    def executemany(self, statement: str, rows: Sequence[Sequence[Any]], /) -> Rows:
        """Run a statement for each row of parameters; `rowcount` is that of all together."""
        ...

    def insert(self, table: str, columns: str, rows: Sequence[Sequence[Any]], on_conflict: str = "") -> None:
        """Put new rows into a table, the fastest way there is. `on_conflict` says what becomes of one that is there already."""
        ...

    def lock_writers(self, keys: Sequence[WriterKey]) -> dict[WriterKey, Row]:
        """`next_seq` and `last_hash` of the writers that are known; nobody else moves them before this transaction ends."""
        ...


class Shard(Protocol):
    """A database that holds whole runs."""

    def writing(self) -> AbstractContextManager[Writing]:
        """A write transaction: committed and durable on leaving, rolled back when the block raises.

        Raises:
            StoreFullError: No room; nothing has happened.
            StoreBusyError: Somebody else holds what it needs; nothing has happened.
            OutcomeUnknownError: COMMIT failed.
            StoreError: Any other error of the database; nothing has happened.
        """
        ...

    def reading(self) -> AbstractContextManager[Reading]:
        """A read transaction.

        Raises:
            StoreError: The database cannot be read.
        """
        ...

    def merging(self, run_id: bytes) -> AbstractContextManager[None]:
        """While it lasts no other process merges the run.

        Raises:
            StoreError: As `writing`.
        """
        ...

    def close(self) -> None:
        """Ends every connection; those that are at work when they are done."""
        ...


PAGE = 256
"""Most keys in a statement of `select_of`: SQLite may be built to take 999 parameters."""


def select_of(connection: Reading, columns: str, keys: Sequence[Sequence[int]], query: str, parameters: Sequence[Any]) -> Iterator[Row]:
    """What `query` finds for all keys; to it they are the table `wanted`, which has these columns. Asking for each alone costs more."""
    row = f"({', '.join('?' * (columns.count(',') + 1))})"
    for first in range(0, len(keys), PAGE):
        page = keys[first : first + PAGE]
        statement = f"WITH wanted({columns}) AS (VALUES {', '.join([row] * len(page))}) {query}"
        yield from connection.execute(statement, [*itertools.chain.from_iterable(page), *parameters])
