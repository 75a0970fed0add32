"""A run that is begun again: it goes on behind its last step, whoever knows that step; or it is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import runferry
from runferry.errors import CommError, UsageError

from tests.support import stored
from tests.support.ports import free_port
from tests.support.servers import RunningServer
from tests.support.trainers import Trainer, command, wait_until

if TYPE_CHECKING:
    from pathlib import Path

KILLED = """
import runferry
run = runferry.init(project="resume", id={run_id!r}, settings={{"silent": True}})
for number in range(10**9):
    run.log({{"n": number}})
    print(number)
"""


def begin(url: str | None, folder: Path, run_id: str, **more: Any) -> Any:
    """`init` in a folder."""
    folder.mkdir(exist_ok=True)
    return runferry.init(project="resume", id=run_id, dir=folder, settings={"base_url": url, "silent": True}, **more)


def numbers(url: str, run_id: str) -> list[tuple[int, int]]:
    """Steps and values of `n`."""
    return [(row["_step"], row["n"]) for row in stored.rows(url, f"local/resume/{run_id}")]


def test_allow_begins_a_new_run_where_there_is_none(server: RunningServer, tmp_path: Path) -> None:
    run = begin(server.url, tmp_path, "new", resume="allow")

    assert (run.resumed, run.starting_step, run.step) == (False, 0, 0)


def test_allow_goes_on_behind_the_last_step_with_config_and_names_kept(server: RunningServer, tmp_path: Path) -> None:
    first = begin(server.url, tmp_path / "one", "known", config={"lr": 1, "kept": True}, tags=["a"], name="first-name", notes="note")
    for number in range(10):
        first.log({"n": number})
    first.log({"n": 10}, step=20, commit=True)
    first.finish(exit_code=1)
    stored.wait_for_state(server.url, first.path, "failed")

    second = begin(server.url, tmp_path / "elsewhere", "known", resume="allow", config={"lr": 2})
    assert (second.resumed, second.starting_step, second.step) == (True, 21, 21)
    assert dict(second.config) == {"lr": 2, "kept": True}
    assert (second.name, second.tags, second.notes) == ("first-name", ("a",), "note")
    assert second.summary["n"] == 10
    second.log({"n": 11})
    second.finish()

    stored.wait_for_state(server.url, second.path, "finished")
    found = stored.run(server.url, second.path)
    assert numbers(server.url, "known") == [*((number, number) for number in range(10)), (20, 10), (21, 11)]
    assert found.config == {"lr": 2, "kept": True}
    assert (found.stored["writers"], found.stored["gaps"]) == (2, 0)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("mode", ["online", "offline"])
def test_a_killed_run_goes_on_behind_its_last_returned_call(server: RunningServer, tmp_path: Path, mode: str) -> None:
    run_id = f"killed-{mode}"
    with Trainer(KILLED.format(run_id=run_id), tmp_path, base_url=server.url, mode=mode) as trainer:
        trainer.wait_for("3000")
        returned = max([3_000, *(int(line) for line in trainer.kill().split("\n")[:-1] if line)])

    second = begin(server.url, tmp_path, run_id, resume="allow", mode=mode)
    assert second.resumed
    assert second.starting_step - 1 - returned in {0, 1}
    for number in range(second.starting_step, second.starting_step + 100):
        second.log({"n": number})
    second.finish()
    synced = command(tmp_path, "sync", str(tmp_path / "runferry"), base_url=server.url)

    assert synced.returncode == 0, synced.stdout + synced.stderr
    wait_until(lambda: len(numbers(server.url, run_id)) >= second.starting_step + 100, "both halves")
    assert numbers(server.url, run_id) == [(number, number) for number in range(second.starting_step + 100)]


@pytest.mark.timeout(120)
def test_where_nobody_knows_the_last_step_the_server_adds_it(tmp_path: Path) -> None:
    port = free_port()
    with RunningServer(tmp_path / "data", port=port) as server:
        first = begin(server.url, tmp_path / "one", "unknown")
        for number in range(10):
            first.log({"n": number})
        first.finish()
        stored.wait_for_state(server.url, first.path, "finished")
    second = begin(server.url, tmp_path / "other-machine", "unknown", resume="allow")
    for number in range(10, 15):
        second.log({"n": number})
    assert second.flush()

    with RunningServer(tmp_path / "data", port=port) as server:
        assert second.flush(acked=True, timeout=60)
        second.finish()
        assert numbers(server.url, "unknown") == [(number, number) for number in range(15)]


def test_never_refuses_a_run_that_the_server_has(server: RunningServer, tmp_path: Path) -> None:
    first = begin(server.url, tmp_path / "one", "taken", resume="never")
    first.log({"n": 0})
    first.finish()
    stored.wait_for_state(server.url, first.path, "finished")

    with pytest.raises(UsageError, match="local/resume/taken exists"):
        begin(server.url, tmp_path / "other", "taken", resume="never")


def test_never_refuses_a_run_that_lies_in_a_journal_here(tmp_path: Path) -> None:
    first = begin(None, tmp_path, "here", mode="offline")
    first.log({"n": 0})
    first.finish()

    with pytest.raises(UsageError, match="local/resume/here exists"):
        begin(None, tmp_path, "here", resume="never", mode="offline")


def test_never_without_an_answer_of_the_server_says_so_in_time(tmp_path: Path) -> None:
    settings = {"base_url": f"http://127.0.0.1:{free_port()}", "silent": True, "init_timeout": 0.5}

    with pytest.raises(CommError, match=r"127\.0\.0\.1"):
        runferry.init(project="resume", id="x", dir=tmp_path, resume="never", settings=settings)
