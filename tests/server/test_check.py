"""`runferry server check`: balanced after anything that is allowed, and every sort of loss is named."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from runferry.server import check

from tests.support.door import DoorStream, store_all
from tests.support.frames import ScriptedWriter
from tests.support.servers import RunningServer

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data of a server that took rows (some twice), a gap, documents, a foreign kind and an unreadable frame, and merged them."""
    folder = tmp_path_factory.mktemp("check") / "data"
    with RunningServer(folder) as server:
        writer = ScriptedWriter(id="merged")
        frames = [*writer.rows(5, rows_per_frame=200), writer.gap(3, "thinned"), writer.raw(1, "no blocks"), writer.raw(200, {"later": 1})]
        frames += [*writer.rows(2, first_step=999), writer.data(config={"lr": 1}), writer.finish()]
        store_all(server.write_address, writer, frames)
        waiting = ScriptedWriter(id="waiting", writer_id=2)
        store_all(server.write_address, waiting, waiting.rows(4))
        assert server.stop() == 0
    return folder


def edited(folder: Path, copy: Path, statement: str) -> int:
    """The exit code of a check after somebody has changed the shards of a copy."""
    copy.mkdir()
    for source in [folder / "meta.db", *(folder / "metrics").glob("*.db")]:
        target = copy / source.relative_to(folder)
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(source.read_bytes())
    for shard in (copy / "metrics").glob("metrics-*.db"):
        with closing(sqlite3.connect(shard)) as connection, connection:
            connection.execute(statement)
    return check.main(["--data", str(copy)])


def test_a_stopped_store_balances(stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main(["--data", str(stopped)]) == 0, capsys.readouterr().out

    assert "2 runs, 2 writers, nothing wrong" in capsys.readouterr().out


def test_a_running_store_balances_while_frames_arrive(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with RunningServer(tmp_path / "data") as server, DoorStream(server.write_address) as stream:
        writer = ScriptedWriter()
        stream.open(writer)
        for first in range(0, 3_000, 100):
            stream.send(writer.rows(100, first_step=first))
            if first % 500 == 0:
                stream.wait_durable(first + 1)
                assert check.main(["--data", str(tmp_path / "data")]) == 0, capsys.readouterr().out
        stream.wait_durable(3_001)
    assert check.main(["--data", str(tmp_path / "data")]) == 0, capsys.readouterr().out


LOSSES = {
    "a frame that waits": ("DELETE FROM l0 WHERE seq = 2", "frames 2 to 2 were acked and are missing"),
    "a chunk": ("DELETE FROM chunk", "chunks hold 0 points"),
    "an axis": ("DELETE FROM axis", "is missing"),
    "a row of a chunk": ("UPDATE chunk SET n = n - 1", "checksum"),
    "a quarantined frame": ("DELETE FROM quarantine", "numbers were merged"),
    "counted rows": ("UPDATE writer SET merged_rows = merged_rows + 1", "rows: merges took"),
    "a number given back": ("UPDATE writer SET next_seq = next_seq + 1", "were acked and are missing"),
    "a writer": ("DELETE FROM writer", "not in the store"),
    "a run": ("DELETE FROM run", "belong to no run"),
}


@pytest.mark.fault(73)
@pytest.mark.parametrize("loss", LOSSES)
def test_what_was_lost_is_named(stopped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], loss: str) -> None:
    statement, finding = LOSSES[loss]

    assert edited(stopped, tmp_path / "copy", statement) == 1

    assert finding in capsys.readouterr().out


def test_a_folder_without_data_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main(["--data", str(tmp_path)]) == 2

    assert "holds no data" in capsys.readouterr().err
