"""How a training process ends: its exit code is its own, the server learns it, and nothing that was logged is missing."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from tests.support import stored
from tests.support.effort import effort
from tests.support.interpreters import interpreters
from tests.support.trainers import command, train
from tests.support.watched import watched

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.servers import RunningServer

BEGIN = """
import atexit, itertools, os, signal, sys, threading, time
import runferry
run = runferry.init(project="exits", id={run_id!r}, settings={{"silent": True}})
for number in range(100):
    run.log({{"n": number}})
"""
ENDINGS = {
    "return": ("", 0, "finished", 0),
    "sys-exit-0": ("sys.exit(0)", 0, "finished", 0),
    "sys-exit-7": ("sys.exit(7)", 7, "failed", 7),
    "sys-exit-text": ("sys.exit('no data')", 1, "failed", 1),
    "exception": ("raise ValueError('bad batch')", 1, "failed", 1),
    "ctrl-c": ("signal.raise_signal(signal.SIGINT)", -2, "failed", 255),
    "with-block": ("with run:\n    raise SystemExit(5)", 5, "failed", 5),
    "finish-1": ("run.finish(exit_code=1)", 0, "failed", 1),
    "finish-twice": ("run.finish()\nrun.finish(exit_code=9)", 0, "finished", 0),
    "finish-in-thread": ("t = threading.Thread(target=run.finish)\nt.start()\nt.join()", 0, "finished", 0),
    "atexit-log": ("atexit.register(lambda: run.log({'n': 100}))", 0, "finished", 0),
    "daemon-thread": (
        """
has_begun = threading.Event()
def log():
    for call in itertools.count():
        run.log({'n': -1}, step=200)
        if call == 100:
            has_begun.set()
threading.Thread(target=log, daemon=True).start()
has_begun.wait()
""",
        0, "finished", 0,
    ),
}  # fmt: skip


@pytest.mark.fault(66)
@pytest.mark.timeout(120)
@pytest.mark.parametrize("ending", ENDINGS)
def test_an_ending_keeps_its_exit_code_and_the_server_learns_it(server: RunningServer, tmp_path: Path, ending: str) -> None:
    code, process_code, state, run_code = ENDINGS[ending]

    ended = train(BEGIN.format(run_id=ending) + code, tmp_path, base_url=server.url)

    assert ended.returncode == process_code, ended.stderr
    stored.wait_for_state(server.url, f"local/exits/{ending}", state)
    assert stored.run(server.url, f"local/exits/{ending}").stored["exit_code"] == run_code
    expected = list(range(101 if ending == "atexit-log" else 100))
    assert [row["n"] for row in stored.rows(server.url, f"local/exits/{ending}") if row["n"] >= 0] == expected


@pytest.mark.fault(65, 66)
@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("ending", "code", "process_code"),
    [
        ("os-exit", "os._exit(3)", 3),
        ("abort", "os.abort()", -signal.SIGABRT),
        ("segfault", "import ctypes; ctypes.string_at(0)", -signal.SIGSEGV),
        ("sigterm", "os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)", -signal.SIGTERM),
        ("exec", "os.execv('/bin/true', ['true'])", 0),
    ],
)
def test_an_ending_that_runs_no_python_loses_nothing(
    server: RunningServer, tmp_path: Path, ending: str, code: str, process_code: int
) -> None:
    ended = train(BEGIN.format(run_id=ending) + code, tmp_path, base_url=server.url)

    assert ended.returncode == process_code, ended.stderr
    synced = command(tmp_path, "sync", str(tmp_path / "runferry"), base_url=server.url)
    assert synced.returncode == 0, synced.stdout + synced.stderr
    assert [row["n"] for row in stored.rows(server.url, f"local/exits/{ending}")] == list(range(100))
    found = stored.run(server.url, f"local/exits/{ending}")
    assert (found.state, found.stored["exit_code"]) == ("failed", None)


@pytest.mark.fault(64)
@pytest.mark.timeout(120)
def test_children_of_multiprocessing_write_to_the_run_and_end_quietly(server: RunningServer, tmp_path: Path) -> None:
    code = """
import multiprocessing, sys, runferry
run = runferry.init(project="exits", id="children", settings={"silent": True})
def work(number):
    run.log({f"child/{number}": number})
if __name__ == "__main__":
    run.log({"parent": 0})
    workers = [multiprocessing.get_context("fork").Process(target=work, args=(number,)) for number in range(3)]
    for worker in workers: worker.start()
    for worker in workers: worker.join()
    sys.exit(max(worker.exitcode for worker in workers))
"""
    ended = train(code, tmp_path, base_url=server.url)

    assert ended.returncode == 0, ended.stderr
    synced = command(tmp_path, "sync", str(tmp_path / "runferry"), base_url=server.url)
    assert synced.returncode == 0, synced.stdout + synced.stderr
    rows = stored.rows(server.url, "local/exits/children")
    found = {name: value for row in rows for name, value in row.items() if not name.startswith("_")}
    assert found == {"parent": 0, "child/0": 0, "child/1": 1, "child/2": 2}
    assert stored.run(server.url, "local/exits/children").stored["writers"] == 4


@pytest.mark.fault(62)
@pytest.mark.timeout(120)
def test_children_forked_one_behind_the_other_are_writers_of_their_own(server: RunningServer, tmp_path: Path) -> None:
    code = """
import os, runferry
run = runferry.init(project="exits", id="one-by-one", settings={"silent": True})
for number in range(4):
    child = os.fork()
    if child == 0:
        run.log({f"child/{number}": number})
        run.finish()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
"""
    ended = train(code, tmp_path, base_url=server.url)

    assert ended.returncode == 0, ended.stderr
    found = {name: value for row in stored.rows(server.url, "local/exits/one-by-one") for name, value in row.items()}
    assert {name: value for name, value in found.items() if name.startswith("child/")} == {f"child/{number}": number for number in range(4)}
    writers = stored.run(server.url, "local/exits/one-by-one").writers()
    assert len({writer["writer_id"] for writer in writers}) == 5
    assert sum(writer["duplicates"] for writer in writers) == 0


@pytest.mark.fault(66)
@pytest.mark.timeout(240)
@pytest.mark.parametrize("version", interpreters())
@pytest.mark.parametrize("log", ["run.log", "runferry.log"])
def test_threads_in_the_middle_of_slow_calls_at_the_exit_neither_crash_nor_complain(tmp_path: Path, version: str, log: str) -> None:
    """Lists and histograms are converted by Python code: a thread inside it while the interpreter goes away must not be unwound."""
    code = f"""
import itertools, threading, runferry
run = runferry.init(mode="offline", settings={{"silent": True}})
has_begun = threading.Semaphore(0)
def work():
    for call in itertools.count():
        {log}({{"list": [1, 2, 3], "histogram": runferry.Histogram([1.0, 2.0])}})
        if call == 20:
            has_begun.release()
for _ in range(4):
    threading.Thread(target=work, daemon=True).start()
for _ in range(4):
    has_begun.acquire()
"""
    for attempt in range(effort("exits", 1)):
        ended = watched(code, tmp_path, python=interpreters()[version])

        assert (ended.returncode, ended.stderr) == (0, ""), f"attempt {attempt}"
