"""A process that ends without `finish`: rows kept, exit code recorded, and the process's own exit code untouched."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.conftest import Journals

TIMEOUT_S = 60


def run_script(body: str, folder: Path) -> subprocess.CompletedProcess[str]:
    script = "import os, sys, runferry\nrun = runferry.init(mode='offline', id='x1')\nrun.log({'a': 1})\n" + body
    return subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)


@pytest.mark.fault(66)
@pytest.mark.parametrize(
    ("body", "process_code", "run_code"),
    [
        ("", 0, 0),
        ("sys.exit()", 0, 0),
        ("sys.exit(7)", 7, 7),
        ("sys.exit('a message')", 1, 1),
        ("sys.exit(None)", 0, 0),
        ("raise ValueError('boom')", 1, 1),
        ("raise KeyboardInterrupt", -signal.SIGINT, 255),
        ("sys.excepthook = lambda *a: None\nraise ValueError", 1, 0),
        ("run.finish(exit_code=3)\nsys.exit(4)", 4, 3),
        ("import threading\nt = threading.Thread(target=lambda: 1 / 0)\nt.start()\nt.join()", 0, 0),
    ],
)
def test_the_exit_code_is_recorded_and_not_changed(body: str, process_code: int, run_code: int, tmp_path: Path, journals: Journals) -> None:
    ended = run_script(body, tmp_path)

    assert ended.returncode == process_code, ended.stderr
    assert journals.rows() == {0: {"a": 1}}
    assert [document["exit_code"] for document in journals.documents("finish")] == [run_code]


def test_an_uncaught_exception_is_still_printed(tmp_path: Path) -> None:
    assert "ValueError: boom" in run_script("raise ValueError('boom')", tmp_path).stderr


@pytest.mark.fault(66)
def test_a_finish_that_fails_at_exit_is_said_and_changes_nothing(tmp_path: Path) -> None:
    ended = run_script("type(run).finish = lambda *a, **k: 1 / 0\nsys.exit(5)", tmp_path)

    assert ended.returncode == 5
    assert "run x1 was not finished at exit" in ended.stderr


@pytest.mark.fault(62)
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_that_logs_is_a_writer_of_its_own(tmp_path: Path, journals: Journals) -> None:
    body = (
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    run.log({'child': 1}, step=10)\n"
        "    runferry.log({'child': 2}, step=11)\n"
        "    sys.exit(9)\n"
        "assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9\n"
        "run.log({'a': 2})\n"
    )
    ended = run_script(body, tmp_path)

    assert ended.returncode == 0, ended.stderr
    assert journals.rows() == {0: {"a": 1}, 1: {"a": 2}, 10: {"child": 1}, 11: {"child": 2}}
    opened = journals.documents("open")
    assert len(opened) == 2
    assert sum("parent_writer" in document for document in opened) == 1
    assert sorted(document["exit_code"] for document in journals.documents("finish")) == [0, 9]


@pytest.mark.fault(62)
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_that_never_logs_leaves_no_trace(tmp_path: Path, journals: Journals) -> None:
    body = "pid = os.fork()\nif pid == 0:\n    sys.exit(9)\nassert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9\n"
    ended = run_script(body, tmp_path)

    assert ended.returncode == 0, ended.stderr
    assert len(journals.documents("open")) == 1
    assert [document["exit_code"] for document in journals.documents("finish")] == [0]
    assert ended.stderr.count("finished:") == 1


@pytest.mark.fault(64, 66)
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(("ending", "run_code"), [("pass", 0), ("sys.exit(6)", 6), ("raise ValueError", 1)])
def test_a_child_of_multiprocessing_finishes_its_writer(ending: str, run_code: int, tmp_path: Path, journals: Journals) -> None:
    body = (
        "import multiprocessing\n"
        "def work():\n"
        "    run.log({'child': 1}, step=10)\n"
        f"    {ending}\n"
        "child = multiprocessing.get_context('fork').Process(target=work)\n"
        "child.start()\n"
        "child.join()\n"
        f"assert child.exitcode == {run_code}\n"
    )
    ended = run_script(body, tmp_path)

    assert ended.returncode == 0, ended.stderr
    assert journals.rows() == {0: {"a": 1}, 10: {"child": 1}}
    assert sorted(document["exit_code"] for document in journals.documents("finish")) == sorted([0, run_code])
