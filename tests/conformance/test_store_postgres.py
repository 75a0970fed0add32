"""What only the PostgreSQL engine can show: several servers on one database, connections that break, slots emptied under readers."""

from __future__ import annotations

import os
import random
import tempfile
import threading
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from runferry.server import check
from runferry.server.store.protocol import Batch, DamagedError, OutcomeUnknownError, StoreBusyError, StoreError, StoreFullError

from tests.conformance.conftest import batch, feed, make_writer
from tests.conformance.reading import scan_rows
from tests.support.effort import effort, record
from tests.support.faultproxy import FaultProxy
from tests.support.mounts import mounted
from tests.support.postgres import FAST, Cluster
from tests.support.trainers import wait_until

psycopg = pytest.importorskip("psycopg", reason="not run: psycopg is not installed")

from runferry.server.store import postgres, postgres_shard  # noqa: E402 - needs psycopg
from runferry.server.store.postgres import PostgresStore  # noqa: E402
from runferry.server.store.postgres_text import escaped, plain  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROUNDS = effort("postgres_rounds", 20)


@pytest.fixture
def url(cluster: Cluster, postgres_database: str) -> str:
    """An empty database."""
    return cluster.url(postgres_database)


@pytest.fixture
def store(url: str) -> Iterator[PostgresStore]:
    """A store in it."""
    with closing(PostgresStore(url, merging=False)) as opened:
        yield opened


@pytest.fixture
def other(store: PostgresStore, url: str) -> Iterator[PostgresStore]:
    """The store of another server on the same database."""
    with closing(PostgresStore(url, merging=False)) as opened:
        assert opened.epoch == store.epoch
        yield opened


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """What the calls return, begun at one moment."""
    gate = threading.Barrier(len(calls))
    found: list[Any] = [None] * len(calls)

    def run(index: int) -> None:
        gate.wait()
        found[index] = calls[index]()

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


@contextmanager
def connected(url: str) -> Iterator[Any]:
    """A connection that is not the store's, in its schema."""
    with psycopg.connect(url, autocommit=True, options="-c search_path=runferry") as connection:
        yield connection


def value(url: str, query: str) -> Any:
    """The one value of a query."""
    with connected(url) as connection:
        return connection.execute(query).fetchone()[0]


@pytest.mark.fault(79)
def test_two_servers_that_get_the_same_frames_at_once_store_each_once(store: PostgresStore, other: PostgresStore) -> None:
    writer, second = make_writer(store), make_writer(store)
    for number in range(ROUNDS):
        groups = [batch(who, who.rows(4, first_step=4 * number), 4 * number + 1) for who in (writer, second)]

        one, two = at_once(lambda: store.append(groups), lambda: other.append(groups[::-1]))  # noqa: B023 - called at once

        for mine, theirs in zip(one, reversed(two), strict=True):
            assert mine.next_seq == theirs.next_seq == 4 * number + 5
            assert mine.accepted_frames + theirs.accepted_frames == 4
            assert not mine.is_gap
            assert not theirs.is_gap
    assert [row[0] for row in scan_rows(other, writer.run_id)] == list(range(4 * ROUNDS))
    assert store.check(writer.run_id) == []
    record("the same frames at two servers at once", rounds=ROUNDS)


@pytest.mark.fault(79)
def test_a_server_that_lags_behind_learns_where_the_writer_is(store: PostgresStore, other: PostgresStore) -> None:
    writer = make_writer(store)
    frames = writer.rows(6)
    store.append([Batch(writer.run_id, writer.writer_id, 1, 3, frames[:2])])
    other.append([Batch(writer.run_id, writer.writer_id, 3, 5, frames[2:4])])

    (late,) = store.append([Batch(writer.run_id, writer.writer_id, 3, 5, frames[2:4])])
    (ahead,) = store.append([Batch(writer.run_id, writer.writer_id, 6, 7, frames[5:])])

    assert (late.next_seq, late.accepted_frames, late.duplicate_frames) == (5, 0, 2)
    assert (ahead.next_seq, ahead.is_gap) == (5, True)


@pytest.mark.fault(79)
def test_writers_of_one_run_that_open_at_two_servers_at_once_have_places_of_their_own(store: PostgresStore, other: PostgresStore) -> None:
    made = []
    for _ in range(ROUNDS):
        made += at_once(lambda: make_writer(store), lambda: make_writer(other))

    states = store.writers(made[0].run_id)
    assert sorted(state.writer_id for state in states) == sorted(writer.writer_id for writer in made)


@pytest.mark.fault(85)
def test_two_servers_that_merge_a_run_at_once_lose_and_double_nothing(store: PostgresStore, other: PostgresStore) -> None:
    writer = make_writer(store)
    for number in range(ROUNDS):
        feed(store, writer, writer.rows(10, rows_per_frame=20, first_step=number * 200))
        merged = at_once(lambda: store.merge(writer.run_id), lambda: other.merge(writer.run_id))
        assert sum(merged) == 10

    assert store.check(writer.run_id) == []
    assert [row[0] for row in scan_rows(other, writer.run_id)] == list(range(ROUNDS * 200))


@pytest.mark.fault(81, 85)
def test_frames_that_a_server_took_before_it_died_are_merged_by_another(
    store: PostgresStore, other: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = make_writer(store)
    feed(store, writer, [*writer.rows(3), writer.finish()])
    store.close()
    assert other.merge() == 0, "another server may be about to"
    other.take_over()
    assert other.merge() == 0, "it was heard of a moment ago"

    monkeypatch.setattr(postgres, "QUIET_US", -1_000_000)
    other.take_over()

    assert other.merge() == 4
    assert other.writers(writer.run_id)[0].merged_seq == 4


@pytest.mark.fault(80)
@pytest.mark.parametrize("reaches_the_database", [True, False])
def test_a_connection_that_breaks_in_commit_leaves_the_outcome_open(
    cluster: Cluster, postgres_database: str, *, reaches_the_database: bool
) -> None:
    direct = cluster.url(postgres_database)
    with FaultProxy(cluster.port) as proxy, closing(PostgresStore(cluster.url(postgres_database, port=proxy.port), merging=False)) as store:
        writer = make_writer(store)
        frames = writer.rows(3)
        shard = store._place  # noqa: SLF001 - the moment of COMMIT is its own
        commit = shard._commit  # noqa: SLF001

        def held(connection: Any) -> None:
            if reaches_the_database:
                proxy.down(is_held=True)
            else:
                proxy.up(is_held=True)
            cutter.start()
            commit(connection)

        def cut() -> None:
            if reaches_the_database:
                wait_until(lambda: value(direct, "SELECT next_seq FROM writer") == 4, "the commit has happened")
            proxy.reset_all()
            proxy.heal()

        cutter = threading.Thread(target=cut)
        shard._commit = held  # type: ignore[method-assign]  # noqa: SLF001
        with pytest.raises(OutcomeUnknownError, match="COMMIT"):
            store.append([batch(writer, frames, 1)])
        cutter.join()
        shard._commit = commit  # type: ignore[method-assign]  # noqa: SLF001

        assert store.next_seqs(writer.run_id, [writer.writer_id])[writer.writer_id] == (4 if reaches_the_database else 1)
        (answer,) = store.append([batch(writer, frames, 1)])
        assert (answer.next_seq, answer.accepted_frames + answer.duplicate_frames) == (4, 3)
        assert len(scan_rows(store, writer.run_id)) == 3


@pytest.mark.fault(80, 81)
def test_a_connection_that_breaks_before_commit_has_done_nothing_and_the_next_one_works(store: PostgresStore, cluster: Cluster) -> None:
    writer = make_writer(store)
    frames = writer.rows(2)

    def cut_all() -> None:
        cluster.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'runferry'")

    cut_all()
    with pytest.raises(StoreBusyError):
        store.append([batch(writer, frames, 1)])
    assert store.next_seqs(writer.run_id, [writer.writer_id]) == {writer.writer_id: 1}

    def change_and_be_cut() -> None:
        with store._place.writing() as connection:  # noqa: SLF001 - in the middle of a transaction
            connection.execute("UPDATE writer SET next_seq = 7")
            cut_all()
            connection.execute("SELECT 1")

    with pytest.raises(StoreBusyError):
        change_and_be_cut()
    feed(store, writer, frames)
    assert len(scan_rows(store, writer.run_id)) == 2


@pytest.mark.fault(83)
def test_a_deadlock_and_a_lock_that_is_held_for_long_are_busy_and_nothing_has_happened(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_shard, "_SESSION", postgres_shard._SESSION.replace("lock_timeout = 5000", "lock_timeout = 1500"))  # noqa: SLF001
    with closing(PostgresStore(url, merging=False)) as store, connected(url) as holder:
        pair = sorted((make_writer(store), make_writer(store)), key=lambda writer: writer.writer_id - (1 << 64))
        group = [batch(writer, writer.rows(1), 1) for writer in pair]
        lock = "SELECT next_seq FROM writer WHERE writer_id = %s FOR UPDATE"
        holder.execute("SET deadlock_timeout = '60s'")
        holder.execute("BEGIN")
        holder.execute(lock, (pair[1].writer_id - (1 << 64),))

        with pytest.raises(StoreBusyError, match="lock timeout"):
            store.append(group)

        def wait_for_the_first() -> None:
            waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
            wait_until(lambda: value(url, waiting), "the group waits for the second writer")
            holder.execute(lock, (pair[0].writer_id - (1 << 64),))

        crossing = threading.Thread(target=wait_for_the_first)
        crossing.start()
        with pytest.raises(StoreBusyError, match="deadlock"):
            store.append(group)
        crossing.join()
        holder.execute("ROLLBACK")

        assert [answer.accepted_frames for answer in store.append(group)] == [1, 1]


@pytest.mark.fault(81, 83)
def test_no_connection_left_is_busy_until_there_is_one() -> None:
    with Cluster({**FAST, "max_connections": "8", "superuser_reserved_connections": "0"}) as cluster:
        store = PostgresStore(cluster.url(), merging=False)
        writer = make_writer(store)
        store._place._forget_idle()  # noqa: SLF001 - as after a lost connection
        taken = list(all_connections(cluster.url()))

        with pytest.raises(StoreBusyError, match="too many"):
            store.append([batch(writer, writer.rows(1), 1)])

        for connection in taken:
            connection.close()
        count = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
        wait_until(lambda: cluster.execute(count) == [(1,)], "the others are gone")
        writer.next_seq = 1
        feed(store, writer, writer.rows(1))
        store.close()


def all_connections(url: str) -> Iterator[Any]:
    """Connections until there are no more."""
    with suppress(psycopg.OperationalError):
        while True:
            yield psycopg.connect(url)


@pytest.mark.fault(72)
def test_a_full_disk_of_the_database_refuses_frames_and_goes_on_when_there_is_room() -> None:
    folder = Path(tempfile.mkdtemp(prefix="runferry-disk-"))  # the user that PostgreSQL runs as has to get there
    folder.chmod(0o755)
    with mounted(folder, "size=80m,mode=755") as disk:
        cluster = Cluster(folder=disk.path, wal_elsewhere=True)
        with cluster, closing(PostgresStore(cluster.url(), merging=False)) as store:
            writer = make_writer(store)
            feed(store, writer, writer.rows(1))
            space = os.statvfs(disk.path)
            ballast = disk.path / "ballast"
            ballast.write_bytes(bytes(space.f_bavail * space.f_frsize - (256 << 10)))
            big = writer.data([(1, {"text": random.Random(1).randbytes(400_000).hex()})])

            with pytest.raises(StoreFullError):
                feed(store, writer, [big])
            assert store.next_seqs(writer.run_id, [writer.writer_id]) == {writer.writer_id: 2}
            assert len(scan_rows(store, writer.run_id)) == 1, "reads go on"

            ballast.unlink()
            feed(store, writer, [big])
            assert len(scan_rows(store, writer.run_id)) == 2
            assert store.check(writer.run_id) == []
    folder.rmdir()


@pytest.mark.fault(73)
@pytest.mark.parametrize("column", ["data", "mx", "axis_id"])
def test_what_changes_in_a_chunk_is_reported_not_charted(store: PostgresStore, url: str, column: str) -> None:
    writer = make_writer(store)
    feed(store, writer, [writer.data([(step, {"x": step / 7}) for step in range(300)])])
    store.merge(writer.run_id, final=True)
    changed = {"data": "set_byte(data, 20, get_byte(data, 20) # 1)", "mx": "mx + 1", "axis_id": "axis_id + 1"}[column]
    with connected(url) as connection:
        connection.execute(f"UPDATE chunk SET {column} = {changed} WHERE key_id = (SELECT key_id FROM key WHERE role = 0)")  # noqa: S608 - ours

    with pytest.raises(DamagedError):
        store.series(writer.run_id, ["x"], buckets=1000)
    assert store.check(writer.run_id) != []


def test_texts_with_any_character_come_back_as_they_were(store: PostgresStore) -> None:
    for text in ("", "a", "\0", "\0\0a", "\U0010ffff", "\U0010ffff0\0", "\0\U0010ffff\U0010ffff", "0\U0010ffff\0000"):
        assert "\0" not in escaped(text)
        assert plain(escaped(text)) == text
    writer = make_writer(store)
    names = ["a\0b", "a\U0010ffff0b", "%s", ":x ?", "x" * 5_000]
    feed(store, writer, [writer.data([(0, dict.fromkeys(names, 1.0))])])
    store.merge(writer.run_id)

    assert sorted(metric.name for metric in store.metrics(writer.run_id)) == sorted(names)
    assert [chart.name for chart in store.series(writer.run_id, names, buckets=1)] == names


def test_tables_of_a_newer_version_are_refused_by_name(cluster: Cluster) -> None:
    url = cluster.url(cluster.new_database())
    PostgresStore(url, merging=False).close()
    with connected(url) as connection:
        connection.execute("UPDATE store SET value = '7' WHERE name = 'schema_version'")

    with pytest.raises(StoreError, match=r"schema version 7, this program knows 1"):
        PostgresStore(url, merging=False)


def test_a_database_without_a_store_is_said_to_have_none_and_gets_none(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    url = cluster.url(cluster.new_database())

    assert check.main(["--store", url]) == 2

    assert "holds no data of a runferry server" in capsys.readouterr().err
    assert value(url, "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'runferry%'") == 0


def test_servers_that_start_at_once_on_an_empty_database_make_its_tables_once(cluster: Cluster) -> None:
    url = cluster.url(cluster.new_database())
    stores = at_once(*[lambda: PostgresStore(url, merging=False)] * 4)

    assert len({store.epoch for store in stores}) == 1
    for store in stores:
        store.close()
