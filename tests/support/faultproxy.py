"""A network between a client and a server that a test can spoil while both run.

Delay, jitter, a rate, small pieces, silence in one direction or both, an end after exactly so many bytes, by FIN or by RST:

    with FaultyServer(data) as faulty:            # a real server; `faulty.url` leads through the network
        faulty.write.both(delay_s=0.5)
        faulty.write.down(is_held=True)           # nothing comes back any more; bytes wait, as they do when packets are lost
        faulty.write.reset_all()
        faulty.write.spoil_next(up=Lane(end_after_bytes=100))     # the next connection alone

TCP is ended here and begun anew on the other side, so bytes are never lost in the middle of a connection: what is held arrives when
the hold ends, or never, if the connection is reset before. The proxy runs in a thread of its own, on one event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import threading
import time
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tests.support.ports import free_port
from tests.support.servers import RunningServer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType

CHUNK_BYTES = 64 << 10
CHUNKS_ON_THE_WAY = 64
END_TIMEOUT_S = 10.0
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER with no time: closing sends RST."""


@dataclass(frozen=True)
class Lane:
    """What happens to the bytes of one direction."""

    delay_s: float = 0.0
    jitter_s: float = 0.0
    """Up to so much more delay; the order stays."""
    bytes_per_s: float = 0.0
    """0: no limit."""
    slice_bytes: int = 0
    """Most bytes written at once; 0: as they come."""
    end_after_bytes: int | None = None
    """A connection that has carried exactly so many bytes this way ends."""
    ends_by: str = "reset"
    """`reset` (RST to both sides) or `close` (FIN)."""
    is_held: bool = False
    """Nothing goes on for the time being."""


NO_FAULTS = Lane()


class FaultProxy:
    """One listening port before one server; a context manager."""

    def __init__(self, target_port: int, *, host: str = "127.0.0.1", target_host: str = "127.0.0.1", port: int = 0) -> None:
        """Listen; `port` 0: any free one."""
        self.target = (target_host, target_port)
        """Where connections go that come from now on."""
        self._lanes = {"up": Lane(), "down": Lane()}
        self._next: deque[dict[str, Lane]] = deque()
        self._links: set[_Link] = set()
        self._latest: _Link | None = None
        self.live_s: float | None = None
        """Each connection is reset after so long."""
        self.accepted_at: list[float] = []
        """When each connection was accepted, monotonic."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="faultproxy", daemon=True)
        self._thread.start()
        self._server = self._call(asyncio.start_server(self._accepted, host, port))
        self.port: int = self._server.sockets[0].getsockname()[1]

    def up(self, **faults: Any) -> None:
        """What happens from now on to bytes of the client; the fields of `Lane` that are given."""
        self._set("up", faults)

    def down(self, **faults: Any) -> None:
        """The same for bytes of the server."""
        self._set("down", faults)

    def both(self, **faults: Any) -> None:
        """The same in both directions."""
        self.up(**faults)
        self.down(**faults)

    def spoil_next(self, up: Lane = NO_FAULTS, down: Lane = NO_FAULTS) -> None:
        """Faults of the next connection alone, for as long as it lives; called again: of the one after it."""
        self._next.append({"up": up, "down": down})

    def spoil_latest(self, up: Lane = NO_FAULTS, down: Lane = NO_FAULTS) -> None:
        """Faults of the connection that was accepted last, and of no other."""
        assert self._latest is not None
        self._latest.lanes = {"up": up, "down": down}

    @property
    def is_spoiling_next(self) -> bool:
        """The connection that `spoil_next` waits for has not come yet."""
        return bool(self._next)

    def heal(self) -> None:
        """No faults any more, but for those of single connections."""
        self._lanes = {"up": Lane(), "down": Lane()}
        self._next.clear()
        self.live_s = None
        self._wake()

    def reset_all(self) -> int:
        """RST to both sides of every connection; how many there were."""
        links: int = self._call(self._reset_all())
        return links

    def reset_latest(self) -> None:
        """RST to both sides of the connection that was accepted last."""
        assert self._latest is not None
        self._loop.call_soon_threadsafe(self._latest.end, "reset")

    @property
    def open_links(self) -> int:
        """Connections now."""
        return len(self._links)

    def close(self) -> None:
        """End everything."""
        self.reset_all()
        self._call(self._shut())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(END_TIMEOUT_S)
        self._loop.close()

    def __enter__(self) -> FaultProxy:  # noqa: PYI034 - `Self` is newer than Python 3.10
        """Use it for the length of a block."""
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None) -> None:
        """End everything."""
        self.close()

    @property
    def lanes(self) -> dict[str, Lane]:
        """The faults of both directions now."""
        return self._lanes

    def _set(self, direction: str, faults: dict[str, Any]) -> None:
        self._lanes[direction] = replace(self._lanes[direction], **faults)
        self._wake()

    def _wake(self) -> None:
        def wake() -> None:
            for link in self._links:
                link.wake()

        self._loop.call_soon_threadsafe(wake)

    def _call(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(END_TIMEOUT_S)

    async def _reset_all(self) -> int:
        links = list(self._links)
        for link in links:
            link.end("reset")
        return len(links)

    async def _shut(self) -> None:
        self._server.close()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted_at.append(time.monotonic())
        try:
            to_server = await asyncio.open_connection(*self.target)
        except OSError:
            _end(writer, "reset")  # as if nobody listened, but for a moment of hope
            return
        link = _Link(self, (reader, writer), to_server)
        link.lanes = self._next.popleft() if self._next else None
        self._latest = link
        self._links.add(link)
        try:
            await link.run()
        finally:
            self._links.discard(link)


class _Link:
    """One connection."""

    def __init__(
        self,
        proxy: FaultProxy,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self._proxy = proxy
        self._client, self._server = client, server
        self.lanes: dict[str, Lane] | None = None
        """Of this connection alone; None: as everywhere."""
        self._changed = asyncio.Event()
        self._ended = asyncio.Event()

    def wake(self) -> None:
        """The faults have changed."""
        self._changed.set()

    def end(self, how: str) -> None:
        """End both sides."""
        for _, writer in (self._client, self._server):
            _end(writer, how)
        self._ended.set()

    async def run(self) -> None:
        """Carry bytes until either side ends."""
        lanes = [self._carry("up", self._client[0], self._server[1]), self._carry("down", self._server[0], self._client[1])]
        tasks = [asyncio.create_task(lane) for lane in lanes]
        ended = asyncio.create_task(self._ended.wait())
        try:
            await asyncio.wait({ended}, timeout=self._proxy.live_s)
        finally:
            for task in [*tasks, ended]:
                task.cancel()
            await asyncio.gather(*tasks, ended, return_exceptions=True)
            self.end("reset")

    async def _carry(self, direction: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        on_the_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(CHUNKS_ON_THE_WAY)
        writing = asyncio.create_task(self._write(direction, on_the_way, writer))
        arrives_at = 0.0
        try:
            while chunk := await reader.read(CHUNK_BYTES):
                lane = self._lane(direction)
                late_s = lane.delay_s + random.random() * lane.jitter_s
                arrives_at = max(arrives_at, time.monotonic() + late_s)
                await on_the_way.put((arrives_at, chunk))
            await on_the_way.put((arrives_at, b""))
            await writing
        except OSError:
            self.end("reset")
        finally:
            writing.cancel()

    async def _write(self, direction: str, on_the_way: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
        carried = 0
        with contextlib.suppress(OSError):
            while True:
                arrives_at, chunk = await on_the_way.get()
                await asyncio.sleep(max(0.0, arrives_at - time.monotonic()))
                if not chunk:
                    await self._pass(direction)
                    self.end("close")
                    return
                while chunk:
                    lane = await self._pass(direction)
                    size = lane.slice_bytes or len(chunk)
                    if lane.bytes_per_s:
                        size = min(size, max(1, int(lane.bytes_per_s / 20)))
                    if lane.end_after_bytes is not None:
                        size = min(size, max(0, lane.end_after_bytes - carried))
                    piece, chunk = chunk[:size], chunk[size:]
                    writer.write(piece)
                    await writer.drain()
                    carried += len(piece)
                    if lane.end_after_bytes is not None and carried >= lane.end_after_bytes:
                        self.end(lane.ends_by)
                        return
                    if lane.bytes_per_s:
                        await asyncio.sleep(len(piece) / lane.bytes_per_s)

    def _lane(self, direction: str) -> Lane:
        return (self.lanes or self._proxy.lanes)[direction]

    async def _pass(self, direction: str) -> Lane:
        """Wait while the lane is held; its faults."""
        while (lane := self._lane(direction)).is_held:
            self._changed.clear()
            await self._changed.wait()
        return lane


def _end(writer: asyncio.StreamWriter, how: str) -> None:
    transport = writer.transport
    if how != "reset":
        transport.close()
        return
    with contextlib.suppress(OSError):
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    transport.abort()


class FaultyServer:
    """A real server whose two doors lie behind a `FaultProxy` each; a context manager. It may end and come back in between."""

    def __init__(self, data: Path) -> None:
        """Start it."""
        self._data = data
        self._port = free_port()
        self.http = FaultProxy(self._port)
        self.write = FaultProxy(self._port + 1)
        self.url = f"http://127.0.0.1:{self.http.port}"
        self.direct_url = f"http://127.0.0.1:{self._port}"
        """Past the faults."""
        self.server = self._start()

    def kill(self) -> None:
        """SIGKILL; the addresses stay."""
        self.server.kill()

    def stop(self) -> None:
        """SIGTERM, and wait for its end; the addresses stay."""
        assert self.server.stop() == 0, self.server.log.read_text()

    def start(self) -> None:
        """Start it again, on the same data."""
        self.server = self._start()

    def each(self, spoil: Callable[[FaultProxy], object]) -> None:
        """Do something to both doors."""
        for proxy in (self.http, self.write):
            spoil(proxy)

    def heal(self) -> None:
        """No faults any more."""
        self.each(FaultProxy.heal)

    def _start(self) -> RunningServer:
        return RunningServer(self._data, "--advertise-write", f"127.0.0.1:{self.write.port}", port=self._port)

    def __enter__(self) -> FaultyServer:  # noqa: PYI034 - `Self` is newer than Python 3.10
        """Use it for the length of a block."""
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None) -> None:
        """End everything."""
        self.each(FaultProxy.close)
        if self.server.process.poll() is None:
            self.server.stop()
