"""The engines a store must pass on, as one fixture: a place where a store can be opened, closed and opened again."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from runferry.server.store.protocol import Batch, Store
from runferry.server.store.sqlite import SqliteStore

from tests.support.frames import START_US, ScriptedWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@dataclass
class StoreEngine:
    """One place for a store; `open` again after `close` is a restart."""

    name: str
    directory: Path
    _open: Callable[..., Store]
    _opened: list[Store] = field(default_factory=list)

    def open(self, **options: Any) -> Store:
        """A store that merges only when told to."""
        store = self._open(self.directory, merging=options.pop("merging", False), shards=2, **options)
        self._opened.append(store)
        return store

    def close_all(self) -> None:
        """Closes what a test left open; closing twice is allowed."""
        for store in self._opened:
            store.close()


@pytest.fixture(params=["sqlite"])
def store_engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreEngine]:
    """Each engine in turn, empty."""
    engine = StoreEngine(request.param, tmp_path_factory.mktemp("store"), SqliteStore)
    yield engine
    engine.close_all()


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
