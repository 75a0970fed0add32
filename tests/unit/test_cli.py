"""The command line: help that can be typed, exit codes that mean something."""

from __future__ import annotations

import json
import math
import sys
from typing import TYPE_CHECKING, Any

import msgpack
import pytest
import runferry
from runferry.cli import OK, PROBLEM, UNREACHABLE, WRONG_USAGE, main
from runferry.cli.text import age, size, table
from runferry.settings import resolve

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.conftest import ReadDoor

COMMANDS = ["login", "runs", "export", "status", "sync", "journal"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_examples_of_the_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == OK

    shown = capsys.readouterr().out
    assert f"  runferry {command}" in shown[shown.index("examples:") :]


def test_the_top_help_names_every_command_and_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == OK

    shown = capsys.readouterr().out
    for command in [*COMMANDS, "server", "exit codes"]:
        assert command in shown


@pytest.mark.parametrize(
    "words", [[], ["nope"], ["export"], ["runs", "demo", "--filters", "{"], ["runs", "a/b/c"], ["login", "nowhere"], ["sync", "/nope"]]
)
def test_a_wrong_command_line_is_exit_code_2_and_a_line_on_stderr(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == WRONG_USAGE

    assert capsys.readouterr().err


def test_an_unreachable_server_is_exit_code_3(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "demo", "--base-url", "http://127.0.0.1:1"]) == UNREACHABLE

    assert "http://127.0.0.1:1 cannot be reached" in capsys.readouterr().err


def test_login_keeps_an_address_that_is_a_runferry_server(door: ReadDoor, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["login", door.url + "/"]) == OK
    assert resolve().base_url == door.url
    assert door.url in capsys.readouterr().out

    door.answers["/api/v1/door"] = {"service": "grafana"}
    assert main(["login", door.url]) == UNREACHABLE
    assert main(["login", "http://other:1", "--no-verify"]) == OK
    assert resolve().base_url == "http://other:1"


def test_runs_are_a_table(door: ReadDoor, capsys: pytest.CaptureFixture[str]) -> None:
    door.answers["/api/v1/runs"] = {"runs": [{**door.run, "summary": {"loss": 0.25}}], "next_cursor": None, "total": 1}

    assert main(["runs", "demo", "--base-url", door.url, "--filters", '{"state": "finished"}']) == OK

    head, row = capsys.readouterr().out.splitlines()
    assert head.split() == ["ID", "NAME", "STATE", "STEPS", "ROWS", "POINTS", "SEEN", "GROUP", "SUMMARY"]
    assert row.split()[:6] == ["x1", "plucky-otter-3", "finished", "8", "2", "4"]
    assert row.endswith("loss=0.25")
    assert door.asked[-1][1]["filters"] == ['{"state": "finished"}']


def test_without_a_project_the_projects_are_listed(door: ReadDoor, capsys: pytest.CaptureFixture[str]) -> None:
    door.answers["/api/v1/projects"] = {"projects": [{"entity": "local", "project": "demo", "runs": 3, "last_active_us": 1}]}

    assert main(["runs", "--base-url", door.url]) == OK

    assert "local/demo" in capsys.readouterr().out


@pytest.fixture
def exported(door: ReadDoor) -> ReadDoor:
    door.answers[door.run_path] = door.run
    door.answers[door.run_path + "/metrics"] = {"metrics": [{"name": "a"}, {"name": "list"}]}
    door.answers[door.run_path + "/scan"] = door.frame(
        0, [["a", 1, None, door.f64(0.1, math.nan)], ["list", 7, b"\1", [msgpack.packb([1, math.inf])]]]
    )
    return door


def test_export_writes_every_row_as_csv(exported: ReadDoor, tmp_path: Path) -> None:
    file = tmp_path / "run.csv"

    assert main(["export", "demo/x1", "--base-url", exported.url, "-o", str(file)]) == OK

    assert file.read_text().splitlines() == [
        "_step,_timestamp,_runtime,a,list",
        '0,1700000000.25,0.25,0.1,"[1, ""Infinity""]"',
        "1,1700000001.25,1.25,nan,",
    ]


def test_export_writes_json_lines_that_any_reader_takes(exported: ReadDoor, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "demo/x1", "--base-url", exported.url, "--format", "jsonl"]) == OK

    def refuse(text: str) -> Any:
        raise AssertionError(f"{text} is no JSON")

    rows = [json.loads(line, parse_constant=refuse) for line in capsys.readouterr().out.splitlines()]
    assert [row["a"] for row in rows] == [0.1, "NaN"]


def test_an_export_that_fails_leaves_no_half_file(exported: ReadDoor, tmp_path: Path) -> None:
    scan = exported.run_path + "/scan"
    exported.answers[scan] = exported.answers[scan][:-3]

    assert main(["export", "demo/x1", "--base-url", exported.url, "-o", str(tmp_path / "run.csv")]) == PROBLEM

    assert [path.name for path in tmp_path.iterdir() if "run.csv" in path.name] == []


def test_export_of_a_run_that_does_not_exist_is_a_problem(door: ReadDoor, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "demo/nope", "--base-url", door.url]) == PROBLEM

    assert "Could not find run local/demo/nope" in capsys.readouterr().err


def test_parquet_without_a_library_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("runferry.cli.export.find_spec", lambda name: None)  # noqa: ARG005 - as importlib's

    assert main(["export", "demo/x1", "-o", str(tmp_path / "run.parquet")]) == WRONG_USAGE

    assert "pip install polars" in capsys.readouterr().err


def test_the_server_without_its_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class NothingInstalled:
        @staticmethod
        def find_spec(name: str, path: object = None, target: object = None) -> None:  # noqa: ARG004 - importlib's signature
            if name == "runferry.server.__main__":
                raise ModuleNotFoundError("No module named 'grpc'", name="grpc")

    monkeypatch.delitem(sys.modules, "runferry.server.__main__", raising=False)
    monkeypatch.setattr(sys, "meta_path", [NothingInstalled, *sys.meta_path])

    assert main(["server", "--help"]) == PROBLEM

    assert "grpc is missing: pip install 'runferry[server]'" in capsys.readouterr().err


def test_status_of_a_folder_without_journals_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(tmp_path)]) == OK

    assert "no journals in" in capsys.readouterr().out


def test_status_lists_a_live_and_a_finished_writer(capsys: pytest.CaptureFixture[str]) -> None:
    with runferry.init(mode="offline", project="demo", id="x1") as done:
        done.log({"a": 1})
    live = runferry.init(mode="offline", project="demo", id="x2")
    live.log({"a": 1})
    live.flush()
    capsys.readouterr()

    assert main(["status"]) == OK

    shown = capsys.readouterr().out
    states = {line.split()[0].split("/")[-1]: line.split()[2] for line in shown.splitlines() if line.startswith("local/demo/")}
    assert states == {"x1": "finished", "x2": "writing"}


def test_journal_cat_stats_and_fsck_read_a_whole_journal(capsys: pytest.CaptureFixture[str]) -> None:
    with runferry.init(mode="offline") as run:
        run.log({"a": 1})
    capsys.readouterr()

    assert main(["journal", "cat", run.dir]) == OK
    kinds = [line.split()[1].lower() for line in capsys.readouterr().out.splitlines()]
    assert main(["journal", "stats", "runferry"]) == OK
    stats = capsys.readouterr().out
    assert main(["journal", "fsck", "runferry"]) == OK
    checked = capsys.readouterr().out

    assert kinds == ["open", "receipt", "data", "finish"]
    assert "1 rows" in stats
    assert "whole" in checked


@pytest.mark.parametrize("frame", ["open", "receipt", "data"])
def test_journal_fsck_finds_a_flipped_bit_and_exits_1(tmp_path: Path, capsys: pytest.CaptureFixture[str], frame: str) -> None:
    with runferry.init(mode="offline") as run:
        run.log({"a": 1})
    [segment] = tmp_path.rglob("seg-*.rfj")
    data = bytearray(segment.read_bytes())
    start = 0
    for _ in range(["open", "receipt", "data"].index(frame)):
        start += 64 + -(-int.from_bytes(data[start + 8 : start + 12], "little") // 8) * 8
    data[start + 64] ^= 1
    segment.write_bytes(data)
    capsys.readouterr()

    assert main(["journal", "fsck", str(tmp_path)]) == PROBLEM

    told = capsys.readouterr().out
    assert "damaged" in told
    assert str(segment) in told


def test_tables_sizes_and_ages_read_well() -> None:
    assert table(("A", "N"), [["x\ny", "1"], ["long", "23"]], right=("N",)) == "A      N\nx y    1\nlong  23\n"
    assert [size(value) for value in (0, 1023, 1024, 5 << 20, 3 << 30)] == ["0 B", "1023 B", "1.0 KiB", "5.0 MiB", "3.0 GiB"]
    assert [age(value) for value in (5, 90, 7200, 86400 * 3)] == ["5 s", "2 min", "2 h", "3 d"]
