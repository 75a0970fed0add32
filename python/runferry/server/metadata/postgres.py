"""The metadata database on PostgreSQL: in the schema `runferry_metadata`, beside the store's `runferry`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg
import sqlalchemy as sa

from runferry.server.metadata.patterns import MAX_TEXT_CHARS
from runferry.server.store.postgres_shard import connect, place_of
from runferry.server.store.postgres_text import adapt_text
from runferry.server.store.protocol import StoreError

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Engine

__all__ = ["engines", "place_of"]

BUSY_TIMEOUT_MS = 30_000
READ_LIMIT_MS = 30_000
READERS = 8
_WRITE_LOCK = 0x52464D44
_BEGIN_WRITING = f"SELECT pg_advisory_xact_lock({_WRITE_LOCK})"
_BEGIN_READING = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"
_SESSION = (
    f"SET search_path = runferry_metadata; SET lock_timeout = {BUSY_TIMEOUT_MS}; SET statement_timeout = {READ_LIMIT_MS}; SET jit = off"
)
_TABLES = f"""
SELECT pg_advisory_xact_lock({_WRITE_LOCK});
CREATE SCHEMA IF NOT EXISTS runferry_metadata;
CREATE OR REPLACE FUNCTION runferry_metadata.regexp(pattern text, value text) RETURNS boolean LANGUAGE sql STABLE
AS $$ SELECT coalesce(left(value, {MAX_TEXT_CHARS}) ~ pattern, false) $$;
"""


def engines(url: str) -> tuple[Engine, Engine]:
    """The engine that writes and the one that reads.

    Raises:
        StoreError: The database cannot be reached, or the schema cannot be made there.
    """
    try:
        with connect(url) as connection, connection.transaction():
            if connection.execute("SELECT to_regproc('runferry_metadata.regexp')").fetchone() == (None,):
                connection.execute(_TABLES)
    except psycopg.Error as error:
        raise StoreError(f"{place_of(url)}: {error}") from error
    return _engine(url, _BEGIN_WRITING, pool_size=1), _engine(url, _BEGIN_READING, pool_size=READERS)


def _engine(url: str, begin: str, *, pool_size: int) -> Engine:
    engine = sa.create_engine(
        "postgresql+psycopg://",
        creator=partial(_connected, url),
        pool_size=pool_size,
        max_overflow=0 if pool_size == 1 else pool_size,
        pool_pre_ping=True,  # a database that was restarted or failed over is met here, not in somebody's transaction
    )

    @sa.event.listens_for(engine, "begin")
    def begin_ours(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


def _connected(url: str) -> psycopg.Connection[Any]:
    connection = connect(url)
    adapt_text(connection)
    connection.execute(_SESSION)
    connection.autocommit = False
    return connection
