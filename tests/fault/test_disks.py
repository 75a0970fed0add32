"""Disks that are full, read-only or not there: `init` finds another place, training goes on, losses are counted and shown as gaps."""

from __future__ import annotations

import os
import tempfile
import time
from typing import TYPE_CHECKING

import pytest
import runferry
from runferry.errors import JournalError

from tests.support import stored
from tests.support.mounts import mounted
from tests.support.trainers import Trainer, command, train, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.mounts import Mounted
    from tests.support.servers import RunningServer


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Mounted]:
    """4 MiB more than the 256 that a journal leaves free."""
    with mounted(tmp_path / "disk", "size=260m") as disk:
        yield disk


def noise(number: int) -> str:
    """A kilobyte that no compression makes small, the same for the same number."""
    import random  # noqa: PLC0415 - only here

    return random.Random(number).randbytes(500).hex()


@pytest.mark.fault(18)
@pytest.mark.timeout(120)
def test_a_full_disk_stops_neither_training_nor_sending(server: RunningServer, small_disk: Mounted) -> None:
    settings = {"base_url": server.url, "silent": True}
    run = runferry.init(project="disks", id="full-online", dir=small_disk.path, settings=settings)
    number = 0

    def some() -> None:
        nonlocal number
        for _ in range(200):
            run.log({"n": number, "noise": noise(number)})
            number += 1
        assert run.status().dropped_rows == 0
        time.sleep(0.02)  # a training does something between its calls

    while run.status().journal != "full":
        some()
        assert number < 50_000, run.status()
    for _ in range(20):
        some()
    assert run.status().last_error
    assert run.flush(acked=True, timeout=30), "what the server has need not be in the journal"
    assert run.status().journal == "full"
    run.finish()

    status = run.status()
    assert (status.dropped_rows, status.backlog_frames) == (0, 0), status
    rows = stored.rows(server.url, run.path)
    assert [row["n"] for row in rows] == list(range(number))
    assert all(row["noise"] == noise(row["n"]) for row in rows)
    assert stored.gaps(server.url, run.path) == []


@pytest.mark.fault(18)
@pytest.mark.timeout(180)
def test_a_full_disk_without_a_server_costs_counted_rows_and_the_server_sees_the_gap(
    server: RunningServer, small_disk: Mounted, tmp_path: Path
) -> None:
    settings = {"silent": True, "ring_bytes": 1 << 20, "backpressure": "drop_newest"}
    run = runferry.init(project="disks", id="full-offline", dir=small_disk.path, mode="offline", settings=settings)
    slowest_s, number = 0.0, 0
    while run.status().dropped_rows < 100:
        begun = time.monotonic()
        run.log({"n": number, "noise": noise(number)})
        slowest_s = max(slowest_s, time.monotonic() - begun)
        number += 1
        assert number < 100_000, run.status()
    status = run.status()
    assert status.journal == "full"
    assert status.last_error
    small_disk.resize(400)
    wait_until(lambda: run.status().journal == "ok", "the journal goes on when there is room")
    for _ in range(100):
        run.log({"n": number, "noise": noise(number)})
        number += 1
    run.finish()
    dropped = run.status().dropped_rows

    synced = command(tmp_path, "sync", str(small_disk.path), base_url=server.url)

    assert synced.returncode == 0, synced.stdout + synced.stderr
    rows = stored.rows(server.url, run.path)
    numbers = [row["n"] for row in rows]
    assert numbers == sorted(set(numbers))
    assert len(numbers) == number - dropped
    assert numbers[-100:] == list(range(number - 100, number))
    # What frames say about the run is applied a moment after they are durable.
    wait_until(lambda: sum(gap["rows"] for gap in stored.gaps(server.url, run.path)) >= dropped, "the gaps are shown")
    gaps = stored.gaps(server.url, run.path)
    assert sum(gap["rows"] for gap in gaps) == dropped, gaps
    assert {gap["reason"] for gap in gaps} == {"dropped"}
    assert slowest_s < 0.6


TRAINING = """
import os, random, sys, time, runferry
run = runferry.init(project="disks", id="full-killed", settings={"silent": True})
number = 0
while True:
    run.log({"n": number, "noise": random.Random(number).randbytes(500).hex()})
    os.write(1, b"%d\\n" % number)
    number += 1
    if number % 100 == 0:
        time.sleep(0.01)
    if number % 1000 == 0 and run.status().journal == "full":
        os.write(1, b"full\\n")
"""


@pytest.mark.fault(18, 2)
@pytest.mark.timeout(180)
def test_a_trainer_killed_while_its_disk_is_full_loses_no_returned_call(server: RunningServer, small_disk: Mounted, tmp_path: Path) -> None:
    with Trainer(TRAINING, small_disk.path, base_url=server.url) as trainer:
        lines: list[str] = []
        while lines.count("full") < 5:
            lines.append(trainer.line())
        lines += trainer.kill().split("\n")[:-1]
    returned = max(int(line) for line in lines if line.isdigit())
    small_disk.resize(400)

    synced = command(tmp_path, "sync", str(small_disk.path / "runferry"), base_url=server.url)

    assert synced.returncode == 0, synced.stdout + synced.stderr
    numbers = [row["n"] for row in stored.rows(server.url, "local/disks/full-killed")]
    assert numbers == list(range(len(numbers)))
    assert len(numbers) - 1 - returned in {0, 1}


@pytest.mark.fault(25)
@pytest.mark.timeout(120)
@pytest.mark.parametrize("place", ["read-only", "below a file", "missing parents"])
def test_init_finds_a_place_for_the_journal(tmp_path: Path, place: str) -> None:
    (tmp_path / "tmp").mkdir()
    (tmp_path / "file").touch()
    code = "import runferry, sys\nrun = runferry.init(project='disks', dir=sys.argv[1] if len(sys.argv) > 1 else {folder!r})\n"
    code += "run.log({{'n': 1}})\nprint(run.dir)\nassert run.status().accepted_rows == 1\nrun.finish()\n"

    def run_in(folder: Path) -> tuple[str, str]:
        os.environ["TMPDIR"] = str(tmp_path / "tmp")
        try:
            ended = train(code.format(folder=str(folder)), tmp_path)
        finally:
            del os.environ["TMPDIR"]
        assert ended.returncode == 0, ended.stderr
        return ended.stdout.strip(), ended.stderr

    if place == "missing parents":
        kept, _ = run_in(tmp_path / "a" / "b")
        assert kept.startswith(str(tmp_path / "a" / "b" / "runferry"))
        return
    if place == "below a file":
        kept, said = run_in(tmp_path / "file" / "below")
    else:
        with mounted(tmp_path / "ro", "ro"):
            kept, said = run_in(tmp_path / "ro")
    assert kept.startswith(str(tmp_path / "tmp"))
    assert "cannot be written" in said
    assert str(tmp_path / "tmp") in said


@pytest.mark.fault(25)
def test_init_says_it_when_no_place_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "file" / "tmp"))

    with pytest.raises(JournalError, match="no journal can be kept"):
        runferry.init(project="disks", dir=tmp_path / "file" / "below")


@pytest.mark.fault(55)
@pytest.mark.timeout(120)
def test_a_call_too_large_for_a_row_is_dropped_with_a_count_and_a_gap(server: RunningServer, tmp_path: Path) -> None:
    run = runferry.init(project="disks", id="large", dir=tmp_path, settings={"base_url": server.url, "silent": True})
    run.log({"n": 0})
    run.log({f"text/{index}": "x" * (3 << 20) for index in range(22)})  # 66 MiB
    run.log({"n": 2})
    run.finish()

    assert run.status().dropped_rows == 1
    assert [(row["_step"], row["n"]) for row in stored.rows(server.url, run.path)] == [(0, 0), (2, 2)]
    stored.wait_for_state(server.url, run.path, "finished")
    (gap,) = stored.gaps(server.url, run.path)
    assert (gap["reason"], gap["rows"]) == ("dropped", 1)


@pytest.mark.fault(55)
@pytest.mark.timeout(120)
def test_rows_larger_than_the_ring_are_kept(server: RunningServer, tmp_path: Path) -> None:
    run = runferry.init(project="disks", id="wide", dir=tmp_path, settings={"base_url": server.url, "silent": True, "ring_bytes": 1 << 20})
    texts = [noise(number) * 1_500 for number in range(8)]  # 1.5 MB each
    for number, text in enumerate(texts):
        run.log({"n": number, "text": text})
    run.finish()

    rows = stored.rows(server.url, run.path)
    assert [row["text"] == text for row, text in zip(rows, texts, strict=True)] == [True] * 8
    assert run.status().dropped_rows == 0
    assert list(tmp_path.rglob("*.spool")) == []
