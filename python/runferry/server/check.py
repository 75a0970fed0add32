"""`runferry server check`: the server's ledger, balanced from the files alone, with the server stopped or running.

Everything is opened read-only; each shard is read in one transaction, so a running server is seen at one moment. What is compared
across the two databases may only lag in the direction in which the server writes them.
"""

from __future__ import annotations

import argparse
import contextlib
import sqlite3
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from runferry.server.settings import default_data_dir, default_store, store_option
from runferry.server.store import schema
from runferry.server.store.append import to_unsigned
from runferry.server.store.check import check_owners, check_run
from runferry.server.store.protocol import StoreError
from runferry.server.store.shard import SqliteConnection

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runferry.server.metadata.database import Database

EXIT_FOUND = 1
EXIT_REFUSED = 2

_Writers = dict[tuple[bytes, int], tuple[int, int, int]]
"""Run and writer to applied number, and in the store next number and numbers of gaps."""


_METADATA_WRITERS = (
    "SELECT w.run_id, w.writer_id, w.applied_seq, 0, "
    "(SELECT coalesce(sum(g.count), 0) FROM gap g WHERE g.run_id = w.run_id AND g.writer_id = w.writer_id) FROM writer w"
)


class CannotCheckError(Exception):
    """The folder cannot be read; the message says why."""


def main(argv: Sequence[str]) -> int:
    """Check a data folder; returns 0: all is there, 1: something is off, 2: it cannot be read."""
    options = argparse.ArgumentParser(
        prog="runferry server check",
        description="Does the data folder hold all that was acked, as it was written? Reads every byte, changes none; the server may run.",
        epilog="exit code 0: yes; 1: no, what is off is printed; 2: the folder cannot be read",
    )
    options.add_argument(
        "--data",
        type=Path,
        default=None,
        metavar="DIR",
        help="folder of the data (default: $RUNFERRY_SERVER_DATA or ~/.local/share/runferry)",
    )
    options.add_argument(
        "--store", type=store_option, default=default_store(), metavar="URL", help="its database (default: $RUNFERRY_SERVER_STORE)"
    )
    told = options.parse_args(argv)
    folder = (told.data or default_data_dir()).expanduser().absolute()
    try:
        runs, writers, found = check_folder(folder) if told.store is None else check_database(told.store)
    except CannotCheckError as error:
        print(f"runferry server check: {error}", file=sys.stderr)  # noqa: T201 - the answer to the command
        return EXIT_REFUSED
    for finding in found:
        print(finding)  # noqa: T201 - as above
    print(f"{folder if told.store is None else 'the database'}: {runs} runs, {writers} writers, {len(found) or 'nothing'} wrong")  # noqa: T201 - as above
    return EXIT_FOUND if found else 0


def check_folder(folder: Path) -> tuple[int, int, list[str]]:
    """Runs, writers, and what is wrong with them, one sentence per finding.

    Raises:
        CannotCheckError: There is no store of this version.
    """
    store_file = folder / "metrics" / "store.db"
    if not store_file.is_file():
        raise CannotCheckError(f"{folder} holds no data of a runferry server")
    known = _metadata_writers(folder / "meta.db")  # before the shards: a writer is in the store first
    found: list[str] = []
    stored: _Writers = {}
    runs = 0
    with _reading(store_file) as connection:
        (shards,) = connection.execute("SELECT value FROM store WHERE name = 'shards'").fetchone()
        shard_of = dict(connection.execute("SELECT run_id, shard FROM run_shard").fetchall())
    for number in range(shards):
        path = folder / "metrics" / f"metrics-{number:02}.db"
        try:
            with _reading(path) as connection:
                here = [run_id for (run_id,) in connection.execute("SELECT run_id FROM run").fetchall()]
                runs += len(here)
                found += [f"{path.name}: {finding}" for finding in check_owners(connection)]
                for run_id in here:
                    found += [f"run {run_id.hex()}: {finding}" for finding in check_run(connection, run_id)]
                    if shard_of.get(run_id, number) != number:
                        found.append(f"run {run_id.hex()}: lies in {path.name}, and is looked for in shard {shard_of[run_id]}")
                query = "SELECT run_id, writer_id, applied_seq, next_seq, gaps FROM writer"
                stored.update({(run_id, writer_id): tuple(rest) for run_id, writer_id, *rest in connection.execute(query)})
        except sqlite3.DatabaseError as error:
            found.append(f"{path.name}: {error}")
    found += _compare(known, _metadata_writers(folder / "meta.db"), stored)
    return runs, len(stored), found


def check_database(url: str) -> tuple[int, int, list[str]]:
    """As `check_folder`, for a PostgreSQL database.

    Raises:
        CannotCheckError: It cannot be reached, or there is no store of this version.
    """
    try:
        from runferry.server.metadata.database import Database  # noqa: PLC0415 - takes a while, and a folder is checked without it
        from runferry.server.store.postgres import PostgresStore, has_store  # noqa: PLC0415 - needs psycopg, which not everybody has

        if not has_store(url):
            raise CannotCheckError("the database holds no data of a runferry server")
        with contextlib.closing(PostgresStore(url, merging=False)) as store, contextlib.closing(Database(url)) as database:
            known = _writers_in(database)
            with store.reading() as connection:
                found = check_owners(connection)
                here = [run_id for (run_id,) in connection.execute("SELECT run_id FROM run").fetchall()]
                for run_id in here:
                    found += [f"run {run_id.hex()}: {finding}" for finding in check_run(connection, run_id)]
                query = "SELECT run_id, writer_id, applied_seq, next_seq, gaps FROM writer"
                stored: _Writers = {(run_id, writer_id): tuple(rest) for run_id, writer_id, *rest in connection.execute(query)}
            found += _compare(known, _writers_in(database), stored)
    except (ImportError, StoreError, sa.exc.SQLAlchemyError) as error:
        raise CannotCheckError(str(error)) from error
    return len(here), len(stored), found


def _writers_in(database: Database) -> _Writers:
    with database.read() as connection:
        rows = connection.execute(sa.text(_METADATA_WRITERS)).all()
    return {(bytes(run_id), writer_id): (int(applied_seq), 0, int(gaps)) for run_id, writer_id, applied_seq, _, gaps in rows}


def _compare(before: _Writers, after: _Writers, stored: _Writers) -> Iterator[str]:
    """The metadata of before and of after the store was read, with the store."""
    for key, (applied_seq, *_) in before.items():
        name = f"run {key[0].hex()}: writer {to_unsigned(key[1]):016x}"
        if key not in stored:
            yield f"{name} is in the metadata and not in the store"
        elif applied_seq >= stored[key][1]:
            yield f"{name}: the metadata hold documents up to {applied_seq}, the store frames up to {stored[key][1] - 1}"
    for key, (applied_seq, next_seq, gaps) in stored.items():
        name = f"run {key[0].hex()}: writer {to_unsigned(key[1]):016x}"
        mine = after.get(key)
        if mine is None:
            if next_seq > 1:  # else its Open was cut off between the two
                yield f"{name} has frames in the store and is not in the metadata"
        elif mine[0] < applied_seq:
            yield f"{name}: the store let go of documents up to {applied_seq}, the metadata hold them up to {mine[0]}"
        elif mine[0] >= next_seq - 1 and mine[2] < gaps:
            yield f"{name}: {gaps} numbers are gaps, the metadata show {mine[2]}"


def _metadata_writers(path: Path) -> _Writers:
    try:
        with _reading(path) as connection:
            return {(run_id, writer_id): tuple(rest) for run_id, writer_id, *rest in connection.execute(_METADATA_WRITERS)}
    except sqlite3.DatabaseError as error:
        raise CannotCheckError(f"{path}: {error}") from error


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[SqliteConnection]:
    """A read transaction on a file that must be there, and of this version if it is of the store."""
    try:
        connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, isolation_level=None)
        with contextlib.closing(connection):
            connection.execute("BEGIN")
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if path.parent.name == "metrics" and version != schema.SCHEMA_VERSION:
                raise CannotCheckError(
                    f"{path} has schema version {version}, this program knows {schema.SCHEMA_VERSION}: "
                    "check with the version that wrote it, or let this server open it first"
                )
            yield SqliteConnection(connection)
    except sqlite3.OperationalError as error:
        raise CannotCheckError(f"{path}: {error}") from error
