"""What leaves a stream's outbox, and in which order."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from runferry.server.ingest.outbox import Outbox

if TYPE_CHECKING:
    from runferry.server._generated import ingest_pb2 as pb


def sent_by(outbox_does: str) -> list[tuple[str, tuple[int, ...]]]:
    """What is sent when the outbox is told all of this before anything leaves: `a3,1` acks, `r2` rewinds."""
    sent: list[tuple[str, tuple[int, ...]]] = []

    async def write(message: pb.ServerMessage) -> None:
        if message.WhichOneof("kind") == "ack":
            sent.append(("ack", (message.ack.received_next_seq, message.ack.durable_next_seq)))
        else:
            sent.append(("rewind", (message.rewind.next_seq,)))

    async def scene() -> None:
        outbox = Outbox(write)
        sending = asyncio.create_task(outbox.run())
        for told in outbox_does.split():
            numbers = [int(number) for number in told[1:].split(",")]
            if told[0] == "a":
                outbox.ack(received=numbers[0], durable=numbers[1])
            elif told[0] == "r":
                outbox.rewind(numbers[0], "unknown outcome")
        await outbox.flushed()
        sending.cancel()

    asyncio.run(scene())
    return sent


def test_numbers_of_acks_only_rise() -> None:
    assert sent_by("a5,2 a3,4 a4,1") == [("ack", (5, 4))]


@pytest.mark.fault(72)
def test_an_ack_behind_a_rewind_takes_back_what_was_received_but_never_what_is_durable() -> None:
    assert sent_by("a9,4 r5 a5,4") == [("rewind", (5,)), ("ack", (5, 4))]
    assert sent_by("a9,4 r2 a6,4") == [("rewind", (2,)), ("ack", (6, 4))]


@pytest.mark.fault(72)
def test_frames_received_again_after_a_rewind_are_acked_again() -> None:
    assert sent_by("a9,4 r5 a7,4") == [("rewind", (5,)), ("ack", (7, 4))]
