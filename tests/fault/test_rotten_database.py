"""Bits that rot in the server's database: what is damaged is named, what comes from a client that still has it is filled in again."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
from typing import TYPE_CHECKING

import pytest
from runferry.server.store.protocol import StoreError
from runferry.server.store.sqlite import SqliteStore

from tests.conformance.conftest import batch, make_writer
from tests.conformance.reading import scan_rows
from tests.support import stored
from tests.support.effort import effort, record
from tests.support.frames import ScriptedWriter, flip_bit
from tests.support.ports import free_port
from tests.support.servers import RunningServer
from tests.support.told import ToldTrainer

if TYPE_CHECKING:
    from pathlib import Path

FLIPS = effort("database_flips", 40)
SEED = int(os.environ.get("RUNFERRY_SEED", "1"))


def filled(directory: Path) -> ScriptedWriter:
    """A store of one shard with a run in it: merged rows, and some that wait for their merge."""
    store = SqliteStore(directory, shards=1, merging=False)
    writer = make_writer(store)
    for part in range(8):
        frame = writer.data([(step, {"loss": step / 7, "accuracy": 1 / (step + 1)}) for step in range(500 * part, 500 * part + 500)])
        store.append([batch(writer, [frame], part + 1)])
        if part == 5:
            store.merge(writer.run_id, final=True)
    store.close()
    return writer


def found_in(directory: Path, run_id: bytes) -> tuple[object, list[str]]:
    """The rows as they are read, and what is said to be wrong; no rows where the database says that it cannot be read."""
    try:
        store = SqliteStore(directory, shards=1, merging=False)
    except (StoreError, sqlite3.Error) as error:
        return None, [str(error)]
    try:
        said = store.check(run_id)
        return scan_rows(store, run_id), said
    except (StoreError, sqlite3.Error) as error:
        return None, [str(error)]
    finally:
        store.close()


@pytest.mark.fault(73)
@pytest.mark.timeout(600)
def test_a_bit_that_flips_in_the_database_is_named_or_changes_no_value(tmp_path: Path) -> None:
    writer = filled(tmp_path / "whole")
    rows, said = found_in(tmp_path / "whole", writer.run_id)
    assert said == []
    whole = (tmp_path / "whole/metrics-00.db").read_bytes()
    chance = random.Random(SEED)
    named = 0
    for number in range(FLIPS):
        bit = chance.randrange(len(whole) * 8)
        shutil.copytree(tmp_path / "whole", tmp_path / "rotten")
        (tmp_path / "rotten/metrics-00.db").write_bytes(flip_bit(whole, bit))

        found, said = found_in(tmp_path / "rotten", writer.run_id)

        assert said or found == rows, f"seed {SEED}, flip {number}: bit {bit & 7} of byte {bit >> 3} changes rows, and nobody says so"
        named += bool(said)
        shutil.rmtree(tmp_path / "rotten")
    record("bits flipped in a database file", flips=FLIPS, named=named, silently_wrong=0)


@pytest.mark.fault(73)
@pytest.mark.timeout(180)
@pytest.mark.parametrize("damage", ["flip", "cut"])
def test_what_a_rotten_write_ahead_log_has_lost_is_filled_in_by_the_client_that_still_has_it(tmp_path: Path, damage: str) -> None:
    data, port = tmp_path / "data", free_port()
    with ToldTrainer(tmp_path, id="wal", settings={"base_url": f"http://127.0.0.1:{port}"}) as trainer:
        with RunningServer(data, port=port) as server:
            for _ in range(6):
                trainer.log(20)
                assert trainer.ask("flush", acked=True, timeout=30)
            server.kill()
        log = max((data / "metrics").glob("metrics-*.db-wal"), key=lambda path: path.stat().st_size)
        content = log.read_bytes()
        assert len(content) > 1 << 16
        half = len(content) // 2
        log.write_bytes({"flip": flip_bit(content, half * 8), "cut": content[:half]}[damage])

        with RunningServer(data, port=port) as server:
            trainer.log(20)
            assert trainer.ask("flush", acked=True, timeout=60)
            assert "the server has lost" in trainer.status()["last_error"]
            trainer.ask("finish")

            rows = stored.rows(server.url, "local/disks/wal")
            assert [row["n"] for row in rows] == list(range(140))
            assert stored.gaps(server.url, "local/disks/wal") == []
