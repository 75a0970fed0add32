"""`runferry verify`: the two sides of the account agree where nothing was lost, and name the metric where something was."""

from __future__ import annotations

import math
import shutil
import sqlite3
import struct
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import runferry

from tests.support import stored
from tests.support.ports import free_port
from tests.support.servers import RunningServer
from tests.support.trainers import Trainer, command

if TYPE_CHECKING:
    from pathlib import Path

    from runferry.api.verify import Verification

MASK = (1 << 64) - 1

KILLED = """
import runferry
run = runferry.init(project="verify", id="killed", settings={"silent": True})
for number in range(10**9):
    run.log({"n": number, "x": number / 7})
    print(number)
"""


def log_some(url: str | None, folder: Path, run_id: str, rows: int = 300, **more: Any) -> Any:
    """A finished run of one process with values of every kind."""
    folder.mkdir(exist_ok=True)
    run = runferry.init(project="verify", id=run_id, dir=folder, settings={"base_url": url, "silent": True}, **more)
    for number in range(rows):
        run.log({"n": number, "x": number / 7, "odd": math.nan if number % 2 else -0.0}, commit=number % 5 != 0)
        run.log({"text": f"row {number}", "flag": number % 3 == 0})
        if number % 50 == 0:
            run.log({"h": np.arange(100.0), "x": 1, "nested": {"a": [number]}, "n": None})
    run.finish()
    return run


def verified(url: str, run_id: str, journals: Path | None = None) -> Verification:
    """The verdict of the API."""
    run = stored.run(url, f"local/verify/{run_id}")
    found: Verification = run.verify(None if journals is None else str(journals / "runferry"))
    return found


def test_a_finished_run_is_whole_by_its_journal_and_by_its_last_frame(server: RunningServer, tmp_path: Path) -> None:
    run = log_some(server.url, tmp_path, "finished")

    for found, source in ((verified(server.url, "finished", tmp_path), "journal"), (verified(server.url, "finished"), "server")):
        (one,) = found.writers
        assert (one.verdict, one.source, one.differences, found.is_whole) == ("whole", source, (), True)
        assert one.logged_points == one.stored_points > 5 * 300
        assert one.logged_rows == one.stored_rows > 300
        assert one.metrics == 7
    said = command(tmp_path, "verify", run.path, base_url=server.url)
    assert said.returncode == 0, said.stdout + said.stderr
    assert "everything that was logged is stored, bit for bit" in said.stdout


def test_a_run_written_by_several_starts_over_each_others_steps_is_whole(server: RunningServer, tmp_path: Path) -> None:
    for start in range(3):
        run = runferry.init(project="verify", id="thrice", dir=tmp_path, settings={"base_url": server.url, "silent": True})
        for number in range(50):
            run.log({"n": number + start, "only": start}, step=start * 20 + number)
        run.finish()

    found = verified(server.url, "thrice", tmp_path)

    assert [one.verdict for one in found.writers] == ["whole"] * 3
    assert [one.logged_rows for one in found.writers] == [50] * 3
    assert found.is_whole


@pytest.mark.timeout(120)
def test_a_run_whose_steps_the_server_moved_is_whole(tmp_path: Path) -> None:
    port = free_port()
    with RunningServer(tmp_path / "data", port=port) as server:
        log_some(server.url, tmp_path / "one", "moved")
        stored.wait_for_state(server.url, "local/verify/moved", "finished")
    second = runferry.init(
        project="verify", id="moved", dir=tmp_path, resume="allow", settings={"base_url": f"http://127.0.0.1:{port}", "silent": True}
    )
    second.log({"n": 1.5})
    with RunningServer(tmp_path / "data", port=port) as server:
        assert second.flush(acked=True, timeout=60)
        second.finish()
        stored.wait_for_state(server.url, "local/verify/moved", "finished")

        assert verified(server.url, "moved").is_whole


@pytest.mark.fault(2)
@pytest.mark.timeout(120)
def test_a_killed_run_is_whole_after_sync_and_unknown_without_its_journal(server: RunningServer, tmp_path: Path) -> None:
    with Trainer(KILLED, tmp_path, base_url=server.url) as trainer:
        trainer.wait_for("2000")
        trainer.kill()
    synced = command(tmp_path, "sync", str(tmp_path / "runferry"), base_url=server.url)
    assert synced.returncode == 0, synced.stdout

    (one,) = verified(server.url, "killed", tmp_path).writers
    assert (one.verdict, one.source) == ("whole", "journal")
    assert one.logged_rows > 2000
    assert [one.verdict for one in verified(server.url, "killed").writers] == ["unknown"]
    without = command(tmp_path, "verify", "verify/killed", "--journals", str(tmp_path / "config"), base_url=server.url)
    assert (without.returncode, "no receipt" in without.stdout) == (1, True), without.stdout


def test_what_the_server_does_not_have_yet_is_pending(server: RunningServer, tmp_path: Path) -> None:
    run = log_some(server.url, tmp_path, "pending", rows=10)
    elsewhere = runferry.init(project="verify", id="pending", dir=tmp_path / "b", mode="offline", settings={"silent": True})
    elsewhere.log({"n": 1})
    elsewhere.finish()
    shutil.move(str(tmp_path / "b" / "runferry"), tmp_path / "runferry" / "more")

    said = command(tmp_path, "verify", run.path, base_url=server.url)

    assert said.returncode == 1
    assert "frames wait in its journal" in said.stdout


@pytest.mark.fault(73)
@pytest.mark.timeout(120)
def test_a_lost_chunk_and_a_changed_value_are_named(tmp_path: Path) -> None:
    data, port = tmp_path / "data", free_port()
    with RunningServer(data, port=port) as server:
        log_some(server.url, tmp_path, "damaged")
        stored.wait_for_state(server.url, "local/verify/damaged", "finished")
    change = "DELETE FROM chunk WHERE key_id = (SELECT key_id FROM key WHERE name = 'text')"
    swap = "UPDATE superseded SET sum_hash = sum_hash + 1 WHERE key_id = (SELECT key_id FROM key WHERE name = 'x')"
    changed = 0
    for file in data.rglob("*"):
        if file.is_file() and file.read_bytes()[:6] == b"SQLite":
            with closing(sqlite3.connect(file)) as connection, connection:
                if connection.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'chunk'").fetchone()[0]:
                    changed += connection.execute(change).rowcount + connection.execute(swap).rowcount
    assert changed >= 1, "the run was not merged: nothing to damage"

    with RunningServer(data, port=port) as server:
        (one,) = verified(server.url, "damaged", tmp_path).writers
        said = command(tmp_path, "verify", "verify/damaged", base_url=server.url)

    assert one.verdict == "differs"
    assert ("text", 300, 0) in [(each.metric, each.logged_points, each.stored_points) for each in one.differences]
    assert said.returncode == 1
    assert "'text': 300 points logged, 0 stored" in said.stdout


@pytest.mark.fault(14)
def test_a_damaged_journal_frame_is_explained_by_its_gap(server: RunningServer, tmp_path: Path) -> None:
    run = runferry.init(project="verify", id="gap", dir=tmp_path, mode="offline", settings={"silent": True})
    for number in range(300):
        run.log({"n": number})
        if number % 100 == 99:
            assert run.flush()
    run.finish()
    (segment,) = sorted((tmp_path / "runferry").rglob("seg-*.rfj"))
    content = bytearray(segment.read_bytes())
    places = [at for at in range(0, len(content) - 64, 8) if content[at : at + 4] == content[:4] and content[at + 5] == 1]
    content[places[1] + 80] ^= 1
    segment.write_bytes(content)
    assert command(tmp_path, "sync", str(tmp_path / "runferry"), base_url=server.url).returncode == 0

    (one,) = verified(server.url, "gap").writers

    assert (one.verdict, one.logged_rows - one.stored_rows, one.explanations) == ("explained", 100, ("corrupt",))


def test_the_receipt_is_what_the_format_says(server: RunningServer, tmp_path: Path) -> None:
    run = runferry.init(project="verify", id="format", dir=tmp_path, settings={"base_url": server.url, "silent": True})
    run.log({"f": 0.1, "i": -7, "s": "déjà vu"})
    run.log({"f": -0.0, "b": True})
    run.finish()
    stored.wait_for_state(server.url, run.path, "finished")  # what a writer says about its run is applied behind the ack

    (writer,) = stored.run(server.url, run.path)._server.get(["runs", *run.path.split("/"), "receipts"])["writers"]  # noqa: SLF001
    bits = [int.from_bytes(struct.pack("<d", value), "little") for value in (0.1, -0.0)]
    text = "déjà vu".encode()
    expected = [
        ["", 2, (point(0, 0, 0) + point(1, 0, 0)) & MASK],
        ["b", 1, point(1, 4, 1)],
        ["f", 2, (point(0, 1, bits[0]) + point(1, 1, bits[1])) & MASK],
        ["i", 1, point(0, 3, -7 & MASK)],
        ["s", 1, point(0, 5, folded(text))],
    ]
    assert writer["stored"] == expected
    assert writer["receipt"]["metrics"] == expected


def finish(value: int) -> int:
    """The finisher of splitmix64."""
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & MASK
    value = (value ^ value >> 27) * 0x94D049BB133111EB & MASK
    return value ^ value >> 31


def point(step: int, kind: int, bits: int) -> int:
    """The hash of one point, as docs/format.md section 7 has it."""
    spread = (bits ^ kind * 0xD1B54A32D192ED03 & MASK) * 0xC2B2AE3D27D4EB4F & MASK
    return finish(step * 0x9E3779B97F4A7C15 & MASK ^ (spread << 32 | spread >> 32) & MASK)


def folded(data: bytes) -> int:
    """Bytes as 64 bits."""
    total = 0xCBF29CE484222325
    whole = len(data) // 8 * 8
    for at in range(0, whole, 8):
        total = finish(total ^ int.from_bytes(data[at : at + 8], "little"))
    return finish(finish(total ^ int.from_bytes(data[whole:].ljust(8, b"\0"), "little")) ^ len(data))
