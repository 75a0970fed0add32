"""Openings that share their transactions: each has an outcome of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from runferry.server._generated import ingest_pb2 as pb
from runferry.server.ingest.opening import Opened, open_streams
from runferry.server.metadata import writes
from runferry.server.metadata.database import Database
from runferry.server.store.protocol import StoreBusyError
from runferry.server.store.sqlite import SqliteStore

from tests.support.frames import ScriptedWriter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """Empty metadata."""
    opened = Database(tmp_path / "meta.db")
    yield opened
    opened.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    """An empty store."""
    opened = SqliteStore(tmp_path / "metrics", shards=2, merging=False)
    yield opened
    opened.close()


def opening(number: int, *, protocol: int = 1) -> pb.Open:
    """Of a writer with a run of its own."""
    writer = ScriptedWriter(id=f"run{number}", writer_id=number + 1)
    return pb.Open(protocol=protocol, open_frame=writer.open_frame(config={"number": number}), first_available_seq=1, next_seq=1)


def opened(outcomes: list[object]) -> list[int]:
    """The writers among the outcomes."""
    return [outcome.writer_id for outcome in outcomes if isinstance(outcome, Opened)]


def test_openings_that_are_refused_or_no_frames_cost_the_others_nothing(database: Database, store: SqliteStore) -> None:
    messages = [opening(0), opening(1, protocol=9), pb.Open(protocol=1, open_frame=b"nonsense"), opening(3)]

    outcomes = open_streams(messages, database, store)

    assert opened(list(outcomes)) == [1, 4]
    assert [isinstance(outcome, pb.Reject) for outcome in outcomes] == [False, True, True, False]


def test_one_that_the_metadata_do_not_take_fails_alone(database: Database, store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = writes.open_writer

    def poisoned(connection: object, run_id: bytes, writer_id: int, *more: object) -> bool:
        if writer_id == 2:
            raise ValueError("a config that nobody thought of")
        return taken(connection, run_id, writer_id, *more)  # type: ignore[arg-type]  # passed on as they came

    monkeypatch.setattr(writes, "open_writer", poisoned)

    outcomes = open_streams([opening(number) for number in range(4)], database, store)

    assert opened(list(outcomes)) == [1, 3, 4]
    assert isinstance(outcomes[1], ValueError)


def test_writers_that_come_back_need_no_write_of_the_metadata(
    database: Database, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages = [opening(number) for number in range(40)]
    first = open_streams(messages, database, store)

    def refused(_self: Database) -> None:
        raise AssertionError("a write of the metadata")

    monkeypatch.setattr(Database, "write", refused)

    assert open_streams(messages, database, store) == first


def test_a_metadata_database_that_somebody_holds_is_an_answer_to_come_again(
    database: Database, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def held(_self: Database) -> None:
        raise sa.exc.OperationalError("BEGIN IMMEDIATE", None, Exception("database is locked"))

    monkeypatch.setattr(Database, "write", held)

    outcomes = open_streams([opening(0), opening(1)], database, store)

    assert all(isinstance(outcome, StoreBusyError) for outcome in outcomes)
