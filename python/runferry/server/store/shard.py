"""One SQLite file: its connections, its transactions, and what their errors mean.

Writing: one connection behind a lock, `BEGIN IMMEDIATE`, one fsync per commit (`synchronous=FULL` under WAL). Reading: a
few read-only connections, each for one reader at a time, one transaction per read, so that a reader sees frames and chunks
of one moment.

Failure: an error before COMMIT has rolled back. An error *from* COMMIT says nothing about the outcome: a failed fsync may
still have left the transaction on the disk. Then every connection is dropped, so that nobody reads a state that may not be
there after a restart, and the caller asks again. A damaged file may make SQLite say what Python cannot decode: a UnicodeDecodeError
is an error of the database here.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runferry.server.store import schema
from runferry.server.store.protocol import OutcomeUnknownError, StoreBusyError, StoreError, StoreFullError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runferry.server.store.sql import Row, WriterKey

_log = logging.getLogger(__name__)

READERS = 4
READ_LIMIT_S = 30.0
"""A read that takes longer is cut: while it lasts, nothing behind it in the write-ahead log can be folded back."""
_STEPS_A_LOOK = 20_000
_MOST_PARAMETERS = 999
"""Of a statement: SQLite may be built to take no more."""
WAL_ALARM_BYTES = 512 << 20
"""Some reader holds the write-ahead log open when it becomes as long as this."""
WAL_LOOK_S = 10.0
BUSY_TIMEOUT_MS = 5_000
"""Whoever waits for a lock this long gives up, and tries the whole again later."""
CACHE_KIB = 65_536
MMAP_BYTES = 2 << 30
CHECKPOINT_PAGES = 4000

_NETWORK_FILE_SYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb", "smb3", "smbfs", "lustre", "ceph", "glusterfs", "fuse.sshfs", "fuse.glusterfs", "beegfs", "gpfs", "afs"}
)

Connect = Callable[..., sqlite3.Connection]


def network_file_system(directory: Path) -> str | None:
    """The name of the network file system that holds `directory`, None on a local one (or where nobody can tell)."""
    found: tuple[int, str] = (-1, "")
    resolved = os.path.realpath(directory)
    try:
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    for line in mounts.splitlines():
        fields = line.split(" ")
        mount_point = fields[1].encode().decode("unicode_escape")
        is_above = resolved == mount_point or resolved.startswith(mount_point.rstrip("/") + "/")
        if is_above and len(mount_point) >= found[0]:
            found = (len(mount_point), fields[2])
    return found[1] if found[1] in _NETWORK_FILE_SYSTEMS else None


def is_full(error: Exception) -> bool:
    """Whether SQLite says that the disk is full (Python 3.10 gives no error codes)."""
    return "database or disk is full" in str(error)


def is_busy(error: Exception) -> bool:
    """Whether another connection holds a lock."""
    return "database is locked" in str(error) or "database table is locked" in str(error)


class SqliteConnection:
    """A connection as the store's statements see it (`sql.Writing`)."""

    keeps_frames = False

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.execute = self.stream = connection.execute
        self.executemany = connection.executemany

    def insert(self, table: str, columns: str, rows: Sequence[Sequence[Any]], on_conflict: str = "") -> None:
        """Put new rows into a table: many in one statement, since the interpreter is let go and taken back for each."""
        width = columns.count(",") + 1
        many = _MOST_PARAMETERS // width
        row = f"({', '.join('?' * width)})"
        head = f"INSERT INTO {table}({columns}) VALUES "  # noqa: S608 - names are constants of this package
        whole = len(rows) - len(rows) % many
        for first in range(0, whole, many):
            page = rows[first : first + many]
            self.execute(f"{head}{', '.join([row] * many)} {on_conflict}", list(itertools.chain.from_iterable(page)))
        self.executemany(f"{head}{row} {on_conflict}", rows[whole:])

    def lock_writers(self, keys: Sequence[WriterKey]) -> dict[WriterKey, Row]:
        """`next_seq` and `last_hash` of the writers that are known; the file is ours until the transaction ends."""
        query = "SELECT next_seq, last_hash FROM writer WHERE run_id = ? AND writer_id = ?"
        found = {key: self.execute(query, key).fetchone() for key in keys}
        return {key: row for key, row in found.items() if row is not None}


class SqliteFile:
    """See the module. Safe from any thread."""

    def __init__(self, path: Path, *, synchronous: str = "FULL", connect: Connect = sqlite3.connect, is_shard: bool = True) -> None:
        self.path = path
        self._connect = connect
        self._synchronous = synchronous
        self._is_shard = is_shard
        self._write_lock = threading.Lock()
        self._writer: sqlite3.Connection | None = None
        self._idle: queue.LifoQueue[sqlite3.Connection] = queue.LifoQueue()
        self._readers = threading.BoundedSemaphore(READERS)
        self._generation = 0
        self._wal_look_at = 0.0
        self._is_closed = False
        with self._write_lock:
            self._open_writer()

    def _open_writer(self) -> sqlite3.Connection:
        connection = self._connect(self.path, isolation_level=None, check_same_thread=False, timeout=BUSY_TIMEOUT_MS / 1000)
        try:
            connection.execute(f"PRAGMA page_size = {schema.PAGE_BYTES}")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA synchronous = {self._synchronous}")
            connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
            connection.execute(f"PRAGMA mmap_size = {MMAP_BYTES}")
            connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
            schema.prepare(connection, str(self.path), is_shard=self._is_shard)
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            connection.close()
            raise StoreError(f"{self.path}: {error}") from error
        except BaseException:
            connection.close()
            raise
        self._writer = connection
        return connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[SqliteConnection]:
        """A write transaction: committed and durable on leaving, rolled back when the block raises.

        Raises:
            StoreFullError: No room; nothing has happened.
            StoreBusyError: Another process holds the database; nothing has happened.
            OutcomeUnknownError: COMMIT failed.
            StoreError: Any other error of the database; nothing has happened.
        """
        with self._write_lock:
            if self._is_closed:
                raise StoreError(f"{self.path}: the store is closed")
            connection = self._writer or self._open_writer()
            try:
                connection.execute("BEGIN IMMEDIATE")
                yield SqliteConnection(connection)
            except (sqlite3.Error, UnicodeDecodeError) as error:
                self._roll_back(connection)
                raise self._explain(error) from error
            except BaseException:
                self._roll_back(connection)
                raise
            try:
                connection.execute("COMMIT")
            except sqlite3.Error as error:
                if is_full(error):  # before the commit record was written: SQLite has rolled back
                    self._roll_back(connection)
                    raise StoreFullError(f"{self.path}: {error}") from error
                self._drop_connections()
                raise OutcomeUnknownError(f"{self.path}: COMMIT: {error}") from error
            self._look_at_wal()

    def _look_at_wal(self) -> None:
        """Say loudly, once a minute at most, that somebody's read lets the log grow; ingest goes on all the same."""
        now = time.monotonic()
        if now < self._wal_look_at:
            return
        self._wal_look_at = now + WAL_LOOK_S
        try:
            wal_bytes = Path(f"{self.path}-wal").stat().st_size
        except OSError:
            return
        if wal_bytes > WAL_ALARM_BYTES:
            self._wal_look_at = now + 60.0
            _log.error(
                "%s-wal has grown to %d MiB: some process reads this database and does not end (ours are cut after %.0f s)",
                self.path,
                wal_bytes >> 20,
                READ_LIMIT_S,
            )

    def _explain(self, error: Exception) -> StoreError:
        kind = StoreFullError if is_full(error) else StoreBusyError if is_busy(error) else StoreError
        return kind(f"{self.path}: {error}")

    def _roll_back(self, connection: sqlite3.Connection) -> None:
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        except sqlite3.Error:
            self._drop_connections()  # closing rolls back as well

    def _drop_connections(self) -> None:
        """Closes all connections; those of busy readers when they come back."""
        self._generation += 1
        with contextlib.suppress(queue.Empty):
            while True:
                self._idle.get_nowait().close()
        # The writer last: whoever closes last folds the -wal file into the database, and a read-only connection may not.
        writer, self._writer = self._writer, None
        if writer is not None:
            with contextlib.suppress(sqlite3.Error):
                writer.close()

    @contextlib.contextmanager
    def reading(self) -> Iterator[SqliteConnection]:
        """A read transaction on a connection of its own.

        Raises:
            StoreError: The database cannot be read.
        """
        with self._readers:
            if self._is_closed:
                raise StoreError(f"{self.path}: the store is closed")
            generation = self._generation
            try:
                connection = self._idle.get_nowait()
            except queue.Empty:
                connection = self._open_reader()
            until = time.monotonic() + READ_LIMIT_S
            connection.set_progress_handler(lambda: time.monotonic() > until, _STEPS_A_LOOK)
            try:
                connection.execute("BEGIN")
                yield SqliteConnection(connection)
            except (sqlite3.Error, UnicodeDecodeError) as error:
                if time.monotonic() > until:
                    raise StoreError(f"{self.path}: a read of more than {READ_LIMIT_S:.0f} s was cut") from error
                raise StoreError(f"{self.path}: {error}") from error
            except TypeError as error:
                raise StoreError(f"{self.path}: a column holds what was never written there: {error}") from error
            finally:
                connection.set_progress_handler(None, 0)
                with contextlib.suppress(sqlite3.Error):
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                if generation == self._generation and not self._is_closed:
                    self._idle.put(connection)
                else:
                    connection.close()

    def _open_reader(self) -> sqlite3.Connection:
        uri = f"{self.path.absolute().as_uri()}?mode=ro"
        try:
            connection = self._connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=BUSY_TIMEOUT_MS / 1000)
            connection.execute("PRAGMA query_only = 1")
            connection.execute(f"PRAGMA mmap_size = {MMAP_BYTES}")
        except sqlite3.Error as error:
            raise StoreError(f"{self.path}: {error}") from error
        return connection

    @contextlib.contextmanager
    def merging(self, run_id: bytes) -> Iterator[None]:  # noqa: ARG002 - see `sql.Shard`
        """Nothing: one server has the folder, and what a second process merged all the same is noticed when it is written."""
        yield

    def close(self) -> None:
        """Closes all connections; readers at work close theirs when they are done."""
        with self._write_lock:
            self._is_closed = True
            self._drop_connections()
