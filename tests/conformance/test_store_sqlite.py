"""What only the SQLite engine can show: its files damaged, its disk full, its COMMIT failing, its process killed."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from runferry.server.store import shard as shard_module
from runferry.server.store.protocol import DamagedError, OutcomeUnknownError, StoreError, StoreFullError
from runferry.server.store.sqlite import SqliteStore

from tests.conformance.conftest import batch, feed, make_writer
from tests.conformance.reading import scan_rows
from tests.support.frames import ScriptedWriter, flip_bit

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]

KILLED_IN_COMMIT = """
import os, signal, sqlite3, sys
from pathlib import Path
from runferry.server.store.protocol import Batch
from runferry.server.store.sqlite import SqliteStore
from tests.support.frames import ScriptedWriter

is_armed = False

class Killed(sqlite3.Connection):
    def execute(self, statement, *parameters):
        found = super().execute(statement, *parameters)
        if statement == "COMMIT" and is_armed:
            os.kill(os.getpid(), signal.SIGKILL)
        return found

def connect(*arguments, **options):
    return sqlite3.connect(*arguments, factory=Killed, **options)

store = SqliteStore(Path(sys.argv[1]), shards=2, merging=False, connect=connect)
writer = ScriptedWriter()
store.open_writer(writer.run_id, writer.writer_id, writer.open_frame(), label="", started_us=1, is_relative=False)
frames = writer.rows(3)
is_armed = True
store.append([Batch(writer.run_id, writer.writer_id, 1, 4, frames)])
"""


class _Faulty(sqlite3.Connection):
    """Fails a COMMIT when told to, after or before doing it."""

    fail_commit: str = ""

    def execute(self, statement: str, *parameters: Any) -> sqlite3.Cursor:
        if statement == "COMMIT" and _Faulty.fail_commit:
            mode, _Faulty.fail_commit = _Faulty.fail_commit, ""
            if mode == "after":
                super().execute(statement, *parameters)
            raise sqlite3.OperationalError("disk I/O error")
        return super().execute(statement, *parameters)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where the store lies."""
    return tmp_path / "metrics"


@pytest.fixture
def store(directory: Path) -> Iterator[SqliteStore]:
    """An open store whose COMMIT may fail."""

    def connect(*arguments: Any, **options: Any) -> sqlite3.Connection:
        return sqlite3.connect(*arguments, factory=_Faulty, **options)

    opened = SqliteStore(directory, shards=1, merging=False, connect=connect)
    yield opened
    opened.close()


def _edit(directory: Path, statement: str, *parameters: object) -> None:
    connection = sqlite3.connect(directory / "metrics-00.db")
    assert connection.execute(statement, parameters).rowcount == 1
    connection.commit()
    connection.close()


def _value(directory: Path, query: str) -> Any:
    connection = sqlite3.connect(directory / "metrics-00.db")
    (value,) = connection.execute(query).fetchone()
    connection.close()
    return value


def _filled(store: SqliteStore, rows: int = 300) -> ScriptedWriter:
    writer = make_writer(store)
    feed(store, writer, [writer.data([(step, {"x": step / 7}) for step in range(rows)])])
    store.merge(writer.run_id, final=True)
    return writer


@pytest.mark.fault(9)
def test_a_process_killed_between_commit_and_its_return_has_stored_the_group_once(directory: Path) -> None:
    command = [sys.executable, "-c", KILLED_IN_COMMIT, str(directory)]
    killed = subprocess.run(command, env={"PYTHONPATH": f"{ROOT}:{ROOT / 'python'}"}, timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL
    store = SqliteStore(directory, merging=False)
    writer = ScriptedWriter()
    frames = writer.rows(3)

    (answer,) = store.append([batch(writer, frames, 1)])

    assert (answer.accepted_frames, answer.duplicate_frames, answer.next_seq) == (0, 3, 4)
    assert [row[0] for row in scan_rows(store, writer.run_id)] == [0, 1, 2]
    assert store.check(writer.run_id) == []
    store.close()


@pytest.mark.fault(72)
@pytest.mark.parametrize("mode", ["before", "after"])
def test_an_error_from_commit_leaves_the_outcome_to_the_next_question(store: SqliteStore, mode: str) -> None:
    writer = make_writer(store)
    frames = writer.rows(3)
    _Faulty.fail_commit = mode

    with pytest.raises(OutcomeUnknownError, match="disk I/O error"):
        store.append([batch(writer, frames, 1)])

    next_seq = store.next_seqs(writer.run_id, [writer.writer_id])[writer.writer_id]
    assert next_seq == (4 if mode == "after" else 1)
    (answer,) = store.append([batch(writer, frames, 1)])
    assert (answer.next_seq, answer.accepted_frames + answer.duplicate_frames) == (4, 3)
    assert len(scan_rows(store, writer.run_id)) == 3


@pytest.mark.fault(72)
def test_a_full_disk_rolls_back_and_goes_on_when_there_is_room(store: SqliteStore) -> None:
    writer = make_writer(store)
    noise = random.Random(1)
    big = writer.data([(step, {"text": noise.randbytes(200).hex()}) for step in range(2000)])
    connection = store._shards[0]._writer  # noqa: SLF001 - the limit is a setting of the connection
    assert connection is not None
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages + 1}")

    with pytest.raises(StoreFullError):
        store.append([batch(writer, [big], 1)])
    assert store.next_seqs(writer.run_id, [writer.writer_id]) == {writer.writer_id: 1}

    connection.execute("PRAGMA max_page_count = 1000000")
    feed(store, writer, [big])
    assert len(scan_rows(store, writer.run_id)) == 2000


@pytest.mark.fault(73)
def test_a_flipped_bit_in_the_values_is_reported_not_charted(store: SqliteStore, directory: Path) -> None:
    writer = _filled(store)
    data = _value(directory, "SELECT data FROM chunk JOIN key USING(run_id, key_id) WHERE role = 0")
    for bit in range(0, len(data) * 8, len(data)):
        _edit(directory, "UPDATE chunk SET data = ? WHERE data = ?", flip_bit(data, bit), data)

        with pytest.raises(DamagedError, match="checksum of the data"):
            store.series(writer.run_id, ["x"], buckets=1000)
        with pytest.raises(DamagedError, match="checksum of the data"):
            list(store.scan(writer.run_id, None))
        assert any("checksum" in finding for finding in store.check(writer.run_id))
        _edit(directory, "UPDATE chunk SET data = ? WHERE data = ?", data, flip_bit(data, bit))

    assert store.check(writer.run_id) == []
    assert store.series(writer.run_id, ["x"], buckets=1000)[0].raw_points == 300


@pytest.mark.fault(73)
@pytest.mark.parametrize("column", ["mx = mx + 1", "n_finite = 7", "sm = -sm", "kind = 3", "axis_id = axis_id + 1", "step1 = 7"])
def test_a_changed_statistic_is_reported_not_charted(store: SqliteStore, directory: Path, column: str) -> None:
    writer = _filled(store)

    _edit(directory, f"UPDATE chunk SET {column} WHERE key_id = (SELECT key_id FROM key WHERE role = 0)")  # noqa: S608 - ours

    with pytest.raises(DamagedError):
        store.series(writer.run_id, ["x"], buckets=1)
    assert store.check(writer.run_id) != []


@pytest.mark.fault(73)
@pytest.mark.parametrize("table", ["chunk", "axis"])
def test_a_lost_row_is_reported_not_charted(store: SqliteStore, directory: Path, table: str) -> None:
    writer = _filled(store)
    connection = sqlite3.connect(directory / "metrics-00.db")
    connection.execute(f"DELETE FROM {table}")  # noqa: S608 - ours
    connection.commit()
    connection.close()

    with pytest.raises(DamagedError):
        store.series(writer.run_id, ["x"], buckets=1)
    assert store.check(writer.run_id) != []


@pytest.mark.fault(73)
def test_a_damaged_chunk_that_a_merge_meets_is_set_aside_and_the_merge_goes_on(store: SqliteStore, directory: Path) -> None:
    writer = _filled(store)
    data = _value(directory, "SELECT data FROM chunk JOIN key USING(run_id, key_id) WHERE role = 0")
    _edit(directory, "UPDATE chunk SET data = ? WHERE data = ?", flip_bit(data, 99), data)
    late = make_writer(store, started_s=5)
    feed(store, late, [late.data([(5, {"x": 1.0})])])

    store.merge(writer.run_id)

    (chart,) = store.series(writer.run_id, ["x"], buckets=10)
    assert (chart.raw_points, chart.step_first) == (1, [5])
    ((_, _, reason),) = store.quarantined(writer.run_id)
    assert "300 points of 'x'" in reason
    assert "checksum of the data" in reason
    assert store.check(writer.run_id) == []


def test_a_hole_in_the_frames_is_found_by_the_check(store: SqliteStore, directory: Path) -> None:
    writer = make_writer(store)
    feed(store, writer, writer.rows(4))
    _edit(directory, "DELETE FROM l0 WHERE seq = 2")

    (finding,) = store.check(writer.run_id)

    assert "frames 2 to 2 were acked and are missing" in finding


def test_a_newer_schema_is_refused_by_name(directory: Path) -> None:
    SqliteStore(directory, merging=False).close()
    connection = sqlite3.connect(directory / "metrics-00.db")
    connection.execute("PRAGMA user_version = 7")
    connection.close()

    with pytest.raises(StoreError, match=r"schema version 7, this program knows 2"):
        SqliteStore(directory, merging=False)


def test_a_file_of_another_program_is_refused(directory: Path) -> None:
    directory.mkdir()
    connection = sqlite3.connect(directory / "store.db")
    connection.execute("CREATE TABLE theirs(x)")
    connection.close()

    with pytest.raises(StoreError, match="not a file of this store"):
        SqliteStore(directory, merging=False)


def test_a_file_that_is_no_database_is_refused(directory: Path) -> None:
    directory.mkdir()
    (directory / "metrics-00.db").write_bytes(b"no database" * 100)

    with pytest.raises(StoreError, match="not a database"):
        SqliteStore(directory, merging=False)


def test_a_network_file_system_is_refused_unless_forced(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runferry.server.store.sqlite.network_file_system", lambda _: "nfs4")

    with pytest.raises(StoreError, match=r"network file system \(nfs4\)"):
        SqliteStore(directory, merging=False)

    SqliteStore(directory, merging=False, force_network=True).close()


def test_the_file_system_is_that_of_the_nearest_mount_point(monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = "disk / ext4 rw 0 0\nserver:/home /home nfs4 rw 0 0\ndisk /home/me/my\\040scratch ext4 rw 0 0\n"
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: mounts)

    assert shard_module.network_file_system(Path("/home/me/runs")) == "nfs4"
    assert shard_module.network_file_system(Path("/home/me/my scratch/runs")) is None
    assert shard_module.network_file_system(Path("/homework")) is None


def test_a_closed_store_says_so(store: SqliteStore) -> None:
    writer = make_writer(store)
    store.close()

    with pytest.raises(StoreError, match="closed"):
        store.append([batch(writer, writer.rows(1), 1)])
    with pytest.raises(StoreError, match="closed"):
        store.totals(writer.run_id)


def test_frames_are_deleted_only_when_merged_and_applied(store: SqliteStore, directory: Path) -> None:
    writer = make_writer(store)
    feed(store, writer, [*writer.rows(2), writer.data(config={"a": 1}), *writer.rows(1, first_step=5)])
    count = "SELECT count(*) FROM l0"

    store.merge(writer.run_id)
    assert _value(directory, count) == 4, "kept for live readers until the next merge"
    feed(store, writer, writer.rows(1, first_step=9))
    store.merge(writer.run_id)
    assert _value(directory, count) == 2, "one with a document, one of the last merge"
    store.mark_applied([(writer.run_id, writer.writer_id, 4)])
    assert _value(directory, count) == 1


def test_small_chunks_are_joined_four_to_one(store: SqliteStore, directory: Path) -> None:
    writer = make_writer(store)
    for start in range(0, 100 * 64, 100):
        feed(store, writer, [writer.data([(step, {"x": float(step)}) for step in range(start, start + 100)])])
        store.merge(writer.run_id)

    sizes = (
        sqlite3.connect(directory / "metrics-00.db")
        .execute("SELECT n FROM chunk JOIN key USING(run_id, key_id) WHERE role = 0 ORDER BY chunk.step0")
        .fetchall()
    )

    assert sum(size for (size,) in sizes) == 6400
    assert len(sizes) <= 10, sizes
    assert store.check(writer.run_id) == []
