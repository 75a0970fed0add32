"""A server that lies, babbles and sends rubbish: the client ends the connection, tries again with pauses, and keeps what nobody has stored.

What it is told is drawn by chance, the same in each run of a seed. In the end the server turns honest, or the journal goes to a real one.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

import grpc
import pytest
import runferry
from runferry.server._generated import ingest_pb2 as pb

from tests.support import stored
from tests.support.effort import effort, record
from tests.support.fakeserver import FakeServer, FakeStream, honest
from tests.support.trainers import command, wait_until

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.servers import RunningServer

SEEDS = effort("hostile_servers", 6)
LIES = 4
"""Connections with lies before the honest one."""
ROWS = 300
HUGE = (1 << 64) - 1
PREFACE = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
"""An empty SETTINGS frame: a server that begins to speak HTTP/2."""


def lies(stream: FakeStream, chance: random.Random) -> list[Callable[[], dict[str, object]]]:
    """What no honest server says, and what one may say but not like this."""
    above = stream.server.next_seq + 1_000_000
    return [
        lambda: {"ack": pb.Ack(received_next_seq=above, durable_next_seq=chance.choice([0, 1, above, HUGE]))},
        lambda: {"ack": pb.Ack(received_next_seq=chance.choice([0, HUGE]), durable_next_seq=HUGE)},
        lambda: {"rewind": pb.Rewind(next_seq=chance.choice([0, above, HUGE]), reason="x" * chance.choice([0, 5, 100_000]))},
        lambda: {"reject": pb.Reject(code="RUN_DELETED", seq=chance.choice([above, HUGE]), reason="\x1b[2J\x00")},
        lambda: {"credit": pb.Credit(total_bytes=chance.choice([0, 1, HUGE]))},
        lambda: {"throttle": pb.Throttle(retry_after_ms=50, bytes_per_s=HUGE, linger_ms=(1 << 32) - 1)},
        lambda: {"notice": pb.Notice(text="\x1b]0;owned\x07" * chance.choice([1, 10_000]))},
        lambda: {"open_ok": pb.OpenOk(next_seq=above, storage_epoch=b"again")},
        lambda: {"notice": pb.Notice(text="x" * (17 << 20))},  # over the limit of a message
        dict,  # no kind at all
    ]


@pytest.mark.fault(58)
@pytest.mark.timeout(60 + 30 * SEEDS)
def test_whatever_a_lying_server_says_what_it_did_not_store_is_kept_and_stored_once_when_it_turns_honest(
    server: RunningServer, tmp_path: Path
) -> None:
    said = 0
    for seed in range(SEEDS):
        chance = random.Random(seed)

        async def lying(stream: FakeStream, chance: random.Random = chance) -> None:
            nonlocal said
            if stream.index >= LIES:
                await honest(stream)
                return
            if chance.random() < 0.2:
                await stream.hear_open()
                await stream.say(open_ok=pb.OpenOk(next_seq=0, storage_epoch=bytes(chance.randrange(100_000)), credit_bytes=HUGE))
                return
            await stream.accept()
            for _ in range(chance.randrange(1, 20)):
                await stream.say(**chance.choice(lies(stream, chance))())
                said += 1
            if chance.random() < 0.5:
                code = chance.choice([grpc.StatusCode.INTERNAL, grpc.StatusCode.DATA_LOSS, grpc.StatusCode.OUT_OF_RANGE])
                await stream.fail(code, "\x00" * chance.randrange(1, 2_000))

        with FakeServer(lying) as fake:
            settings = {"base_url": fake.url, "silent": True}
            run = runferry.init(project="lies", id=f"s{seed}", dir=tmp_path, reinit="create_new", settings=settings)
            slowest_s = 0.0
            for number in range(ROWS):
                begun = time.monotonic()
                run.log({"n": number})
                slowest_s = max(slowest_s, time.monotonic() - begun)
                if number % 25 == 0:
                    run.flush()  # a frame
            assert run.flush(acked=True, timeout=60), run.status()
            status = run.status()
            run.finish(timeout=30)
            assert sorted(fake.frames) == list(range(1, fake.next_seq)), "a hole"
            assert len(fake.frames) >= status.acked_frames > 0, "it believed a lie"
        assert (status.dropped_rows, status.rejected_frames) == (0, 0), status
        assert slowest_s < 0.3
        assert not any("\x1b" in text or len(text) > 10_000 for text in [*status.notices, str(status.last_error)])
    assert said > SEEDS
    synced = command(tmp_path, "sync", str(tmp_path / "runferry"), "--base-url", server.url)
    assert synced.returncode == 0, synced.stdout + synced.stderr
    for seed in range(SEEDS):
        assert stored.cells(server.url, f"local/lies/s{seed}") == [(step, {"n": step}) for step in range(ROWS)]
    record("lies a client was told", servers=SEEDS, messages=said, lost=0, doubled=0)


@pytest.mark.fault(58)
@pytest.mark.timeout(60 + 5 * SEEDS)
def test_a_port_that_talks_rubbish_is_tried_again_with_pauses_and_everything_is_kept(server: RunningServer, tmp_path: Path) -> None:
    chance = random.Random(SEEDS)

    async def rubbish(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(chance.choice([1, 24, 4_096]))
        start = chance.choice([b"", PREFACE, b"HTTP/1.1 200 OK\r\n\r\n", PREFACE + b"\xff\xff\xff\x00\x00\x00\x00\x00\x01"])
        writer.write(start + chance.randbytes(chance.choice([0, 1, 9, 1_000, 200_000])))
        await writer.drain()

    with FakeServer(raw=rubbish) as fake:
        settings = {"base_url": fake.url, "silent": True}
        run = runferry.init(project="rubbish", id="r", dir=tmp_path, settings=settings)
        for number in range(ROWS):
            run.log({"n": number})
        wait_until(lambda: len(fake.opened_at) >= min(SEEDS, 6), "it is tried again and again")
        status = run.status()
        begun = time.monotonic()
        run.finish(timeout=0.2)
        assert time.monotonic() - begun < 10
    assert (status.acked_frames, status.dropped_rows) == (0, 0), status
    synced = command(tmp_path, "sync", str(tmp_path / "runferry"), "--base-url", server.url)
    assert synced.returncode == 0, synced.stdout + synced.stderr
    assert stored.cells(server.url, run.path) == [(step, {"n": step}) for step in range(ROWS)]
