"""Spawned children, pools, a launcher's ranks, notebooks: processes of one training that share no memory write to one run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support import stored
from tests.support.interpreters import interpreters
from tests.support.trainers import command
from tests.support.watched import watched

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.servers import RunningServer

# A module, as spawned children import what they run.
WORK = """
import multiprocessing, os, sys
from concurrent.futures import ProcessPoolExecutor
import runferry

def logs(run, number):
    run.log({f"child/{number}": number}, step=5 + number)
    assert runferry.run is run, "the run of the process, if it has no other"
    runferry.log({f"child/{number}/again": number})
    run.summary[f"seen/{number}"] = number
    return os.getpid(), run.status().ignored_rows

def begins(number):
    run = runferry.init(project="spawns", id=sys.argv[1], settings={"silent": True})
    run.log({f"child/{number}": number, f"child/{number}/again": number}, step=5 + number)
    return os.getpid(), run.status().ignored_rows

def main():
    run_id, method, way = sys.argv[1:4]
    context = multiprocessing.get_context(method)
    if way == "preload":
        context.set_forkserver_preload(["runferry", "runferry._native", "work"])
    run = runferry.init(project="spawns", id=run_id, config={"lr": 0.1}, settings={"silent": True, "forked_children": sys.argv[4]})
    run.log({"parent": 0})
    if way == "process":
        children = [context.Process(target=logs, args=(run, number)) for number in range(2)]
        for child in children: child.start()
        for child in children: child.join()
        assert [child.exitcode for child in children] == [0, 0]
    elif way == "pool":
        with context.Pool(2) as pool:
            print(max(ignored for _, ignored in pool.starmap(logs, [(run, number) for number in range(2)], chunksize=1)))
            pool.close()
            pool.join()
    elif way == "executor":
        with ProcessPoolExecutor(2, mp_context=context) as pool:
            list(pool.map(logs, [run, run], range(2)))
    else:  # by init with the id of the run
        children = [context.Process(target=begins, args=(number,)) for number in range(2)]
        for child in children: child.start()
        for child in children: child.join()
        assert [child.exitcode for child in children] == [0, 0]
    run.log({"parent": 1}, step=20)
"""
MAIN = "import work; work.main()"


def combinations() -> list[tuple[str, str, str]]:
    """Start method, way to the run, Python version: the first two ways with all versions, the others with one each."""
    versions = list(interpreters())
    in_all = [("spawn", "process"), ("forkserver", "pool")]
    in_one = [("fork", "pool"), ("spawn", "executor"), ("spawn", "init"), ("forkserver", "preload")]
    each = [(*ways, versions[place % len(versions)]) for place, ways in enumerate(in_one)]
    return [(*ways, version) for ways in in_all for version in versions] + each


@pytest.mark.fault(64)
@pytest.mark.timeout(240)
@pytest.mark.parametrize(("method", "way", "version"), combinations())
def test_children_of_every_start_method_are_writers_of_the_same_run(
    server: RunningServer, tmp_path: Path, method: str, way: str, version: str
) -> None:
    run_id = f"{method}-{way}-{version}"
    (tmp_path / "work.py").write_text(WORK)

    arguments = [run_id, method, way, "write"]
    ended = watched(MAIN, tmp_path, python=interpreters()[version], arguments=arguments, base_url=server.url)

    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    synced = command(tmp_path, "sync", str(tmp_path / "runferry"), base_url=server.url)  # what pools end by SIGTERM
    assert synced.returncode == 0, synced.stdout + synced.stderr
    path = f"local/spawns/{run_id}"
    found = [{name: row[name] for name in row if not name.startswith("_")} for row in stored.rows(server.url, path)]
    expected = {"parent": 0, "child/0": 0, "child/0/again": 0, "child/1": 1, "child/1/again": 1}
    assert {name: value for row in found for name, value in row.items()} == {**expected, "parent": 1}
    assert sum(map(len, found)) == len(expected) + 1, "nothing is stored twice"
    run = stored.run(server.url, path)
    writers = {writer["writer_id"] for writer in run.writers()}
    assert len(writers) in ({2, 3} if way in {"pool", "executor"} else {3}), "one worker of a pool may take both"
    assert run.config == {"lr": 0.1}


TASKS = """
import multiprocessing, runferry
def logs(run, number):
    run.log({"task": number})
    return id(run)
def main():
    run = runferry.init(project="spawns", id="tasks", settings={"silent": True})
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(len(set(pool.starmap(logs, [(run, number) for number in range(20)], chunksize=1))))
        pool.close()
        pool.join()
"""


@pytest.mark.fault(64)
@pytest.mark.timeout(120)
def test_a_worker_that_gets_the_run_with_every_task_is_one_writer(server: RunningServer, tmp_path: Path) -> None:
    (tmp_path / "work.py").write_text(TASKS)

    ended = watched(MAIN, tmp_path, base_url=server.url)

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "1\n", "")
    assert sorted(row["task"] for row in stored.rows(server.url, "local/spawns/tasks")) == list(range(20))
    assert stored.run(server.url, "local/spawns/tasks").stored["writers"] == 2


@pytest.mark.fault(64)
@pytest.mark.timeout(120)
def test_spawned_workers_are_ignored_and_counted_where_that_is_wanted(server: RunningServer, tmp_path: Path) -> None:
    (tmp_path / "work.py").write_text(WORK)

    ended = watched(MAIN, tmp_path, arguments=["ignored", "spawn", "pool", "ignore"], base_url=server.url)

    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) >= 2
    assert [row["parent"] for row in stored.rows(server.url, "local/spawns/ignored")] == [0, 1]
    assert stored.run(server.url, "local/spawns/ignored").stored["writers"] == 1


LAUNCHER = """
import os, signal, subprocess, sys
RANK = '''
import os, sys, runferry
rank, attempt = int(os.environ["RANK"]), os.environ["ATTEMPT"]
run = runferry.init(settings={"silent": True})
for number in range(200):
    runferry.log({f"rank/{rank}/{attempt}": number}, step=number)
if (rank, attempt) == (2, "0"):
    os.kill(os.getpid(), 9)
'''
environment = {**os.environ, "RUNFERRY_RUN_ID": sys.argv[1], "RUNFERRY_PROJECT": "spawns", "WORLD_SIZE": "4"}
for attempt, expected in (("0", [0, 0, -signal.SIGKILL, 0]), ("1", [0, 0, 0, 0])):  # a rank dies, all are started again
    ranks = [
        subprocess.Popen([sys.executable, "-c", RANK], env={**environment, "RANK": str(rank), "ATTEMPT": attempt}) for rank in range(4)
    ]
    codes = [rank.wait() for rank in ranks]
    assert codes == expected, codes
"""


@pytest.mark.fault(64)
@pytest.mark.timeout(240)
def test_ranks_of_a_launcher_write_to_one_run_also_when_one_dies_and_all_are_started_again(server: RunningServer, tmp_path: Path) -> None:
    ended = watched(LAUNCHER, tmp_path, arguments=["ranks"], hang_s=120, base_url=server.url)

    assert ended.returncode == 0, ended.stderr
    synced = command(tmp_path, "sync", str(tmp_path / "runferry"), base_url=server.url)
    assert synced.returncode == 0, synced.stdout + synced.stderr
    rows = stored.rows(server.url, "local/spawns/ranks")
    for name in (f"rank/{rank}/{attempt}" for rank in range(4) for attempt in range(2)):
        assert [row[name] for row in rows if name in row] == list(range(200)), name
    assert stored.run(server.url, "local/spawns/ranks").stored["writers"] == 8


NOTEBOOK = """
import os, sys, types
class Shell:
    config = {"IPKernelApp": {}}
sys.modules["IPython"] = types.SimpleNamespace(get_ipython=Shell)  # what init asks to know that it is in a kernel
import runferry

def cell(run_id, rows):  # as a user runs a cell again and again, `finish` forgotten
    run = runferry.init(project="spawns", id=run_id, config={"lr": rows}, settings={"silent": True})
    run.config.lr = 2 * rows  # allowed in notebooks
    for number in range(rows):
        runferry.log({"n": number})
    return run

cells = [cell(f"cell-{number}", 10) for number in range(5)]
assert runferry.run is cells[-1]
try:
    cells[0].log({"n": -1})
except runferry.UsageError:
    pass
else:
    raise AssertionError("a run that a later cell has ended takes nothing")
before = runferry.log
pid = os.fork()
if pid == 0:  # a child of the kernel begins a run of its own
    cell("of-a-child", 7)
    runferry.finish()
    os._exit(0 if runferry.run is None else 1)
assert os.waitpid(pid, 0)[1] == 0
assert runferry.run is cells[-1] and runferry.log is before, "the kernel's run goes on"
runferry.log({"n": 10})
again = cell("cell-0", 3)  # a run that was finished is written to anew
again.finish()
"""


@pytest.mark.fault(64)
@pytest.mark.timeout(120)
@pytest.mark.filterwarnings("ignore")
def test_a_notebook_that_begins_run_after_run_keeps_each_and_so_does_a_child_of_its_kernel(server: RunningServer, tmp_path: Path) -> None:
    ended = watched(NOTEBOOK, tmp_path, base_url=server.url)

    assert ended.returncode == 0, ended.stderr
    numbers = {
        run_id: [row["n"] for row in stored.rows(server.url, f"local/spawns/{run_id}")]
        for run_id in ("cell-1", "cell-2", "cell-3", "cell-4", "of-a-child")
    }
    ten = list(range(10))
    assert numbers == {"cell-1": ten, "cell-2": ten, "cell-3": ten, "cell-4": [*ten, 10], "of-a-child": list(range(7))}
    for run_id in numbers:
        assert stored.run(server.url, f"local/spawns/{run_id}").state == "finished", run_id
        assert stored.run(server.url, f"local/spawns/{run_id}").stored["writers"] == 1
    assert stored.run(server.url, "local/spawns/cell-0").stored["writers"] == 2
