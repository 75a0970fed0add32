"""kill -9 of training processes at random instants: every `log` call that had returned is stored exactly once, bit for bit.

RUNFERRY_KILLS says how many (default 100), RUNFERRY_SEED which instants.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import kills, stored
from tests.support.exact import exact
from tests.support.trainers import ROOT, Trainer, client_environment, command

if TYPE_CHECKING:
    from tests.support.servers import RunningServer

KILLS = int(os.environ.get("RUNFERRY_KILLS", "100"))
SEED = int(os.environ.get("RUNFERRY_SEED", "1"))
pytestmark = pytest.mark.fault


def expected_cells(calls: int) -> list[tuple[int, dict[str, Any]]]:
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


@pytest.mark.timeout(60 + 2 * KILLS)
def test_every_log_call_that_returned_survives_kill_9_exactly_once(server: RunningServer, tmp_path: Path) -> None:
    killing = subprocess.run(  # noqa: S603 - our own program
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
    longest = expected_cells(kills.MOST_CALLS * 20)
    checked = extra = 0
    for killed in map(json.loads, killing.stdout.splitlines()):
        try:
            cells = stored.cells(server.url, f"local/kills/{killed['id']}")
        except ValueError:
            cells = []  # killed before it had a name
        calls = calls_in(cells)
        assert calls - killed["returned"] in {0, 1}, f"{killed}: {calls} calls are stored"
        assert cells[:-1] == longest[: max(0, len(cells) - 1)], f"{killed}: rows differ"
        assert cells == expected_cells(calls) if calls < 100 else cells[-1] == _last_of(calls, longest), f"{killed}: the last row differs"
        assert not cells or stored.gaps(server.url, f"local/kills/{killed['id']}") == []
        checked, extra = checked + calls, extra + calls - killed["returned"]
    print(f"{checked:,} calls of {KILLS} killed trainers read back, {extra} of them had not returned")  # noqa: T201 - the count is the result
    rings = [name for name in os.listdir("/dev/shm") if name.startswith("runferry-") and _is_of(name, tmp_path)]  # noqa: PTH208, S108
    assert rings == [], "adopted rings are removed"


def _last_of(calls: int, longest: list[tuple[int, dict[str, Any]]]) -> tuple[int, dict[str, Any]]:
    """The last row that so many calls make: without what a later call would add to it."""
    _, is_whole = kills.call(calls - 1)
    rows_before = calls - 1 - (calls + 3) // 8 if is_whole else calls - 1 - (calls - 1 + 3) // 8
    step, values = longest[rows_before]
    return (step, values) if is_whole else (step, {name: value for name, value in values.items() if name in {"open", "x/part"}})


def _is_of(ring: str, folder: Path) -> bool:
    writer = ring.removeprefix("runferry-").removesuffix(".ring")
    return any(folder.glob(f"runferry/*/{writer}"))
