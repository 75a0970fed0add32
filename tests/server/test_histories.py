"""The same keys of several runs in one answer: what each run's own history says, and a name for each run that is not there."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import sqlalchemy as sa
from runferry.server.http import models

from tests.server.test_read_door import ODD_IDS, run_path
from tests.support.door import store_all
from tests.support.frames import ScriptedWriter, run_key
from tests.support.keys import add_key
from tests.support.servers import RunningServer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.server.metadata_scene import Scene

MOST_RUNS = 200
_writer_ids = count(0x7000)


def stored_run(server: RunningServer, project: str, id_: str, rows: int = 3) -> ScriptedWriter:
    """A run of some rows of `loss`."""
    writer = ScriptedWriter(project=project, id=id_, writer_id=next(_writer_ids))
    store_all(server.write_address, writer, writer.rows(rows))
    return writer


def path_of(writer: ScriptedWriter) -> str:
    return f"{writer.entity}/{writer.project}/{writer.id}"


def histories(api: httpx.Client, runs: list[str], keys: list[str], **more: int) -> models.Histories:
    answer = api.get("/api/v1/history", params={"runs": runs, "keys": keys, **more})
    assert answer.status_code == 200, answer.text
    return models.Histories.model_validate(answer.json())


def test_each_run_is_answered_as_its_own_history_says_it(server: RunningServer, api: httpx.Client, project: str) -> None:
    writers = [stored_run(server, project, id_, rows=1 + number) for number, id_ in enumerate(ODD_IDS)]
    asked: dict[str, Any] = {"keys": ["loss", "nothing"], "buckets": 4, "min_step": 1}

    together = api.get("/api/v1/history", params={"runs": [path_of(writer) for writer in writers], **asked}).json()

    alone = [api.get(run_path(writer, "/history"), params=asked).json() for writer in writers]
    names = [{"entity": writer.entity, "project": writer.project, "id": writer.id} for writer in writers]
    assert together == {"runs": [{**name, **one} for name, one in zip(names, alone, strict=True)], "missing": []}


def test_a_run_that_does_not_exist_is_named_and_the_others_are_answered(server: RunningServer, api: httpx.Client, project: str) -> None:
    here = stored_run(server, project, "here")
    wrong = [f"local/{project}/gone", "nobody/nowhere/nothing", f"local/other-{project}/here"]

    found = histories(api, [wrong[0], path_of(here), *wrong[1:]], ["loss"])

    assert [(run.id, run.series[0].step_first) for run in found.runs] == [("here", [0, 1, 2])]
    assert found.missing == wrong


def test_none_but_missing_runs_are_an_answer_without_runs(api: httpx.Client) -> None:
    found = histories(api, ["a/b/c"], ["loss"])

    assert (found.runs, found.missing) == ([], ["a/b/c"])


def test_a_run_asked_for_twice_is_answered_once(server: RunningServer, api: httpx.Client, project: str) -> None:
    here = path_of(stored_run(server, project, "here"))

    assert len(histories(api, [here, here], ["loss", "loss"]).runs) == 1


def test_the_cursor_of_each_run_is_where_its_deltas_begin(server: RunningServer, api: httpx.Client, project: str) -> None:
    writers = [stored_run(server, project, f"run-{number}", rows=2 + number) for number in range(3)]

    found = histories(api, [path_of(writer) for writer in writers], ["loss"])

    assert len({run.cursor for run in found.runs}) == 3
    assert [run.cursor for run in found.runs] == [
        api.get(run_path(writer, "/history"), params={"keys": "loss"}).json()["cursor"] for writer in writers
    ]


@pytest.mark.parametrize("run", ["", "a", "a/b", "a/b/c/d"])
def test_what_is_no_name_of_a_run_is_refused_in_words(api: httpx.Client, run: str) -> None:
    answer = api.get("/api/v1/history", params={"runs": run, "keys": "loss"})

    error = models.Error.model_validate(answer.json()).error
    assert (answer.status_code, error.code) == (400, "bad_run")
    assert repr(run) in error.message


def test_as_many_runs_as_are_allowed_are_looked_for_and_one_more_is_refused(api: httpx.Client) -> None:
    runs = [f"entity/project-{number}/run" for number in range(MOST_RUNS + 1)]

    assert histories(api, runs[:MOST_RUNS], ["loss"]).missing == runs[:MOST_RUNS]
    answer = api.get("/api/v1/history", params={"runs": runs, "keys": "loss"})

    error = models.Error.model_validate(answer.json()).error
    assert (answer.status_code, error.code) == (400, "too_many_runs")
    assert "201" in error.message
    assert str(MOST_RUNS) in error.message


def test_as_many_series_as_of_one_run_are_allowed_of_all_runs_together(api: httpx.Client) -> None:
    runs = [f"entity/project/run-{number}" for number in range(100)]
    keys = [f"key-{number}" for number in range(11)]

    assert len(histories(api, runs, keys[:10]).missing) == 100
    answer = api.get("/api/v1/history", params={"runs": runs, "keys": keys})

    error = models.Error.model_validate(answer.json()).error
    assert (answer.status_code, error.code) == (400, "too_many_keys")
    assert "11 keys of 100 runs" in error.message


@pytest.mark.parametrize("missing", ["runs", "keys"])
def test_runs_and_keys_have_to_be_said(api: httpx.Client, missing: str) -> None:
    asked = {"runs": "a/b/c", "keys": "loss"}
    del asked[missing]

    answer = api.get("/api/v1/history", params=asked)

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_request")


def test_nobody_without_a_key_learns_which_runs_there_are(tmp_path: Path) -> None:
    with RunningServer(tmp_path / "data", "--require-keys") as server, httpx.Client(base_url=server.url, timeout=20.0) as api:
        key = add_key(tmp_path / "data", "reader")

        refused = api.get("/api/v1/history", params={"runs": "a/b/c", "keys": "loss"})
        answered = api.get("/api/v1/history", params={"runs": "a/b/c", "keys": "loss"}, headers={"authorization": f"Bearer {key}"})

    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "unauthenticated")
    assert answered.json() == {"runs": [], "missing": ["a/b/c"]}


def test_many_runs_are_found_with_one_statement(scene: Scene) -> None:
    statements: list[str] = []
    engine = scene.database._reading  # noqa: SLF001 - what it runs is the question

    @sa.event.listens_for(engine, "before_cursor_execute")
    def count_selects(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if statement.startswith("SELECT"):
            statements.append(statement)

    scene.open("here")
    names = [("local", "demo", "here"), *(("local", f"p{number % 7}", f"r{number}") for number in range(MOST_RUNS - 1))]
    found = scene.query.find_all(names)

    assert found == {("local", "demo", "here"): run_key("local", "demo", "here")}
    assert len(statements) == 1
