"""`resume` against a server's answer: where the run goes on, and what it takes over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import runferry

if TYPE_CHECKING:
    from tests.unit.conftest import Journals, ReadDoor

PATH = "/api/v1/runs/local/demo/x1"
STORED = {
    "entity": "local", "project": "demo", "id": "x1", "name": "stored name", "notes": "stored notes", "tags": ["stored"],
    "state": "failed", "config": {"lr": 0.1, "depth": 3}, "summary": {"best": 0.9}, "last_step": 99, "group": "g", "job_type": "train",
}  # fmt: skip


def start(door: ReadDoor, **arguments: Any) -> runferry.Run:
    return runferry.init(project="demo", id="x1", settings={"base_url": door.url, "finish_timeout": 0}, **arguments)


def test_allow_goes_on_behind_the_servers_last_step_and_keeps_its_documents(door: ReadDoor, journals: Journals) -> None:
    door.answers[PATH] = STORED

    run = start(door, resume="allow", config={"depth": 4, "new": 1})
    run.log({"a": 1})
    run.finish()

    assert (run.starting_step, run.resumed) == (100, True)
    assert (run.name, run.notes, run.tags, run.group, run.job_type) == ("stored name", "stored notes", ("stored",), "g", "train")
    assert run.config.as_dict() == {"lr": 0.1, "depth": 4, "new": 1}
    assert run.summary["best"] == 0.9
    assert journals.rows() == {100: {"a": 1}}
    assert journals.documents("open")[0]["start_step"] == 100


def test_given_names_and_tags_win_over_the_stored_ones(door: ReadDoor) -> None:
    door.answers[PATH] = STORED

    run = start(door, resume="allow", name="mine", tags=["mine"])

    assert (run.name, run.tags) == ("mine", ("mine",))


def test_the_later_step_of_server_and_journals_counts(door: ReadDoor) -> None:
    with runferry.init(mode="offline", project="demo", id="x1") as before:
        before.log({"a": 1}, step=500)
    door.answers[PATH] = STORED

    assert start(door, resume="allow").starting_step == 501


def test_allow_with_an_id_the_server_does_not_know_is_a_new_run(door: ReadDoor, journals: Journals) -> None:
    run = start(door, resume="allow")
    run.finish()

    assert (run.starting_step, run.resumed) == (0, False)
    assert run.name != "x1"
    assert "relative" not in journals.documents("open")[0]


def test_never_refuses_what_the_server_has_and_takes_what_it_has_not(door: ReadDoor) -> None:
    door.answers[PATH] = STORED
    with pytest.raises(runferry.UsageError, match="run local/demo/x1 exists and resume='never'"):
        start(door, resume="never")

    del door.answers[PATH]
    assert start(door, resume="never").starting_step == 0


def test_a_wrong_address_is_said_and_init_goes_on(door: ReadDoor, capsys: pytest.CaptureFixture[str]) -> None:
    door.answers["/api/v1/door"] = b"<html>another service</html>"

    run = start(door)
    run.log({"a": 1})
    run.finish()

    assert capsys.readouterr().err.count("answers, but is no Runferry server") == 1


def test_force_refuses_a_wrong_address(door: ReadDoor) -> None:
    door.answers["/api/v1/door"] = {"service": "grafana"}

    with pytest.raises(runferry.CommError, match="is no Runferry server"):
        start(door, force=True)
