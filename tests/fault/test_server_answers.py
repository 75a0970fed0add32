"""What a server may answer, and what a client does about it.

It waits as asked but never spins, stops where only a person can help, and keeps in its journal whatever is not acked. Each run meets a
scripted server; what it kept is then synced to a real one, exactly once.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import runferry
from runferry.server._generated import ingest_pb2 as pb

from tests.support import stored
from tests.support.fakeserver import FakeServer, FakeStream, honest
from tests.support.servers import RunningServer
from tests.support.trainers import command, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runferry._run import Run

Status = grpc.StatusCode
ROWS = 200
WATCH_S = 1.0
SHORTEST_PAUSE_S = 0.05
"""What a hint of nothing counts as."""
_ids = itertools.count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Where everything has to arrive in the end."""
    with RunningServer(tmp_path_factory.mktemp("server") / "data") as running:
        yield running


def start(fake: FakeServer, folder: Path) -> Run:
    """A run that sends to the scripted server."""
    return runferry.init(project="answers", id=f"r{next(_ids)}", dir=folder, settings={"base_url": fake.url, "silent": True})


def train(run: Run, first: int = 0, rows: int = ROWS) -> None:
    """Log rows `n` from `first` on."""
    for number in range(first, first + rows):
        run.log({"n": number})


def ended(run: Run) -> None:
    """Finish without waiting for the server."""
    begun = time.monotonic()
    run.finish(timeout=0.2)
    assert time.monotonic() - begun < 10, "finish hangs"


def assert_all_arrive(server: RunningServer, run: Run, folder: Path, rows: int = ROWS) -> None:
    """Send what the journal holds to the real server; each row is there once."""
    synced = command(folder, "sync", str(folder / "runferry"), "--base-url", server.url)
    assert synced.returncode == 0, synced.stdout + synced.stderr
    assert stored.cells(server.url, run.path) == [(step, {"n": step}) for step in range(rows)]


@pytest.mark.fault(53)
@pytest.mark.parametrize("code", [Status.PERMISSION_DENIED, Status.NOT_FOUND], ids=lambda code: code.name)
@pytest.mark.parametrize("when", ["at Open", "in mid-stream"])
def test_a_run_that_the_server_refuses_is_blocked_trains_on_and_keeps_everything(
    server: RunningServer, tmp_path: Path, code: Any, when: str
) -> None:
    is_late = when != "at Open"

    async def refuse(stream: FakeStream) -> None:
        await (stream.accept() if is_late else stream.hear_open())
        while is_late and (message := await stream.hear()) is not None and message.WhichOneof("kind") != "frames":
            pass
        await stream.fail(code, "your access ended")

    with FakeServer(refuse) as fake:
        run = start(fake, tmp_path)
        train(run)
        wait_until(lambda: run.status().connection == "blocked", "blocked")
        train(run, ROWS)
        assert run.flush()
        status = run.status()
        assert (status.dropped_rows, status.acked_frames, status.journal) == (0, 0, "ok")
        assert "your access ended" in str(status.last_error)
        ended(run)
        assert len(fake.opened_at) == 1, "a run that is refused is not asked for again"
    assert_all_arrive(server, run, tmp_path, 2 * ROWS)


@pytest.mark.fault(53)
@pytest.mark.parametrize("code", [pb.Reject.RUN_DELETED, pb.Reject.FORBIDDEN, pb.Reject.BAD_OPEN, 99], ids=str)
def test_a_reject_of_the_whole_stream_blocks_the_run(server: RunningServer, tmp_path: Path, code: Any) -> None:
    async def reject(stream: FakeStream) -> None:
        await stream.accept()
        await stream.say(reject=pb.Reject(code=code, reason="gone"))

    with FakeServer(reject) as fake:
        run = start(fake, tmp_path)
        train(run)
        wait_until(lambda: run.status().connection == "blocked", "blocked")
        ended(run)
    assert_all_arrive(server, run, tmp_path)


@pytest.mark.fault(54)
@pytest.mark.parametrize("code", [Status.FAILED_PRECONDITION, Status.UNIMPLEMENTED], ids=lambda code: code.name)
def test_a_server_of_another_version_is_told_apart_and_nobody_waits_for_it(server: RunningServer, tmp_path: Path, code: Any) -> None:
    async def refuse(stream: FakeStream) -> None:
        await stream.hear_open()
        await stream.fail(code, "speak protocol 2")

    with FakeServer(refuse) as fake:
        run = start(fake, tmp_path)
        train(run)
        wait_until(lambda: run.status().connection == "incompatible", "incompatible")
        begun = time.monotonic()
        run.finish(timeout=600)
        assert time.monotonic() - begun < 60, "no wait helps"
        synced = command(tmp_path, "sync", str(tmp_path / "runferry"), "--base-url", fake.url)
        assert synced.returncode == 1
        assert "speak protocol 2" in synced.stdout
        assert len(fake.opened_at) == 2, "neither asks twice"
    assert_all_arrive(server, run, tmp_path)


@pytest.mark.fault(49)
@pytest.mark.parametrize(
    ("way", "hint_s"),
    [("status", hint_s) for hint_s in (0.0, 0.001, 0.3, 3_600.0, 2.0**32 / 1_000, None)]
    + [("throttle", hint_s) for hint_s in (0.0, 3_600.0)],
)
def test_a_busy_server_is_left_alone_as_long_as_it_asks_and_never_asked_without_a_pause(
    server: RunningServer, tmp_path: Path, way: str, hint_s: float | None
) -> None:
    async def busy(stream: FakeStream) -> None:
        await stream.hear_open()
        if way == "throttle":
            await stream.say(throttle=pb.Throttle(retry_after_ms=int((hint_s or 0) * 1_000), reason="full"))
        else:
            await stream.fail(Status.RESOURCE_EXHAUSTED, "full", retry_after_s=hint_s)

    with FakeServer(busy) as fake:
        run = start(fake, tmp_path)
        train(run)
        wait_until(lambda: len(fake.opened_at) > 0, "the first attempt")
        time.sleep(WATCH_S)  # what is counted is how often it comes back in this time
        asked = len(fake.opened_at)
        ended(run)
    if hint_s is None:
        assert asked < 20, "the pauses double"
    elif hint_s <= SHORTEST_PAUSE_S:
        assert 2 < asked <= WATCH_S / SHORTEST_PAUSE_S + 2
    else:
        assert asked <= WATCH_S / hint_s + 2
    pauses = [later - earlier for earlier, later in itertools.pairwise(fake.opened_at)]
    if hint_s is not None:
        assert all(pause >= max(hint_s, SHORTEST_PAUSE_S) for pause in pauses), pauses
        assert len(pauses) < 5 or max(pauses) - min(pauses) > SHORTEST_PAUSE_S / 20, "no jitter"
    assert_all_arrive(server, run, tmp_path)


@pytest.mark.fault(49)
def test_a_throttled_stream_sends_nothing_for_the_time_asked_and_then_no_faster_than_asked(server: RunningServer, tmp_path: Path) -> None:
    heard: list[tuple[float, int]] = []

    async def throttling(stream: FakeStream) -> None:
        await stream.accept()
        await stream.say(throttle=pb.Throttle(retry_after_ms=700, bytes_per_s=20_000, linger_ms=50))
        heard.append((time.monotonic(), 0))
        while (message := await stream.hear()) is not None:
            if message.WhichOneof("kind") == "frames":
                heard.append((time.monotonic(), sum(map(len, message.frames.frames))))
                for frame in message.frames.frames:
                    stream.server.take(frame)
                await stream.ack()
            elif message.WhichOneof("kind") == "bye":
                return

    with FakeServer(throttling) as fake:
        run = start(fake, tmp_path)
        for burst in range(20):
            train(run, burst * 10, 10)
            assert run.flush()
            time.sleep(0.05)  # a frame for each burst
        assert run.flush(acked=True, timeout=30)
        sent_bytes = sum(size for _, size in heard)
        took_s = heard[-1][0] - heard[1][0]
        ended(run)
    # What was on its way before the message came does not count: it says nothing about obedience.
    (throttled_at, _), *frames = heard
    late = [at for at, _ in frames if at - throttled_at > 0.2]
    assert len(frames) - len(late) <= 2
    assert min(late) - throttled_at >= 0.7
    assert took_s >= (sent_bytes - heard[-1][1]) / 20_000 - 0.2
    assert_all_arrive(server, run, tmp_path)


@pytest.mark.fault(34, 49)
def test_a_server_that_drains_every_stream_is_asked_less_and_less(server: RunningServer, tmp_path: Path) -> None:
    async def draining(stream: FakeStream) -> None:
        await stream.accept(credit_bytes=0)
        await stream.say(drain=pb.Drain(reconnect_after_ms=0))

    with FakeServer(draining) as fake:
        run = start(fake, tmp_path)
        train(run)
        wait_until(lambda: len(fake.opened_at) > 0, "the first stream")
        time.sleep(2 * WATCH_S)  # as above
        assert 1 < len(fake.opened_at) < 20
        ended(run)
    assert_all_arrive(server, run, tmp_path)


@pytest.mark.fault(34)
def test_a_drain_is_obeyed_no_frame_follows_it_and_the_client_comes_back_when_it_is_told(server: RunningServer, tmp_path: Path) -> None:
    after_drain: list[pb.ClientMessage] = []
    drained_at: list[float] = []

    async def drain_once(stream: FakeStream) -> None:
        if stream.index > 0:
            await honest(stream)
            return
        await stream.accept()
        await stream.hear()
        await stream.say(drain=pb.Drain(reconnect_after_ms=800))
        drained_at.append(time.monotonic())
        await asyncio.sleep(0.3)  # what was on its way is here now
        with_frames = 0
        while True:
            try:
                message = await asyncio.wait_for(stream.hear(), 0.3)
            except asyncio.TimeoutError:
                break
            with_frames += message is not None and message.WhichOneof("kind") == "frames"
            if message is None:
                break
        after_drain.extend([pb.ClientMessage()] * max(0, with_frames - 2))

    with FakeServer(drain_once) as fake:
        run = start(fake, tmp_path)
        for burst in range(40):
            train(run, burst * 5, 5)
            run.flush()
            time.sleep(0.02)  # frames all the time
        assert run.flush(acked=True, timeout=30)
        ended(run)
    assert not after_drain
    assert 0.8 <= fake.opened_at[1] - drained_at[0] < 5
    assert_all_arrive(server, run, tmp_path)


@pytest.mark.fault(53)
def test_a_refused_frame_is_set_aside_a_gap_takes_its_place_and_the_rest_goes_on(tmp_path: Path) -> None:
    refused = {2, 4}

    async def picky(stream: FakeStream) -> None:
        await stream.accept()
        while (message := await stream.hear()) is not None:
            if message.WhichOneof("kind") == "frames":
                for frame in message.frames.frames:
                    seq = int.from_bytes(frame[40:48], "little")
                    if seq in refused and frame[5] == 1 and seq == stream.server.next_seq:
                        await stream.say(reject=pb.Reject(code=pb.Reject.UNKNOWN_KIND, reason="not this one", seq=seq))
                    else:
                        stream.server.take(frame)
            await stream.ack()
            if message.WhichOneof("kind") == "bye":
                return

    with FakeServer(picky) as fake:
        run = start(fake, tmp_path)
        for burst in range(6):
            train(run, burst * 10, 10)
            assert run.flush()
        assert run.flush(acked=True, timeout=30), run.status()
        status = run.status()
        journal = Path(str(status.journal_dir))
        ended(run)
        kinds = {seq: frame[5] for seq, frame in fake.frames.items()}
    assert status.rejected_frames == len(refused)
    assert "not this one" in str(status.last_error)
    assert "rejected" in str(status.last_error)
    assert [seq for seq, kind in kinds.items() if kind == 4] == sorted(refused)
    assert [seq for seq in range(1, max(kinds)) if seq not in kinds] == [], "a hole"
    shown = command(tmp_path, "journal", "cat", str(journal / "rejected"))
    assert shown.stdout.count("10 records") == len(refused), shown.stderr
    kept = sorted(path.name for path in (journal / "rejected").iterdir())
    assert kept == [f"seg-{seq:020}.rfj" for seq in sorted(refused)]
    assert all(rows_in(journal / "rejected" / name) == 10 for name in kept)


def rows_in(segment: Path) -> int:
    """Rows of the one frame behind the OPEN frame of a segment, by its header."""
    data = segment.read_bytes()
    first = 64 + int.from_bytes(data[8:12], "little")
    second = first + -first % 8
    return int.from_bytes(data[second + 48 : second + 52], "little")


@pytest.mark.fault(40, 58)
def test_rewinds_in_range_are_followed_and_a_storm_of_them_ends_the_connection(server: RunningServer, tmp_path: Path) -> None:
    async def forgetful(stream: FakeStream) -> None:
        if stream.index > 1:
            await honest(stream)
            return
        await stream.accept()
        count = 0
        while (message := await stream.hear()) is not None:
            if message.WhichOneof("kind") == "frames":
                count += len(message.frames.frames)
                for _ in range(1 if stream.index == 0 and count > 5 else 300 if stream.index == 1 else 0):
                    await stream.say(rewind=pb.Rewind(next_seq=1, reason="gap"))
            if stream.index == 0 and count > 20:
                return

    with FakeServer(forgetful) as fake:
        run = start(fake, tmp_path)
        for burst in range(20):
            train(run, burst * 10, 10)
            run.flush()
        assert run.flush(acked=True, timeout=30), run.status()
        assert run.status().retries >= 2
        assert sorted(fake.frames) == list(range(1, fake.next_seq))
        ended(run)
    assert_all_arrive(server, run, tmp_path)
