"""Forks: the parent goes on unharmed, a child that logs is a writer of its own, and neither ever waits for a thread that is not there."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support import stored
from tests.support.effort import effort, record
from tests.support.interpreters import interpreters
from tests.support.trainers import command
from tests.support.watched import watched

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.servers import RunningServer

# Rows of 3 kB keep a ring of 64 KiB full, so that at every fork some thread holds, or waits for, what a child must not touch.
STORM = """
import faulthandler, os, signal, sys, threading, time, warnings
import runferry
from runferry import log as kept_before
warnings.simplefilter("ignore")  # Python 3.12 warns of forks beside threads: they are the point
faulthandler.register(signal.SIGUSR1, all_threads=True)
forks = int(sys.argv[1])
run = runferry.init(project="forks", id=sys.argv[2], mode="offline", settings={"silent": True, "ring_bytes": 65536})
kept = run.log
logged = [0, 0]
over = threading.Event()

def work(index):
    while not over.is_set():
        run.log({f"parent/{index}": logged[index], "pad": "x" * 3000})
        logged[index] += 1

def child(number):
    kind = number % 8
    if kind == 0:
        kept({"child": number}, step=10**9 + number)
        run.finish(timeout=0)
    elif kind == 1:
        runferry.log({"child": number}, step=10**9 + number)
    elif kind == 2:
        kept_before({"child": number}, step=10**9 + number)
        runferry.summary["seen"] = number
    elif kind == 3:
        run.status(), run.step, run.summary.get("n"), run.dir
        sys.exit(0)  # to the end of the interpreter, with what it has inherited
    os._exit(0)

threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
for thread in threads:
    thread.start()
for number in range(1, forks + 1):
    pid = os.fork()
    if pid == 0:
        child(number)
    deadline = time.monotonic() + 40
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            break
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGUSR1)
            time.sleep(1)
            os.kill(pid, signal.SIGKILL)
            over.set()
            sys.exit(f"child {number} hangs")
        time.sleep(0.0005)
    if status:
        over.set()
        sys.exit(f"child {number} ended with {status}")
over.set()
for thread in threads:
    thread.join()
status = run.status()
run.finish()
print(*logged, status.dropped_rows)
"""


@pytest.mark.fault(62)
@pytest.mark.timeout(0 if "RUNFERRY_EFFORT_FORKS" in os.environ else 300)
@pytest.mark.parametrize("version", interpreters())
def test_a_fork_at_any_instant_of_logging_threads_leaves_parent_and_child_well(server: RunningServer, tmp_path: Path, version: str) -> None:
    forks = max(8, effort("forks", 400) // len(interpreters()))
    run_id = f"storm-{version}"

    ended = watched(
        STORM, tmp_path, python=interpreters()[version], arguments=[str(forks), run_id], hang_s=120 + forks / 5, base_url=server.url
    )

    assert ended.returncode == 0, ended.stderr + ended.stdout
    first, second, dropped = map(int, ended.stdout.split())
    synced = command(tmp_path, "sync", str(tmp_path / "runferry"), base_url=server.url)
    assert synced.returncode == 0, synced.stdout + synced.stderr
    path = f"local/forks/{run_id}"
    children = [row["child"] for row in stored.rows(server.url, path, keys=["child"])]
    assert children == [number for number in range(1, forks + 1) if number % 8 in {0, 1, 2}]
    assert len(stored.run(server.url, path).writers()) == 1 + len(children)
    kept = [[row[name] for row in stored.rows(server.url, path, keys=[name])] for name in ("parent/0", "parent/1")]
    assert all(values == sorted(set(values)) for values in kept), "out of order, or twice"
    assert sum(map(len, kept)) == first + second - dropped
    record(f"forks beside logging threads, Python {version}", forks=forks, parent_rows=first + second, dropped_rows=dropped)


LISTER = r"""
#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
/* Forks past Python and writes what the child's descriptors lead to into `out`. */
int fork_and_list(int out) {
    pid_t pid = fork();
    if (pid == 0) {
        DIR *dir = opendir("/proc/self/fd");
        for (struct dirent *entry; dir && (entry = readdir(dir));) {
            char link[300], target[4096];
            snprintf(link, sizeof link, "/proc/self/fd/%s", entry->d_name);
            ssize_t len = readlink(link, target, sizeof target - 1);
            if (len > 0) { target[len] = '\n'; write(out, target, len + 1); }
        }
        _exit(0);
    }
    int status = -1;
    waitpid(pid, &status, 0);
    return status;
}
"""
LISTING = """
import ctypes, os, runferry
run = runferry.init(project="forks", id="list", settings={"silent": True})
run.log({"a": 1})
assert run.flush(acked=True, timeout=30)
into, out = os.pipe()
assert ctypes.CDLL(os.path.abspath("lister.so")).fork_and_list(out) == 0
os.close(out)
print("CHILD", *os.fdopen(into).read().split("\\n"), sep="\\n")
links = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
print("PARENT", *(os.readlink(link) for link in links if os.path.lexists(link)), sep="\\n")
run.log({"a": 2})
"""


@pytest.mark.fault(62)
@pytest.mark.timeout(120)
def test_a_child_forked_past_python_has_none_of_our_files_and_connections(server: RunningServer, tmp_path: Path) -> None:
    if shutil.which("gcc") is None:
        pytest.skip("not run: no gcc for a fork that Python does not know of")
    (tmp_path / "lister.c").write_text(LISTER)
    subprocess.run(["gcc", "-shared", "-fPIC", "-w", "-o", "lister.so", "lister.c"], cwd=tmp_path, check=True)  # noqa: S607

    ended = watched(LISTING, tmp_path, base_url=server.url)

    assert ended.returncode == 0, ended.stderr
    child, _, parent = ended.stdout.partition("PARENT")
    own = str(tmp_path / "runferry")
    assert {"LOCK", "rfj"} <= {line.rsplit("/", 1)[1].rsplit(".", 1)[-1] for line in parent.split("\n") if line.startswith(own)}
    assert own not in child
    sockets = [line for line in parent.split("\n") if line.startswith("socket:")]
    assert sockets, "the parent is connected"
    assert [socket for socket in sockets if socket in child] == []
    assert "runferry-" not in child, "nor a ring"
    assert [row["a"] for row in stored.rows(server.url, "local/forks/list")] == [1, 2]


WORKERS = """
import os, sys, runferry
run = runferry.init(project="forks", id="workers", settings={"silent": True, "ring_bytes": 65536})
pids = []
for number in range(int(sys.argv[1])):
    pid = os.fork()
    if pid == 0:
        for row in range(10):
            runferry.log({f"worker/{number}": row})
        run.finish()
        os._exit(0)
    pids.append(pid)
    run.log({"parent": number})
sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids))
"""


@pytest.mark.fault(62)
@pytest.mark.timeout(300)
def test_64_workers_at_once_write_to_one_run(server: RunningServer, tmp_path: Path) -> None:
    workers = effort("workers", 64)

    ended = watched(WORKERS, tmp_path, arguments=[str(workers)], hang_s=200, base_url=server.url)

    assert ended.returncode == 0, ended.stderr
    stored.wait_for_state(server.url, "local/forks/workers", "finished")
    rows = stored.rows(server.url, "local/forks/workers")
    for number in range(workers):
        assert [row[f"worker/{number}"] for row in rows if f"worker/{number}" in row] == list(range(10))
    assert [row["parent"] for row in rows if "parent" in row] == list(range(workers))
    assert stored.run(server.url, "local/forks/workers").stored["writers"] == workers + 1


LOADER = """
import os, sys
import runferry
try:
    from torch.utils.data import DataLoader, Dataset
except ImportError:
    Dataset = object

class Data(Dataset):
    def __len__(self):
        return 64
    def __getitem__(self, index):
        run.log({"loaded": index}, step=index)
        return index, run.status().ignored_rows

run = runferry.init(project="forks", id="loader-" + sys.argv[1], settings={"silent": True, "forked_children": sys.argv[1]})
data = Data()
if Dataset is object:
    import multiprocessing
    with multiprocessing.get_context("fork").Pool(8) as pool:
        seen = pool.map(data.__getitem__, range(64), chunksize=8)
        pool.close()
        pool.join()
else:
    seen = [pair for batch in DataLoader(data, batch_size=8, num_workers=8) for pair in zip(*(part.tolist() for part in batch))]
run.log({"trained": len(seen)}, step=100)
print("torch" if Dataset is not object else "multiprocessing.Pool(8), as torch is not installed", max(ignored for _, ignored in seen))
"""


@pytest.mark.fault(62)
@pytest.mark.timeout(240)
@pytest.mark.parametrize(("choice", "rows", "ignored"), [("write", 64, 0), ("ignore", 0, 8)])
def test_workers_of_a_data_loader_write_to_the_run_or_are_ignored_and_counted(
    server: RunningServer, tmp_path: Path, choice: str, rows: int, ignored: int
) -> None:
    ended = watched(LOADER, tmp_path, arguments=[choice], hang_s=120, base_url=server.url)

    assert ended.returncode == 0, ended.stderr
    loader, _, counted = ended.stdout.strip().rpartition(" ")
    assert (int(counted) >= ignored, int(counted) > 0) == (True, ignored > 0)
    synced = command(tmp_path, "sync", str(tmp_path / "runferry"), base_url=server.url)
    assert synced.returncode == 0, synced.stdout + synced.stderr
    path = f"local/forks/loader-{choice}"
    found = stored.rows(server.url, path)
    assert [row["loaded"] for row in found if "loaded" in row] == list(range(rows))
    assert [row["trained"] for row in found if "trained" in row] == [64]
    record(f"workers of a data loader, forked_children={choice}", loader=loader, rows=rows, ignored_by_one=int(counted))


SPAWNING = """
import os, subprocess, sys, threading, runferry
run = runferry.init(project="forks", id="spawning", settings={"silent": True})
count, over = [0], threading.Event()
def work():
    while not over.is_set():
        run.log({"n": count[0]})
        count[0] += 1
        over.wait(0.0005)
thread = threading.Thread(target=work)
thread.start()
for _ in range(int(sys.argv[1])):
    subprocess.run(["true"], check=True)
    subprocess.run(["true"], check=True, close_fds=False)
    subprocess.run(["true"], check=True, preexec_fn=lambda: None)  # this way Python forks and runs its hooks
    os.waitpid(os.posix_spawn("/bin/true", ["true"], os.environ), 0)
    assert os.system("true") == 0
over.set()
thread.join()
run.finish()
print(count[0])
"""


@pytest.mark.fault(63)
@pytest.mark.timeout(120)
def test_processes_started_from_a_training_do_not_touch_it(server: RunningServer, tmp_path: Path) -> None:
    ended = watched(SPAWNING, tmp_path, arguments=[str(effort("spawns", 20))], base_url=server.url)

    assert ended.returncode == 0, ended.stderr
    assert [row["n"] for row in stored.rows(server.url, "local/forks/spawning")] == list(range(int(ended.stdout)))
    assert stored.run(server.url, "local/forks/spawning").stored["writers"] == 1


EXEC = """
import os, sys, runferry
run = runferry.init(project="forks", id=sys.argv[1], settings={"silent": True})
run.log({"before": 1} if sys.argv[1] == "exec-1" else {"after": 1})
if sys.argv[1] == "exec-1":
    os.execv(sys.executable, [sys.executable, "-c", sys.argv[2], "exec-2", ""])
"""


@pytest.mark.fault(63)
@pytest.mark.timeout(120)
def test_what_a_process_logged_before_exec_is_sent_by_the_program_it_becomes(server: RunningServer, tmp_path: Path) -> None:
    ended = watched(EXEC, tmp_path, arguments=["exec-1", EXEC], base_url=server.url)

    assert ended.returncode == 0, ended.stderr
    stored.wait_for_state(server.url, "local/forks/exec-2", "finished")
    assert [row["after"] for row in stored.rows(server.url, "local/forks/exec-2")] == [1]
    synced = command(tmp_path, "sync", str(tmp_path / "runferry"), base_url=server.url)  # had the second ended before it had sent all
    assert synced.returncode == 0, synced.stdout + synced.stderr
    assert [row["before"] for row in stored.rows(server.url, "local/forks/exec-1")] == [1]


VFORK = r"""
#include <sys/wait.h>
#include <unistd.h>
int vforked(void) {
    pid_t pid = vfork();
    if (pid == 0) _exit(7);
    int status = -1;
    waitpid(pid, &status, 0);
    return status >> 8;
}
"""


@pytest.mark.fault(63)
@pytest.mark.timeout(120)
def test_a_vfork_runs_no_handler_and_leaves_the_parent_its_files(tmp_path: Path) -> None:
    if shutil.which("gcc") is None:
        pytest.skip("not run: no gcc for a vfork")
    (tmp_path / "vforked.c").write_text(VFORK)
    subprocess.run(["gcc", "-shared", "-fPIC", "-w", "-o", "vforked.so", "vforked.c"], cwd=tmp_path, check=True)  # noqa: S607
    code = """
import ctypes, os, runferry
run = runferry.init(project="forks", id="vfork", mode="offline", settings={"silent": True})
run.log({"a": 1})
assert ctypes.CDLL(os.path.abspath("vforked.so")).vforked() == 7
run.log({"a": 2})
assert run.flush(durable=True)
assert run.status().journaled_frames > 0 and run.status().ignored_rows == 0
"""

    ended = watched(code, tmp_path)

    assert ended.returncode == 0, ended.stderr
    assert "2 rows" in command(tmp_path, "journal", "fsck", str(tmp_path / "runferry")).stdout
