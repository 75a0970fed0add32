"""kill -9 of the server at any instant: what was acked durable is there, what is sent again is not there twice."""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.server.test_read_door import run_path
from tests.server.test_write_door import steps_of, wait_for_state, writers_of
from tests.support.door import DoorStream, store_all
from tests.support.frames import ScriptedWriter
from tests.support.servers import RunningServer
from tests.support.trainers import wait_until

if TYPE_CHECKING:
    from pathlib import Path

WRITERS = 4
FRAMES = 300


@pytest.mark.timeout(180)
@pytest.mark.parametrize("seed", range(4))
def test_acked_frames_survive_kill_9_under_load_and_replays_are_duplicates(data: Path, seed: int) -> None:
    writers = [ScriptedWriter(id=f"r{index}", writer_id=100 + index) for index in range(WRITERS)]
    frames = {writer.id: writer.rows(FRAMES) for writer in writers}
    for writer in writers:
        frames[writer.id].append(writer.data(config={"done": True}))
        frames[writer.id].append(writer.finish())
        writer.next_seq = 1
    kill_at = random.Random(seed).randrange(1, WRITERS * FRAMES)

    acked = _send_until_killed(data, writers, frames, kill_at)

    with RunningServer(data) as server, httpx.Client(base_url=server.url, timeout=20.0) as api:
        for writer in writers:
            with DoorStream(server.write_address) as stream:
                ok = stream.open(writer)
                assert ok.next_seq >= acked[writer.id], "an acked frame is lost"
                writer.next_seq = FRAMES + 3
                stream.send(frames[writer.id])  # all of them: what is there already must not count twice
                stream.wait_durable(FRAMES + 3)
                _wait_for_duplicates(api, writer, ok.next_seq - 1)  # a stream that ends takes unread messages with it
            wait_for_state(api, writer, "finished")
            assert steps_of(api, writer) == list(range(FRAMES))
            assert api.get(run_path(writer)).json()["config"] == {"done": True}


def _wait_for_duplicates(api: httpx.Client, writer: ScriptedWriter, least: int) -> None:
    wait_until(lambda: writers_of(api, writer)[0]["duplicates"] >= least, f"{least} frames of {writer.id} are duplicates")


def _send_until_killed(data: Path, writers: list[ScriptedWriter], frames: dict[str, list[bytes]], kill_at: int) -> dict[str, int]:
    """Send on all streams at once, kill the server when so many frames are durable; returns what each writer was acked."""
    server = RunningServer(data)
    streams = {writer.id: DoorStream(server.write_address) for writer in writers}
    for writer in writers:
        streams[writer.id].open(writer)

    def send(writer_id: str) -> None:
        for index in range(0, len(frames[writer_id]), 3):
            streams[writer_id].send(frames[writer_id][index : index + 3])

    threads = [threading.Thread(target=send, args=(writer.id,)) for writer in writers]
    for thread in threads:
        thread.start()
    first = streams[writers[0].id]
    share = kill_at // WRITERS
    first.wait(lambda: first.durable > share or None, may_end=True)
    server.kill()
    for thread in threads:
        thread.join()
    for stream in streams.values():
        stream.wait_end()
        stream.close()
    return {writer_id: max(1, stream.durable) for writer_id, stream in streams.items()}


def test_documents_are_applied_exactly_once_however_often_the_server_dies(data: Path) -> None:
    writer = ScriptedWriter()
    changes = [writer.data(config={"count": index, f"key{index}": index}) for index in range(20)]
    removal = writer.data(config={}, removed=["key3"])
    for round_ in range(3):
        with RunningServer(data) as server, DoorStream(server.write_address) as stream:
            stream.open(writer)
            stream.send([*changes, removal] if round_ else changes)
            stream.wait_durable(len(changes) + 1 + bool(round_))
            server.kill()  # perhaps before, perhaps after the documents were applied

    with RunningServer(data) as server, httpx.Client(base_url=server.url, timeout=20.0) as api:
        store_all(server.write_address, writer, [*changes, removal, writer.finish()])
        wait_for_state(api, writer, "finished")
        config = api.get(run_path(writer)).json()["config"]

    assert config == {"count": 19, **{f"key{index}": index for index in range(20) if index != 3}}
