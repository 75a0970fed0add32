"""Peers that are there and say nothing: a cable that is out, packets lost one way or both, a server that accepts and goes no further.

TCP alone notices none of it for a quarter of an hour. Every kind is begun at once and waited for together, as the promise is half a
minute: HTTP/2 pings every 20 s that must be answered within 8 s, 10 s for each answer before that.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.support import stored
from tests.support.exactly_once import Training
from tests.support.faultproxy import FaultyServer, Lane
from tests.support.namespaces import Side, cable
from tests.support.servers import RunningServer
from tests.support.trainers import Trainer, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOTICED_S = 30.0
SLACK_S = 15.0
"""For a machine that has something else to do."""
HELD = Lane(is_held=True)

TRAINER = """
import sys, time, runferry
run = runferry.init(project="silence", id="cable", settings={"silent": True})
logged = 0
def log(rows):
    global logged
    for _ in range(rows):
        run.log({"n": logged})
        logged += 1
log(100)
assert run.flush(acked=True, timeout=30)
print("connected", flush=True)
sys.stdin.readline()
begun = time.monotonic()
log(100)
while run.status().connection == "connected" and time.monotonic() - begun < 90:
    time.sleep(0.05)
    log(1)
print("noticed", time.monotonic() - begun, flush=True)
sys.stdin.readline()
log(100)
begun = time.monotonic()
assert run.flush(acked=True, timeout=90)
print("healed", time.monotonic() - begun, flush=True)
run.finish()
print("logged", logged, flush=True)
"""


class Unplugged:
    """A training and a server in namespaces of their own, with the cable between them out."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self.data = folder / "data"
        client, server = stack.enter_context(cable())
        self.side: Side = server
        host = ("--host", server.address, "--insecure-no-auth")
        self.server = stack.enter_context(RunningServer(self.data, *host, port=7070, prefix=server.prefix))
        self.trainer = stack.enter_context(Trainer(TRAINER, folder, prefix=client.prefix, base_url=self.server.url))
        self.trainer.wait_for("connected")
        server.unplug()
        self.trainer.tell("go on")


@pytest.fixture(scope="module")
def unplugged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Unplugged | str]:
    """The same; or why it cannot be made here. It waits while the other test does."""
    with ExitStack() as stack:
        try:
            yield Unplugged(stack, tmp_path_factory.mktemp("cable"))
        except pytest.skip.Exception as why:
            yield str(why)


@pytest.mark.fault(42, 43, 47)
@pytest.mark.timeout(180)
def test_silence_of_every_kind_is_noticed_within_half_a_minute_and_loses_nothing(unplugged: Unplugged | str, tmp_path: Path) -> None:
    del unplugged  # begun before this test waits
    with FaultyServer(tmp_path / "data") as faulty:
        silent: dict[str, Training] = {}
        for name in ("no acks", "no frames", "nothing", "door stalls", "stream stalls"):
            silent[name] = Training(faulty.url, tmp_path, name.replace(" ", "-"))
            silent[name].log(10)
            silent[name].all_acked()
            match name:
                case "no acks":
                    faulty.write.spoil_latest(down=HELD)
                case "no frames":
                    faulty.write.spoil_latest(up=HELD)
                case "nothing":
                    faulty.write.spoil_latest(HELD, HELD)
                case _:
                    proxy = faulty.http if name == "door stalls" else faulty.write
                    proxy.spoil_next(HELD, HELD)
                    faulty.write.reset_latest()
                    wait_until(lambda: not proxy.is_spoiling_next, "the client runs into it")  # noqa: B023 - called in this round
        retries = {name: training.run.status().retries for name, training in silent.items()}
        begun = time.monotonic()
        for training in silent.values():
            training.log(100)

        noticed_s: dict[str, float] = {}
        while len(noticed_s) < len(silent) and time.monotonic() - begun < NOTICED_S + SLACK_S:
            for name, training in silent.items():
                training.log(1)
                if training.run.status().retries > retries[name] and name not in noticed_s:
                    noticed_s[name] = time.monotonic() - begun
            time.sleep(0.05)

        assert set(noticed_s) == set(silent), (noticed_s, {name: training.run.status() for name, training in silent.items()})
        for training in silent.values():
            training.check(faulty.direct_url)


@pytest.mark.fault(42)
@pytest.mark.timeout(180)
def test_a_cable_that_is_out_is_noticed_within_half_a_minute_and_everything_arrives_when_it_is_in_again(unplugged: Unplugged | str) -> None:
    if isinstance(unplugged, str):
        pytest.skip(unplugged)
    trainer = unplugged.trainer

    while not (said := trainer.line()).startswith("noticed"):
        assert said, trainer.errors.read_text()
    assert float(said.split()[1]) < NOTICED_S + SLACK_S

    unplugged.side.plug()
    trainer.tell("go on")
    while not (said := trainer.line()).startswith("logged"):
        assert said, trainer.errors.read_text()
    assert trainer.ended()[0] == 0
    assert unplugged.server.stop() == 0
    with RunningServer(unplugged.data) as here:
        rows = stored.rows(here.url, "local/silence/cable")
    assert [row["n"] for row in rows] == list(range(int(said.split()[1])))
