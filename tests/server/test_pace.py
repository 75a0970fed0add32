"""How large frames should be: the steps of `Pace` on a clock of the test's own, and what the write door tells its writers of them."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

import pytest
from runferry.server.ingest.pace import FIRST_LINGER_MS, LONGEST_LINGER_MS, WINDOW_S, Pace

from tests.support.door import TIMEOUT_S, DoorStream
from tests.support.frames import ScriptedWriter
from tests.support.servers import RunningServer

if TYPE_CHECKING:
    from pathlib import Path

MOST_PER_S = 8_000


class Hours:
    """A pace, and frames that come at a steady rate."""

    def __init__(self) -> None:
        self.now_s = 1_000.0
        self.pace = Pace(MOST_PER_S, lambda: self.now_s)

    def after(self, seconds: float, frames_per_s: float) -> int:
        """The wait after so long at this rate, in ten messages a second."""
        for _ in range(round(seconds * 10)):
            self.now_s += 0.1
            self.pace.count(round(frames_per_s / 10))
        return self.pace.linger_ms


def test_a_server_with_few_frames_asks_for_nothing() -> None:
    assert Hours().after(3_600, MOST_PER_S * 0.9) == FIRST_LINGER_MS


def test_each_window_above_the_limit_doubles_the_wait_up_to_the_longest() -> None:
    hours = Hours()

    waits = [hours.after(WINDOW_S + 0.1, MOST_PER_S * 2) for _ in range(7)]

    assert waits == [200, 400, 800, 1_600, 3_200, LONGEST_LINGER_MS, LONGEST_LINGER_MS]


def test_what_a_longer_wait_brings_does_not_take_it_back_and_quiet_does() -> None:
    hours = Hours()
    assert hours.after(WINDOW_S + 0.1, MOST_PER_S * 1.2) == 200

    assert hours.after(600, MOST_PER_S * 0.6) == 200
    assert hours.after(2 * WINDOW_S, MOST_PER_S * 0.3) == FIRST_LINGER_MS


@pytest.mark.parametrize("writers", [100, 1_000, 8_000, 100_000])
def test_writers_that_do_as_they_are_asked_come_to_rest(writers: int) -> None:
    hours = Hours()

    waits = [hours.after(WINDOW_S + 0.1, writers * 1_000 / hours.pace.linger_ms) for _ in range(30)]

    assert len(set(waits[8:])) == 1, waits
    assert waits[-1] == LONGEST_LINGER_MS or writers * 1_000 / waits[-1] <= MOST_PER_S


def test_a_quiet_night_ends_all_waits_at_once() -> None:
    hours = Hours()
    assert hours.after(60, MOST_PER_S * 2) == LONGEST_LINGER_MS

    hours.now_s += 3_600
    hours.pace.count(1)

    assert hours.pace.linger_ms == FIRST_LINGER_MS


def send_until_told(stream: DoorStream, writer: ScriptedWriter) -> int:
    """Row after row until the server has a wish; the wait it asks for."""
    for step in count():
        stream.send(writer.rows(1, first_step=step))
        stream.wait_durable(writer.next_seq)
        if told := stream.all("throttle"):
            assert [(each.throttle.retry_after_ms, each.throttle.bytes_per_s) for each in told] == [(0, 0)]
            return told[0].throttle.linger_ms
    raise AssertionError


@pytest.mark.timeout(TIMEOUT_S * 2)
def test_writers_are_asked_for_larger_frames_with_their_next_ones_and_replays_are_not(tmp_path: Path) -> None:
    with RunningServer(tmp_path / "data", "--max-frame-rate", "1") as server:
        living, replaying = ScriptedWriter(project="pace", writer_id=1), ScriptedWriter(project="pace", writer_id=2)
        with DoorStream(server.write_address) as stream, DoorStream(server.write_address) as replay:
            stream.open(living)
            replay.open(replaying, replay=True)

            assert send_until_told(stream, living) == 2 * FIRST_LINGER_MS

            replay.send(replaying.rows(5))
            replay.wait_durable(6)
            assert replay.all("throttle") == []
