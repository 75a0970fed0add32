"""The server's wall clock jumps by days while writers are connected: nothing is ordered by it, nobody is thrown out, nobody seems dead."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import httpx
import pytest
from runferry.server import check
from runferry.server._generated import ingest_pb2 as pb

from tests.support import stored
from tests.support.clock import WallClock
from tests.support.door import DoorStream
from tests.support.frames import ScriptedWriter
from tests.support.servers import RunningServer
from tests.support.trainers import wait_until

if TYPE_CHECKING:
    from pathlib import Path

DAY_S = 86_400
JUMPS_S = (DAY_S, -2 * DAY_S, 0, 400 * DAY_S, -400 * DAY_S, 5)


def has_heard_of(server: RunningServer, path: str, jump: int) -> bool:
    """The config says so."""
    return bool(stored.run(server.url, path).config.get("jump") == jump)


def has_backlog(server: RunningServer, path: str, frames: int) -> bool:
    """The writer is shown as it said last."""
    (writer,) = stored.run(server.url, path).writers()
    return bool(writer["backlog_frames"] == frames)


def heard_at_h(server: RunningServer, path: str) -> float:
    """Hours since 1970 at which the server has heard of the run last."""
    return float(httpx.get(f"{server.url}/api/v1/runs/{path}").raise_for_status().json()["heartbeat_at_us"]) / 3_600e6


@pytest.mark.fault(74)
@pytest.mark.timeout(120)
def test_a_clock_that_jumps_orders_nothing_and_nobody_is_taken_for_dead(tmp_path: Path) -> None:
    clock = WallClock(tmp_path)
    writer, path = ScriptedWriter(), "local/demo/r1"
    with RunningServer(tmp_path / "data", prefix=clock.prefix) as server:
        with DoorStream(server.write_address) as stream:
            stream.open(writer)
            began_at = heard_at_h(server, path)
            for number, jump_s in enumerate(JUMPS_S):
                clock.set(jump_s)
                stream.send([writer.data([(number, {"loss": float(number)})], config={"jump": number, f"jump{number}": jump_s})])
                stream.wait_durable(writer.next_seq)
                stream.say(pb.ClientMessage(beat=pb.Beat(next_seq=writer.next_seq, backlog_frames=number + 1)))
                wait_until(functools.partial(has_heard_of, server, path, number), "the change is applied")
                wait_until(functools.partial(has_backlog, server, path, number + 1), "the beat is taken")
                wait_until(lambda: stored.run(server.url, path).state == "running", "the run is running")
                if number == 0:
                    wait_until(lambda: heard_at_h(server, path) > began_at + 12, "the server lives a day ahead")
            stream.send([writer.finish()])
            stream.wait_durable(writer.next_seq)
            assert stream.all("rewind") == stream.all("throttle") == stream.all("drain") == []
        stored.wait_for_state(server.url, path, "finished")
        assert server.stop() == 0

    clock.set(-10 * DAY_S)
    with RunningServer(tmp_path / "data", prefix=clock.prefix) as server:
        later = ScriptedWriter(writer_id=0x99)
        with DoorStream(server.write_address) as stream:
            ok = stream.open(later)
            stream.send([later.data([(number, {"loss": -1.0}) for number in (len(JUMPS_S),)]), later.finish()])
            stream.wait_durable(later.next_seq)
        wait_until(lambda: stored.run(server.url, path).stored["rows"] == len(JUMPS_S) + 1, "the last row is counted")

        assert ok.last_step == len(JUMPS_S) - 1
        values = [row["loss"] for row in stored.rows(server.url, path, keys=["loss"])]
        assert values == [*map(float, range(len(JUMPS_S))), -1.0]
        assert stored.run(server.url, path).config == {"jump": len(JUMPS_S) - 1} | {f"jump{n}": jump for n, jump in enumerate(JUMPS_S)}
        assert server.stop() == 0
    assert check.main(["--data", str(tmp_path / "data")]) == 0
