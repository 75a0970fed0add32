"""What released versions wrote is read by this one: a client's journals are sent, a server's data directory is served and goes on.

`golden/<version>/` holds what each release wrote, made by `python -m tests.compat.make_release` when it was current.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import runferry
from runferry.server.check import main as check

from tests.support import stored
from tests.support.exact import exact
from tests.support.keys import keys_command
from tests.support.servers import RunningServer
from tests.support.trainers import command, train

if TYPE_CHECKING:
    from runferry.api.verify import Verification

GOLDEN = Path(__file__).parent / "golden"
RELEASES = sorted(path.name for path in GOLDEN.iterdir())

GOING_ON = """
import runferry
run = runferry.init(project="golden", id="waiting", resume="allow", settings={"silent": True})
run.log({"loss": 0.125})
run.finish()
print(run.status().backlog_frames)
"""


def unpacked(release: str, name: str, folder: Path) -> tuple[Path, dict[str, Any]]:
    """A copy of the folder of that name, and what is in it."""
    shutil.unpack_archive(GOLDEN / release / f"{name}.tar.gz", folder)
    expected: dict[str, Any] = json.loads((GOLDEN / release / "expected.json").read_text())
    return folder / name, expected


def assert_is_as_logged(url: str, expected: dict[str, Any], runs: dict[str, str | None]) -> None:
    """Every row, document and gap of these runs, bit for bit."""
    for run_id, state in runs.items():
        path = f"local/{expected['project']}/{run_id}"
        if state is not None:
            stored.wait_for_state(url, path, state)
        run = stored.run(url, path)
        assert [[step, cells] for step, cells in stored.cells(url, path)] == expected["cells"]
        assert (run.name, run.notes, run.tags) == (f"name of {run_id}", "a note", ["a", "b"])
        assert exact(run.config) == expected["config"]
        assert {name: exact(run.summary[name]) for name in expected["summary"]["map"]} == expected["summary"]["map"]
        assert [(gap["reason"], gap["rows"], gap["points"]) for gap in run.gaps] == [("dropped", 1, 1)]


def assert_agrees(verified: Verification) -> None:
    """Writer and server have the same sums, but for the one call that a gap explains."""
    (writer,) = verified.writers
    assert (writer.differences, writer.pending_frames, writer.explanations) == ((), 0, ("dropped",)), verified


def test_the_version_at_hand_is_among_them() -> None:
    assert runferry.__version__ in RELEASES, "python -m tests.compat.make_release"


@pytest.mark.fault(54)
@pytest.mark.parametrize("release", RELEASES)
def test_the_journals_of_a_release_are_sent_by_this_version(release: str, tmp_path: Path) -> None:
    journals, expected = unpacked(release, "journals", tmp_path)
    with RunningServer(tmp_path / "server") as server:
        synced = command(tmp_path, "sync", str(journals), base_url=server.url)
        assert synced.returncode == 0, synced.stdout + synced.stderr

        assert_is_as_logged(server.url, expected, expected["journals"])
        for run_id in expected["journals"]:
            verified = stored.run(server.url, f"local/{expected['project']}/{run_id}").verify(str(journals))
            assert_agrees(verified)


@pytest.mark.fault(54)
@pytest.mark.parametrize("release", RELEASES)
def test_the_data_directory_of_a_release_is_served_and_written_on_by_this_version(release: str, tmp_path: Path) -> None:
    data, expected = unpacked(release, "data", tmp_path)
    with RunningServer(data) as server:
        assert_is_as_logged(server.url, expected, expected["data"])
        assert_agrees(stored.run(server.url, f"local/{expected['project']}/merged").verify())

        went_on = train(GOING_ON, tmp_path, base_url=server.url)
        assert (went_on.returncode, went_on.stdout.strip()) == (0, "0"), went_on.stderr
        (*before, last) = stored.cells(server.url, f"local/{expected['project']}/waiting")
        assert [[step, cells] for step, cells in before] == expected["cells"]
        assert last == (len(before), {"loss": exact(0.125)})
    assert "golden" in keys_command(data, "list").stdout
    assert check(["--data", str(data)]) == 0
