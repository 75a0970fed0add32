"""One PostgreSQL database: its connections, its transactions, and what their errors mean.

Writing: READ COMMITTED, since everything that decides is locked or compared and set. Reading: REPEATABLE READ, so that a reader sees
frames and chunks of one moment; before its snapshot it takes the weakest lock on the frames, so that no slot of them is emptied under
it (`slots`). Connections are kept and used again, each by one thread at a time.

# Failure
An error before COMMIT has done nothing. A connection that breaks in COMMIT says nothing of the outcome. What passes by itself, a
server that restarts or fails over, a deadlock, a lock that is held for long, too many connections, is StoreBusyError: the same again,
later, on a new connection.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import queue
import re
import threading
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict

from runferry.server.store.postgres_schema import COLUMN_TYPES
from runferry.server.store.postgres_text import adapt
from runferry.server.store.protocol import OutcomeUnknownError, StoreBusyError, StoreError, StoreFullError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from runferry.server.store.sql import Row, Rows, WriterKey

WRITERS, READERS = 6, 6
"""Connections at once, at most, and as many again for merges."""
CONNECT_TIMEOUT_S = 5
LOCK_TIMEOUT_MS = 5_000
"""Whoever waits for a lock this long gives up, and tries the whole again later."""
READ_LIMIT_MS = 30_000
IDLE_LIMIT_MS = 60_000
"""A transaction in which nothing happens for so long is ended by PostgreSQL: a server that hangs must not hold others up."""
_ROWS_AT_ONCE = 32
_FEW_ROWS = 8
_MERGE_LOCK = 0x52464D
"""Parts the advisory locks of runs from those of others."""

_CONNECTION_OPTIONS: Mapping[str, str] = {
    "connect_timeout": str(CONNECT_TIMEOUT_S),
    "application_name": "runferry",
    "client_encoding": "UTF8",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "20000",
}
_SESSION = f"""
SET search_path = runferry;
SET lock_timeout = {LOCK_TIMEOUT_MS};
SET idle_in_transaction_session_timeout = {IDLE_LIMIT_MS};
SET jit = off;
SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off';
"""
_BEGIN_READING = f"""
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
SET LOCAL statement_timeout = {READ_LIMIT_MS};
LOCK TABLE l0 IN ACCESS SHARE MODE;
"""
_FULL = (errors.DiskFull,)
_PASSING = (
    errors.SerializationFailure,
    errors.DeadlockDetected,
    errors.LockNotAvailable,
    errors.TooManyConnections,
    errors.CannotConnectNow,
    errors.AdminShutdown,
    errors.CrashShutdown,
    errors.ReadOnlySqlTransaction,
    errors.IdleInTransactionSessionTimeout,
    errors.OutOfMemory,
)


@functools.lru_cache(maxsize=512)
def translated(statement: str) -> str:
    """The statement with psycopg's marks for parameters."""
    return re.sub(r"(?<!:):([a-z]\w*)", r"%(\1)s", statement).replace("?", "%s")


def connect(url: str) -> psycopg.Connection[Any]:
    """A connection of the store or the metadata; what the URL says of timeouts wins over ours.

    Raises:
        psycopg.Error: There is none.
    """
    told = conninfo_to_dict(url)
    return psycopg.connect(url, autocommit=True, **{name: value for name, value in _CONNECTION_OPTIONS.items() if name not in told})


class PostgresConnection:
    """A connection as the store's statements see it (`sql.Writing`)."""

    keeps_frames = True

    def __init__(self, connection: psycopg.Connection[Any], *, has_begun: bool) -> None:
        self._connection = connection
        self._slot: int | None = None
        self.has_begun = has_begun
        """Else BEGIN goes with the first statement, in its round trip."""

    def execute(self, statement: str, parameters: Sequence[Any] | Mapping[str, Any] = (), /) -> Rows:
        """Run a statement."""
        cursor = self._connection.cursor(binary=True)
        rows: Rows = cursor
        if self.has_begun:
            cursor.execute(translated(statement), parameters or None)
            return rows
        self.has_begun = True
        with self._connection.pipeline():
            self._connection.execute("BEGIN")
            cursor.execute(translated(statement), parameters or None)
        return rows

    def _begin(self) -> None:
        if not self.has_begun:
            self.has_begun = True
            self._connection.execute("BEGIN")

    def stream(self, statement: str, parameters: Sequence[Any], /) -> Rows:
        """Run a statement whose rows are many or large: they are fetched as they are asked for."""
        self._begin()
        return _Stream(self._connection, translated(statement), parameters)

    def executemany(self, statement: str, rows: Sequence[Sequence[Any]], /) -> Rows:
        """Run a statement for each row of parameters, in one round trip."""
        self._begin()
        cursor = self._connection.cursor()
        cursor.executemany(translated(statement), rows)
        found: Rows = cursor
        return found

    def insert(self, table: str, columns: str, rows: Sequence[Sequence[Any]], on_conflict: str = "") -> None:
        """Put new rows into a table: a few at once, many by COPY, which takes a round trip more and less time for each."""
        if not rows:
            return
        self._begin()
        names = columns.split(", ")
        if table == "l0":
            names.append("slot")
            slot = self._slot if self._slot is not None else self._current_slot()
            rows = [(*row, slot) for row in rows]
        if len(rows) <= _FEW_ROWS or on_conflict:
            places = ", ".join(["%b"] * len(names))
            statement = f"INSERT INTO {table}({', '.join(names)}) VALUES ({places}) {on_conflict}"  # noqa: S608 - ours
            self._connection.cursor().executemany(statement, rows)
            return
        types = COLUMN_TYPES[table]
        statement = f"COPY {table}({', '.join(names)}) FROM STDIN (FORMAT BINARY)"
        with self._connection.cursor() as cursor, cursor.copy(statement) as copy:
            copy.set_types([types[name] for name in names])
            for row in rows:
                copy.write_row(row)

    def _current_slot(self) -> int:
        slot: int = self.execute("SELECT current FROM slots").fetchone()[0]
        return slot

    def lock_writers(self, keys: Sequence[WriterKey]) -> dict[WriterKey, Row]:
        """`next_seq` and `last_hash` of the writers that are known, locked in the order in which everybody locks them."""
        found = self.execute(
            "SELECT run_id, writer_id, next_seq, last_hash, (SELECT current FROM slots) FROM writer "
            "WHERE (run_id, writer_id) IN (SELECT * FROM unnest(?::bytea[], ?::bigint[])) ORDER BY run_id, writer_id FOR UPDATE",
            ([run_id for run_id, _ in keys], [writer_id for _, writer_id in keys]),
        ).fetchall()
        if found:
            self._slot = found[0][4]
        return {(run_id, writer_id): (next_seq, last_hash) for run_id, writer_id, next_seq, last_hash, _ in found}


class _Stream:
    """Rows of a cursor that PostgreSQL holds; it ends with the transaction."""

    rowcount = -1
    _numbers = itertools.count()

    def __init__(self, connection: psycopg.Connection[Any], query: str, parameters: Sequence[Any]) -> None:
        self._connection = connection
        name = f"stream_{next(self._numbers)}"
        connection.execute(f"DECLARE {name} NO SCROLL CURSOR FOR {query}", parameters, prepare=False)
        self._fetch = f"FETCH FORWARD {{}} FROM {name}"

    def fetchmany(self, size: int, /) -> list[Any]:
        rows: list[Any] = self._connection.cursor(binary=True).execute(self._fetch.format(size), prepare=False).fetchall()
        return rows

    def fetchone(self) -> Any:
        return next(iter(self.fetchmany(1)), None)

    def fetchall(self) -> list[Any]:
        return list(self)

    def __iter__(self) -> Iterator[Any]:
        while rows := self.fetchmany(_ROWS_AT_ONCE):
            yield from rows


class PostgresShard:
    """See the module. Safe from any thread."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.place = place_of(url)
        self._idle: queue.LifoQueue[psycopg.Connection[Any]] = queue.LifoQueue()
        self._writers = threading.BoundedSemaphore(WRITERS)
        self._readers = threading.BoundedSemaphore(READERS)
        self._is_closed = False

    @contextlib.contextmanager
    def writing(self) -> Iterator[PostgresConnection]:
        """A write transaction; see `sql.Shard`."""
        with self._writers:
            connection = self._connected()
            try:
                held = PostgresConnection(connection, has_begun=False)
                yield held
            except psycopg.Error as error:
                self._roll_back(connection)
                raise self._explain(error) from error
            except BaseException:
                self._roll_back(connection)
                raise
            if held.has_begun:
                self._commit(connection)
            self._put_back(connection)

    def _commit(self, connection: psycopg.Connection[Any]) -> None:
        try:
            said = connection.execute("COMMIT").statusmessage
        except psycopg.Error as error:
            is_answer = error.sqlstate is not None and not connection.broken
            self._roll_back(connection)
            if is_answer:  # PostgreSQL has refused, and rolled back
                raise self._explain(error) from error
            raise OutcomeUnknownError(f"{self.place}: COMMIT: {_first_line(error)}") from error
        if said != "COMMIT":
            self._roll_back(connection)
            raise StoreError(f"{self.place}: COMMIT was answered with {said}")

    @contextlib.contextmanager
    def reading(self) -> Iterator[PostgresConnection]:
        """A read transaction; see `sql.Shard`."""
        with self._readers:
            connection = self._connected()
            try:
                connection.execute(_BEGIN_READING)
                yield PostgresConnection(connection, has_begun=True)
            except errors.QueryCanceled as error:
                raise StoreError(f"{self.place}: a read of more than {READ_LIMIT_MS // 1000} s was cut") from error
            except psycopg.Error as error:
                raise self._explain(error) from error
            finally:
                self._roll_back(connection)

    @contextlib.contextmanager
    def merging(self, run_id: bytes) -> Iterator[None]:
        """While it lasts no other process merges the run; see `sql.Shard`."""
        connection = self._connected()
        try:
            key = int.from_bytes(run_id[:8], "little", signed=True) ^ _MERGE_LOCK
            connection.execute("BEGIN")
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (key,))
        except psycopg.Error as error:
            self._roll_back(connection)
            raise self._explain(error) from error
        try:
            yield
        finally:
            self._roll_back(connection)

    def _connected(self) -> psycopg.Connection[Any]:
        if self._is_closed:
            raise StoreError(f"{self.place}: the store is closed")
        with contextlib.suppress(queue.Empty):
            while True:
                connection = self._idle.get_nowait()
                if not connection.closed:
                    return connection
        try:
            connection = connect(self.url)
            adapt(connection)
            connection.execute(_SESSION)
        except psycopg.Error as error:
            raise self._explain(error) from error
        return connection

    def _roll_back(self, connection: psycopg.Connection[Any]) -> None:
        with contextlib.suppress(psycopg.Error):
            if not connection.closed and connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                connection.execute("ROLLBACK")
        self._put_back(connection)

    def _put_back(self, connection: psycopg.Connection[Any]) -> None:
        is_good = not connection.closed and connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        if is_good and not self._is_closed:
            self._idle.put(connection)
        else:
            connection.close()

    def _explain(self, error: psycopg.Error) -> StoreError:
        is_lost = isinstance(error, psycopg.OperationalError) and error.sqlstate is None
        kind = StoreFullError if isinstance(error, _FULL) else StoreBusyError if is_lost or isinstance(error, _PASSING) else StoreError
        if is_lost:
            self._forget_idle()  # the others are as old
        return kind(f"{self.place}: {_first_line(error)}")

    def _forget_idle(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                self._idle.get_nowait().close()

    def close(self) -> None:
        """Closes all connections; those at work when they are done."""
        self._is_closed = True
        self._forget_idle()


def place_of(url: str) -> str:
    """The database of a URL as it may be shown: without a password.

    Raises:
        StoreError: It is none of PostgreSQL.
    """
    try:
        told = conninfo_to_dict(url)
    except psycopg.Error as error:
        raise StoreError(f"the store's URL cannot be read: {_first_line(error)}") from error
    host = f"{told.get('host', 'localhost')}:{told.get('port', 5432)}"
    return f"postgresql://{host}/{told.get('dbname', told.get('user', ''))}"


def _first_line(error: psycopg.Error) -> str:
    return str(error).strip().partition("\n")[0]
