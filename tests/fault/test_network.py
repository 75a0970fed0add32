"""A real client and a real server with a bad network between them: each row is stored once, and no call of `log` waits for it."""

from __future__ import annotations

import itertools
import random
import signal
from typing import TYPE_CHECKING

import pytest
import runferry

from tests.support import stored
from tests.support.effort import effort, record
from tests.support.exactly_once import END_S, Training
from tests.support.faultproxy import FaultProxy, FaultyServer, Lane
from tests.support.trainers import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

UP_BYTES, DOWN_BYTES = 64 << 10, 2 << 10
"""Cuts are tried after each of so many bytes of a direction: more than a connection of the test carries."""
CUTS = effort("network_cuts", 48)
FLAPS_S = effort("network_flaps_s", 3)
AT_ONCE = 24
NOISE_ROWS, NOISE_BYTES = 80, 1_000
_ids = itertools.count()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyServer]:
    """A server behind a network, shared by the tests of this file."""
    with FaultyServer(tmp_path_factory.mktemp("network") / "data") as faulty:
        yield faulty


@pytest.fixture
def faulty(shared: FaultyServer) -> Iterator[FaultyServer]:
    """The same, without faults at the beginning and the end."""
    shared.heal()
    yield shared
    shared.heal()


@pytest.fixture
def training(faulty: FaultyServer, tmp_path: Path) -> Training:
    """A run through the network, connected."""
    begun = Training(faulty.url, tmp_path, f"r{next(_ids)}")
    begun.log(10)
    begun.all_acked()
    return begun


@pytest.mark.fault(45)
def test_half_a_second_of_latency_with_jitter_delays_and_loses_nothing(faulty: FaultyServer, training: Training) -> None:
    faulty.each(lambda proxy: proxy.both(delay_s=0.25, jitter_s=0.1))

    training.go_on(1.0)

    training.check(faulty.direct_url)


@pytest.mark.fault(45)
def test_a_link_of_one_megabit_carries_what_it_can_and_finish_waits_for_the_rest(faulty: FaultyServer, training: Training) -> None:
    faulty.each(lambda proxy: proxy.both(bytes_per_s=125_000))

    training.log(40_000)

    training.check(faulty.direct_url)


@pytest.mark.fault(45)
def test_bytes_that_arrive_one_by_one_are_put_together(faulty: FaultyServer, training: Training) -> None:
    faulty.each(lambda proxy: proxy.both(slice_bytes=1))
    faulty.write.reset_all()  # so that the door's answer and the handshake go byte by byte, too

    training.log(200)

    training.check(faulty.direct_url)


@pytest.mark.fault(46)
def test_behind_a_trickle_log_stays_fast_and_the_journal_takes_what_does_not_pass(faulty: FaultyServer, training: Training) -> None:
    acked = training.run.status().acked_frames
    faulty.write.up(bytes_per_s=1_000)

    training.go_on(2.0)

    status = training.run.status()
    assert training.run.flush(timeout=5)
    assert status.backlog_frames > 0
    assert status.journaled_frames > status.acked_frames >= acked
    faulty.heal()
    training.check(faulty.direct_url)


@pytest.mark.fault(46)
def test_a_server_that_stands_still_holds_up_no_call_and_takes_everything_when_it_goes_on(faulty: FaultyServer, training: Training) -> None:
    faulty.server.process.send_signal(signal.SIGSTOP)
    try:
        training.go_on(1.0)
        assert training.run.flush(timeout=5)
        assert training.run.status().backlog_frames > 0
    finally:
        faulty.server.process.send_signal(signal.SIGCONT)

    training.check(faulty.direct_url)


@pytest.mark.fault(43, 7)
def test_what_was_stored_while_its_acks_were_lost_is_not_stored_again(faulty: FaultyServer, training: Training) -> None:
    acked = training.run.status().acked_frames
    faulty.write.down(is_held=True)
    training.go_on(0.7)
    wait_until(lambda: stored.run(faulty.direct_url, training.run.path).stored["rows"] > 100, "rows are stored all the same")
    assert training.run.status().acked_frames == acked

    faulty.write.reset_all()  # what was held is lost for good
    faulty.heal()

    training.go_on(0.2)
    training.check(faulty.direct_url)


@pytest.mark.fault(50)
@pytest.mark.timeout(180 + FLAPS_S)
def test_a_connection_that_breaks_every_tenth_of_a_second_is_tried_less_and_less_often(faulty: FaultyServer, training: Training) -> None:
    faulty.write.live_s = 0.1
    faulty.write.reset_all()
    before = len(faulty.write.accepted_at)

    training.go_on(FLAPS_S)

    flaps = len(faulty.write.accepted_at) - before
    assert flaps < 12 + FLAPS_S / 15 * 2, "a quarter of a second on average at first, and twice as much after each"
    faulty.heal()
    training.check(faulty.direct_url)
    record("a connection that breaks every 0.1 s", seconds=FLAPS_S, connections=flaps)


def cuts() -> Iterator[tuple[str, int, str]]:
    """Direction, bytes after which a connection ends, and how: all of them if so many are asked for, else some by chance."""
    everything = [(lane, after) for lane, most in (("up", UP_BYTES), ("down", DOWN_BYTES)) for after in range(most)]
    chance = random.Random(CUTS)
    if len(everything) <= CUTS:
        chosen = everything
    else:
        # The handshake and the first frames are small and have most of the states.
        chosen = [(lane, chance.randrange(400)) for lane in ("up", "down") for _ in range(CUTS // 4)] + chance.sample(everything, CUTS // 2)
    for index, (lane, after) in enumerate(chosen):
        yield lane, after, ("reset", "close")[index % 2]


@pytest.mark.fault(44)
@pytest.mark.timeout(120 + CUTS)
def test_a_connection_cut_after_any_byte_is_taken_up_where_it_broke(faulty: FaultyServer, tmp_path: Path) -> None:
    noise = [random.Random(row).randbytes(NOISE_BYTES // 2).hex() for row in range(NOISE_ROWS)]
    duplicates = retries = 0
    waiting = list(cuts())
    for batch in range(0, len(waiting), AT_ONCE):
        for lane, after, how in waiting[batch : batch + AT_ONCE]:
            fault = Lane(end_after_bytes=after, ends_by=how)
            faulty.write.spoil_next(**{lane: fault})
            if after % 8 == 0:
                faulty.http.spoil_next(**{lane: fault})
        runs = [
            runferry.init(
                project="cuts",
                id=f"c{batch + index}",
                dir=tmp_path,
                reinit="create_new",
                settings={"base_url": faulty.url, "silent": True},
            )
            for index in range(len(waiting[batch : batch + AT_ONCE]))
        ]
        for text, run in itertools.product(noise, runs):
            run.log({"noise": text})
        for run in runs:
            run.finish(timeout=END_S)
            status = run.status()
            assert (status.backlog_frames, status.dropped_rows) == (0, 0), status
            assert [row["noise"] for row in stored.rows(faulty.direct_url, run.path)] == noise
            found = stored.run(faulty.direct_url, run.path).stored
            assert (found["rows"], found["gaps"]) == (NOISE_ROWS, 0)
            duplicates += found["duplicates"]
            retries += status.retries
    assert retries >= len(waiting) // 3, "hardly any connection was cut"
    record("connections cut after a given byte", cuts=len(waiting), connections_lost=retries, frames_sent_again_in_vain=duplicates)


@pytest.mark.fault(44)
def test_a_proxy_cuts_after_exactly_the_byte_it_is_told(tmp_path: Path) -> None:
    import socket  # noqa: PLC0415 - only here

    del tmp_path
    with socket.create_server(("127.0.0.1", 0)) as listening, FaultProxy(listening.getsockname()[1]) as proxy:
        for how, ending in (("reset", ConnectionResetError), ("close", b"")):
            proxy.spoil_next(down=Lane(end_after_bytes=10_001, ends_by=how))
            with socket.create_connection(("127.0.0.1", proxy.port)) as client:
                peer, _ = listening.accept()
                peer.sendall(b"x" * 50_000)
                received = 0
                try:
                    while more := client.recv(4_096):
                        received += len(more)
                    found: object = b""
                except ConnectionResetError as error:
                    found = type(error)
                peer.close()
            assert (received, found) == (10_001, ending)
