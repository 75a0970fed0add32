"""A journal at its cap, under each policy: what goes is counted to the row and the value, what stays is as it was logged, the end is right.

The law everywhere: every call is stored, or covered by a GAP that the server shows, or both numbers are wrong together.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest
import runferry
from runferry.errors import JournalFullError

from tests.support import stored
from tests.support.effort import effort
from tests.support.ports import free_port
from tests.support.servers import RunningServer
from tests.support.trainers import command

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runferry._status import RunStatus

CAP_BYTES = 1 << 20
ROWS = effort("backpressure_rows", 120_000)
VALUES = ["noise", "row", "text"]
DROPPING = ["degrade", "drop_oldest", "drop_newest"]


def settings(policy: str, **more: Any) -> dict[str, Any]:
    """Of a run with a tiny journal."""
    return {"backpressure": policy, "journal_cap_bytes": CAP_BYTES, "journal_min_free_bytes": 0, "silent": True, "fsync": "never", **more}


def log_noise(run: runferry.Run, first: int, count: int) -> float:
    """Log rows of 24 bytes that do not compress, and a short text in every 1,000th; seconds of the slowest call."""
    source = random.Random(first)
    slowest_s = 0.0
    for number in range(first, first + count):
        row: dict[str, Any] = {"noise": source.random(), "more": source.random(), "row": number}
        if number % 1_000 == 0:
            row["text"] = f"at {number}"
        begun = time.perf_counter()
        run.log(row, step=number)
        slowest_s = max(slowest_s, time.perf_counter() - begun)
    return slowest_s


def values_of(rows: int) -> int:
    """How many values `log_noise` logs in so many rows from 0 on."""
    return 3 * rows + (rows + 999) // 1_000


def check_conservation(url: str, path: str, logged: int, status: RunStatus) -> list[int]:
    """Rows and values stored and in gaps add up to what was logged, on the server and in the status; the numbers of the rows stored."""
    rows = stored.rows(url, path)
    gaps = stored.gaps(url, path)
    found = [row["row"] for row in rows if "row" in row]
    values = sum(len([name for name in row if not name.startswith("_")]) for row in rows)
    assert len(rows) + sum(gap["rows"] for gap in gaps) == logged, gaps
    assert values + sum(gap["points"] for gap in gaps) == values_of(logged), gaps
    assert len(rows) + status.thinned_rows + status.dropped_rows == logged
    assert values + status.thinned_points + status.dropped_points == values_of(logged)
    assert status.gaps == len(gaps)
    assert sum(status.dropped_by_reason.values()) == status.dropped_rows
    assert all(row["_step"] == row["row"] for row in rows if "row" in row), "a value at another step"
    assert sorted(set(found)) == found
    return found


@pytest.mark.timeout(120)
@pytest.mark.fault(18)
@pytest.mark.parametrize("policy", DROPPING)
def test_offline_every_row_is_kept_or_counted(policy: str, tmp_path: Path, server: RunningServer) -> None:
    run = runferry.init(project="cap", id=f"offline-{policy}", dir=tmp_path, mode="offline", settings=settings(policy))
    half = ROWS // 2
    log_noise(run, 0, half)
    assert run.flush()
    log_noise(run, half, ROWS - half)
    run.config["late"] = 1
    run.finish()
    status = run.status()
    journal_bytes = sum(file.stat().st_size for file in (tmp_path / "runferry").rglob("*.rfj"))

    synced = command(tmp_path, "sync", str(tmp_path / "runferry"), base_url=server.url)

    assert synced.returncode == 0, synced.stdout + synced.stderr
    stored.wait_for_state(server.url, run.path, "finished")
    assert journal_bytes < CAP_BYTES * 17 // 16
    found = check_conservation(server.url, run.path, ROWS, status)
    kept = stored.run(server.url, run.path)
    assert kept.config["late"] == 1
    (receipt,) = kept.verify().writers
    assert receipt.verdict == ("explained" if policy == "drop_oldest" else "whole"), receipt
    if policy == "drop_newest":
        assert found == list(range(len(found))), "the beginning, whole"
        assert status.thinned_rows == 0
        return
    assert found[-1] == ROWS - 1, "the last row"
    assert kept.summary["row"] == ROWS - 1 == run.summary["row"]
    assert kept.summary["noise"] == run.summary["noise"]
    if policy == "drop_oldest":
        assert found == list(range(found[0], ROWS)), "the end, whole"
        assert set(status.dropped_by_reason) == {"oldest"}
    else:
        assert found[:100] == list(range(100)), "the beginning was below the cap"
        widest = max(after - before for before, after in itertools.pairwise(found))
        assert widest < ROWS // 4, "no stretch of the curve is empty"
        texts = [row["text"] for row in stored.rows(server.url, run.path) if "text" in row]
        if not status.dropped_rows:
            assert texts == [f"at {number}" for number in range(0, ROWS, 1_000)], "texts stay"


@contextlib.contextmanager
def nothing_can_be_removed(folder: str) -> Iterator[None]:
    """Files can be made in it, and written."""
    kept = subprocess.run(["chattr", "+a", folder], capture_output=True, text=True, check=False)  # noqa: S607
    if kept.returncode:
        pytest.skip(f"not run: the folder cannot be made one that only grows: {kept.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["chattr", "-a", folder], check=True)  # noqa: S607


@pytest.mark.timeout(120)
@pytest.mark.fault(18)
def test_what_is_dropped_while_no_file_can_be_removed_is_counted_and_later_the_newest_rows_have_room(
    tmp_path: Path, server: RunningServer
) -> None:
    run = runferry.init(project="cap", id="stuck", dir=tmp_path, mode="offline", settings=settings("drop_oldest"))
    log_noise(run, 0, ROWS // 2)
    assert run.flush()
    folder = run.status().journal_dir
    assert folder is not None
    with nothing_can_be_removed(folder):
        log_noise(run, ROWS // 2, ROWS // 4)
        assert run.flush()
        stuck = run.status()
    log_noise(run, ROWS * 3 // 4, ROWS // 4)
    run.finish()

    synced = command(tmp_path, "sync", str(tmp_path / "runferry"), base_url=server.url)

    assert synced.returncode == 0, synced.stdout + synced.stderr
    stored.wait_for_state(server.url, run.path, "finished")
    found = check_conservation(server.url, run.path, ROWS, run.status())
    assert set(stuck.dropped_by_reason) == {"oldest", "journal_full"}, "one segment went in vain, and no other after it"
    assert found[-1] == ROWS - 1, "the newest row"


@pytest.mark.timeout(180)
@pytest.mark.fault(18, 46)
@pytest.mark.parametrize("policy", DROPPING)
def test_with_the_server_away_rows_go_counted_and_all_of_them_stay_again_when_it_is_back(policy: str, tmp_path: Path) -> None:
    port = free_port()
    run = runferry.init(
        project="cap", id=policy, dir=tmp_path, settings=settings(policy, base_url=f"http://127.0.0.1:{port}", silent=False)
    )
    log_noise(run, 0, ROWS)
    assert run.flush()
    away = run.status()
    assert away.journal == "full"
    assert away.thinned_rows + away.dropped_rows > 0

    with RunningServer(tmp_path / "data", port=port) as server:
        assert run.flush(acked=True, timeout=60), run.status()
        gone = run.status().thinned_rows + run.status().dropped_rows
        log_noise(run, ROWS, 2_000)
        assert run.flush(acked=True, timeout=60), run.status()
        back = run.status()
        run.finish(timeout=60)
        stored.wait_for_state(server.url, run.path, "finished")

        assert back.thinned_rows + back.dropped_rows == gone, "there was room again"
        found = check_conservation(server.url, run.path, ROWS + 2_000, run.status())
    assert found[-2_000:] == list(range(ROWS, ROWS + 2_000))
    assert run.status().journal == "ok"


@pytest.mark.timeout(120)
@pytest.mark.fault(18)
def test_the_beginning_and_the_end_of_it_are_told_once_each_and_finish_tells_the_sum(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    run = runferry.init(
        project="cap", id="told", dir=tmp_path, settings=settings("degrade", base_url=f"http://127.0.0.1:{port}", silent=False)
    )
    log_noise(run, 0, ROWS)
    assert run.flush()
    log_noise(run, ROWS, 1)
    with RunningServer(tmp_path / "data", port=port):
        assert run.flush(acked=True, timeout=60), run.status()
        log_noise(run, ROWS + 1, 10)
        assert run.flush(acked=True, timeout=60)
        log_noise(run, ROWS + 11, 10)
        run.finish(timeout=60)

    said = capfd.readouterr().err
    assert said.count("nears its cap") == 1, said
    assert said.count("has room again") == 1, said
    assert f"{run.status().thinned_rows:,} rows thinned out" in said


@pytest.mark.timeout(120)
@pytest.mark.fault(18)
def test_block_waits_as_long_as_it_says_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    port = free_port()
    block_ms = 400
    run = runferry.init(
        project="cap",
        id="block",
        dir=tmp_path,
        settings=settings("block", backpressure_block_ms=block_ms, base_url=f"http://127.0.0.1:{port}", ring_bytes="256KiB"),
    )
    count = 0
    waited_s = 0.0
    while not run.status().dropped_rows:
        waited_s = max(waited_s, log_noise(run, count, 1))
        count += 1
        assert count < 1_000_000, run.status()
    dropped = run.status()
    assert dropped.journal == "full"
    assert set(dropped.dropped_by_reason) == {"journal_full"}
    assert block_ms / 1_000 <= waited_s < block_ms / 100

    with RunningServer(tmp_path / "data", port=port) as server:
        # The calls of this thread wait for room now, and get it as the server takes frames.
        log_noise(run, count, 20_000)
        run.finish(timeout=60)
        stored.wait_for_state(server.url, run.path, "finished")
        check_conservation(server.url, run.path, count + 20_000, run.status())


@pytest.mark.timeout(120)
@pytest.mark.fault(18)
def test_raise_raises_the_documented_error_loses_no_row_it_took_and_takes_rows_again(tmp_path: Path) -> None:
    port = free_port()
    run = runferry.init(project="cap", id="raise", dir=tmp_path, settings=settings("raise", base_url=f"http://127.0.0.1:{port}"))
    taken: list[int] = []
    refused: list[str] = []
    number = 0
    while len(refused) < 3:
        try:
            log_noise(run, number, 1)
            taken.append(number)
        except JournalFullError as error:
            refused.append(str(error))
        number += 1
        assert number < 1_000_000, run.status()

    assert all(run.dir in text for text in refused)
    with RunningServer(tmp_path / "data", port=port) as server:
        assert run.flush(acked=True, timeout=60), run.status()
        log_noise(run, number, 1)
        run.finish(timeout=60)
        stored.wait_for_state(server.url, run.path, "finished")
        assert check_conservation(server.url, run.path, number + 1, run.status()) == [*taken, number]
    assert run.status().dropped_by_reason == {"journal_full": 3}
