"""Signals: what ends a training ends it as before, what it handles itself stays its own, and nothing that was logged is missing."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest
from runferry import _native

from tests.support import stored
from tests.support.effort import effort, record
from tests.support.servers import RunningServer
from tests.support.trainers import Trainer, command, wait_until
from tests.support.watched import watched

if TYPE_CHECKING:
    from pathlib import Path

NOBODY = "http://127.0.0.1:9"
"""An address where no server answers."""

LOGGING = """
import os, signal, sys, threading, time
import runferry
run = runferry.init(project="signals", id={run_id!r}, settings={{"silent": True{settings}}})
for number in range(100):
    run.log({{"n": number}})
{before}
print("ready", flush=True)
{then}
"""
FOREVER = "while True: time.sleep(0.01)"


def program(run_id: str, *, settings: str = "", before: str = "", then: str = FOREVER) -> str:
    return LOGGING.format(run_id=run_id, settings=settings, before=before, then=then)


def is_finished(folder: Path) -> bool:
    """Whether some writer has written its last frame: from then on it waits for the server."""
    return any(frame["kind"] == "finish" for path in folder.rglob("seg-*.rfj") for frame in _native.journal_frames(str(path.parent)))


def synced(folder: Path, server: RunningServer, run_id: str) -> list[int]:
    """What the server has of a run once everything left in `folder` was sent."""
    said = command(folder, "sync", str(folder / "runferry"), base_url=server.url)
    assert said.returncode == 0, said.stdout + said.stderr
    return [row["n"] for row in stored.rows(server.url, f"local/signals/{run_id}") if "n" in row]


@pytest.mark.fault(65)
@pytest.mark.timeout(120)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGALRM])
def test_a_signal_nobody_handles_ends_the_training_as_without_us(server: RunningServer, tmp_path: Path, number: signal.Signals) -> None:
    run_id = number.name.lower()
    unhandled = f"signal.signal({int(number)}, signal.SIG_DFL)"  # under nohup a child would be born with SIGHUP ignored
    with Trainer(program(run_id, before=unhandled), tmp_path, base_url=server.url) as trainer:
        trainer.wait_for("ready")
        trainer.send(number)
        assert trainer.ended()[0] == -number

    assert synced(tmp_path, server, run_id) == list(range(100))
    assert stored.run(server.url, f"local/signals/{run_id}").stored["exit_code"] is None


@pytest.mark.fault(65, 76)
@pytest.mark.timeout(120)
def test_finish_on_sigterm_ends_the_run_and_then_dies_by_the_signal(server: RunningServer, tmp_path: Path) -> None:
    with Trainer(program("opted-in", settings=', "finish_on_sigterm": True'), tmp_path, base_url=server.url) as trainer:
        trainer.wait_for("ready")
        trainer.send(signal.SIGTERM)
        assert trainer.ended()[0] == -signal.SIGTERM

    stored.wait_for_state(server.url, "local/signals/opted-in", "failed")
    assert stored.run(server.url, "local/signals/opted-in").stored["exit_code"] == 128 + signal.SIGTERM
    assert [row["n"] for row in stored.rows(server.url, "local/signals/opted-in")] == list(range(100))


@pytest.mark.fault(65)
@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("signal.signal(signal.SIGTERM, mine)", "assert signal.getsignal(signal.SIGTERM) is mine"),
        ("signal.signal(signal.SIGTERM, signal.SIG_IGN)", "assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN"),
        ("", "assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL"),
    ],
)
def test_handlers_of_the_user_are_left_alone(tmp_path: Path, before: str, after: str) -> None:
    code = f"""
import signal, threading, runferry
def mine(number, frame): pass
others = [signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGALRM, signal.SIGUSR1, signal.SIGCHLD]
found = [signal.getsignal(number) for number in others]
{before}
run = runferry.init(mode="offline", settings={{"silent": True, "finish_on_sigterm": True}})
run.log({{"a": 1}})
{after}
run.finish()
assert [signal.getsignal(number) for number in others] == found
assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()
thread = threading.Thread(target=lambda: runferry.init(mode="offline", settings={{"silent": True, "finish_on_sigterm": True}}).finish())
thread.start()
thread.join()
"""

    ended = watched(code, tmp_path)

    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.fault(65)
@pytest.mark.timeout(120)
def test_ctrl_c_in_training_finishes_the_run_as_interrupted(server: RunningServer, tmp_path: Path) -> None:
    with Trainer(program("ctrl-c"), tmp_path, base_url=server.url) as trainer:
        trainer.wait_for("ready")
        trainer.send(signal.SIGINT)
        assert trainer.ended()[0] == -signal.SIGINT

    stored.wait_for_state(server.url, "local/signals/ctrl-c", "failed")
    assert stored.run(server.url, "local/signals/ctrl-c").stored["exit_code"] == 255


@pytest.mark.fault(65, 78)
@pytest.mark.timeout(120)
def test_one_ctrl_c_in_finish_ends_the_waiting_and_a_second_one_the_program(server: RunningServer, tmp_path: Path) -> None:
    then = """
run.finish(timeout=600)
print("finished", flush=True)
time.sleep(600)
"""
    with Trainer(program("patience", then=then, settings=', "silent": False'), tmp_path, base_url=NOBODY) as trainer:
        trainer.wait_for("ready")
        wait_until(lambda: is_finished(tmp_path), "the FINISH frame is written")
        trainer.send(signal.SIGINT)
        trainer.wait_for("finished")
        trainer.send(signal.SIGINT)
        assert trainer.ended()[0] == -signal.SIGINT
        said = trainer.errors.read_text()

    assert said.count("runferry sync") == 1, said
    assert synced(tmp_path, server, "patience") == list(range(100))


@pytest.mark.fault(65, 78)
@pytest.mark.timeout(120)
def test_one_ctrl_c_at_the_exit_ends_the_waiting_for_all_runs(tmp_path: Path) -> None:
    then = """
runs = [runferry.init(id=f"more-{number}", reinit="create_new", settings={"silent": False}) for number in range(3)]
import atexit
atexit.register(print, "leaving", flush=True)
sys.exit(4)
"""
    with Trainer(program("at-exit", then=then), tmp_path, base_url=NOBODY, exit_timeout="100") as trainer:
        trainer.wait_for("leaving")
        wait_until(lambda: is_finished(tmp_path), "the FINISH frame of one of them is written")
        trainer.send(signal.SIGINT)
        assert trainer.ended()[0] == 4
        said = trainer.errors.read_text()

    assert said.count("runferry sync") == 4, said


@pytest.mark.fault(65)
@pytest.mark.timeout(120)
def test_a_storm_of_alarms_neither_loses_a_row_nor_ends_a_wait(server: RunningServer, tmp_path: Path) -> None:
    rows = effort("alarm_rows", 20_000)
    code = f"""
import signal, runferry
seen = 0
def alarm(number, frame):
    global seen
    seen += 1
    if not run._is_finished:
        run.log({{"alarm": seen}}, commit=False)
signal.signal(signal.SIGALRM, alarm)
run = runferry.init(project="signals", id="storm", settings={{"silent": True}})
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
for number in range({rows}):
    run.log({{"n": number, "list": [number]}}, step=number)
signal.setitimer(signal.ITIMER_REAL, 0)
print(seen)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
assert run.flush(acked=True, timeout=60)
run.finish()
signal.setitimer(signal.ITIMER_REAL, 0)
"""

    ended = watched(code, tmp_path, base_url=server.url)

    assert ended.returncode == 0, ended.stderr
    assert [row["n"] for row in stored.rows(server.url, "local/signals/storm", keys=["n"])] == list(range(rows))
    assert int(ended.stdout) > 0
    record("SIGALRM at 1 kHz beside logging", rows=rows, alarms=int(ended.stdout))


@pytest.mark.fault(65)
@pytest.mark.timeout(120)
def test_a_training_that_dies_of_sigpipe_by_default_does_not_die_of_our_socket(tmp_path: Path) -> None:
    before = "signal.signal(signal.SIGPIPE, signal.SIG_DFL)"
    then = """
for line in iter(sys.stdin.readline, "over\\n"):
    for _ in range(200):
        run.log({"text": "x" * 10_000})
        time.sleep(0.001)
    print("still here", flush=True)
os._exit(0)
"""
    with (
        RunningServer(tmp_path / "data") as server,
        Trainer(program("pipe", before=before, then=then), tmp_path, base_url=server.url) as trainer,
    ):
        trainer.wait_for("ready")
        trainer.tell("once")
        trainer.wait_for("still here")
        server.kill()
        for _ in range(3):
            trainer.tell("again")
            trainer.wait_for("still here")
        trainer.tell("over")
        assert trainer.ended()[0] == 0


@pytest.mark.fault(76)
@pytest.mark.timeout(120)
@pytest.mark.parametrize("handles_sigterm", [False, True])
def test_a_container_that_is_stopped_loses_nothing_and_the_server_has_most(
    server: RunningServer, tmp_path: Path, *, handles_sigterm: bool
) -> None:
    """SIGTERM, a while, SIGKILL. A training that handles SIGTERM and goes on saving its model is killed in mid-logging."""
    run_id = f"container-{handles_sigterm}"
    before = "signal.signal(signal.SIGTERM, lambda *a: os.write(1, b'saving\\n'))" if handles_sigterm else ""
    then = """
number = 100
while True:
    run.log({"n": number})
    number += 1
    os.write(1, b"%d\\n" % number)  # whole lines: the handler of a signal may write between two pieces of a print
"""
    with Trainer(program(run_id, before=before, then=then), tmp_path, base_url=server.url) as trainer:
        trainer.wait_for("ready")
        trainer.wait_for("1000")
        trainer.send(signal.SIGTERM)
        if handles_sigterm:
            trainer.wait_for("saving")
            trainer.wait_for(str(2000 + int(trainer.line())))
            rest = trainer.kill()
        else:
            rest = trainer.ended()[1]
    returned = max([1000, *(int(line) for line in rest.split("\n")[:-1] if line.isdigit())])

    rows = synced(tmp_path, server, run_id)

    assert rows == list(range(len(rows)))
    assert len(rows) in {returned, returned + 1}


@pytest.mark.fault(78)
@pytest.mark.timeout(120)
@pytest.mark.parametrize("timeout_s", [0.0, 0.5, 2.0])
def test_finish_without_a_server_ends_in_time_and_says_how_to_send_the_rest(tmp_path: Path, timeout_s: float) -> None:
    code = f"""
import time, runferry
run = runferry.init(project="signals", id="late", dir="with blank")
for number in range(1000):
    run.log({{"n": number}})
begun = time.monotonic()
run.finish(timeout={timeout_s})
print(time.monotonic() - begun)
status = run.status()
assert status.backlog_frames > 0 and status.accepted_rows == 1000 and status.dropped_rows == 0
"""
    (tmp_path / "with blank").mkdir()

    ended = watched(code, tmp_path, base_url=NOBODY)

    assert ended.returncode == 0, ended.stderr
    took_s = float(ended.stdout)
    assert took_s < 10 * (timeout_s + 0.5)
    assert ended.stderr.count(f"runferry sync '{tmp_path}/with blank/runferry'") == 1
    record(f"finish(timeout={timeout_s}) without a server", seconds=round(took_s, 2))
