"""kill -9 of training processes at random instants: every `log` call that had returned is stored exactly once, bit for bit.

RUNFERRY_EFFORT_KILLS says how many (default 100), RUNFERRY_SEED which instants.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import kills, stored
from tests.support.effort import effort, record
from tests.support.exact import exact
from tests.support.trainers import ROOT, client_environment, command

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.servers import RunningServer

KILLS = effort("kills", 100)
SEED = int(os.environ.get("RUNFERRY_SEED", "1"))


def rows_of_calls(calls: int) -> list[tuple[int, dict[str, Any]]]:
    """Step and values of the rows that so many calls make."""
    rows: list[tuple[int, dict[str, Any]]] = []
    is_open = False
    for number in range(calls):
        values, is_whole = kills.call(number)
        shown = {name: exact(_as_read(value)) for name, value in values.items()}
        if is_open:
            rows[-1][1].update(shown)
        else:
            rows.append((len(rows), shown))
        is_open = not is_whole
    return rows


def _as_read(value: Any) -> Any:
    """A histogram comes back as a dict."""
    return value if not hasattr(value, "bins") else {"_type": "histogram", "values": list(value.histogram), "bins": list(value.bins)}


def calls_in(cells: list[tuple[int, dict[str, Any]]]) -> int:
    """How many calls the rows hold."""
    return sum(("n" in values) + ("open" in values) for _, values in cells)


@pytest.mark.fault(1, 2, 7)
@pytest.mark.timeout(60 + 2 * KILLS)
def test_every_log_call_that_returned_survives_kill_9_exactly_once(server: RunningServer, tmp_path: Path) -> None:
    killing = subprocess.run(
        [sys.executable, str(ROOT / "tests/support/kills.py"), str(KILLS), str(SEED), str(tmp_path)],
        env=client_environment(tmp_path, base_url=server.url),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30 + KILLS,
        check=False,
    )
    assert killing.returncode == 0, killing.stderr

    synced = command(tmp_path, "sync", str(tmp_path / "runferry"), base_url=server.url)

    assert synced.returncode == 0, synced.stdout + synced.stderr
    all_killed = [json.loads(line) for line in killing.stdout.splitlines()]
    possible = rows_of_calls(max(killed["returned"] for killed in all_killed) + 2)
    checked = extra = 0
    for killed in all_killed:
        path = f"local/kills/{killed['id']}"
        try:
            cells = stored.cells(server.url, path)
        except ValueError:
            cells = []  # killed before it had a name
        calls = calls_in(cells)
        assert calls - killed["returned"] in {0, 1}, f"{killed}: {calls} calls are stored"
        assert cells == _ending_with(calls - 1, possible[: len(cells)]), f"{killed}: rows differ"
        assert not cells or stored.gaps(server.url, path) == []
        checked, extra = checked + calls, extra + calls - killed["returned"]
    record("trainers killed at random instants", kills=KILLS, calls_read_back=checked, calls_cut_off_among_them=extra, lost=0, doubled=0)
    rings = [name for name in os.listdir("/dev/shm") if name.startswith("runferry-") and _is_of(name, tmp_path)]  # noqa: PTH208, S108
    assert rings == [], "adopted rings are removed"


def _ending_with(last_call: int, rows: list[tuple[int, dict[str, Any]]]) -> list[tuple[int, dict[str, Any]]]:
    """The rows without what the call behind `last_call` would add to an open last row."""
    if not rows or kills.call(last_call)[1]:
        return rows
    step, values = rows[-1]
    return [*rows[:-1], (step, {name: value for name, value in values.items() if name in kills.call(last_call)[0]})]


def _is_of(ring: str, folder: Path) -> bool:
    writer = ring.removeprefix("runferry-").removesuffix(".ring")
    return any(folder.glob(f"runferry/*/{writer}"))
