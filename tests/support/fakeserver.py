"""A server whose every word is written by a test: the HTTP door's answer, and a write door on grpcio or on bare bytes.

    async def busy(stream: FakeStream) -> None:
        await stream.hear_open()
        await stream.fail(grpc.StatusCode.RESOURCE_EXHAUSTED, retry_after_s=0.0)

    with FakeServer(busy) as fake:
        run = runferry.init(settings={"base_url": fake.url})
        ...
        assert len(fake.opened_at) < 20

`honest` takes frames as the real server does, by number, and acks them. Scripts build on it. Runs in a thread of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import struct
import threading
import time
from typing import TYPE_CHECKING, Any

import grpc
from runferry.server._generated import ingest_pb2 as pb
from runferry.server._generated import ingest_pb2_grpc as services

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    Script = Callable[["FakeStream"], Awaitable[None]]
    RawScript = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

END_TIMEOUT_S = 10.0
PLENTY_BYTES = 1 << 40
GAP = 4


class FakeStream:
    """One call of `Stream`, seen from the server."""

    def __init__(self, context: Any, server: FakeServer, index: int) -> None:
        """The `index`-th call."""
        self._context = context
        self.server = server
        self.index = index
        self.open: pb.Open | None = None

    async def hear(self) -> pb.ClientMessage | None:
        """What the client says next; None: it has ended."""
        message = await self._context.read()
        if message is grpc.aio.EOF:
            return None
        found: pb.ClientMessage = message
        return found

    async def hear_open(self) -> pb.Open:
        """The client's first word."""
        message = await self.hear()
        assert message is not None
        assert message.WhichOneof("kind") == "open", message
        self.open = message.open
        return message.open

    async def say(self, **kind: Any) -> None:
        """A message, by its kind: `say(ack=pb.Ack(...))`."""
        await self._context.write(pb.ServerMessage(**kind))

    async def accept(self, **more: Any) -> pb.Open:
        """Hear Open and answer it as a server would that has stored `server.frames`."""
        opened = await self.hear_open()
        fields = {"next_seq": self.server.next_seq, "storage_epoch": b"fake", "credit_bytes": PLENTY_BYTES, "last_step": -1}
        await self.say(open_ok=pb.OpenOk(**{**fields, "durability": "disk", **more}))
        return opened

    async def ack(self) -> None:
        """All that is stored is durable."""
        await self.say(ack=pb.Ack(received_next_seq=self.server.next_seq, durable_next_seq=self.server.next_seq))

    async def fail(self, code: Any, details: str = "scripted", retry_after_s: float | None = None) -> None:
        """End the call with a status, with RetryInfo if there is a hint."""
        metadata = () if retry_after_s is None else (("grpc-status-details-bin", retry_info(retry_after_s)),)
        await self._context.abort(code, details, metadata)


async def honest(stream: FakeStream) -> None:
    """Take every frame in its order, as the real server does."""
    await stream.accept()
    while (message := await stream.hear()) is not None:
        kind = message.WhichOneof("kind")
        if kind == "frames":
            for frame in message.frames.frames:
                stream.server.take(frame)
            await stream.ack()
        elif kind == "beat":
            await stream.ack()
        elif kind == "bye":
            return


class FakeServer:
    """Both doors on free ports of this machine; a context manager."""

    def __init__(self, script: Script | None = None, *, raw: RawScript | None = None) -> None:
        """Serve streams by `script`, or connections by `raw`."""
        self.script = script
        self._raw = raw
        self.frames: dict[int, bytes] = {}
        """What `honest` has stored, by number."""
        self.next_seq = 1
        self.asked_at: list[float] = []
        """When the HTTP door was asked, monotonic: each attempt of a client begins so."""
        self.opened_at: list[float] = []
        """When each stream, or raw connection, began."""
        self.faults: list[str] = []
        """What went wrong in a script; a client that hangs up is not a fault."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fakeserver", daemon=True)
        self._thread.start()
        self._call(self._start())

    def take(self, frame: bytes) -> None:
        """Store a frame if it is the next one."""
        seq, count = struct.unpack_from("<Q", frame, 40)[0], struct.unpack_from("<I", frame, 48)[0]
        if seq == self.next_seq:
            self.frames[seq] = bytes(frame)
            self.next_seq = seq + (count if frame[5] == GAP else 1)

    @property
    def url(self) -> str:
        """Where the HTTP door is."""
        return f"http://127.0.0.1:{self._port}"

    def close(self) -> None:
        """End everything."""
        self._call(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(END_TIMEOUT_S)
        self._loop.close()

    def __enter__(self) -> FakeServer:  # noqa: PYI034 - `Self` is newer than Python 3.10
        """Use it for the length of a block."""
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None) -> None:
        """End everything."""
        self.close()
        if kind is None:
            assert not self.faults, self.faults

    def _call(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(END_TIMEOUT_S)

    async def _start(self) -> None:
        self._grpc = self._raw_server = None
        if self._raw is not None:
            self._raw_server = await asyncio.start_server(self._serve_raw, "127.0.0.1", 0)
            write_port = self._raw_server.sockets[0].getsockname()[1]
        else:
            options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", 64 << 20), ("grpc.so_reuseport", 0)]
            self._grpc = grpc.aio.server(options=options)
            services.add_IngestServicer_to_server(_Servicer(self), self._grpc)  # type: ignore[no-untyped-call]  # generated
            write_port = self._grpc.add_insecure_port("127.0.0.1:0")
            await self._grpc.start()
        self._door = json.dumps({"service": "runferry", "version": "fake", "protocol": 1, "write_port": write_port}).encode()
        self._http = await asyncio.start_server(self._serve_door, "127.0.0.1", 0)
        self._port: int = self._http.sockets[0].getsockname()[1]

    async def _stop(self) -> None:
        self._http.close()
        if self._raw_server is not None:
            self._raw_server.close()
        if self._grpc is not None:
            await self._grpc.stop(grace=0)
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve_door(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked_at.append(time.monotonic())
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(self._door)}\r\nconnection: close\r\n\r\n"
            writer.write(head.encode() + self._door)
            await writer.drain()
        writer.close()

    async def _serve_raw(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert self._raw is not None
        self.opened_at.append(time.monotonic())
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await self._raw(reader, writer)
        writer.close()


class _Servicer(services.IngestServicer):
    def __init__(self, server: FakeServer) -> None:
        self._server = server

    async def Stream(self, _requests: object, context: Any) -> None:  # noqa: N802 - the service's name
        server = self._server
        server.opened_at.append(time.monotonic())
        assert server.script is not None
        stream = FakeStream(context, server, len(server.opened_at) - 1)
        try:
            await server.script(stream)
        except AssertionError as fault:
            where = inspect.getframeinfo(fault.__traceback__) if fault.__traceback__ else None
            server.faults.append(f"{fault} {where}")
            raise


def retry_info(seconds: float) -> bytes:
    """`google.rpc.Status` with a RetryInfo, as it lies in the trailer `grpc-status-details-bin`."""
    whole = int(seconds)
    duration = _field(1, whole) + _field(2, round((seconds - whole) * 1e9))
    info = _field(1, duration)
    return _field(3, _field(1, b"type.googleapis.com/google.rpc.RetryInfo") + _field(2, info))


def _field(number: int, value: bytes | int) -> bytes:
    if isinstance(value, int):
        return bytes([number << 3]) + _varint(value)
    return bytes([number << 3 | 2]) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])
