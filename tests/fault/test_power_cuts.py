"""Power cuts under the client's journal and under the server's data: what was promised durable before the cut is there after it.

RUNFERRY_EFFORT_POWER_CUTS says how many (default 100), RUNFERRY_SEED which instants. See `tests/support/power.py` for what a cut is.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.support import power_client, stored
from tests.support.door import DoorStream
from tests.support.effort import effort, record
from tests.support.exact import exact
from tests.support.frames import ScriptedWriter
from tests.support.power import LoopDisk
from tests.support.servers import RunningServer
from tests.support.trainers import ROOT, Trainer, client_environment, command

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CUTS = effort("power_cuts", 100)
A_BATCH = 100
"""Cycles after which their journals are synced, compared and removed."""
LYING_CUTS = 12
DOOR_CUTS = max(3, CUTS // 100)
SEED = int(os.environ.get("RUNFERRY_SEED", "1"))

LYING = """
int runferry_lying_fsync = 1;
int fsync(int file) { (void)file; return 0; }
int fdatasync(int file) { (void)file; return 0; }
"""

TRAINING = """
import os, runferry
run = runferry.init(project="power", id="online", settings={"silent": True})
number = 0
while True:
    for _ in range(20):
        run.log({"n": number})
        number += 1
    assert run.flush(acked=True, timeout=30)
    os.write(1, b"%d\\n" % number)
    for _ in range(7):
        run.log({"n": number})
        number += 1
"""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[LoopDisk]:
    """A disk whose power can be cut."""
    with LoopDisk.made(tmp_path, 2048) as made:
        yield made


def cuts(program: str, disk: LoopDisk, cycles: int, first: int, folder: Path, **more: str) -> list[dict[str, Any]]:
    """What a program of `tests/support` reports of so many cycles.

    Raises:
        AssertionError: It found a promise broken.
    """
    environment = {**client_environment(folder), **more}
    environment["PYTHONPATH"] += f":{ROOT}"
    words = [disk.device, str(disk.path), str(cycles), str(SEED), str(first)]
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests/support" / program), *words],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60 + 5 * cycles,
        check=False,
    )
    assert done.returncode == 0, f"seed {SEED}: {done.stderr[-4000:]}"
    return [json.loads(line) for line in done.stdout.splitlines()]


def check_synced(server: RunningServer, disk: LoopDisk, reports: list[dict[str, Any]], folder: Path) -> int:
    """Sync what the cycles left; each run is a whole beginning of what was logged. Returns the rows read back."""
    synced = command(folder, "sync", str(disk.path / "runferry"), base_url=server.url)
    assert synced.returncode == 0, synced.stdout + synced.stderr
    checked = 0
    for report in reports:
        path = f"local/power/{report['id']}"
        cells = stored.cells(server.url, path)
        large_bytes = power_client.LARGE_BYTES if any("noise" in values for _, values in cells) else 0
        rows = [power_client.row(number, large_bytes) for number in range(len(cells))]
        assert cells == [(step, {name: exact(value) for name, value in row.items()}) for step, row in enumerate(rows)], report
        assert len(cells) >= report["promised"], report
        assert stored.gaps(server.url, path) == [], report
        checked += len(cells)
    return checked


@pytest.mark.fault(10, 12)
@pytest.mark.timeout(120 + 5 * CUTS)
def test_rows_flushed_durably_survive_a_power_cut_of_the_training_machine(tmp_path: Path, disk: LoopDisk) -> None:
    checked = promised = 0
    with RunningServer(tmp_path / "server") as server:
        for first in range(0, CUTS, A_BATCH):
            reports = cuts("power_client.py", disk, min(A_BATCH, CUTS - first), first, tmp_path)
            checked += check_synced(server, disk, reports, tmp_path)
            promised += sum(report["promised"] for report in reports)
            shutil.rmtree(disk.path / "runferry")

    record("power cuts under a client's journal", cuts=CUTS, promised_rows=promised, rows_read_back=checked, promised_rows_lost=0)


@contextmanager
def lying_fsync(folder: Path) -> Iterator[str]:
    """A library that makes fsync do nothing and say that it did."""
    if shutil.which("gcc") is None:
        pytest.skip("not run: needs gcc")
    library = folder / "lying.so"
    (folder / "lying.c").write_text(LYING)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", str(library), str(folder / "lying.c")], check=True, timeout=60)  # noqa: S607 - where the system has it
    yield str(library)


@pytest.mark.fault(23)
@pytest.mark.timeout(180)
def test_on_a_disk_that_lies_about_fsync_the_journal_still_opens_and_holds_a_beginning(tmp_path: Path, disk: LoopDisk) -> None:
    with lying_fsync(tmp_path) as library:
        reports = cuts("power_client.py", disk, LYING_CUTS, 0, tmp_path, LD_PRELOAD=library)
    assert any(report["kept"] < report["promised"] for report in reports), "the lie had no effect"

    with RunningServer(tmp_path / "server") as server:
        command(tmp_path, "sync", str(disk.path / "runferry"), base_url=server.url)
        for report in reports:
            try:
                cells = stored.cells(server.url, f"local/power/{report['id']}")
            except ValueError:
                cells = []  # not even the run's name had reached the disk
            numbers = [values["n"] for _, values in cells]
            missing = sum(gap["count"] for gap in stored.gaps(server.url, f"local/power/{report['id']}")) if cells else 0
            assert numbers == list(range(len(numbers))) or missing, f"{report}: a hole without a gap"
            assert numbers == sorted(set(numbers)), report


@pytest.mark.fault(10, 23)
@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", ["honest disk", "lying disk"])
def test_rows_acked_by_the_server_survive_the_loss_of_the_training_machines_disk_cache(
    tmp_path: Path, disk: LoopDisk, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    with RunningServer(tmp_path / "server") as server, lying_fsync(tmp_path) as library:
        folder = disk.path / "training"
        folder.mkdir()
        if kind == "lying disk":
            monkeypatch.setenv("LD_PRELOAD", library)
        trainer = Trainer(TRAINING, folder, base_url=server.url)
        monkeypatch.delenv("LD_PRELOAD", raising=False)
        with trainer:
            for _ in range(5):
                acked = int(trainer.line())
            disk.cut()
            trainer.process.kill()
            trainer.process.wait(30)
        disk.restore()

        command(tmp_path, "sync", str(folder / "runferry"), base_url=server.url)

        numbers = [row["n"] for row in stored.rows(server.url, "local/power/online")]
        assert numbers == list(range(len(numbers)))
        assert len(numbers) >= acked
        assert stored.gaps(server.url, "local/power/online") == []


@pytest.mark.fault(11)
@pytest.mark.timeout(120 + 5 * CUTS)
def test_frames_the_store_has_committed_survive_a_power_cut_of_the_server(tmp_path: Path, disk: LoopDisk) -> None:
    reports = cuts("power_server.py", disk, CUTS, 0, tmp_path)

    acked = sum(report["acked"] for report in reports)
    assert acked > 0
    record("power cuts under a server's store", cuts=CUTS, acked_frames=acked, acked_frames_lost=0)


@pytest.mark.fault(11)
@pytest.mark.timeout(120 + 20 * DOOR_CUTS)
def test_frames_acked_durable_at_the_door_survive_a_power_cut_and_are_served(disk: LoopDisk) -> None:
    data = disk.path / "data"
    frames_acked = 0
    for index in range(DOOR_CUTS):
        writers = [ScriptedWriter(id=f"d{index}-{number}", writer_id=number + 1) for number in range(3)]
        server = RunningServer(data)
        streams = [DoorStream(server.write_address) for _ in writers]
        for writer, stream in zip(writers, streams, strict=True):
            stream.open(writer)
        target = 20 + 37 * index % 200
        while streams[0].durable < target:
            for writer, stream in zip(writers, streams, strict=True):
                stream.send([*writer.rows(5, first_step=writer.next_seq - 1), writer.data(config={"at": writer.next_seq})])
            streams[0].wait_durable(writers[0].next_seq - 24)
        acked = [stream.durable for stream in streams]
        disk.cut()
        server.kill()
        for stream in streams:
            stream.close()
        disk.restore(index)

        with RunningServer(data) as again, httpx.Client(base_url=again.url, timeout=20.0) as api:
            for writer, durable in zip(writers, acked, strict=True):
                with DoorStream(again.write_address) as stream:
                    next_seq = stream.open(writer).next_seq
                assert next_seq >= durable, "an acked frame is lost"
                found = api.get(f"/api/v1/runs/local/demo/{writer.id}")
                assert found.status_code == 200, found.text
                steps = [row["_step"] for row in stored.rows(again.url, f"local/demo/{writer.id}")]
                assert steps == [seq - 1 for seq in range(1, next_seq) if seq % 6]
        frames_acked += sum(acked) - len(acked)
    record("power cuts under a server", cuts=DOOR_CUTS, acked_frames=frames_acked, acked_frames_lost=0)
