"""`Api` and its runs: what is asked, and that what comes back is exact."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgpack
import pytest
import runferry
from runferry import _native
from runferry.api.frames import frame_of
from runferry.errors import AuthenticationError, CommError

if TYPE_CHECKING:
    from tests.unit.conftest import ReadDoor


@pytest.fixture
def api(door: ReadDoor) -> runferry.Api:
    door.answers[door.run_path] = door.run
    return runferry.Api({"base_url": door.url})


def test_a_run_is_what_the_server_says_with_numbers_json_cannot_hold(api: runferry.Api, door: ReadDoor) -> None:
    run = api.run("local/demo/x1")

    assert (run.name, run.state, run.tags, run.group, run.job_type, run.path) == (
        "plucky-otter-3",
        "finished",
        ["t"],
        "g",
        None,
        ["local", "demo", "x1"],
    )
    assert run.config == {"lr": 0.1, "limit": math.inf}
    assert math.isnan(run.summary["loss"])
    assert run.summary["raw"] == b"\1\2"
    assert run.created_at == "2023-11-14T22:13:20Z"
    assert run.lastHistoryStep == 7
    assert run.url == f"{door.url}/runs/local/demo/x1"
    assert run.metadata["rows"] == 2


@pytest.mark.parametrize("path", ["local/demo/x1", "demo/x1", "/local/demo/x1", "local/demo/runs/x1"])
def test_paths_of_a_run_may_be_short(path: str, api: runferry.Api) -> None:
    assert api.run(path).id == "x1"


def test_names_are_quoted_in_addresses(api: runferry.Api, door: ReadDoor) -> None:
    door.answers["/api/v1/runs/a%20b/50%25/x%2By"] = {**door.run, "entity": "a b", "project": "50%", "id": "x+y"}

    assert api.run("a b/50%/x+y").url == f"{door.url}/runs/a%20b/50%25/x%2By"


def test_a_run_that_does_not_exist_is_named_with_the_server(api: runferry.Api, door: ReadDoor) -> None:
    with pytest.raises(ValueError, match="Could not find run local/demo/nope at http") as refused:
        api.run("demo/nope")

    assert isinstance(refused.value, CommError)
    assert door.url in str(refused.value)


@pytest.mark.parametrize("path", ["a/b/c", None])
def test_a_path_of_a_project_has_one_or_two_parts(path: str | None, api: runferry.Api) -> None:
    with pytest.raises(runferry.UsageError):
        api.runs(path)


def test_runs_are_asked_for_page_by_page_and_only_as_far_as_needed(api: runferry.Api, door: ReadDoor) -> None:
    def page(query: dict[str, list[str]]) -> dict[str, Any]:
        start = int(query.get("cursor", ["0"])[0])
        limit = int(query["limit"][0])
        runs = [{**door.run, "id": f"x{index}"} for index in range(start, min(start + limit, 5))]
        return {"runs": runs, "total": 5, "next_cursor": str(start + limit) if start + limit < 5 else None}

    door.answers["/api/v1/runs"] = page

    runs = api.runs("demo", {"config.lr": {"$gt": 0.01}}, "-summary_metrics.loss", per_page=2)
    assert door.asked == []
    assert runs[0].id == "x0"
    assert len(runs) == 5
    assert len(door.asked) == 1
    assert [run.id for run in runs] == ["x0", "x1", "x2", "x3", "x4"]
    assert [run.id for run in runs] == ["x0", "x1", "x2", "x3", "x4"]
    assert runs[-1].id == "x4"
    assert [run.id for run in runs[1:3]] == ["x1", "x2"]
    with pytest.raises(IndexError):
        runs[5]

    assert len(door.asked) == 3
    assert door.asked[0][1] == {
        "entity": ["local"],
        "project": ["demo"],
        "filters": ['{"config.lr": {"$gt": 0.01}}'],
        "order": ["-summary_metrics.loss"],
        "limit": ["2"],
    }


def test_a_project_without_runs_is_empty(api: runferry.Api, door: ReadDoor) -> None:
    door.answers["/api/v1/runs"] = {"runs": [], "next_cursor": None, "total": 0}

    assert list(api.runs("demo")) == []


def test_projects_are_those_of_the_entity_latest_first(api: runferry.Api, door: ReadDoor) -> None:
    door.answers["/api/v1/projects"] = {
        "projects": [
            {"entity": "local", "project": "old", "runs": 1, "last_active_us": 1},
            {"entity": "local", "project": "new", "runs": 2, "last_active_us": 2},
            {"entity": "other", "project": "x", "runs": 3, "last_active_us": 3},
        ]
    }

    assert [project.name for project in api.projects()] == ["new", "old"]
    assert [project.name for project in api.projects("other")] == ["x"]


def test_scanned_rows_are_exact(api: runferry.Api, door: ReadDoor) -> None:
    histogram = _native.histogram_encode([0.0, 1.0, 2.0], [3, 4], 0, 0)
    first = door.frame(
        3,
        [
            ["loss", 1, None, door.f64(math.nan, -0.0)],
            ["n", 3, b"\1", b"\2"],
            ["n", 1, b"\2", door.f64(1.0)],
            ["h", 6, b"\1", [histogram]],
            ["list", 7, b"\2", [msgpack.packb([1, {"a": None}])]],
            ["text", 5, None, ["a", "b"]],
            ["odd", 8, b"\1", [["str", "'\\ud800'"]]],
            ["none", 0, b"\2", None],
        ],
    )
    second = door.frame(5, [["_timestamp", 0, None, None]], rows=1)
    door.answers[door.run_path + "/scan"] = first + second

    rows = list(api.run("demo/x1").scan_history())

    assert [row["_step"] for row in rows] == [3, 4, 5]
    assert [row["_timestamp"] for row in rows] == [1_700_000_000.25, 1_700_000_001.25, 1_700_000_000.25]
    assert [row["_runtime"] for row in rows] == [0.25, 1.25, 0.25]
    assert math.isnan(rows[0]["loss"])
    assert math.copysign(1, rows[1]["loss"]) == -1
    assert (rows[0]["n"], type(rows[0]["n"]), rows[1]["n"], type(rows[1]["n"])) == (1, int, 1.0, float)
    assert rows[0]["h"] == {"_type": "histogram", "values": [3, 4], "bins": [0.0, 1.0, 2.0]}
    assert rows[1]["list"] == [1, {"a": None}]
    assert rows[0]["odd"] == {"_type": "marker", "type": "str", "text": "'\\ud800'"}
    assert rows[1]["none"] is None
    assert set(rows[2]) == {"_step", "_timestamp", "_runtime"}


def test_with_keys_only_rows_that_hold_all_of_them_come_back(api: runferry.Api, door: ReadDoor) -> None:
    door.answers[door.run_path + "/scan"] = door.frame(
        0, [["a", 1, None, door.f64(1.0, 2.0)], ["b", 1, b"\2", door.f64(3.0)], ["c", 1, None, door.f64(4.0, 5.0)]]
    )

    rows = list(api.run("demo/x1").scan_history(keys=["a", "b", "_step"], min_step=2, max_step=9))

    assert [{name: row[name] for name in row if not name.startswith("_")} for row in rows] == [{"a": 2.0, "b": 3.0}]
    assert door.asked[-1][1] == {"keys": ["a", "b"], "min_step": ["2"], "max_step": ["8"]}


@pytest.mark.parametrize("cut", [1, 63, 64, 80, -1])
def test_an_answer_that_breaks_off_is_an_error_behind_the_whole_rows(cut: int, api: runferry.Api, door: ReadDoor) -> None:
    whole = door.frame(0, [["a", 1, None, door.f64(1.0, 2.0)]])
    door.answers[door.run_path + "/scan"] = whole + whole[:cut]
    scanned = api.run("demo/x1").scan_history()

    assert [next(scanned)["a"], next(scanned)["a"]] == [1.0, 2.0]
    with pytest.raises(CommError, match=r"broke off|broken"):
        next(scanned)


def test_a_damaged_frame_is_an_error(api: runferry.Api, door: ReadDoor) -> None:
    whole = bytearray(door.frame(0, [["a", 1, None, door.f64(1.0, 2.0)]]))
    whole[70] ^= 1
    door.answers[door.run_path + "/scan"] = bytes(whole)

    with pytest.raises(CommError, match="broken"):
        list(api.run("demo/x1").scan_history())


def test_history_asks_for_evenly_spaced_rows_and_orders_them_by_the_axis(api: runferry.Api, door: ReadDoor) -> None:
    door.answers[door.run_path + "/scan"] = door.frame(0, [["epoch", 1, None, door.f64(2.0, 1.0)], ["a", 1, None, door.f64(1.0, 2.0)]])

    rows = api.run("demo/x1").history(samples=10, keys=["a"], x_axis="epoch", pandas=False)

    assert [row["a"] for row in rows] == [2.0, 1.0]
    assert door.asked[-1][1] == {"keys": ["a", "epoch"], "samples": ["10"]}


@pytest.mark.parametrize("wrong", [{"samples": 0}, {"stream": "events"}, {"format": "arrow"}, {"keys": "loss"}], ids=str)
def test_a_wrong_argument_of_history_is_a_usage_error(wrong: dict[str, Any], api: runferry.Api, door: ReadDoor) -> None:
    door.answers[door.run_path + "/scan"] = b""

    with pytest.raises(runferry.UsageError):
        api.run("demo/x1").history(**wrong)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_a_data_frame_without_its_library_says_what_to_install(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runferry.api.frames.find_spec", lambda name: None)  # noqa: ARG005 - as importlib's

    with pytest.raises(runferry.UsageError, match=f"pip install {library}"):
        frame_of([{"_step": 0}], library)
    assert frame_of([{"_step": 0}], "pandas", optional=True) == [{"_step": 0}]


def test_a_key_is_sent_only_to_a_server_that_says_it_is_runferry(door: ReadDoor) -> None:
    door.answers[door.run_path] = door.run
    runferry.Api({"base_url": door.url}, api_key="secret").run("demo/x1")

    assert [(path, key) for path, _, key in door.asked] == [("/api/v1/door", None), (door.run_path, "Bearer secret")]

    door.asked.clear()
    door.answers["/api/v1/door"] = {"service": "something else"}
    with pytest.raises(CommError, match="is no Runferry server"):
        runferry.Api({"base_url": door.url}, api_key="secret").run("demo/x1")
    assert all(key is None for _, _, key in door.asked)


@pytest.mark.parametrize(
    ("answer", "kind", "told"),
    [
        ((401, {"error": {"code": "unauthenticated", "message": "a key is needed"}}), AuthenticationError, "a key is needed"),
        ((500, {"error": {"code": "internal", "message": "disk on fire"}}), CommError, "500: disk on fire"),
        ((404, b"<html>nginx</html>"), CommError, "is it a Runferry server"),
        (b"not json", CommError, "not JSON"),
        ([1], CommError, "not a JSON object"),
    ],
)
def test_a_refusal_names_the_server_and_the_reason(
    answer: Any, kind: type[Exception], told: str, api: runferry.Api, door: ReadDoor
) -> None:
    door.answers[door.run_path] = answer

    with pytest.raises(kind, match=told):
        api.run("demo/x1")


def test_without_a_configured_server_the_one_of_this_machine_is_asked() -> None:
    assert runferry.Api().base_url == "http://127.0.0.1:7070"


def test_unknown_overrides_are_refused() -> None:
    with pytest.raises(runferry.UsageError, match="base_ulr"):
        runferry.Api({"base_ulr": "http://x"})
