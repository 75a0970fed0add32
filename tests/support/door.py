"""A scripted client of the write door, on grpcio: says exactly what a test tells it, shows everything it hears."""

from __future__ import annotations

import queue
import threading
import time
from typing import TYPE_CHECKING, TypeVar

import grpc
from runferry.server._generated import ingest_pb2 as pb
from runferry.server._generated import ingest_pb2_grpc as services

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import TracebackType

    from tests.support.frames import ScriptedWriter

TIMEOUT_S = 20.0
_Found = TypeVar("_Found")


class DoorStream:
    """One stream; a context manager."""

    def __init__(self, address: str, *, key: str | None = None) -> None:
        """Connect to the write door at `host:port`, with a key if one is given."""
        self._channel = grpc.insecure_channel(
            address, options=[("grpc.max_receive_message_length", 16 << 20), ("grpc.max_send_message_length", 64 << 20)]
        )
        self._outgoing: queue.SimpleQueue[pb.ClientMessage | None] = queue.SimpleQueue()
        metadata = () if key is None else (("authorization", f"Bearer {key}"),)
        self._call = services.IngestStub(self._channel).Stream(iter(self._outgoing.get, None), metadata=metadata)  # type: ignore[no-untyped-call]  # generated
        self._changed = threading.Condition()
        self._has_ended = False
        self.heard: list[pb.ServerMessage] = []
        self.error: grpc.RpcError | None = None
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def say(self, message: pb.ClientMessage) -> None:
        """Send any message."""
        self._outgoing.put(message)

    def open(self, writer: ScriptedWriter, **more: object) -> pb.OpenOk:
        """Open the writer; the answer must be OpenOk."""
        fields = {"protocol": 1, "open_frame": writer.open_frame(), **more}
        self.say(pb.ClientMessage(open=pb.Open(**fields)))  # type: ignore[arg-type]  # a test may say anything
        return self.wait(lambda: next(iter(self.all("open_ok")), None)).open_ok

    def send(self, frames: Sequence[bytes]) -> None:
        """Send frames in one message."""
        self.say(pb.ClientMessage(frames=pb.Frames(frames=frames)))

    def bye(self, *, died: bool = False) -> None:
        """Say Bye and end our side."""
        self.say(pb.ClientMessage(bye=pb.Bye(died=died)))
        self._outgoing.put(None)

    def all(self, kind: str) -> list[pb.ServerMessage]:
        """Every message of a kind so far."""
        with self._changed:
            return [message for message in self.heard if message.WhichOneof("kind") == kind]

    @property
    def has_ended(self) -> bool:
        """Nothing more will be heard."""
        return self._has_ended

    @property
    def durable(self) -> int:
        """The durable number so far."""
        return max((message.ack.durable_next_seq for message in self.all("ack")), default=0)

    @property
    def credit(self) -> int:
        """The grant so far, after OpenOk's."""
        return max((message.credit.total_bytes for message in self.all("credit")), default=0)

    def wait_kind(self, kind: str, count: int = 1) -> pb.ServerMessage:
        """Wait for the `count`-th message of a kind."""
        return self.wait(lambda: self.all(kind)[count - 1] if len(self.all(kind)) >= count else None)

    def wait_durable(self, next_seq: int) -> None:
        """Wait until everything below is acked durable."""
        self.wait(lambda: self.durable >= next_seq or None)

    def wait_end(self) -> None:
        """Wait until the server has ended the stream."""
        self.wait(lambda: self._has_ended or None, may_end=True)

    def wait(self, look: Callable[[], _Found | None], *, may_end: bool = False) -> _Found:
        """Wait until `look` finds something; every message heard wakes it."""
        deadline = time.monotonic() + TIMEOUT_S
        with self._changed:
            while (found := look()) is None:
                if self._has_ended and not may_end:
                    raise AssertionError(f"the stream ended: {self.error} after {self.heard[-3:]}")
                if not self._changed.wait(max(0.0, deadline - time.monotonic())) and time.monotonic() >= deadline:
                    raise AssertionError(f"not heard in time; last were {self.heard[-3:]}")
            return found

    def close(self) -> None:
        """Break the connection."""
        self._outgoing.put(None)
        self._call.cancel()
        self._channel.close()
        self._listener.join(TIMEOUT_S)

    def __enter__(self) -> DoorStream:  # noqa: PYI034 - `Self` is newer than Python 3.10
        """Use it for the length of a block."""
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None) -> None:
        """Break the connection."""
        self.close()

    def _listen(self) -> None:
        messages: Iterator[pb.ServerMessage] = self._call
        try:
            for message in messages:
                with self._changed:
                    self.heard.append(message)
                    self._changed.notify_all()
        except grpc.RpcError as error:
            self.error = error
        finally:
            with self._changed:
                self._has_ended = True
                self._changed.notify_all()


def store_all(address: str, writer: ScriptedWriter, frames: Sequence[bytes]) -> None:
    """Open, send, wait for durable, say Bye."""
    with DoorStream(address) as stream:
        stream.open(writer)
        stream.send(frames)
        stream.wait_durable(writer.next_seq)
        stream.bye()
        stream.wait_end()
