"""Who takes over what a dead training left: one of many that try, whoever else is still alive, whatever its LOCK file says."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support import failpoints
from tests.support.kills import Killer, Recovery, Training
from tests.support.ledger import Issued, audit_all
from tests.support.trainers import Trainer, client_environment, command

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.servers import RunningServer

ADOPTERS = 8
CALLS = 64


@pytest.fixture
def killer(server: RunningServer, tmp_path: Path) -> Iterator[Killer]:
    """The warm process of this test."""
    with Killer(client_environment(tmp_path, base_url=server.url, failpoints=""), tmp_path) as warm:
        yield warm


def orphan(killer: Killer, root: Path, run_id: str, mode: str) -> Issued:
    """A training that died with records in its ring."""
    ended = killer.run(Training(str(root), run_id, mode, CALLS, 2, "pack.before_write=kill@3"))
    assert ended.was_killed
    return ended.issued


def lock_of(root: Path) -> Path:
    """The only journal's."""
    (lock,) = root.glob("runferry/*/*/LOCK")
    return lock


def ring_of(root: Path) -> Path:
    """The only journal's."""
    return Path("/dev/shm") / f"runferry-{lock_of(root).parent.name}.ring"  # noqa: S108 - where rings lie


BEGIN = """
import os, sys, time
import runferry
from runferry import _native
root, ring, url = {root!r}, {ring!r}, {url!r}
def wait():
    while os.path.exists(ring): time.sleep(0.001)
print("ready")
sys.stdin.readline()
"""
ADOPT = {
    "sync": "_native.sync([root + '/runferry'], url, None, lambda _: None)",
    "init": "run = runferry.init(project='adopters', dir=root, mode='online', settings={'silent': True})\nwait()\nrun.finish(timeout=60)",
    "server": "following = _native.Follower([root + '/runferry'], url)\nwait()\nfollowing.stop()",
}


@pytest.mark.fault(29)
@pytest.mark.timeout(180)
@pytest.mark.parametrize("by", ADOPT)
def test_of_eight_adopters_at_a_barrier_exactly_one_wins(server: RunningServer, killer: Killer, tmp_path: Path, by: str) -> None:
    root, trace = tmp_path / "root", tmp_path / "trace"
    issued = orphan(killer, root, f"adopted-by-{by}", "online" if by == "init" else "offline")
    code = BEGIN.format(root=str(root), ring=str(ring_of(root)), url=server.url) + ADOPT[by]
    adopters = []
    try:
        for number in range(ADOPTERS):
            folder = tmp_path / str(number)
            folder.mkdir()
            adopters.append(Trainer(code, folder, base_url=server.url, failpoints="", failpoints_trace=str(trace)))
        for adopter in adopters:
            adopter.wait_for("ready")
        for adopter in adopters:
            adopter.tell("go")
        for adopter in adopters:
            assert adopter.ended()[0] == 0, adopter.errors.read_text()
    finally:
        for adopter in adopters:
            adopter.__exit__(None, None, None)

    lines = [line.split() for line in trace.read_text().splitlines()]
    assert len({pid for pid, site in lines if site in {"adopt.upload", "adopt.follow"}}) == ADOPTERS, "all of them tried"
    assert len({pid for pid, site in lines if site == "recover.packed"}) == 1
    killer.run(Recovery((str(root),)))
    audit_all(server.url, [issued]).check()


TRAINING = """
import os, sys, time
sys.path.append({place!r})
import runferry
from tests.support.ledger import call
run = runferry.init(project="kills", id={run_id!r}, dir={root!r}, mode="offline", settings={{"silent": True}})
def log(first, last):
    for number in range(first, last):
        row, is_whole = call(0, number)
        run.log(row) if is_whole else run.log(row, commit=False)
log(0, 40)
"""


def training(run_id: str, root: Path) -> str:
    """A program that has logged 40 calls."""
    return TRAINING.format(place=str(failpoints.ROOT), run_id=run_id, root=str(root))


@pytest.mark.fault(30)
@pytest.mark.timeout(120)
def test_a_dead_training_is_adopted_while_a_worker_it_forked_lives_on(server: RunningServer, tmp_path: Path) -> None:
    root = tmp_path / "root"
    fork = """
worker = os.fork()
if worker == 0:
    for descriptor in (0, 1, 2):
        os.close(descriptor)
    time.sleep(600)
    os._exit(0)
log(40, 80)
print(worker, flush=True)
time.sleep(600)
"""
    with Trainer(training("with-worker", root) + fork, tmp_path, base_url=server.url) as trainer:
        worker = int(trainer.line())
        try:
            trainer.kill()
            synced = command(tmp_path, "sync", str(root / "runferry"), base_url=server.url)
            os.kill(worker, 0)  # it lives
        finally:
            os.kill(worker, signal.SIGKILL)

    assert synced.returncode == 0, synced.stdout + synced.stderr
    audit_all(server.url, [Issued("local/kills/with-worker", (80,))]).check()


def forged(lock: Path, what: str) -> str:
    """A LOCK file that tells stories."""
    fields = dict(line.split("=", 1) for line in lock.read_text().splitlines())
    if what == "a living process":
        fields |= {"pid": str(os.getpid()), "start_ticks": Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19]}
    elif what == "another boot":
        fields |= {"boot_id": "0" * 32}
    elif what == "another host":
        fields |= {"host": "elsewhere"}
    elif what == "a dead process":
        fields |= {"pid": "4194304", "start_ticks": "1"}
    text = "".join(f"{name}={value}\n" for name, value in fields.items())
    return {"nothing": "", "garbage": "\x00\xff=\n=\npid=-1\nstart_ticks=x\n"}.get(what, text)


@pytest.mark.fault(31)
@pytest.mark.timeout(120)
@pytest.mark.parametrize("what", ["a living process", "another boot", "another host", "nothing", "garbage"])
def test_a_lock_nobody_holds_is_free_whatever_its_file_says(server: RunningServer, killer: Killer, tmp_path: Path, what: str) -> None:
    root = tmp_path / "root"
    issued = orphan(killer, root, f"forged-{what.replace(' ', '-')}", "offline")
    lock_of(root).write_text(forged(lock_of(root), what), encoding="latin-1")

    synced = command(tmp_path, "sync", str(root / "runferry"), base_url=server.url)

    assert synced.returncode == 0, synced.stdout + synced.stderr
    audit_all(server.url, [issued]).check()


@pytest.mark.fault(31)
@pytest.mark.timeout(120)
@pytest.mark.parametrize("namespace", ["this", "another"])
def test_a_lock_somebody_holds_is_taken_whatever_its_file_says(server: RunningServer, tmp_path: Path, namespace: str) -> None:
    root = tmp_path / "root"
    run_id = f"held-in-{namespace}-namespace"
    code = (
        training(run_id, root) + "print('ready', flush=True)\nsys.stdin.readline()\nlog(40, 80)\nprint('done', flush=True)\ntime.sleep(600)"
    )
    if namespace == "another":
        unshare = ["unshare", "--pid", "--fork", "--kill-child=SIGKILL"]
        tried = subprocess.run([*unshare, "true"], capture_output=True, text=True, check=False) if shutil.which("unshare") else None
        if tried is None or tried.returncode:
            pytest.skip(f"not run: no pid namespace can be made: {tried.stderr if tried else 'unshare is not installed'}")
        code = f"import os, sys\nos.execvp('unshare', {unshare!r} + [sys.executable, '-u', '-c', {code!r}])"
    with Trainer(code, tmp_path, base_url=server.url) as trainer:
        trainer.wait_for("ready")
        if namespace == "this":
            lock_of(root).write_text(forged(lock_of(root), "a dead process"))
        while_alive = command(tmp_path, "sync", str(root / "runferry"), base_url=server.url)
        assert ring_of(root).exists(), "a living training keeps its ring"
        trainer.tell("go")
        trainer.wait_for("done")
        trainer.kill()

    synced = command(tmp_path, "sync", str(root / "runferry"), base_url=server.url)
    assert (while_alive.returncode, synced.returncode) == (0, 0), while_alive.stdout + synced.stdout + synced.stderr
    audit_all(server.url, [Issued(f"local/kills/{run_id}", (80,))]).check()
    assert not ring_of(root).exists()


@pytest.mark.fault(29)
@pytest.mark.timeout(120)
def test_an_adopter_that_meets_a_training_in_its_first_moment_does_not_stop_it(server: RunningServer, tmp_path: Path) -> None:
    root = tmp_path / "root"
    code = training("just-born", root) + "run.finish()\n"
    with Trainer(code, tmp_path, base_url=server.url, failpoints="lock.opened=delay(500)@1") as trainer:
        while not list(root.glob("runferry/*/*/LOCK")):
            assert trainer.process.poll() is None, trainer.errors.read_text()
        # It holds the lock until the training wants it, finds nothing behind it, and cleans up.
        adopting = command(tmp_path, "sync", str(root / "runferry"), base_url=server.url, failpoints="recover.locked=delay(1000)")
        returncode, _ = trainer.ended()

    assert returncode == 0, trainer.errors.read_text()
    assert "no readable OPEN" not in adopting.stdout + adopting.stderr
    synced = command(tmp_path, "sync", str(root / "runferry"), base_url=server.url)
    assert synced.returncode == 0, synced.stdout + synced.stderr
    audit_all(server.url, [Issued("local/kills/just-born", (40,))]).check()
