"""Opens the metadata database: engines, pragmas, migrations, and the refusal to touch a newer one.

Two engines on one database: the writing one has a single connection and lets nobody else write from its BEGIN on, so a transaction
never fails half-way because another one wrote meanwhile; the reading one has a pool, and readers wait for nobody. On PostgreSQL, where
several servers write, an advisory lock is what `BEGIN IMMEDIATE` is on SQLite.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import alembic.command
import sqlalchemy as sa
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from runferry.server.metadata.patterns import matches_pattern

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

    from sqlalchemy.engine import Connection, Engine

MIGRATIONS = Path(__file__).parent / "migrations"
BUSY_TIMEOUT_MS = 30_000


class NewerSchemaError(Exception):
    """The database was written by a newer server; this one must not touch it."""


class Database:
    """The metadata database of one server; safe from any thread, every call blocks."""

    def __init__(self, place: Path | str) -> None:
        """Open or create it and bring its schema up to date; `place` is a file of SQLite or the URL of a PostgreSQL database.

        Raises:
            NewerSchemaError: The schema is newer than this server knows; nothing was changed.
        """
        self._write_lock = threading.Lock()
        if isinstance(place, Path):
            self._writing = _file_engine(place, begin="BEGIN IMMEDIATE", pool_size=1)
            self._reading = _file_engine(place, begin="BEGIN", pool_size=8)
        else:
            from runferry.server.metadata import postgres  # noqa: PLC0415 - needs psycopg, which not everybody has

            self._writing, self._reading = postgres.engines(place)
            place = postgres.place_of(place)
        try:
            with self.write() as connection:
                _migrate(connection, str(place))
        except BaseException:
            self.close()
            raise

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that commits at the end of the block, or rolls back with its exception."""
        with self._write_lock, self._writing.begin() as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A snapshot to read from."""
        with self._reading.begin() as connection:
            yield connection

    def close(self) -> None:
        """Close every connection."""
        self._reading.dispose()
        self._writing.dispose()


def _file_engine(path: Path, *, begin: str, pool_size: int) -> Engine:
    engine = sa.create_engine(
        sa.URL.create("sqlite", database=str(path)),
        pool_size=pool_size,
        max_overflow=0 if pool_size == 1 else pool_size,
        connect_args={"check_same_thread": False, "timeout": BUSY_TIMEOUT_MS / 1000},
        poolclass=sa.pool.QueuePool,
    )

    @sa.event.listens_for(engine, "connect")
    def set_up(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # SQLAlchemy says BEGIN, not the driver: see `begin_ours`
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.create_function("REGEXP", 2, matches_pattern, deterministic=True)

    @sa.event.listens_for(engine, "begin")
    def begin_ours(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


def _migrate(connection: Connection, place: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    attributes: dict[str, Any] = config.attributes
    attributes["connection"] = connection
    known = ScriptDirectory.from_config(config)
    head = known.get_current_head()
    found = MigrationContext.configure(connection).get_current_revision()
    if found is not None and found not in {script.revision for script in known.walk_revisions()}:
        raise NewerSchemaError(
            f"{place} has schema version {found}, this server knows versions up to {head}: it was written by a newer runferry; "
            "start that version, or point --data or --store elsewhere"
        )
    if found != head:
        alembic.command.upgrade(config, "head")
