"""Slots of frames in PostgreSQL: which are emptied when, and that no reader misses a frame by it."""

from __future__ import annotations

import threading
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.conformance.conftest import feed, make_writer
from tests.conformance.reading import scan_rows
from tests.support.effort import effort, record

psycopg = pytest.importorskip("psycopg", reason="not run: psycopg is not installed")

from runferry.server.store.postgres import PostgresStore  # noqa: E402 - needs psycopg

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.postgres import Cluster

CHANGES = effort("slot_changes", 40)


@pytest.fixture
def store(cluster: Cluster, postgres_database: str) -> Iterator[PostgresStore]:
    """A store whose slots are looked after by hand."""
    with closing(PostgresStore(cluster.url(postgres_database), merging=False)) as opened:
        yield opened


def frames_by_slot(store: PostgresStore) -> dict[int, int]:
    """How many frames lie in which slot."""
    with store.reading() as connection:
        return dict(connection.execute("SELECT slot, count(*) FROM l0 GROUP BY slot").fetchall())


def look(store: PostgresStore, *, drain: bool) -> None:
    """A look at the slots, all of which are old; the runs of those that are not filled any more are merged if `drain`."""
    store.slots.look(age_s=0, drain_age_s=0 if drain else 1e9)


def test_a_slot_is_emptied_when_its_frames_are_merged_and_their_documents_applied(store: PostgresStore) -> None:
    writer = make_writer(store)
    feed(store, writer, [*writer.rows(2), writer.data(config={"a": 1})])
    look(store, drain=False)
    feed(store, writer, writer.rows(2, first_step=5))
    assert frames_by_slot(store) == {0: 3, 1: 2}

    look(store, drain=False)
    assert frames_by_slot(store) == {0: 3, 1: 2}, "nothing is merged yet"
    look(store, drain=True)
    assert frames_by_slot(store) == {0: 3}, "a document is not applied yet"
    store.mark_applied([(writer.run_id, writer.writer_id, 5)])
    look(store, drain=True)

    assert frames_by_slot(store) == {}
    assert len(scan_rows(store, writer.run_id)) == 4
    assert store.check(writer.run_id) == []


def test_ingest_goes_around_all_slots_and_stays_where_the_next_one_is_not_empty(store: PostgresStore) -> None:
    writer = make_writer(store)
    seen = []
    for number in range(6):
        feed(store, writer, writer.rows(1, first_step=number))
        look(store, drain=False)
        seen.append(max(frames_by_slot(store)))
    assert seen == [0, 1, 2, 3, 3, 3]

    look(store, drain=True)
    look(store, drain=True)
    feed(store, writer, writer.rows(1, first_step=6))
    assert frames_by_slot(store)[0] == 1


@pytest.mark.fault(84)
def test_a_reader_keeps_a_slot_from_being_emptied_and_sees_every_frame(store: PostgresStore) -> None:
    writer = make_writer(store)
    feed(store, writer, writer.rows(10))
    look(store, drain=False)

    with store.reading() as reader:
        assert reader.execute("SELECT count(*) FROM chunk").fetchone() == (0,), "its moment is now"
        look(store, drain=True)
        before = reader.execute("SELECT (SELECT count(*) FROM l0), (SELECT count(*) FROM chunk)").fetchone()
        feed(store, writer, writer.rows(1, first_step=10))
    assert before == (10, 0), "frames, since their chunks are younger than the reader"

    look(store, drain=True)
    look(store, drain=True)
    assert len(scan_rows(store, writer.run_id)) == 11


@pytest.mark.fault(84)
@pytest.mark.timeout(180)
def test_readers_see_every_row_while_slots_are_emptied_under_load(store: PostgresStore) -> None:
    writer = make_writer(store)
    is_done = threading.Event()
    faults: list[str] = []
    reads = [0]

    def read() -> None:
        seen = 0
        while not is_done.is_set():
            steps = [row[0] for row in scan_rows(store, writer.run_id)]
            if steps != list(range(len(steps))) or len(steps) < seen:
                faults.append(f"{len(steps)} rows after {seen}")
            seen = len(steps)
            reads[0] += 1

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    emptied = 0
    for number in range(CHANGES):
        feed(store, writer, writer.rows(3, first_step=3 * number))
        before = sum(frames_by_slot(store).values())
        look(store, drain=True)
        emptied += sum(frames_by_slot(store).values()) < before
    is_done.set()
    for reader in readers:
        reader.join()

    assert faults == []
    assert emptied > CHANGES // 4, "slots were hardly emptied"
    assert len(scan_rows(store, writer.run_id)) == 3 * CHANGES
    assert store.check(writer.run_id) == []
    record("reads while slots are emptied", reads=reads[0], emptied=emptied)
