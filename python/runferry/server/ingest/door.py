"""The write door: the gRPC server, what its streams share, and how it opens and closes.

# Shutdown
`close` refuses new streams, drains the open ones (each commits what it has received and sends its last ack), ends the commit
thread, then the server.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import grpc
import sqlalchemy as sa

from runferry.server._generated import ingest_pb2 as pb
from runferry.server.auth import DeniedError, bearer
from runferry.server.ingest.admission import Admission, ShedError
from runferry.server.ingest.commit import GroupCommitter
from runferry.server.ingest.messages import parsed
from runferry.server.ingest.opening import open_streams
from runferry.server.ingest.pace import Pace
from runferry.server.ingest.stream import Context, WriterStream, serve_writer
from runferry.server.metadata.writes import apply_death
from runferry.server.query import now_us

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from runferry.server.apply import Applier
    from runferry.server.auth import Gate
    from runferry.server.certificates import Certificates
    from runferry.server.ingest.opening import Opened
    from runferry.server.live import Hub
    from runferry.server.metadata.database import Database
    from runferry.server.room import DiskRoom
    from runferry.server.settings import Limits
    from runferry.server.store.protocol import Store

logger = logging.getLogger(__name__)

SERVICE = "runferry.v1.Ingest"
CHECKING_THREADS = 4
MAX_HEADER_BYTES = 16 << 10
FEW_STREAMS = 64
MANY_STREAMS = 5_000
_Answer = TypeVar("_Answer")


class PortInUseError(OSError):
    """The write door's port is taken."""


class Ingest:
    """What the streams of one server share."""

    def __init__(  # noqa: PLR0913, PLR0917 - one of each, all of other types
        self, database: Database, store: Store, applier: Applier, hub: Hub, gate: Gate, limits: Limits, room: DiskRoom
    ) -> None:
        """Ingest into these; call it on the event loop that will serve."""
        self.gate = gate
        self.database = database
        self.store = store
        self.applier = applier
        self.limits = limits
        self.admission = Admission(limits, lambda messages: open_streams(messages, database, store))
        self.pace = Pace(limits.most_frames_per_s, time.monotonic)
        self.pending_bytes = 0
        """Frames of all streams that wait for their commit."""
        self.has_room = asyncio.Event()
        self.has_room.set()
        self._hub = hub
        self._streams: set[WriterStream] = set()
        self._of_client: Counter[str] = Counter()
        self._has_emptied = asyncio.Event()
        self._threads = ThreadPoolExecutor(CHECKING_THREADS, thread_name_prefix="rf-check")
        self._loop = asyncio.get_running_loop()
        self.is_draining = False
        gate.watch(self._end_refused)
        self.committer = GroupCommitter(
            store, self._loop, linger_s=limits.commit_linger_s, group_bytes=limits.commit_group_bytes, shortage=room.shortage
        )

    def window_bytes(self) -> int:
        """What a stream may have in flight: the more streams, the less each, and little while commits are behind."""
        streams = len(self._streams)
        if self.pending_bytes > self.limits.max_pending_bytes // 2:
            return 64 << 10
        if streams <= FEW_STREAMS:
            return 4 << 20
        return 256 << 10 if streams <= MANY_STREAMS else 64 << 10

    def count_pending(self, frame_bytes: int) -> None:
        """Frames have come to wait for a commit, or (below zero) wait no more."""
        self.pending_bytes += frame_bytes
        if self.pending_bytes > self.limits.max_pending_bytes:
            self.has_room.clear()
        else:
            self.has_room.set()

    def stream_age_s(self) -> float:
        """How old a stream may become: each its own, so that those that came together do not go together."""
        return self.limits.stream_age_s * random.uniform(0.9, 1.1)  # noqa: S311 - spreads, hides nothing

    def check_load(self, client: str) -> None:
        """Whether one more writer of this client can be served now.

        Raises:
            ShedError: It cannot.
        """
        if len(self._streams) >= self.limits.max_streams:
            raise ShedError(f"{len(self._streams)} writers are connected")
        if self._of_client[client] >= self.limits.max_streams * self.limits.client_share:
            raise ShedError(f"{self._of_client[client]} writers of this key or address are connected")
        if not self.has_room.is_set():
            raise ShedError(f"{self.pending_bytes} bytes of frames wait to be committed")

    async def in_thread(self, call: Callable[..., _Answer], *arguments: object) -> _Answer:
        """Run a blocking call off the event loop."""
        return await self._loop.run_in_executor(self._threads, call, *arguments)

    def accepted(self, run_id: bytes, writer_id: int, *, is_living: bool, has_documents: bool) -> None:
        """Frames have become durable: wake the readers, let the documents be applied."""
        self._hub.run_changed(run_id)
        if is_living:
            self.applier.seen(run_id, writer_id, now_us())
        self.applier.notify(run_id, writer_id, has_documents=has_documents)

    async def report_death(self, run_id: bytes, writer_id: int) -> None:
        """Who has taken over from a writer says that it died; written on return, unless the database does not take it."""

        def write() -> None:
            with self.database.write() as connection:
                apply_death(connection, run_id, writer_id, now_us())

        try:
            await self.in_thread(write)
        except sa.exc.OperationalError as error:
            # The run becomes lost instead, by and by.
            logger.warning("the death of writer %016x is not noted: %s", writer_id, error.orig)
        else:
            self.applier.notify(run_id, writer_id, has_documents=True)

    @contextmanager
    def registered(self, stream: WriterStream, opened: Opened, client: str) -> Iterator[None]:
        """Count the stream among the open ones."""
        self._streams.add(stream)
        self._of_client[client] += 1
        self._has_emptied.clear()
        self._hub.metadata_changed(opened.run_id, opened.opening.entity, opened.opening.project)
        self.applier.notify(opened.run_id, opened.writer_id, has_documents=True)  # a crash may have left some unapplied
        if self.is_draining:
            stream.drain()
        try:
            yield
        finally:
            self._streams.discard(stream)
            self._of_client[client] -= 1
            if not self._of_client[client]:
                del self._of_client[client]
            if not self._streams:
                self._has_emptied.set()

    def _end_refused(self) -> None:
        """End the streams whose key is no longer good."""
        for stream in list(self._streams):
            refusal = None if stream.grant is None else self.gate.keyring.refusal(stream.grant)
            if refusal is not None:
                stream.refuse_key(refusal)

    async def close(self) -> None:
        """Commit what was received, then end."""
        self.is_draining = True
        for stream in list(self._streams):
            stream.drain()
        if self._streams:
            try:
                await asyncio.wait_for(self._has_emptied.wait(), self.limits.drain_timeout_s + 1.0)
            except asyncio.TimeoutError:
                logger.warning("%d writers did not take their last acks; they will send again", len(self._streams))
        await self._loop.run_in_executor(None, self.committer.stop)
        self._threads.shutdown(wait=False)
        self.admission.close()


class WriteDoor:
    """The listening gRPC server."""

    def __init__(self, ingest: Ingest, certificates: Certificates | None) -> None:
        """A door to this ingest, closed yet; with certificates it speaks TLS only."""
        self._ingest = ingest
        self._certificates = certificates
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", ingest.limits.max_message_bytes),
                ("grpc.max_send_message_length", ingest.limits.max_message_bytes),
                ("grpc.so_reuseport", 0),  # a second server on the port must fail, not share it
                ("grpc.max_concurrent_streams", ingest.limits.max_streams_per_connection),
                ("grpc.max_metadata_size", MAX_HEADER_BYTES),
                ("grpc.absolute_max_metadata_size", MAX_HEADER_BYTES),
                ("grpc.server_handshake_timeout_ms", 20_000),
                ("grpc.max_connection_idle_ms", 600_000),
                ("grpc.keepalive_time_ms", 60_000),
                ("grpc.keepalive_timeout_ms", 30_000),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),  # writers ping every 20 s
                ("grpc.http2.max_ping_strikes", 0),
                ("grpc.http2.max_pings_without_data", 0),
            ]
        )
        stream = grpc.stream_stream_rpc_method_handler(
            _Servicer(ingest).stream, request_deserializer=parsed, response_serializer=pb.ServerMessage.SerializeToString
        )
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Stream": stream}),))

    async def open(self, host: str, port: int) -> int:
        """Listen; returns the port.

        Raises:
            PortInUseError: Something else listens there.
        """
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            if self._certificates is None:
                bound = int(self._server.add_insecure_port(address))
            else:
                bound = int(self._server.add_secure_port(address, self._certificates.grpc_credentials()))
        except RuntimeError as error:
            raise PortInUseError(f"cannot listen on {address}") from error
        if bound == 0:
            raise PortInUseError(f"cannot listen on {address}")
        self._ingest.committer.start()
        await self._server.start()
        return bound

    async def close(self) -> None:
        """Drain, then stop."""
        await self._ingest.close()
        await self._server.stop(grace=1.0)


class _Servicer:
    """The generated one has no place for a parser of our own."""

    def __init__(self, ingest: Ingest) -> None:
        self._ingest = ingest

    async def stream(self, _request_iterator: object, context: Context) -> None:
        if self._ingest.is_draining:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the server is closing")
        shown = dict(context.invocation_metadata() or ()).get("authorization")
        try:
            grant = await self._ingest.gate.admit(bearer(shown if isinstance(shown, str) else None), "write")
        except DeniedError as denied:
            # Not PERMISSION_DENIED, even for a key that may only read: another key mends it, and a writer waits for one.
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, str(denied))
        await serve_writer(self._ingest, context, grant)
