"""A busy server asks for larger frames: what a run does about it, and that a chart is then late and nothing is lost."""

from __future__ import annotations

import time
from itertools import count
from typing import TYPE_CHECKING

import pytest
import runferry
from runferry.server._generated import ingest_pb2 as pb

from tests.support import stored
from tests.support.fakeserver import FakeServer, FakeStream
from tests.support.ports import free_port
from tests.support.servers import RunningServer
from tests.support.trainers import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from runferry._run import Run

UNASKED_S = 0.1


def started(url: str, folder: Path) -> Run:
    """A run that writes there."""
    return runferry.init(project="linger", id="r1", dir=folder, settings={"base_url": url, "silent": True})


def log_until_linger(run: Run, rows: count[int], is_there: float) -> None:
    """Log until rows gather for so long."""

    def gathers() -> bool:
        run.log({"n": next(rows)})
        return run.status().linger_s == is_there

    wait_until(gathers, f"rows gather for {is_there} s")


def test_a_busy_server_is_sent_fewer_frames_until_it_is_another_one_and_every_row_arrives(tmp_path: Path) -> None:
    rows, port = count(), free_port()
    with RunningServer(tmp_path / "data", "--max-frame-rate", "1", port=port) as server:
        run = started(server.url, tmp_path)
        log_until_linger(run, rows, 2 * UNASKED_S)
    with RunningServer(tmp_path / "data", port=port) as server:
        log_until_linger(run, rows, UNASKED_S)
        run.finish()

        found = stored.rows(server.url, "local/linger/r1")

    assert [row["n"] for row in found] == list(range(next(rows)))


@pytest.mark.parametrize(("asked_ms", "linger_s"), [(1_500, 1.5), (3_600_000, 5.0)], ids=["a wish", "one that is not believed"])
def test_rows_gather_as_long_as_the_server_asks_within_bounds_and_a_flush_does_not_wait(
    tmp_path: Path, asked_ms: int, linger_s: float
) -> None:
    async def asking(stream: FakeStream) -> None:
        await stream.accept()
        await stream.say(throttle=pb.Throttle(linger_ms=asked_ms))
        while (message := await stream.hear()) is not None and message.WhichOneof("kind") != "bye":
            for frame in message.frames.frames:
                stream.server.take(frame)
            await stream.ack()

    with FakeServer(asking) as fake:
        run = started(fake.url, tmp_path)
        wait_until(lambda: run.status().linger_s == linger_s, f"rows gather for {linger_s} s")
        assert run.flush(acked=True)
        frames = run.status().packed_frames

        begun = time.monotonic()
        run.log({"n": 0})
        if linger_s < 2:
            wait_until(lambda: run.status().packed_frames > frames, "the frame is made")
            assert time.monotonic() - begun >= linger_s
        assert run.flush(acked=True)
        assert run.status().packed_frames == frames + 1
        assert time.monotonic() - begun < linger_s + 3.0
        run.finish()
