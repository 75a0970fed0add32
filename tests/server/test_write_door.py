"""The write door over loopback, with a scripted writer: every rule of ingest.proto."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from runferry.server._generated import ingest_pb2 as pb

from tests.support.door import DoorStream, store_all
from tests.support.frames import ScriptedWriter, flip_bit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import httpx

    from tests.support.servers import RunningServer


@pytest.fixture
def stream(server: RunningServer) -> Iterator[DoorStream]:
    """A connected stream, not opened."""
    with DoorStream(server.write_address) as connected:
        yield connected


def writers_of(api: httpx.Client, writer: ScriptedWriter) -> list[dict[str, Any]]:
    """The writers of its run, as the read door answers them."""
    found: list[dict[str, Any]] = (
        api.get(f"/api/v1/runs/{writer.entity}/{writer.project}/{writer.id}/writers").raise_for_status().json()["writers"]
    )
    return found


def steps_of(api: httpx.Client, writer: ScriptedWriter, key: str = "loss") -> list[int]:
    """The stored steps of a metric."""
    path = f"/api/v1/runs/{writer.entity}/{writer.project}/{writer.id}/history"
    (series,) = api.get(path, params={"keys": key, "buckets": 10_000}).raise_for_status().json()["series"]
    steps: list[int] = series["step_first"]
    return steps


def test_open_says_where_to_go_on_and_how_much_may_be_sent(stream: DoorStream, writer: ScriptedWriter, api: httpx.Client) -> None:
    ok = stream.open(writer)

    assert (ok.next_seq, ok.run_existed, ok.last_step, ok.durability) == (1, False, -1, "disk")
    assert ok.run_url == f"/runs/local/{writer.project}/r1"
    assert ok.credit_bytes == 4 << 20
    assert ok.storage_epoch.hex() == api.get("/api/v1/door").json()["storage_epoch"]


def test_frames_are_acked_durable_and_can_be_read(stream: DoorStream, writer: ScriptedWriter, api: httpx.Client) -> None:
    stream.open(writer)

    stream.send(writer.rows(20))
    stream.wait_durable(21)

    assert steps_of(api, writer) == list(range(20))


def test_a_writer_that_comes_back_goes_on_where_the_store_is(server: RunningServer, stream: DoorStream, writer: ScriptedWriter) -> None:
    store_all(server.write_address, writer, writer.rows(3))

    ok = stream.open(writer)

    assert (ok.next_seq, ok.last_step) == (4, 2)


def test_a_second_writer_is_told_that_the_run_existed(
    server: RunningServer, stream: DoorStream, writer: ScriptedWriter, project: str
) -> None:
    store_all(server.write_address, writer, writer.rows(3))

    ok = stream.open(ScriptedWriter(project=project, writer_id=0xFFFF_FFFF_FFFF_FFFF))

    assert (ok.next_seq, ok.run_existed, ok.last_step) == (1, True, 2)


def test_replayed_frames_are_counted_and_change_nothing(stream: DoorStream, writer: ScriptedWriter, api: httpx.Client) -> None:
    stream.open(writer)
    frames = writer.rows(5)
    stream.send(frames)
    stream.wait_durable(6)

    stream.send(frames)
    stream.send(writer.rows(1, first_step=5))
    stream.wait_durable(7)

    assert steps_of(api, writer) == list(range(6))
    (found,) = writers_of(api, writer)
    assert (found["next_seq"], found["duplicates"]) == (7, 5)


def test_a_hole_is_answered_with_a_rewind_and_nothing_behind_it_is_stored(
    stream: DoorStream, writer: ScriptedWriter, api: httpx.Client
) -> None:
    stream.open(writer)
    frames = writer.rows(5)

    stream.send([frames[0], *frames[2:]])
    rewind = stream.wait_kind("rewind").rewind
    stream.wait_durable(2)

    assert (rewind.next_seq, rewind.reason) == (2, "gap")
    assert steps_of(api, writer) == [0]
    stream.send(frames[1:])
    stream.wait_durable(6)
    assert steps_of(api, writer) == list(range(5))
    assert len(stream.all("rewind")) == 1


@pytest.mark.parametrize("bit", [0, 40 * 8, 61 * 8, 70 * 8])
def test_a_flipped_bit_is_never_stored_and_the_writer_sends_that_frame_again(
    stream: DoorStream, writer: ScriptedWriter, api: httpx.Client, bit: int
) -> None:
    stream.open(writer)
    frames = writer.rows(3)

    stream.send([frames[0], flip_bit(frames[1], bit), frames[2]])
    rewind = stream.wait_kind("rewind").rewind
    stream.send(frames[1:])
    stream.wait_durable(4)

    assert (rewind.next_seq, rewind.reason) == (2, "checksum")
    assert steps_of(api, writer) == [0, 1, 2]


def test_one_writer_on_two_streams_is_stored_once(
    server: RunningServer, stream: DoorStream, writer: ScriptedWriter, api: httpx.Client
) -> None:
    stream.open(writer)
    frames = writer.rows(50)

    with DoorStream(server.write_address) as other:
        other.open(ScriptedWriter(project=writer.project, writer_id=writer.writer_id))
        for index in range(0, 50, 5):
            stream.send(frames[index : index + 5])
            other.send(frames[index : index + 5])
        stream.wait_durable(51)
        other.wait_durable(51)

    assert steps_of(api, writer) == list(range(50))
    assert writers_of(api, writer)[0]["duplicates"] >= 1


def test_a_counted_gap_keeps_the_sequence_whole_and_is_shown(stream: DoorStream, writer: ScriptedWriter, api: httpx.Client) -> None:
    stream.open(writer)

    stream.send([*writer.rows(1), writer.gap(4, "thinned", rows=40, detail="disk full"), *writer.rows(1, first_step=9), writer.finish()])
    stream.wait_durable(8)
    stream.bye()
    stream.wait_end()

    assert steps_of(api, writer) == [0, 9]
    wait_for_state(api, writer, "finished")
    (found,) = writers_of(api, writer)
    assert found["gaps"] == [{"seq": 2, "count": 4, "reason": "thinned", "rows": 40, "points": 0, "bytes": 0, "detail": "disk full"}]
    assert (found["finished"], found["exit_code"], found["state"]) == (True, 0, "finished")


def test_credit_grows_as_frames_become_durable(stream: DoorStream, writer: ScriptedWriter) -> None:
    ok = stream.open(writer)
    noise = random.Random(1)
    sent = 0
    for first in range(0, 200_000, 20_000):
        frame = writer.data([(step, {"loss": noise.random()}) for step in range(first, first + 20_000)])
        sent += len(frame)
        stream.send([frame])
    stream.wait_durable(11)

    assert sent > 1 << 20
    granted = stream.wait_kind("credit").credit.total_bytes
    assert granted >= ok.credit_bytes + (1 << 20)


def test_a_beat_is_answered_by_an_ack(stream: DoorStream, writer: ScriptedWriter) -> None:
    stream.open(writer)

    stream.say(pb.ClientMessage(beat=pb.Beat(next_seq=1, backlog_frames=7, lag_s=2.5)))

    ack = stream.wait_kind("ack").ack
    assert (ack.received_next_seq, ack.durable_next_seq) == (1, 1)


@pytest.mark.fault(54)
def test_a_kind_that_nobody_knows_yet_is_kept(stream: DoorStream, writer: ScriptedWriter, api: httpx.Client) -> None:
    stream.open(writer)

    stream.send([*writer.rows(1), writer.raw(200, {"future": True}), *writer.rows(1, first_step=1)])
    stream.wait_durable(4)

    assert steps_of(api, writer) == [0, 1]


def test_the_open_frame_of_a_segment_between_the_frames_is_skipped(stream: DoorStream, writer: ScriptedWriter) -> None:
    stream.open(writer)

    stream.send([*writer.rows(1), writer.open_frame(), *writer.rows(1, first_step=1)])

    stream.wait_durable(3)


REFUSED_OPENS: dict[str, tuple[pb.Reject.Code, Callable[[ScriptedWriter], pb.Open]]] = {
    "protocol": (pb.Reject.INCOMPATIBLE, lambda writer: pb.Open(protocol=2, open_frame=writer.open_frame())),
    "format": (pb.Reject.INCOMPATIBLE, lambda writer: pb.Open(protocol=1, open_frame=writer.open_frame(version=2))),
    "nothing": (pb.Reject.BAD_OPEN, lambda _writer: pb.Open(protocol=1)),
    "noise": (pb.Reject.BAD_OPEN, lambda _writer: pb.Open(protocol=1, open_frame=b"x" * 200)),
    "damage": (pb.Reject.BAD_OPEN, lambda writer: pb.Open(protocol=1, open_frame=flip_bit(writer.open_frame(), 600))),
    "other kind": (pb.Reject.BAD_OPEN, lambda writer: pb.Open(protocol=1, open_frame=writer.finish())),
    "slash": (pb.Reject.BAD_OPEN, lambda _writer: pb.Open(protocol=1, open_frame=ScriptedWriter(id="a/b").open_frame())),
    "other run": (pb.Reject.BAD_OPEN, lambda writer: pb.Open(protocol=1, open_frame=writer.open_frame(id="other"))),
}


@pytest.mark.parametrize("case", REFUSED_OPENS)
def test_an_open_that_cannot_be_served_is_rejected_with_its_reason(stream: DoorStream, writer: ScriptedWriter, case: str) -> None:
    code, make = REFUSED_OPENS[case]

    stream.say(pb.ClientMessage(open=make(writer)))
    reject = stream.wait_kind("reject").reject
    stream.wait_end()

    assert (reject.code, reject.seq) == (code, 0)
    assert reject.reason


def test_a_stream_that_does_not_begin_with_open_is_rejected(stream: DoorStream) -> None:
    stream.say(pb.ClientMessage(beat=pb.Beat()))

    assert stream.wait_kind("reject").reject.code == pb.Reject.BAD_OPEN


@pytest.mark.fault(57)
def test_frames_of_another_writer_end_the_stream_and_are_not_stored(stream: DoorStream, writer: ScriptedWriter, api: httpx.Client) -> None:
    stream.open(writer)
    foreign = ScriptedWriter(project=writer.project, writer_id=writer.writer_id + 1_000_000)

    stream.send([*writer.rows(1), *foreign.rows(1)])
    reject = stream.wait_kind("reject").reject
    stream.wait_end()

    assert (reject.code, reject.seq) == (pb.Reject.FORBIDDEN, 0)
    assert stream.durable == 2
    assert len(writers_of(api, writer)) == 1


@pytest.mark.fault(54)
def test_a_frame_of_a_newer_format_ends_the_stream_so_that_the_writer_keeps_it(stream: DoorStream, writer: ScriptedWriter) -> None:
    stream.open(writer)
    (frame,) = writer.rows(1)

    stream.send([frame[:4] + b"\x02" + frame[5:]])

    assert stream.wait_kind("reject").reject.code == pb.Reject.INCOMPATIBLE


@pytest.mark.fault(55)
def test_a_message_over_the_limit_ends_the_stream_only(server: RunningServer, stream: DoorStream, writer: ScriptedWriter) -> None:
    stream.open(writer)

    stream.send([bytes(17 << 20)])
    stream.wait_end()

    assert stream.error is not None
    assert stream.error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    with DoorStream(server.write_address) as again:
        again.open(writer)


@pytest.mark.fault(55)
def test_a_frame_over_the_limit_is_named_and_the_stream_goes_on(stream: DoorStream, writer: ScriptedWriter) -> None:
    stream.open(writer)
    (frame,) = writer.rows(1)

    stream.send([frame + bytes(9 << 20)])
    reject = stream.wait_kind("reject").reject
    stream.send([frame])
    stream.wait_durable(2)

    assert (reject.code, reject.seq) == (pb.Reject.FRAME_TOO_LARGE, 1)


@pytest.mark.fault(56)
def test_garbage_in_a_payload_that_is_whole_is_kept_and_the_run_goes_on(
    stream: DoorStream, writer: ScriptedWriter, api: httpx.Client
) -> None:
    stream.open(writer)

    stream.send([*writer.rows(1), writer.raw(1, "not blocks"), *writer.rows(1, first_step=1), writer.finish()])
    stream.wait_durable(5)

    wait_for_state(api, writer, "finished")
    assert steps_of(api, writer) == [0, 1]


def wait_for_state(api: httpx.Client, writer: ScriptedWriter, state: str) -> None:
    """Follow the run until it has this state."""
    path = f"/api/v1/runs/{writer.entity}/{writer.project}/{writer.id}/live"
    with api.stream("GET", path) as events:
        for line in events.iter_lines():
            if line.startswith("data:") and f'"state":"{state}"' in line:
                return
    raise AssertionError(f"the run did not become {state}")
