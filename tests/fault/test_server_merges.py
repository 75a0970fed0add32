"""Merges and upgrades of the store, killed before every statement, and run twice at once: rows are neither lost nor doubled."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
from typing import TYPE_CHECKING, Any

import pytest
from runferry.server.store import schema
from runferry.server.store.protocol import StoreError
from runferry.server.store.sqlite import SqliteStore

from tests.conformance.conftest import feed, make_writer
from tests.conformance.reading import scan_rows
from tests.support.effort import effort, record

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.frames import ScriptedWriter

ROUNDS = effort("merge_rounds", 6)


class _Fatal(sqlite3.Connection):
    """Kills its process before the n-th statement."""

    left: int = -1

    def execute(self, statement: str, *parameters: Any) -> sqlite3.Cursor:
        self._count()
        return super().execute(statement, *parameters)

    def executemany(self, statement: str, *parameters: Any) -> sqlite3.Cursor:
        self._count()
        return super().executemany(statement, *parameters)

    def _count(self) -> None:
        if _Fatal.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        _Fatal.left -= 1


def fatal(*arguments: Any, **options: Any) -> sqlite3.Connection:
    """As `sqlite3.connect`."""
    return sqlite3.connect(*arguments, factory=_Fatal, **options)


def killed(statement: int, does: Callable[[], None]) -> bool:
    """Fork, do it there, be killed before that statement; False: it was done before."""
    pid = os.fork()
    if pid == 0:
        _Fatal.left = statement
        try:
            does()
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def filled(directory: Path) -> tuple[ScriptedWriter, list[tuple[int, int, dict[str, Any]]]]:
    """A run with chunks and with frames that wait, some rows logged twice, one frame unreadable."""
    store = SqliteStore(directory, shards=1, merging=False)
    writer = make_writer(store)
    feed(store, writer, writer.rows(30, rows_per_frame=20))
    store.merge(writer.run_id)
    feed(store, writer, [*writer.rows(5, rows_per_frame=20, first_step=590), writer.raw(1, "no blocks"), *writer.rows(3, first_step=700)])
    rows = scan_rows(store, writer.run_id)
    store.close()
    return writer, rows


@pytest.mark.fault(85)
@pytest.mark.timeout(300)
def test_a_merge_killed_before_any_of_its_statements_has_happened_or_not(tmp_path: Path) -> None:
    directory = tmp_path / "metrics"
    writer, rows = filled(directory)

    def merge() -> None:
        SqliteStore(directory, merging=False, connect=fatal).merge(writer.run_id, final=True)

    kills = 0
    while killed(kills, merge):
        kills += 1
        store = SqliteStore(directory, merging=False)
        assert store.check(writer.run_id) == []
        assert scan_rows(store, writer.run_id) == rows
        store.close()

    store = SqliteStore(directory, merging=False)
    assert store.check(writer.run_id) == []
    assert scan_rows(store, writer.run_id) == rows
    assert [seq for _, seq, _ in store.quarantined(writer.run_id)] == [36]
    store.close()
    assert kills > 30, "the merge was not reached"
    record("merges killed", kills=kills, rows=len(rows))


@pytest.mark.fault(85)
@pytest.mark.timeout(120)
def test_two_servers_that_merge_a_run_at_once_lose_and_double_nothing(tmp_path: Path) -> None:
    first = SqliteStore(tmp_path / "metrics", shards=1, merging=False)
    second = SqliteStore(tmp_path / "metrics", merging=False)
    writer = make_writer(first)
    for round_ in range(ROUNDS):
        feed(first, writer, writer.rows(20, rows_per_frame=20, first_step=round_ * 400))
        gate = threading.Barrier(2)

        def merge(store: SqliteStore, gate: threading.Barrier = gate) -> None:
            gate.wait()
            store.merge(writer.run_id)

        threads = [threading.Thread(target=merge, args=(store,)) for store in (first, second)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert first.check(writer.run_id) == []
    assert [row[0] for row in scan_rows(second, writer.run_id)] == list(range(ROUNDS * 400))
    second.close()
    first.close()


def as_version_1(directory: Path) -> None:
    """Turns shards back into what the first version wrote."""
    for path in directory.glob("*.db"):
        connection = sqlite3.connect(path)
        if path.name != "store.db":
            for column in ("merged_frames", "merged_gaps", "merged_rows"):
                connection.execute(f"ALTER TABLE writer DROP COLUMN {column}")
        connection.execute("PRAGMA user_version = 1")
        connection.commit()
        connection.close()


@pytest.mark.fault(86)
@pytest.mark.timeout(300)
def test_an_upgrade_killed_before_any_of_its_statements_goes_on_the_next_time(tmp_path: Path) -> None:
    directory = tmp_path / "metrics"
    writer, rows = filled(directory)
    as_version_1(directory)

    kills = 0
    while killed(kills, lambda: SqliteStore(directory, merging=False, connect=fatal).close()):
        kills += 1

    store = SqliteStore(directory, merging=False)
    assert scan_rows(store, writer.run_id) == rows
    store.merge(writer.run_id)
    assert store.check(writer.run_id) == []
    assert scan_rows(store, writer.run_id) == rows
    store.close()
    assert kills > 20, "the upgrade was not reached"
    record("upgrades killed", kills=kills)


@pytest.mark.fault(86)
def test_an_older_server_refuses_a_newer_store_and_names_both_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    SqliteStore(tmp_path / "metrics", shards=1, merging=False).close()
    before = (tmp_path / "metrics" / "metrics-00.db").read_bytes()
    monkeypatch.setattr(schema, "SCHEMA_VERSION", 1)

    with pytest.raises(StoreError, match=r"schema version 2, this program knows 1"):
        SqliteStore(tmp_path / "metrics", merging=False)

    assert (tmp_path / "metrics" / "metrics-00.db").read_bytes() == before


@pytest.mark.fault(88)
def test_a_frame_that_makes_the_merge_fail_is_set_aside_after_one_retry_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from runferry.server.store import merge  # noqa: PLC0415 - to be poisoned

    store = SqliteStore(tmp_path / "metrics", shards=1, merging=False)
    writer = make_writer(store)
    frames = writer.rows(7)
    feed(store, writer, frames)
    add_frames = merge._add_frames  # noqa: SLF001 - as above

    class Panic(BaseException):
        """As a panic of `_native`: no Exception."""

    def poisoned(native: Any, taken: Any) -> Any:
        if any(frame == frames[3] for *_, frame in taken.frames):
            raise Panic
        return add_frames(native, taken)

    monkeypatch.setattr(merge, "_add_frames", poisoned)
    store.merge(writer.run_id, final=True)

    assert [row[0] for row in scan_rows(store, writer.run_id)] == [0, 1, 2, 4, 5, 6]
    ((_, seq, reason),) = store.quarantined(writer.run_id)
    assert (seq, "merging it failed" in reason) == (4, True)
    assert store.check(writer.run_id) == []
    store.close()
