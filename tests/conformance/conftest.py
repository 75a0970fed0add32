"""The engines a store must pass on, as one fixture: a place where a store can be opened, closed and opened again."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from runferry.server.store.protocol import Batch, Store
from runferry.server.store.sqlite import SqliteStore

from tests.support.frames import START_US, ScriptedWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.postgres import Cluster


@dataclass
class StoreEngine:
    """One place for a store; `open` again after `close` is a restart."""

    name: str
    _place: Callable[[], Callable[..., Store]]
    """Makes an empty place, and what opens a store there."""
    _open: Callable[..., Store] | None = None
    _opened: list[Store] = field(default_factory=list)

    def open(self, **options: Any) -> Store:
        """A store that merges only when told to."""
        if self._open is None:
            self._open = self._place()
        return self._keep(self._open(merging=options.pop("merging", False), **options))

    def open_elsewhere(self) -> Store:
        """Another store, in a place of its own."""
        return self._keep(self._place()(merging=False))

    def _keep(self, store: Store) -> Store:
        self._opened.append(store)
        return store

    def close_all(self) -> None:
        """Closes what a test left open; closing twice is allowed."""
        for store in self._opened:
            store.close()


def _postgres_place(cluster: Cluster, borrowed: list[str]) -> Callable[..., Store]:
    from runferry.server.store.postgres import PostgresStore  # noqa: PLC0415 - needs psycopg

    # A database that was used before has the epoch of then: a second place in one test is new.
    database = cluster.new_database() if borrowed else cluster.borrow()
    borrowed.append(database)
    return partial(PostgresStore, cluster.url(database))


@pytest.fixture(params=["sqlite", "postgres"])
def store_engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreEngine]:
    """Each engine in turn, empty."""
    borrowed: list[str] = []
    places: dict[str, Callable[[], Callable[..., Store]]] = {
        "sqlite": lambda: partial(SqliteStore, tmp_path_factory.mktemp("store"), shards=2),
        "postgres": lambda: _postgres_place(request.getfixturevalue("cluster"), borrowed),
    }
    engine = StoreEngine(request.param, places[request.param])
    yield engine
    engine.close_all()
    for database in borrowed:
        request.getfixturevalue("cluster").give_back(database)


@pytest.fixture
def store(store_engine: StoreEngine) -> Store:
    """An empty, open store."""
    return store_engine.open()


_ids = itertools.count(0x1000)


def make_writer(store: Store, run: str = "r1", *, label: str = "", started_s: int = 0, is_relative: bool = False) -> ScriptedWriter:
    """A writer with a number of its own, opened in the store."""
    writer = ScriptedWriter(id=run, writer_id=next(_ids) | 1 << 63, label=label)
    started_us = START_US + started_s * 1_000_000
    store.open_writer(writer.run_id, writer.writer_id, writer.open_frame(), label=label, started_us=started_us, is_relative=is_relative)
    return writer


def batch(writer: ScriptedWriter, frames: list[bytes], first_seq: int) -> Batch:
    """Frames from `first_seq` up to what the writer has made so far."""
    return Batch(writer.run_id, writer.writer_id, first_seq, writer.next_seq, frames)


def feed(store: Store, writer: ScriptedWriter, frames: list[bytes]) -> None:
    """Appends the writer's newest frames, which must be accepted."""
    numbers = int.from_bytes(frames[0][40:48], "little")
    (answer,) = store.append([batch(writer, frames, numbers)])
    assert answer.next_seq == writer.next_seq
    assert not answer.is_gap
