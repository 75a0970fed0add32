"""A client that knows less than the server: a process that was set back (a restored virtual machine), an old copy of a journal.

The time that was taken back is played by a scripted writer: it stores frames under the id and the numbers that the process will use next.
"""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import runferry
from runferry.server._generated import ingest_pb2 as pb

from tests.support import stored
from tests.support.door import DoorStream
from tests.support.fakeserver import FakeServer, FakeStream
from tests.support.faultproxy import FaultyServer
from tests.support.frames import ScriptedWriter
from tests.support.trainers import Trainer, command, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.servers import RunningServer

pytestmark = [pytest.mark.fault(38), pytest.mark.timeout(180)]
PROJECT = "back"
ROWS = 50
"""Logged at once."""
TAKEN_BACK = 60
"""Frames that the process has forgotten."""
CLAIMED_SEQ = 1_000
_ids = itertools.count()

TRAINER = """
import sys, runferry
run = runferry.init(project="back", id="RUN", settings={"silent": True})
print(run.status().journal_dir, flush=True)
logged = 0
for line in sys.stdin:
    word = line.strip()
    if word == "log":
        for _ in range(50):
            run.log({"n": logged})
            logged += 1
            if logged % 10 == 0:
                run.flush()
        print("logged", flush=True)
    elif word == "ack":
        print("acked", run.flush(acked=True, timeout=60), flush=True)
    elif word == "finish":
        run.finish(timeout=60)
        print("finished", flush=True)
        break
"""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyServer]:
    """A server behind a network, shared by the tests of this file."""
    with FaultyServer(tmp_path_factory.mktemp("set-back") / "data") as faulty:
        yield faulty


class SetBack:
    """A training that is at frame N while the server has frames beyond it, under its name, from the time that was taken back."""

    def __init__(self, faulty: FaultyServer, folder: Path, *, taken_back: int = TAKEN_BACK, heals: bool = True) -> None:
        self.faulty = faulty
        self.taken_back = taken_back
        self.id = f"r{next(_ids)}"
        self.logged = 0
        self.trainer = Trainer(TRAINER.replace("RUN", self.id), folder, base_url=faulty.url)
        self.journal = Path(self.trainer.line())
        self.log()
        self.acked()
        faulty.write.both(is_held=True)
        self._play_what_is_forgotten()
        self.log()  # under numbers that the server has already
        faulty.write.reset_all()
        if heals:
            faulty.heal()

    def log(self) -> None:
        """So many rows more, in the journal."""
        self.trainer.tell("log")
        self.trainer.wait_for("logged")
        self.logged += ROWS

    def acked(self) -> None:
        """The server has all."""
        self.trainer.tell("ack")
        self.trainer.wait_for("acked True")

    @property
    def writers(self) -> int:
        """How many the server knows."""
        return len(stored.run(self.faulty.direct_url, f"local/{PROJECT}/{self.id}").writers())

    def check(self) -> None:
        """Each row of this life is there, once."""
        path = f"local/{PROJECT}/{self.id}"
        assert stored.cells(self.faulty.direct_url, path) == [(step, {"n": step}) for step in range(self.logged)]
        assert stored.gaps(self.faulty.direct_url, path) == []

    def _play_what_is_forgotten(self) -> None:
        forgotten = ScriptedWriter(PROJECT, self.id, writer_id=int(self.journal.name, 16))
        with DoorStream(self.faulty.server.write_address) as stream:
            forgotten.next_seq = stream.open(forgotten).next_seq
            first = forgotten.next_seq
            steps = [self.logged + number * ROWS // self.taken_back for number in range(self.taken_back)]
            stream.send([forgotten.data([(step, {"n": -1})]) for step in steps])
            stream.wait_durable(first + self.taken_back)


@pytest.fixture
def back(shared: FaultyServer, tmp_path: Path) -> Iterator[SetBack]:
    """The same, for one test."""
    shared.heal()
    made = SetBack(shared, tmp_path)
    with made.trainer:
        yield made


def test_a_process_that_was_set_back_goes_on_as_a_new_writer_and_overwrites_nothing(back: SetBack) -> None:
    back.log()
    back.acked()
    back.log()
    back.trainer.tell("finish")
    back.trainer.wait_for("finished")

    assert back.writers == 2
    back.check()
    stored.wait_for_state(back.faulty.direct_url, f"local/{PROJECT}/{back.id}", "finished")
    assert stored.run(back.faulty.direct_url, f"local/{PROJECT}/{back.id}").stored["rows"] == back.logged + ROWS


def test_a_process_that_was_set_back_and_has_made_more_frames_than_it_has_forgotten_is_known_by_the_newest(
    shared: FaultyServer, tmp_path: Path
) -> None:
    shared.heal()
    back = SetBack(shared, tmp_path, taken_back=2)
    with back.trainer:
        back.acked()
        back.trainer.tell("finish")
        back.trainer.wait_for("finished")

    assert back.writers == 2
    back.check()


def test_what_such_a_process_leaves_is_not_sent_behind_the_forgotten_frames_as_if_it_came_after_them(
    shared: FaultyServer, tmp_path: Path
) -> None:
    shared.heal()
    back = SetBack(shared, tmp_path, taken_back=2, heals=False)
    with back.trainer:
        back.trainer.kill()
    shared.heal()

    synced = command(tmp_path, "sync", str(tmp_path / "runferry"), base_url=back.faulty.direct_url)

    assert synced.returncode == 1, synced
    assert "of a process that was set back" in synced.stdout + synced.stderr
    assert list(back.journal.glob("seg-*")), "nothing of it is removed"


def test_what_such_a_process_leaves_when_it_is_killed_is_sent_in_the_name_it_went_on_under(back: SetBack, tmp_path: Path) -> None:
    back.acked()
    back.faulty.each(lambda proxy: proxy.both(is_held=True))
    for _ in range(TAKEN_BACK // 5):
        back.log()  # far beyond the numbers that were taken back
    back.trainer.kill()
    back.faulty.each(lambda proxy: proxy.reset_all())
    back.faulty.heal()

    synced = command(tmp_path, "sync", str(back.journal), base_url=back.faulty.url)

    assert synced.returncode == 0, synced.stdout + synced.stderr
    assert back.writers == 2
    back.check()


def test_a_journal_that_cannot_tell_in_whose_name_to_go_on_is_kept_and_not_sent(back: SetBack, tmp_path: Path) -> None:
    back.acked()
    back.trainer.kill()
    note = back.journal / "SUCCESSOR"
    whole = note.read_bytes()
    note.write_bytes(whole[:20] + bytes([whole[20] ^ 1]) + whole[21:])

    refused = command(tmp_path, "sync", str(back.journal), base_url=back.faulty.url)

    assert refused.returncode == 1
    assert "SUCCESSOR" in refused.stdout
    note.write_bytes(whole)
    assert command(tmp_path, "sync", str(back.journal), base_url=back.faulty.url).returncode == 0
    back.check()


@pytest.mark.fault(58)
def test_a_server_that_claims_every_writer_ends_blocked_and_gets_nothing_that_another_does_not_get(
    server: RunningServer, tmp_path: Path
) -> None:
    asked_for: list[bytes] = []

    async def claiming(stream: FakeStream) -> None:
        asked_for.append((await stream.hear_open()).open_frame[32:40])
        await stream.say(open_ok=pb.OpenOk(next_seq=CLAIMED_SEQ, storage_epoch=b"fake", last_step=-1, durability="disk"))
        await stream.hear()

    with FakeServer(claiming) as fake:
        run = runferry.init(project=PROJECT, id="claimed", dir=tmp_path, settings={"base_url": fake.url, "silent": True})
        for number in range(ROWS):
            run.log({"n": number})
        wait_until(lambda: run.status().connection == "blocked", "blocked")
        status = run.status()
        run.finish(timeout=1)
    assert len(set(asked_for)) == len(asked_for) == 2
    assert "claims" in str(status.last_error)
    assert (status.acked_frames, status.dropped_rows) == (0, 0)
    synced = command(tmp_path, "sync", str(tmp_path / "runferry"), "--base-url", server.url)
    assert synced.returncode == 0, synced.stdout + synced.stderr
    assert stored.cells(server.url, run.path) == [(step, {"n": step}) for step in range(ROWS)]


def test_an_older_copy_of_a_journal_adds_nothing_and_takes_nothing_away(server: RunningServer, tmp_path: Path) -> None:
    run = runferry.init(project=PROJECT, id="copy", dir=tmp_path, mode="offline", settings={"silent": True})
    journal, copy = Path(str(run.status().journal_dir)), tmp_path / "restored"
    for number in range(2 * ROWS):
        run.log({"n": number})
        if number == ROWS:
            assert run.flush()
            shutil.copytree(journal, copy / journal.parent.name / journal.name, ignore=shutil.ignore_patterns("*.ring"))
    run.finish()
    assert command(tmp_path, "sync", str(journal), base_url=server.url).returncode == 0

    again = command(tmp_path, "sync", str(copy), base_url=server.url)

    assert again.returncode == 0, again.stdout + again.stderr
    assert stored.cells(server.url, run.path) == [(step, {"n": step}) for step in range(2 * ROWS)]
    stored.wait_for_state(server.url, run.path, "finished")
