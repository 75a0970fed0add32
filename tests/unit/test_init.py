"""`init`: what is refused, where a run goes, and what is printed about it."""

from __future__ import annotations

import argparse
import copy
import os
import pickle
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import runferry
from runferry import _current
from runferry.errors import UnsupportedError

if TYPE_CHECKING:
    from tests.unit.conftest import Journals


@pytest.fixture
def closed_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@pytest.mark.parametrize(
    "arguments",
    [
        {"resume_from": "x?_step=1"},
        {"fork_from": "x?_step=1"},
        {"resume": "must", "id": "x"},
        {"resume": "auto"},
        {"resume": True},
        {"sync_tensorboard": True},
        {"tensorboard": True},
        {"monitor_gym": True},
        {"save_code": True},
        {"mode": "shared"},
    ],
    ids=str,
)
def test_what_is_not_there_yet_is_named_and_refused(arguments: dict[str, Any]) -> None:
    name = "resume" if "resume" in arguments else next(iter(arguments))

    with pytest.raises(UnsupportedError, match=name):
        runferry.init(**arguments)

    assert runferry.run is None


@pytest.mark.parametrize(
    "arguments",
    [
        {"save_code": False},
        {"sync_tensorboard": False},
        {"monitor_gym": False},
        {"resume": False},
        {"force": False},
        {"anonymous": "allow"},
        {"config_exclude_keys": ["b"], "config": {"a": 1, "b": 2}},
        {"reinit": True},
    ],
    ids=str,
)
def test_what_has_no_effect_is_accepted(arguments: dict[str, Any]) -> None:
    with runferry.init(mode="offline", **arguments) as run:
        assert not run.disabled


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"project": "a/b"}, "project 'a/b' holds /"),
        ({"entity": "a:b"}, "entity 'a:b' holds :"),
        ({"id": "a b#"}, "id 'a b#' holds #"),
        ({"id": ""}, "id '' is empty"),
        ({"tags": ["x" * 65]}, "has 65 characters"),
        ({"name": "x" * 129}, "has 129 characters"),
        ({"mode": "sometimes"}, "mode='sometimes'"),
        ({"resume": "perhaps"}, "resume='perhaps'"),
        ({"reinit": "perhaps"}, "reinit='perhaps'"),
        ({"settings": {"base_url": "nowhere"}}, "expected an address like http://host:7070"),
        ({"settings": {"nope": 1}}, "setting 'nope' is unknown"),
        ({"settings": 7}, "must be runferry.Settings or a dict"),
        ({"mode": "online"}, "runferry login http://host:7070"),
        ({"force": True}, "needs a server"),
    ],
    ids=str,
)
def test_a_wrong_argument_is_a_usage_error_with_the_value_and_the_rule(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(runferry.UsageError) as refused:
        runferry.init(**arguments)

    assert told in str(refused.value)
    assert list(Path.cwd().rglob("*.rfj")) == []


def test_without_a_server_the_run_goes_to_the_journal_and_one_line_says_how_to_see_it(capsys: pytest.CaptureFixture[str]) -> None:
    run = runferry.init(project="demo")
    told = capsys.readouterr().err
    run.log({"a": 1})
    run.finish()
    receipt = capsys.readouterr().err

    assert run.offline
    assert run.url is None
    assert told.count("\n") == 1
    assert f"run {run.name} ({run.id}) goes to {Path.cwd() / 'runferry'}; show it: runferry server" in told
    assert "finished: 1 row logged, all in the journal; show them: runferry server" in receipt


def test_the_receipt_says_how_many_of_the_rows_are_there_and_what_became_of_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    run = runferry.init(project="demo")
    run.log({"a": 1})
    run.log({"a": 2}, step=2**63)
    run.log({"a": 3})
    run.finish()

    receipt = capsys.readouterr().err
    assert "finished: 3 rows logged, 2 in the journal;" in receipt
    assert "1 rows dropped" in receipt


def test_from_another_folder_the_printed_command_goes_there_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runferry.init(dir=tmp_path / "my runs").finish()

    assert f"cd '{tmp_path}/my runs' && runferry server" in capsys.readouterr().err


@pytest.mark.parametrize(("setting", "init_lines"), [("silent", 0), ("quiet", 0)])
def test_silence_is_a_setting(setting: str, init_lines: int, capsys: pytest.CaptureFixture[str]) -> None:
    runferry.init(mode="offline", settings={setting: True}).finish()

    assert capsys.readouterr().err.count("\n") == init_lines


def test_an_unreachable_server_is_said_once_and_the_run_goes_on(
    closed_port: int, capsys: pytest.CaptureFixture[str], journals: Journals
) -> None:
    url = f"http://127.0.0.1:{closed_port}"
    run = runferry.init(project="demo", id="x1", settings={"base_url": url})
    run.log({"a": 1})
    run.finish(timeout=0.1)

    told = capsys.readouterr().err
    assert told.count("cannot be reached") == 1
    assert f"{url}/runs/local/demo/x1" in told
    assert journals.rows() == {0: {"a": 1}}


def test_a_server_that_never_answers_costs_init_a_bounded_time(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        run = runferry.init(settings={"base_url": f"http://127.0.0.1:{silent.getsockname()[1]}"})
        run.finish(timeout=0)

    assert "no answer from" in capsys.readouterr().err


def test_the_open_frame_says_who_writes_what(journals: Journals) -> None:
    run = runferry.init(
        project="demo",
        entity="team",
        id="x1",
        name="n",
        notes="why",
        tags=["t"],
        group="g",
        job_type="train",
        config={"lr": 0.1},
        mode="offline",
    )
    run.finish()

    [opened] = journals.documents("open")
    expected = {
        "entity": "team",
        "project": "demo",
        "id": "x1",
        "name": "n",
        "notes": "why",
        "tags": ["t"],
        "group": "g",
        "job_type": "train",
    }
    assert {key: opened[key] for key in expected} == expected
    assert opened["config"] == {"lr": 0.1}
    assert opened["mode"] == "offline"
    assert opened["pid"] == os.getpid()
    assert opened["start_step"] == 0
    assert opened["started_us"] > 1_700_000_000_000_000


def test_properties_are_what_was_given() -> None:
    run = runferry.init(
        project="demo", entity="team", id="x1", name="n", notes="why", tags=["t"], group="g", job_type="train", mode="offline"
    )

    assert (run.entity, run.project, run.id, run.path) == ("team", "demo", "x1", "team/demo/x1")
    assert (run.name, run.notes, run.tags, run.group, run.job_type) == ("n", "why", ("t",), "g", "train")
    assert (run.starting_step, run.step, run.resumed, run.offline, run.disabled) == (0, 0, False, True, False)
    assert Path(run.dir).is_dir()
    assert run.settings.project == "demo"
    assert copy.deepcopy(run) is run
    assert copy.copy(run) is run
    assert pickle.loads(pickle.dumps(run)) is run  # noqa: S301 - our own
    with pytest.raises(AttributeError, match="'Run' object has no attribute 'watchdog'"):
        _ = run.watchdog


def test_name_notes_and_tags_can_be_set_live_and_config_and_summary_are_documents(journals: Journals) -> None:
    run = runferry.init(mode="offline", config={"lr": 0.1})

    run.name, run.notes, run.tags = "other", "because", ("a", "b")
    run.config["depth"] = 3
    run.summary["best"] = 0.5
    del run.config["depth"]
    run.finish()

    merged: dict[str, Any] = {}
    for document in journals.documents("meta"):
        merged.update(document)
    assert merged == {"name": "other", "notes": "because", "tags": ["a", "b"]}
    changes = journals.documents("config")
    assert {"updates": {"depth": 3}, "removed": []} in changes or len(changes) == 1  # changes may be merged before they are packed
    assert changes[-1]["removed"] == ["depth"]
    assert journals.documents("summary")[-1]["updates"] == {"best": 0.5}


@pytest.mark.parametrize("name", ["name", "notes", "tags"])
def test_setting_a_finished_run_is_a_usage_error(name: str) -> None:
    run = runferry.init(mode="disabled")
    run.finish()

    with pytest.raises(runferry.UsageError, match=f"The call to `{name}` will be ignored"):
        setattr(run, name, "x")


def test_config_comes_from_a_namespace_and_keys_can_be_chosen() -> None:
    run = runferry.init(mode="disabled", config=argparse.Namespace(a=1, b=2), config_include_keys=["a"])

    assert run.config.as_dict() == {"a": 1}


def test_a_disabled_run_does_nothing_but_keep_the_last_values() -> None:
    run = runferry.init(mode="disabled")

    run.log({"loss": 1.0})
    run.log({"loss": 0.5}, step=7)

    assert (run.disabled, run.step, run.summary["loss"], run.url) == (True, 0, 0.5, None)
    with pytest.raises(TypeError):
        run.log("loss")  # type: ignore[arg-type]
    run.finish()
    assert list(Path.cwd().rglob("*.rfj")) == []


def test_a_second_init_returns_the_active_run() -> None:
    first = runferry.init(mode="disabled", project="one")

    assert runferry.init(mode="disabled", project="two") is first


def test_a_second_init_finishes_the_first_run_when_told_to() -> None:
    first = runferry.init(mode="disabled")
    second = runferry.init(mode="disabled", reinit="finish_previous")

    assert second is not first
    assert runferry.run is second
    with pytest.raises(runferry.UsageError):
        first.log({})


def test_a_wrong_second_init_leaves_the_first_run_alone() -> None:
    first = runferry.init(mode="disabled")

    with pytest.raises(runferry.UsageError):
        runferry.init(mode="disabled", project="a/b", reinit="finish_previous")

    assert runferry.run is first


def test_create_new_makes_an_independent_run_and_leaves_the_names_of_the_package(journals: Journals) -> None:
    first = runferry.init(mode="offline", id="one")
    second = runferry.init(mode="offline", id="two", reinit="create_new")

    runferry.log({"first": 1})
    second.log({"second": 2}, step=5)
    assert runferry.run is first
    second.finish()
    assert runferry.run is first
    runferry.finish()

    assert journals.rows() == {0: {"first": 1}, 5: {"second": 2}}


def test_an_exception_in_a_with_block_goes_on_and_fails_the_run(journals: Journals) -> None:
    with pytest.raises(ZeroDivisionError), runferry.init(mode="offline"):
        _ = 1 / 0
    with runferry.init(mode="offline"):
        pass

    assert sorted(document["exit_code"] for document in journals.documents("finish")) == [0, 1]


def test_finish_twice_is_finish_once(journals: Journals) -> None:
    run = runferry.init(mode="offline")

    run.finish(exit_code=3)
    run.finish(exit_code=4)

    assert [document["exit_code"] for document in journals.documents("finish")] == [3]
    assert _current.live == []


def test_flush_puts_rows_into_the_journal(journals: Journals) -> None:
    run = runferry.init(mode="offline")
    run.log({"a": 1})

    assert run.flush(durable=True, timeout=10)

    assert journals.rows() == {0: {"a": 1}}
    run.finish()
    with pytest.raises(runferry.UsageError):
        run.flush()


def test_resume_allow_goes_on_behind_the_last_step_of_this_machines_journals(journals: Journals) -> None:
    with runferry.init(mode="offline", id="x1", project="demo", name="first") as run:
        run.log({"a": 1}, step=41)

    again = runferry.init(mode="offline", id="x1", project="demo", resume="allow")
    again.log({"a": 2})
    again.finish()

    assert (again.starting_step, again.resumed) == (42, True)
    assert journals.rows() == {41: {"a": 1}, 42: {"a": 2}}
    assert "relative" not in journals.documents("open")[0]


def test_resume_allow_without_anything_known_is_relative(journals: Journals) -> None:
    runferry.init(mode="offline", id="x1", resume="allow").finish()

    [opened] = journals.documents("open")
    assert opened["relative"] is True
    assert opened["resume"] == "allow"
    assert "name" not in opened


def test_resume_never_refuses_a_run_of_this_machines_journals() -> None:
    with runferry.init(mode="offline", id="x1", project="demo") as run:
        run.log({"a": 1})

    with pytest.raises(runferry.UsageError, match="run local/demo/x1 exists and resume='never'"):
        runferry.init(mode="offline", id="x1", project="demo", resume="never")


def test_resume_never_needs_the_servers_answer(closed_port: int) -> None:
    settings = {"base_url": f"http://127.0.0.1:{closed_port}", "init_timeout": 0.3}

    with pytest.raises(runferry.CommError, match=f"127.0.0.1:{closed_port} cannot be reached"):
        runferry.init(id="x1", resume="never", settings=settings)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_replaced_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)

    run = runferry.init(mode="offline", dir=locked)
    run.finish()

    assert not run.dir.startswith(str(locked))
    assert "cannot be written" in capsys.readouterr().err


def test_a_path_that_is_a_file_is_replaced_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")

    run = runferry.init(mode="offline", dir=tmp_path / "file")
    run.finish()

    assert not run.dir.startswith(str(tmp_path / "file"))
    assert "cannot be written" in capsys.readouterr().err


def test_settings_of_setup_hold_until_teardown() -> None:
    runferry.setup({"project": "from-setup", "mode": "disabled"})
    assert runferry.init().project == "from-setup"

    runferry.teardown()

    assert runferry.run is None
    assert runferry.init(mode="disabled").project == "uncategorized"
