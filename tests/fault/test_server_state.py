"""The server loses what it had, gets an old copy back, or is kept from its own files: the client refills it, and it is told."""

from __future__ import annotations

import shutil
import sqlite3
import threading
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
import runferry
from runferry.server import check

from tests.support import stored
from tests.support.door import DoorStream
from tests.support.frames import ScriptedWriter
from tests.support.ports import free_port
from tests.support.servers import RunningServer
from tests.support.trainers import wait_until

if TYPE_CHECKING:
    from pathlib import Path


def back_up(data: Path, copy: Path) -> None:
    """As an administrator does, with SQLite's own backup, from a running server."""
    for source in [data / "meta.db", *(data / "metrics").glob("*.db")]:
        target = copy / source.relative_to(data)
        target.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(source)) as live, closing(sqlite3.connect(target)) as saved:
            live.backup(saved)


@pytest.mark.fault(36, 37)
@pytest.mark.timeout(180)
@pytest.mark.parametrize("loses", ["everything", "what came after the backup"])
def test_a_server_that_lost_acked_frames_is_refilled_and_the_loss_is_told(tmp_path: Path, loses: str) -> None:
    data, port = tmp_path / "data", free_port()
    logged = 0
    with RunningServer(data, port=port) as server:
        run = runferry.init(project="lost", id="r", dir=tmp_path, settings={"base_url": server.url, "silent": True})
        for _ in range(1_500):
            run.log({"n": logged})
            logged += 1
        assert run.flush(acked=True, timeout=60)
        back_up(data, tmp_path / "backup")
        for _ in range(1_500):
            run.log({"n": logged})
            logged += 1
        assert run.flush(acked=True, timeout=60)
        acked = run.status().acked_frames
        server.kill()
    shutil.rmtree(data)
    if loses != "everything":
        shutil.copytree(tmp_path / "backup", data)

    with RunningServer(data, port=port) as server:
        run.log({"n": logged})
        assert run.flush(acked=True, timeout=60), run.status()
        told = run.status().last_error
        run.finish()

        assert acked > 1
        assert "the server has lost" in (told or ""), run.status()
        assert stored.cells(server.url, run.path) == [(step, {"n": step}) for step in range(logged + 1)]
        assert server.stop() == 0
    assert check.main(["--data", str(data)]) == 0


@pytest.mark.fault(36, 37)
def test_frames_that_nobody_has_any_more_are_a_gap_and_an_alarm(tmp_path: Path) -> None:
    with RunningServer(tmp_path / "data") as server:
        writer = ScriptedWriter()
        writer.next_seq = 8
        with DoorStream(server.write_address) as stream:
            ok = stream.open(writer, first_available_seq=8, next_seq=9)
            writer.next_seq = ok.next_seq
            stream.send([writer.gap(7, "server_regressed", rows=7), *writer.rows(1, first_step=7), writer.finish()])
            stream.wait_durable(10)
            stream.bye()
            stream.wait_end()
        stored.wait_for_state(server.url, "local/demo/r1", "finished")

        assert [(gap["seq"], gap["count"], gap["reason"]) for gap in stored.gaps(server.url, "local/demo/r1")] == [
            (1, 7, "server_regressed")
        ]
        assert server.stop() == 0
        assert "ALARM: writer" in server.log.read_text()
    assert check.main(["--data", str(tmp_path / "data")]) == 0


def let_go(holders: list[sqlite3.Connection]) -> None:
    """End their transactions."""
    for holder in holders:
        holder.rollback()


@pytest.mark.fault(83)
@pytest.mark.timeout(120)
def test_while_another_process_holds_the_database_frames_wait_and_nobody_goes_back(tmp_path: Path) -> None:
    with RunningServer(tmp_path / "data") as server:
        writer = ScriptedWriter()
        with DoorStream(server.write_address) as stream:
            stream.open(writer)
            stream.send(writer.rows(1))
            stream.wait_durable(2)
            holders = [
                sqlite3.connect(shard, isolation_level=None, check_same_thread=False)
                for shard in (tmp_path / "data" / "metrics").glob("metrics-*.db")
            ]
            for holder in holders:
                holder.execute("BEGIN IMMEDIATE")

            stream.send(writer.rows(3, first_step=1))
            stream.wait_kind("throttle")
            release = threading.Timer(0.1, let_go, [holders])
            release.start()
            stream.wait_durable(5)

            release.join()
            assert stream.all("rewind") == []
            for holder in holders:
                holder.close()
    assert check.main(["--data", str(tmp_path / "data")]) == 0


@pytest.mark.fault(84)
@pytest.mark.timeout(120)
def test_a_reader_that_does_not_end_holds_up_no_ingest(tmp_path: Path) -> None:
    with RunningServer(tmp_path / "data") as server:
        writer = ScriptedWriter()
        with DoorStream(server.write_address) as stream:
            stream.open(writer)
            stream.send(writer.rows(1))
            stream.wait_durable(2)
            readers = [sqlite3.connect(shard, isolation_level=None) for shard in (tmp_path / "data" / "metrics").glob("metrics-*.db")]
            for reader in readers:
                reader.execute("BEGIN")
                reader.execute("SELECT count(*) FROM l0").fetchone()

            for first in range(1, 2_001, 500):
                stream.send(writer.rows(500, first_step=first))
            stream.wait_durable(2_002)
            stream.send([writer.finish()])
            stream.wait_durable(2_003)

            path = "local/demo/r1"
            wait_until(lambda: stored.run(server.url, path).stored["rows"] == 2_001, "the rows are seen")
            assert stream.all("rewind") == []
            for reader in readers:
                reader.close()
    assert check.main(["--data", str(tmp_path / "data")]) == 0
