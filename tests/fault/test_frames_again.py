"""Frames twice, out of order, left out, and two of one number: what is stored is each number once, in order, the first that came."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from runferry.server import check

from tests.support.door import DoorStream, store_all
from tests.support.effort import effort
from tests.support.frames import ScriptedWriter
from tests.support.servers import RunningServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FRAMES = 12
HISTORIES = effort("frame_histories", 25)
SENDERS = 3
_ids = iter(range(1, 1 << 30))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data of the server."""
    return tmp_path_factory.mktemp("frames") / "data"


@pytest.fixture(scope="module")
def server(data: Path) -> Iterator[RunningServer]:
    """One for the file; its ledger must balance in the end."""
    with RunningServer(data) as running:
        yield running
        assert running.stop() == 0
    assert check.main(["--data", str(data)]) == 0


def steps_of(server: RunningServer, writer: ScriptedWriter) -> list[int]:
    """The stored steps."""
    path = f"/api/v1/runs/local/{writer.project}/{writer.id}/history"
    found = httpx.get(server.url + path, params={"keys": "loss", "buckets": 10_000}).raise_for_status().json()["series"]
    return found[0]["step_first"] if found else []


@pytest.mark.fault(39, 40)
@pytest.mark.timeout(300)
@settings(max_examples=HISTORIES, deadline=None, suppress_health_check=list(HealthCheck))
@given(sent=st.lists(st.lists(st.integers(0, FRAMES - 1), max_size=8), max_size=6))
def test_in_whatever_order_frames_come_no_hole_and_no_copy_is_stored(server: RunningServer, sent: list[list[int]]) -> None:
    writer = ScriptedWriter(id=f"order{next(_ids)}", writer_id=next(_ids))
    frames = writer.rows(FRAMES)
    expected = 0
    for message in sent:
        for index in message:
            expected += index == expected

    writer.next_seq = 1
    with DoorStream(server.write_address) as stream:
        stream.open(writer)
        for message in sent:
            stream.send([frames[index] for index in message])
        stream.wait_durable(expected + 1) if expected else None
        assert steps_of(server, writer) == list(range(expected))
        stream.send(frames)  # the writer has gone back to the beginning: what is there does not count again
        stream.wait_durable(FRAMES + 1)
    assert steps_of(server, writer) == list(range(FRAMES))


@pytest.mark.fault(39)
@pytest.mark.timeout(120)
def test_one_journal_sent_by_several_at_once_is_stored_once(server: RunningServer) -> None:
    writer = ScriptedWriter(id="several", writer_id=next(_ids))
    frames = [*writer.rows(200), writer.finish()]
    last = writer.next_seq

    def send() -> None:
        mine = ScriptedWriter(id=writer.id, writer_id=writer.writer_id)
        mine.next_seq = last
        store_all(server.write_address, mine, frames)

    threads = [threading.Thread(target=send) for _ in range(SENDERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert steps_of(server, writer) == list(range(200))
    (found,) = httpx.get(f"{server.url}/api/v1/runs/local/demo/several/writers").json()["writers"]
    assert (found["next_seq"], found["gaps"]) == (last, [])


@pytest.mark.fault(41)
def test_of_two_frames_of_one_number_the_first_counts_and_the_second_is_kept_with_an_alarm(server: RunningServer) -> None:
    writer = ScriptedWriter(id="twins", writer_id=next(_ids))
    first = writer.rows(2)
    writer.next_seq = 2
    (second,) = writer.rows(1, first_step=77)
    with DoorStream(server.write_address) as stream:
        stream.open(writer)
        stream.send(first)
        stream.wait_durable(3)
        stream.send([second, *writer.rows(1, first_step=2)])
        stream.wait_durable(4)

    assert steps_of(server, writer) == [0, 1, 2]
    assert "frames that differ from those stored under their numbers" in server.log.read_text()
