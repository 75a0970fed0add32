"""No server anywhere: runs go to the folder, and `runferry server` started there shows those that ended, that died and that still run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support import stored
from tests.support.servers import RunningServer
from tests.support.trainers import Trainer, train, wait_until

if TYPE_CHECKING:
    from pathlib import Path

TRAINING = """
import runferry, sys
run = runferry.init(project="local-mode", id={run_id!r}, settings={{"silent": True}})
number = 0
def some(count):
    global number
    for _ in range(count):
        run.log({{"n": number}})
        number += 1
some(1000)
print("logged")
for line in sys.stdin:
    if line == "end\\n":
        break
    some(1000)
    print("more")
run.finish()
print("finished")
"""


def count(server: RunningServer, run_id: str) -> int:
    """Rows there; they have to be 0, 1, 2, ..."""
    try:
        found = [row["n"] for row in stored.rows(server.url, f"local/local-mode/{run_id}")]
    except ValueError:
        return 0
    assert found == list(range(len(found)))
    return len(found)


@pytest.mark.timeout(120)
def test_a_server_started_in_the_folder_shows_finished_dead_and_live_runs(tmp_path: Path) -> None:
    ended = train(TRAINING.format(run_id="ended"), tmp_path)  # its standard input ends at once
    assert ended.returncode == 0, ended.stderr
    live, dead = (Trainer(TRAINING.format(run_id=name), tmp_path) for name in ("live", "dead"))
    with live, dead:
        live.wait_for("logged")
        dead.wait_for("logged")
        dead.kill()

        with RunningServer(tmp_path / "data", cwd=tmp_path) as server, Trainer(TRAINING.format(run_id="late"), tmp_path) as late:
            wait_until(lambda: count(server, "ended") == 1_000, "the finished run")
            wait_until(lambda: count(server, "dead") == 1_000, "the dead run, its ring included")
            wait_until(lambda: count(server, "live") == 1_000, "the live run")
            stored.wait_for_state(server.url, "local/local-mode/ended", "finished")
            stored.wait_for_state(server.url, "local/local-mode/live", "running")

            live.tell("more")
            live.wait_for("more")
            wait_until(lambda: count(server, "live") == 2_000, "what the live run went on to log")
            late.wait_for("logged")
            wait_until(lambda: count(server, "late") == 1_000, "a run that began behind the server")
            live.tell("more")
            live.tell("end")
            live.wait_for("finished")
            assert live.ended()[0] == 0
            stored.wait_for_state(server.url, "local/local-mode/live", "finished")
            assert count(server, "live") == 3_000
            late.kill()
            wait_until(lambda: count(server, "late") == 1_000, "the run that died under the server's eyes")
            assert server.stop() == 0

        with RunningServer(tmp_path / "data", cwd=tmp_path) as server:
            assert {name: count(server, name) for name in ("ended", "dead", "live", "late")} == {
                "ended": 1_000, "dead": 1_000, "live": 3_000, "late": 1_000,
            }  # fmt: skip


@pytest.mark.fault(2)
@pytest.mark.timeout(120)
def test_a_live_run_killed_under_a_following_server_arrives_whole(tmp_path: Path) -> None:
    code = TRAINING.format(run_id="followed").replace("some(1000)", "some(200)")
    with Trainer(code, tmp_path) as trainer:
        trainer.wait_for("logged")
        with RunningServer(tmp_path / "data", cwd=tmp_path) as server:
            wait_until(lambda: count(server, "followed") == 200, "the live run")
            for _ in range(10):
                trainer.tell("more")
                trainer.wait_for("more")
            trainer.kill()  # the last calls are in the ring alone
            wait_until(lambda: count(server, "followed") == 2_200, "the calls that only the ring had")


@pytest.mark.timeout(120)
def test_an_offline_run_says_the_one_command_that_shows_it(tmp_path: Path) -> None:
    ended = train("import runferry\nrun = runferry.init(project='p')\nrun.log({'a': 1})\nrun.finish()\n", tmp_path)

    assert ended.returncode == 0, ended.stderr
    assert "runferry server" in ended.stderr
    assert "1 row logged, all in the journal" in ended.stderr
