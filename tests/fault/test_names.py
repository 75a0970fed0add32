"""The name of the server: looked up at every attempt, by whatever the machine's resolver says then, and never waited for by training."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.support import stored
from tests.support.namespaces import Side, cable
from tests.support.servers import RunningServer
from tests.support.trainers import Trainer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.fault(48), pytest.mark.timeout(180)]
PORT = 7070
PATH = "local/names/r"

TRAINER = """
import sys, time, runferry
from pathlib import Path
begun = time.monotonic()
run = runferry.init(project="names", id="r", settings={"silent": True})
assert time.monotonic() - begun < 2, "init waits for the resolver"
logged = 0
for line in sys.stdin:
    word = line.strip()
    if word == "finish":
        break
    for _ in range(100):
        run.log({"n": logged})
        logged += 1
    print("logged" if word == "log" else f"acked {run.flush(acked=True, timeout=90)}", flush=True)
begun = time.monotonic()
run.finish(timeout=1.0)
took_s = time.monotonic() - begun
left = [name for task in Path("/proc/self/task").iterdir() if (name := (task / "comm").read_text().strip()).startswith("rf-send")]
print("finished", took_s < 6, left, flush=True)
"""


@pytest.fixture
def sides() -> Iterator[tuple[Side, Side]]:
    """Client and server."""
    with cable() as both:
        yield both


@contextmanager
def serving(server: Side, data: Path, host: str) -> Iterator[RunningServer]:
    """A server at one of its side's addresses."""
    with RunningServer(data, "--host", host, "--insecure-no-auth", port=PORT, prefix=server.prefix) as running:
        yield running


def stored_numbers(data: Path) -> list[int]:
    """What arrived, read by a server of this side of the world."""
    with RunningServer(data) as here:
        return [row["n"] for row in stored.rows(here.url, PATH)]


def test_a_server_that_moves_to_another_address_is_found_there(sides: tuple[Side, Side], tmp_path: Path) -> None:
    client, server = sides
    client.hosts(tracker_example=server.address)
    with Trainer(TRAINER, tmp_path, prefix=client.prefix, base_url=f"http://tracker.example:{PORT}") as trainer:
        with serving(server, tmp_path / "data", server.address):
            trainer.tell("ack")
            trainer.wait_for("acked True")
        client.hosts(tracker_example=server.second_address)
        with serving(server, tmp_path / "data", server.second_address):
            trainer.tell("ack")
            trainer.wait_for("acked True")
            trainer.tell("finish")
            trainer.wait_for("finished True []")
    assert stored_numbers(tmp_path / "data") == list(range(200))


def test_a_name_with_an_ipv6_address_alone_is_reached(sides: tuple[Side, Side], tmp_path: Path) -> None:
    client, server = sides
    client.hosts(tracker_example=server.address6)
    with (
        serving(server, tmp_path / "data", server.address6),
        Trainer(TRAINER, tmp_path, prefix=client.prefix, base_url=f"http://tracker.example:{PORT}") as trainer,
    ):
        trainer.tell("ack")
        trainer.wait_for("acked True")
        trainer.tell("finish")
        trainer.wait_for("finished True []")
    assert stored_numbers(tmp_path / "data") == list(range(100))


def test_a_resolver_that_never_answers_stops_neither_training_nor_finish_and_the_name_is_looked_up_again(
    sides: tuple[Side, Side], tmp_path: Path
) -> None:
    client, server = sides
    url = f"http://tracker.example:{PORT}"
    with Trainer(TRAINER, tmp_path, prefix=client.prefix, base_url=url) as alone:
        alone.tell("log")
        alone.wait_for("logged")
        alone.tell("finish")
        alone.wait_for("finished True []")
        assert alone.ended()[0] == 0
    with (
        Trainer(TRAINER.replace('id="r"', 'id="later"'), tmp_path, prefix=client.prefix, base_url=url) as trainer,
        serving(server, tmp_path / "data", server.address),
    ):
        client.hosts(tracker_example=server.address)
        trainer.tell("ack")
        trainer.wait_for("acked True")  # and what the first has left comes with it
        trainer.tell("finish")
        trainer.wait_for("finished True []")
    with RunningServer(tmp_path / "data") as here:
        assert [row["n"] for row in stored.rows(here.url, "local/names/later")] == list(range(100))
