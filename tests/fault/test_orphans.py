"""What a killed trainer left, ring included, is sent by whoever comes next: an `init`, `runferry sync`, a local server, or all at once."""

from __future__ import annotations

import shutil
import subprocess
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.support import stored
from tests.support.ports import free_port
from tests.support.servers import RunningServer
from tests.support.trainers import COMMAND_TIMEOUT_S, Trainer, client_environment, command, wait_until

if TYPE_CHECKING:
    from pathlib import Path

ROWS = 3_000
DOOMED = f"""
import runferry
run = runferry.init(project="orphans", id="dead", settings={{"silent": True}})
for number in range({ROWS}):
    run.log({{"n": number}})
print("logged", flush=True)
input()
"""
NEXT = """
import runferry
run = runferry.init(project="orphans", id="next", settings={"silent": True})
print("begun", flush=True)
input()
run.finish()
"""


def killed(folder: Path, **settings: str) -> None:
    """Leave a journal and a ring in `folder`, whose last rows nobody has packed."""
    with Trainer(DOOMED, folder, **settings) as trainer:
        trainer.wait_for("logged")
        trainer.kill()


def numbers(server: RunningServer) -> list[int]:
    try:
        return [row["n"] for row in stored.rows(server.url, "local/orphans/dead")]
    except ValueError:
        return []


@pytest.mark.fault(1, 2)
@pytest.mark.timeout(180)
@pytest.mark.parametrize("by", ["the next init", "sync", "a local server"])
def test_a_killed_trainer_is_sent_by_whoever_comes_next(tmp_path: Path, by: str) -> None:
    is_local = by == "a local server"
    port = free_port()
    settings = {} if is_local else {"base_url": f"http://127.0.0.1:{port}"}
    killed(tmp_path, **settings)  # before there is a server

    with RunningServer(tmp_path / "data", cwd=tmp_path if is_local else tmp_path.parent, port=port) as server, ExitStack() as stack:
        if by == "the next init":
            coming = stack.enter_context(Trainer(NEXT, tmp_path, base_url=server.url))
            coming.wait_for("begun")
        elif by == "sync":
            synced = command(tmp_path, "sync", str(tmp_path / "runferry"), base_url=server.url)
            assert synced.returncode == 0, synced.stdout + synced.stderr

        wait_until(lambda: len(numbers(server)) == ROWS, "all rows are there")
        assert numbers(server) == list(range(ROWS))
        assert stored.gaps(server.url, "local/orphans/dead") == []
        wait_until(lambda: state(server) == "failed", "its death is known")
        assert stored.run(server.url, "local/orphans/dead").metadata["exit_code"] is None


def state(server: RunningServer) -> str:
    """Of the killed run."""
    return str(stored.run(server.url, "local/orphans/dead").state)


@pytest.mark.timeout(180)
def test_a_copy_of_a_living_trainers_journal_does_not_make_it_a_dead_one(tmp_path: Path) -> None:
    with RunningServer(tmp_path / "data") as server, Trainer(DOOMED, tmp_path) as trainer:
        trainer.wait_for("logged")
        wait_until(lambda: list((tmp_path / "runferry").glob("*/*/seg-*")), "its journal is begun")
        shutil.copytree(tmp_path / "runferry", tmp_path / "copy")

        synced = command(tmp_path, "sync", str(tmp_path / "copy"), base_url=server.url)

        assert synced.returncode == 0, synced.stdout + synced.stderr
        assert state(server) == "running"
        trainer.kill()
        synced = command(tmp_path, "sync", str(tmp_path / "runferry"), base_url=server.url)
        assert synced.returncode == 0, synced.stdout + synced.stderr
        assert state(server) == "failed"


@pytest.mark.fault(29)
@pytest.mark.timeout(240)
def test_inits_syncs_and_a_local_server_at_once_make_one_copy(tmp_path: Path) -> None:
    killed(tmp_path)  # without a server's address, so that a local server may take it, and who is told to

    with RunningServer(tmp_path / "data", cwd=tmp_path) as server:
        words = [[sys.executable, "-c", NEXT], [sys.executable, "-m", "runferry.cli", "sync", str(tmp_path / "runferry")]]
        adopters = [
            subprocess.Popen(
                words[number % 2],
                env=client_environment(tmp_path, base_url=server.url, run_id=f"next-{number}"),
                cwd=tmp_path,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for number in range(7)
        ]
        try:
            wait_until(lambda: len(numbers(server)) >= ROWS, "all rows are there")
        finally:
            said = [adopter.communicate("\n", timeout=COMMAND_TIMEOUT_S)[0] for adopter in adopters]
        assert {adopter.returncode for adopter in adopters[::2]} == {0}, said
        last = command(tmp_path, "sync", str(tmp_path / "runferry"), base_url=server.url)

        assert last.returncode == 0, last.stdout + last.stderr
        assert numbers(server) == list(range(ROWS))
        assert stored.gaps(server.url, "local/orphans/dead") == []
        assert len(stored.run(server.url, "local/orphans/dead").writers()) == 1
