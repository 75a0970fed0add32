"""Who takes over from a dead writer says so with Bye; nobody else can, and the writer itself takes it back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
from runferry.server._generated import ingest_pb2 as pb

from tests.support.door import DoorStream
from tests.support.frames import ScriptedWriter
from tests.support.servers import RunningServer
from tests.support.silence import ten_minutes_pass
from tests.support.trainers import wait_until

if TYPE_CHECKING:
    from pathlib import Path


def states(api: httpx.Client, writer: ScriptedWriter) -> tuple[str, int | None, str]:
    """Of the run, with its exit code, and of its one writer."""
    path = f"/api/v1/runs/{writer.entity}/{writer.project}/{writer.id}"
    run: dict[str, Any] = api.get(path).raise_for_status().json()
    (found,) = api.get(f"{path}/writers").raise_for_status().json()["writers"]
    return run["state"], run["exit_code"], found["state"]


def replay(server: RunningServer, writer: ScriptedWriter, *frames: bytes, died: bool = True, is_replay: bool = True) -> None:
    """What an adopter does: open, send, wait for the ack, say Bye."""
    with DoorStream(server.write_address) as stream:
        stream.open(writer, replay=is_replay)
        stream.send(frames)
        stream.wait_durable(writer.next_seq)
        stream.bye(died=died)
        stream.wait_end()


def test_a_run_whose_only_writer_died_has_failed_and_nobody_knows_its_exit_code(
    server: RunningServer, writer: ScriptedWriter, api: httpx.Client
) -> None:
    replay(server, writer, *writer.rows(5))

    wait_until(lambda: states(api, writer) == ("failed", None, "died"), "the death is noted")


def test_a_replay_that_knows_of_no_death_leaves_it_to_the_clock(server: RunningServer, writer: ScriptedWriter, api: httpx.Client) -> None:
    replay(server, writer, *writer.rows(5), died=False)

    assert states(api, writer)[0] == "running"


def test_a_death_that_the_writer_itself_reports_is_none(server: RunningServer, writer: ScriptedWriter, api: httpx.Client) -> None:
    replay(server, writer, *writer.rows(5), is_replay=False)

    assert states(api, writer)[0] == "running"


def test_a_finish_among_what_was_left_counts_for_more(server: RunningServer, writer: ScriptedWriter, api: httpx.Client) -> None:
    replay(server, writer, *writer.rows(5), writer.finish(exit_code=3))

    wait_until(lambda: states(api, writer) == ("failed", 3, "failed"), "FINISH is applied")


def test_a_writer_taken_for_dead_runs_again_with_its_next_beat(server: RunningServer, writer: ScriptedWriter, api: httpx.Client) -> None:
    with DoorStream(server.write_address) as living:
        living.open(writer)
        living.send(writer.rows(5))
        living.wait_durable(writer.next_seq)
        replay(server, writer)
        wait_until(lambda: states(api, writer)[0] == "failed", "the death is noted")

        living.say(pb.ClientMessage(beat=pb.Beat(next_seq=writer.next_seq)))
        wait_until(lambda: states(api, writer) == ("running", None, "running"), "the beat is written")


def test_what_is_replayed_is_no_sign_of_life(data: Path, writer: ScriptedWriter) -> None:
    other = ScriptedWriter(project=writer.project, id="other", writer_id=writer.writer_id + 1)
    with RunningServer(data) as server, httpx.Client(base_url=server.url) as api:
        for each in (writer, other):
            replay(server, each, *each.rows(5), died=False)
        wait_until(lambda: ten_minutes_pass(data) and {states(api, each)[0] for each in (writer, other)} == {"lost"}, "neither is heard of")

        replay(server, writer, *writer.rows(5), died=False)
        replay(server, other, *other.rows(5), is_replay=False)

        wait_until(lambda: states(api, other)[0] == "running", "the one that sent for itself is heard of")
        assert states(api, writer)[0] == "lost"
