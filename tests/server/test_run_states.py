"""A run that is alive is never shown as ended, whatever the server, its clock and the network have been doing."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest
import runferry
from runferry.server import query
from runferry.server.metadata import writes
from runferry.server.metadata.database import Database
from runferry.server.metadata.silence import LONGEST_PAUSE_US, Listening

from tests.server.metadata_scene import NOW_US, Scene
from tests.support.frames import run_key
from tests.support.servers import RunningServer
from tests.support.silence import ten_minutes_pass
from tests.support.trainers import Trainer, command, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECOND_US = 1_000_000
HOUR_US = 3_600 * SECOND_US


class Server:
    """What the server's loop does about silence, on a clock of ours."""

    def __init__(self, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
        self.scene = scene
        self.now_us = NOW_US
        self._listening = Listening()
        monkeypatch.setattr(query, "now_us", lambda: self.now_us)

    def listen(self, seconds: int = 0) -> None:
        """Look now, every ten seconds, and at the end of so many."""
        for step_s in [0, *[10] * (seconds // 10), seconds % 10]:
            self.now_us += step_s * SECOND_US
            if self._listening.is_due(self.now_us):
                with self.scene.database.write() as connection:
                    self._listening.note(connection, self.now_us)
                self._listening.noted(self.now_us)
            else:
                self._listening.heard(self.now_us)

    def restart(self) -> None:
        """Another process on the same database."""
        self._listening = Listening()

    def hear(self, backlog_frames: int = 0) -> None:
        """A beat of the run."""
        said = writes.Counters(lag_s=0.0, backlog_frames=backlog_frames, backlog_bytes=0, dropped_rows=0, retries=0)
        with self.scene.database.write() as connection:
            writes.write_beats(connection, [writes.Beat(run_key("local", "demo", "r1"), 1, self.now_us, said)])

    @property
    def state(self) -> str:
        """Of the run, as a listing shows it."""
        return str(self.scene.run("r1")["state"])


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """One that listens, with a run that was just heard."""
    database = Database(tmp_path / "meta.db")
    scene = Scene(database)
    scene.open("r1")
    server = Server(scene, monkeypatch)
    server.listen()
    server.hear()
    yield server
    database.close()


def test_a_silent_run_becomes_quiet_then_lost_and_runs_again_when_it_is_heard(server: Server) -> None:
    states = []
    for seconds in (60, 1, 239, 1, 600):
        server.listen(seconds)
        states.append(server.state)
    server.hear()

    assert states == ["running", "quiet", "quiet", "lost", "lost"]
    assert server.state == "running"


def test_a_run_with_a_backlog_is_given_ten_minutes_and_what_an_ended_writer_said_is_no_backlog(server: Server) -> None:
    server.hear(backlog_frames=5)
    server.listen(599)
    assert server.state == "quiet"
    server.listen(2)
    assert server.state == "lost"

    server.scene.finish("r1", 1)
    server.scene.open("r1", 2, started_us=NOW_US + HOUR_US)
    server.hear()
    with server.scene.database.write() as connection:
        writes.write_beats(connection, [writes.Beat(run_key("local", "demo", "r1"), 2, server.now_us, None)])
    server.listen(301)
    assert server.state == "lost", "the five frames of writer 1 wait no more"


@pytest.mark.parametrize("times", [1, 3])
def test_what_passes_while_the_server_is_down_is_no_silence(server: Server, times: int) -> None:
    server.listen(50)
    for _ in range(times):
        server.listen()
        server.now_us += HOUR_US
        server.restart()
        server.listen()

    assert server.state == "running"
    heard_before_us = 31 * SECOND_US  # as far as a killed server may have got without writing it down
    server.listen(11 + heard_before_us // SECOND_US * times)
    assert server.state == "quiet"


def test_a_run_that_was_lost_before_a_restart_is_lost_after_it(server: Server) -> None:
    server.listen(400)
    server.now_us += HOUR_US
    server.restart()
    server.listen()

    assert server.state == "lost"


@pytest.mark.fault(74)
@pytest.mark.parametrize("jump_us", [24 * HOUR_US, -24 * HOUR_US, LONGEST_PAUSE_US + SECOND_US])
def test_a_jump_of_the_servers_clock_makes_nobody_lost_and_nobody_alive(server: Server, jump_us: int) -> None:
    server.listen(40)
    server.now_us += jump_us
    server.listen()
    assert server.state == "running"

    server.hear()
    server.listen(61)
    assert server.state == "quiet"
    server.listen(240)
    assert server.state == "lost"


def test_finish_alone_ends_a_run_and_no_clock_changes_that(server: Server) -> None:
    server.listen(1_000)
    server.scene.finish("r1", exit_code=3)
    server.now_us += HOUR_US
    server.restart()
    server.listen(10)

    assert server.state == "failed"


def test_a_writer_that_died_has_failed_until_it_is_heard_of_later_than_that(server: Server) -> None:
    died = run_key("local", "demo", "r1")
    server.listen(30)
    heard_before_us = server.now_us
    server.listen(1)
    with server.scene.database.write() as connection:
        writes.apply_death(connection, died, 1, server.now_us)
    dead = server.scene.run("r1")
    with server.scene.database.write() as connection:
        late = writes.Beat(died, 1, heard_before_us, writes.Counters(0.0, 0, 0, 0, 0))
        writes.write_beats(connection, [late])
    server.listen(400)
    still = server.state
    server.hear()

    assert (dead["state"], dead["exit_code"], still) == ("failed", None, "failed")
    assert server.state == "running"


def test_a_writer_that_is_started_again_decides_and_so_does_a_finish_that_was_said(server: Server) -> None:
    server.scene.open("r1", 2, started_us=NOW_US + HOUR_US)
    with server.scene.database.write() as connection:
        writes.apply_death(connection, run_key("local", "demo", "r1"), 1, server.now_us)
    goes_on = server.state
    server.scene.finish("r1", 2)
    with server.scene.database.write() as connection:
        writes.apply_death(connection, run_key("local", "demo", "r1"), 2, server.now_us)

    assert (goes_on, server.state) == ("running", "finished")


TRAINING = """
import sys, runferry
run = runferry.init(project="states", id="alive", settings={"silent": True})
run.log({"n": 0})
print(run.flush(acked=True, timeout=60), flush=True)
sys.stdin.readline()
run.finish(timeout=60)
print("finished", flush=True)
"""


@pytest.mark.fault(33)
@pytest.mark.timeout(240)
def test_a_stopped_training_is_shown_as_lost_and_runs_again_by_itself(tmp_path: Path) -> None:
    with RunningServer(tmp_path / "data") as running, Trainer(TRAINING, tmp_path, base_url=running.url) as trainer:
        trainer.wait_for("True")
        assert shown(running.url, tmp_path) == ["running", "running"]

        trainer.send(signal.SIGSTOP)
        wait_until(lambda: ten_minutes_pass(tmp_path / "data") and shown(running.url, tmp_path) == ["lost", "lost"], "it is not heard of")

        trainer.send(signal.SIGCONT)
        wait_until(lambda: shown(running.url, tmp_path) == ["running", "running"], "it is heard of again", 90.0)
        trainer.tell("end")
        trainer.wait_for("finished")
        wait_until(lambda: shown(running.url, tmp_path) == ["finished", "finished"], "FINISH is applied")


def shown(url: str, folder: Path) -> list[str]:
    """The run's state by the reading interface and by the command."""
    listed = command(folder, "runs", "states", base_url=url)
    assert listed.returncode == 0, listed
    (line,) = [line for line in listed.stdout.splitlines() if "alive" in line]
    words = {"running", "quiet", "lost", "finished", "failed"} & set(line.split())
    return [runferry.Api({"base_url": url}).run("local/states/alive").state, *words]
