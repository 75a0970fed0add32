"""The `runferry` command as a user types it, against a real server and real journals."""

from __future__ import annotations

import csv
import io
import json
import math
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import runferry

from tests.support import stored
from tests.support.trainers import client_environment, command

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.servers import RunningServer

COMMANDS = ("server", "login", "runs", "export", "status", "sync", "journal")
ROWS: list[dict[str, Any]] = [
    {"loss": 0.1, "n": 2**53 + 1, "text": 'a "quoted", line\nand another', "ok": True},
    {"loss": math.nan, "list": [1, "x"]},
    {"loss": -math.inf, "deep": {"a": -0.0}},
    {"loss": 1, "none": None},
]


def a_run(server: RunningServer, folder: Path, project: str) -> str:
    """A finished run of `ROWS`; its path."""
    run = runferry.init(
        project=project, id="r", dir=folder, config={"lr": 0.1}, group="g", settings={"base_url": server.url, "silent": True}
    )
    for row in ROWS:
        run.log(row)
    run.finish()
    stored.wait_for_state(server.url, run.path, "finished")
    return run.path


def test_help_is_there_for_every_command_and_names_an_example(tmp_path: Path) -> None:
    top = command(tmp_path, "--help")
    assert top.returncode == 0
    for name in COMMANDS:
        assert name in top.stdout
        found = command(tmp_path, name, "--help")
        assert (found.returncode, found.stderr) == (0, "")
        assert "example" in found.stdout
        assert f"runferry {name}" in found.stdout
    assert "exit codes" in top.stdout
    assert command(tmp_path, "--version").stdout.startswith("runferry ")


@pytest.mark.parametrize(
    "words",
    [(), ("nonsense",), ("export",), ("sync",), ("sync", "nowhere"), ("journal", "cat"), ("journal", "chew", "."),
     ("journal", "fsck", "nowhere"), ("runs", "a/b/c/d"), ("runs", "local/x", "--filters", "{"), ("login", "not a url"),
     ("export", "local/x/y", "--format", "parquet")],
)  # fmt: skip
def test_a_wrong_command_line_ends_with_2_and_a_word_on_stderr(server: RunningServer, tmp_path: Path, words: tuple[str, ...]) -> None:
    found = command(tmp_path, *words, base_url=server.url)

    assert found.returncode == 2, (found.stdout, found.stderr)
    assert found.stderr
    assert "Traceback" not in found.stderr


def test_login_keeps_the_address_for_everything_after_it(server: RunningServer, tmp_path: Path) -> None:
    found = command(tmp_path, "login", server.url + "/")

    assert found.returncode == 0, found.stderr
    assert server.url in found.stdout
    path = a_run(server, tmp_path, "after-login")
    listed = command(tmp_path, "runs", "local/after-login")
    assert listed.returncode == 0, listed.stderr
    assert path.rsplit("/", 1)[1] in listed.stdout


def test_a_key_from_standard_input_is_kept_for_its_owner_alone(server: RunningServer, tmp_path: Path) -> None:
    found = command(tmp_path, "login", server.url, "--key-stdin", text_in="secret-key-0123456789-0123456789-0123456789\n")

    assert found.returncode == 0, found.stderr
    assert "secret" not in found.stdout + found.stderr
    kept = tmp_path / "config" / "settings"
    assert "secret-key" in kept.read_text()
    assert kept.stat().st_mode & 0o077 == 0


def test_runs_lists_projects_and_runs_with_filters_and_as_json(server: RunningServer, tmp_path: Path) -> None:
    path = a_run(server, tmp_path, "listed")

    projects = command(tmp_path, "runs", base_url=server.url)
    runs = command(tmp_path, "runs", "local/listed", base_url=server.url)
    none = command(tmp_path, "runs", "local/listed", "--filters", '{"config.lr": {"$gt": 1}}', base_url=server.url)
    as_json = command(tmp_path, "runs", "listed", "--json", "--filters", '{"config.lr": 0.1}', base_url=server.url)

    assert "local/listed" in projects.stdout
    head, line = runs.stdout.splitlines()
    assert head.split()[:4] == ["ID", "NAME", "STATE", "STEPS"]
    assert line.split()[0] == "r"
    assert "finished" in line
    assert len(none.stdout.splitlines()) == 1
    found = json.loads(as_json.stdout)
    assert "/".join([found["entity"], found["project"], found["id"]]) == path
    assert (found["rows"], found["config"], found["group"]) == (4, {"lr": 0.1}, "g")


def test_export_to_csv_holds_every_cell(server: RunningServer, tmp_path: Path) -> None:
    path = a_run(server, tmp_path, "exported")

    found = command(tmp_path, "export", path, "-o", "run.csv", base_url=server.url)

    assert (found.returncode, found.stdout) == (0, ""), found.stderr
    rows = list(csv.DictReader(io.StringIO((tmp_path / "run.csv").read_text(), newline="")))
    assert [row["_step"] for row in rows] == ["0", "1", "2", "3"]
    assert (rows[0]["loss"], rows[0]["n"], rows[0]["text"], rows[0]["ok"]) == ("0.1", str(2**53 + 1), ROWS[0]["text"], "true")
    assert (rows[1]["loss"], rows[1]["list"], rows[2]["loss"], rows[2]["deep.a"], rows[3]["loss"]) == (
        "nan",
        '[1, "x"]',
        "-inf",
        "-0.0",
        "1",
    )
    assert [path.name for path in tmp_path.glob(".run.csv*")] == []


def test_export_to_json_lines_is_json_on_every_line(server: RunningServer, tmp_path: Path) -> None:
    path = a_run(server, tmp_path, "lines")

    whole = command(tmp_path, "export", path, "--format", "jsonl", base_url=server.url)
    part = command(
        tmp_path, "export", path, "--format", "jsonl", "--keys", "loss", "--min-step", "1", "--max-step", "3", base_url=server.url
    )

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    rows = [json.loads(line, parse_constant=refuse) for line in whole.stdout.splitlines()]
    own = [{name: value for name, value in row.items() if not name.startswith("_")} for row in rows]
    assert own == [ROWS[0], {"loss": "NaN", "list": [1, "x"]}, {"loss": "-Infinity", "deep.a": -0.0}, {"loss": 1, "none": None}]
    assert [(row["_step"], row["loss"]) for row in map(json.loads, part.stdout.splitlines())] == [(1, "NaN"), (2, "-Infinity")]


def test_export_of_a_run_that_is_not_there_ends_with_1_and_leaves_no_file(server: RunningServer, tmp_path: Path) -> None:
    found = command(tmp_path, "export", "local/nope/nope", "-o", "x.csv", base_url=server.url)

    assert found.returncode == 1
    assert "local/nope/nope" in found.stderr
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".csv")] == []


def test_status_journal_and_sync_tell_the_story_of_an_offline_run(server: RunningServer, tmp_path: Path) -> None:
    run = runferry.init(project="story", id="offline", mode="offline", settings={"silent": True})
    for row in ROWS:
        run.log(row)
    live = command(tmp_path, "status")
    run.finish()
    waiting = command(tmp_path, "status")
    listed = command(tmp_path, "journal", "cat", run.dir)
    counted = command(tmp_path, "journal", "stats", "runferry")
    checked = command(tmp_path, "journal", "fsck", "runferry")
    dry = command(tmp_path, "sync", "runferry", "--dry-run", base_url=server.url)
    nowhere = command(tmp_path, "sync", "runferry")
    sent = command(tmp_path, "sync", "runferry", base_url=server.url)
    again = command(tmp_path, "sync", ".", base_url=server.url)
    after = command(tmp_path, "status")

    assert "writing" in live.stdout
    assert "finished" in waiting.stdout
    assert "runferry sync" in waiting.stdout
    assert [line.split()[1] for line in listed.stdout.splitlines()] == ["open", "receipt", "data", "finish"]
    assert "4 rows" in counted.stdout
    assert (checked.returncode, "whole" in checked.stdout) == (0, True)
    assert "local/story/offline" in dry.stdout
    assert nowhere.returncode == 1
    assert "no server is known" in nowhere.stdout + nowhere.stderr
    assert (sent.returncode, "complete" in sent.stdout) == (0, True), sent.stdout + sent.stderr
    assert (again.returncode, "complete" in again.stdout) == (0, True)
    assert "runferry sync" not in after.stdout
    assert len(stored.rows(server.url, run.path)) == 4


def test_an_empty_folder_is_told_apart_from_a_wrong_one(server: RunningServer, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    status = command(tmp_path, "status", "empty")
    synced = command(tmp_path, "sync", "empty", base_url=server.url)

    assert (status.returncode, "no journals" in status.stdout) == (0, True)
    assert (synced.returncode, "no journals" in synced.stdout) == (0, True)


def test_a_closed_pipe_behind_a_command_is_no_error(server: RunningServer, tmp_path: Path) -> None:
    run = runferry.init(project="pipe", id="long", dir=tmp_path, settings={"base_url": server.url, "silent": True})
    for number in range(20_000):
        run.log({"n": number})
    run.finish()
    words = [sys.executable, "-m", "runferry.cli", "export", run.path]

    found = subprocess.run(  # noqa: S602 - a pipe is the point
        " ".join(words) + " | head -n 2", shell=True, cwd=tmp_path, env=client_environment(tmp_path, base_url=server.url),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert len(found.stdout.splitlines()) == 2
    assert "Traceback" not in found.stderr
    assert found.stderr == ""
