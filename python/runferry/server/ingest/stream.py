"""One stream of the write door: from a writer's Open to its Bye.

# Order
The reading task takes one message at a time; its frames are checked, judged (`sequence`) and submitted (`commit`) in order.
Answers come back on the event loop and leave through the outbox.

# Flow control
The writer may have sent `credit` bytes that are not durable yet. A writer that ignores that is not punished: the stream stops
reading, and HTTP/2 stops the writer.

# Shutdown
`drain` says so to the writer and stops reading. In every ending but a broken connection the stream waits for what was
submitted, sends the last ack and ends with OK.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc

from runferry import _native
from runferry.server._generated import ingest_pb2 as pb
from runferry.server.ingest.admission import ShedError, retry_after_ms
from runferry.server.ingest.commit import Submission
from runferry.server.ingest.messages import BadMessageError
from runferry.server.ingest.opening import Opened, is_newer_format
from runferry.server.ingest.outbox import Outbox
from runferry.server.ingest.pace import FIRST_LINGER_MS
from runferry.server.ingest.sequence import Checked, Numbers, Stretch, checked_frames
from runferry.server.metadata.writes import Beat, Counters
from runferry.server.query import now_us
from runferry.server.store.protocol import Appended, Batch, StoreBusyError, StoreFullError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runferry.server.auth import Grant
    from runferry.server.ingest.door import Ingest

logger = logging.getLogger(__name__)

INLINE_CHECK_BYTES = 128 << 10
"""Smaller messages are checked where they arrive: their checksums take less time than a change of threads."""
FRAMES_AT_ONCE = 2_048
DRAIN_RECONNECT_MS = 1_000

Context: TypeAlias = Any
"""`grpc.aio.ServicerContext`: grpcio brings no types."""


class WriterStream:
    """A connected writer; used on the event loop only."""

    def __init__(self, ingest: Ingest, context: Context, opened: Opened, grant: Grant | None, *, is_replay: bool) -> None:
        """A writer that has been opened and not been answered yet; `grant`: by which it came in, None where no key is needed."""
        self.grant = grant
        self._ingest = ingest
        self._context = context
        self._opened = opened
        self._is_replay = is_replay
        self._numbers = Numbers(opened.run_id, opened.writer_id, opened.next_seq)
        self._durable = opened.next_seq
        self._outbox = Outbox(context.write)
        self._pending_bytes = 0
        self._settled_bytes = 0
        self._granted_bytes = ingest.window_bytes()
        self._room = asyncio.Event()
        self._is_gone = False
        self._generation = 0
        self._told_linger_ms = FIRST_LINGER_MS
        self._ending: str | None = None
        self._ending_code = grpc.StatusCode.UNAVAILABLE
        self._stop_reading = asyncio.Event()

    async def run(self) -> None:
        """Serve until one side ends."""
        opened = self._opened
        ok = pb.OpenOk(
            next_seq=opened.next_seq,
            storage_epoch=self._ingest.store.epoch,
            run_url=opened.run_url,
            credit_bytes=self._granted_bytes,
            run_existed=opened.run_existed,
            last_step=opened.last_step,
            durability="disk",
            max_frame_bytes=self._ingest.limits.max_frame_bytes,
            last_frame_hash=opened.last_frame_hash or b"",
        )
        self._outbox.put(pb.ServerMessage(open_ok=ok))
        if not self._is_replay:
            self._ingest.applier.seen(opened.run_id, opened.writer_id, now_us())  # back at once, not with its first beat
        reading = asyncio.create_task(self._read())
        sending = asyncio.create_task(self._outbox.run())
        stopping = asyncio.create_task(self._stop_reading.wait())
        try:
            done, _ = await asyncio.wait(
                {reading, sending, stopping}, timeout=self._ingest.stream_age_s(), return_when=asyncio.FIRST_COMPLETED
            )
            if not done:
                self.drain()
            if not sending.done():
                if reading.done():
                    reading.result()
                await self._finish(sending)
            if sending.done():
                sending.result()
        finally:
            self._is_gone = True
            self._ingest.count_pending(-self._pending_bytes)
            for task in (reading, sending, stopping):
                task.cancel()
            await asyncio.gather(reading, sending, stopping, return_exceptions=True)
        if self._ending is not None:
            await self._context.abort(self._ending_code, self._ending)

    def drain(self) -> None:
        """The server is about to close, or the stream is old: say so, take nothing more."""
        self._put(pb.ServerMessage(drain=pb.Drain(reconnect_after_ms=DRAIN_RECONNECT_MS)))
        self._stop_reading.set()

    def refuse_key(self, reason: str) -> None:
        """The key of the stream is no longer good."""
        if self._ending is None:
            logger.warning("writer %016x is sent away: %s", self._opened.writer_id, reason)
            self._ending_code = grpc.StatusCode.UNAUTHENTICATED
            self._end(reason)

    # What the commits see of a stream (`commit.Committed`).

    @property
    def is_gone(self) -> bool:
        """Nobody waits for an ack."""
        return self._is_gone

    @property
    def generation(self) -> int:
        """How often the store has sent the writer back."""
        return self._generation

    def settled(self, submission: Submission, appended: Appended) -> None:
        """The store has answered a submission."""
        batch = submission.batch
        if appended.accepted_frames or submission.has_documents:  # sent again: nobody may have been told of the first commit
            self._ingest.accepted(batch.run_id, batch.writer_id, is_living=not self._is_replay, has_documents=submission.has_documents)
        self._durable = max(self._durable, appended.next_seq)
        if submission.generation != self._generation:
            return
        self._numbers.advance(appended.next_seq)
        if appended.is_gap:
            self._go_back(appended.next_seq, "gap")
        else:
            self._settle_bytes(submission.frame_bytes)
        self._outbox.ack(received=self._numbers.expected, durable=self._durable)

    def unsettled(self, next_seq: int | None, reason: str) -> None:
        """A commit failed, with what effect is unknown."""
        if next_seq is None:
            self._end(reason)
        elif next_seq < self._durable:
            # Acks are final within a stream: the next one begins with what is left, and the writer refills the rest.
            logger.error(
                "writer %016x: the store has lost frames %d to %d, acked durable", self._opened.writer_id, next_seq, self._durable - 1
            )
            self._end(f"the store has lost frames {next_seq} to {self._durable - 1}: {reason}")
        else:
            self._go_back(next_seq, reason)

    def throttled(self, retry_after_s: float, reason: str) -> None:
        """Frames wait for room on the disk."""
        retry_after_ms = round(retry_after_s * 1000)
        self._put(pb.ServerMessage(throttle=pb.Throttle(retry_after_ms=retry_after_ms, reason=reason)))

    async def _read(self) -> None:
        while True:
            while self._pending_bytes > self._ingest.window_bytes():
                self._room.clear()
                await self._room.wait()
            await self._ingest.has_room.wait()
            message = await self._context.read()
            if message is grpc.aio.EOF:
                return
            kind = message.WhichOneof("kind")
            if kind == "frames":
                if not await self._take_frames(message.frames.frames):
                    return
            elif kind == "beat":
                self._take_beat(message.beat)
            elif kind == "bye":
                if message.bye.died and self._is_replay:
                    await self._ingest.report_death(self._opened.run_id, self._opened.writer_id)
                return
            elif kind == "open":
                self._reject(pb.Reject.BAD_OPEN, "the stream is open already")
                return

    async def _take_frames(self, frames: Sequence[bytes]) -> bool:
        """Judge and submit; False: the stream is refused."""
        for begin in range(0, len(frames), FRAMES_AT_ONCE):
            if begin:
                await asyncio.sleep(0)  # a message may hold very many
            if not await self._take_some(frames[begin : begin + FRAMES_AT_ONCE]):
                return False
        self._outbox.ack(received=self._numbers.expected, durable=self._durable)
        if not self._is_replay:  # its frames are made
            self._keep_pace(len(frames))
        return True

    def _keep_pace(self, frames: int) -> None:
        self._ingest.pace.count(frames)
        if self._told_linger_ms != self._ingest.pace.linger_ms:
            self._told_linger_ms = self._ingest.pace.linger_ms
            self._put(pb.ServerMessage(throttle=pb.Throttle(linger_ms=self._told_linger_ms)))

    async def _take_some(self, frames: Sequence[bytes]) -> bool:
        total_bytes = sum(map(len, frames))
        fitting = [frame for frame in frames if len(frame) <= self._ingest.limits.max_frame_bytes]
        for frame in frames:
            if len(frame) > self._ingest.limits.max_frame_bytes:
                self._reject(pb.Reject.FRAME_TOO_LARGE, f"a frame of {len(frame)} bytes", seq=int.from_bytes(frame[40:48], "little"))
            elif is_newer_format(frame):
                self._reject(pb.Reject.INCOMPATIBLE, f"frame format version {frame[4]}")
                return False
        if total_bytes <= INLINE_CHECK_BYTES:
            verified = _native.verify_frames(fitting)
        else:
            verified = await self._ingest.in_thread(_native.verify_frames, fitting)
        verdict = self._numbers.judge(checked_frames(fitting, verified))
        submitted_bytes = sum(self._submit(stretch) for stretch in verdict.stretches)
        self._settle_bytes(total_bytes - submitted_bytes, is_pending=False)
        if verdict.foreign is not None:
            self._refuse_foreign(verdict.foreign)
            return False
        if verdict.rewind_reason is not None:
            self._put_rewind(self._numbers.expected, verdict.rewind_reason)
        return True

    def _submit(self, stretch: Stretch) -> int:
        frame_bytes = sum(map(len, stretch.frames))
        batch = Batch(self._opened.run_id, self._opened.writer_id, stretch.first_seq, stretch.next_seq, stretch.frames)
        self._pending_bytes += frame_bytes
        self._ingest.count_pending(frame_bytes)
        self._ingest.committer.submit(Submission(self, self._generation, batch, frame_bytes, stretch.has_documents))
        return frame_bytes

    def _take_beat(self, beat: pb.Beat) -> None:
        if not self._is_replay:  # an adopter is alive, the writer it speaks for is not
            self._ingest.applier.beat(
                Beat(
                    run_id=self._opened.run_id,
                    writer_id=self._opened.writer_id,
                    last_seen_us=now_us(),
                    counters=Counters(
                        lag_s=max(0.0, min(beat.lag_s, 1e12)),
                        backlog_frames=min(beat.backlog_frames, 2**62),
                        backlog_bytes=min(beat.backlog_bytes, 2**62),
                        dropped_rows=min(beat.dropped_rows, 2**62),
                        retries=min(beat.retries, 2**62),
                    ),
                )
            )
        self._outbox.ack(received=self._numbers.expected, durable=self._durable, is_forced=True)

    async def _finish(self, sending: asyncio.Task[None]) -> None:
        """Wait for what was submitted and for the last words to leave."""

        async def last_words() -> None:
            while self._pending_bytes > 0 and self._ending is None:
                self._room.clear()
                await self._room.wait()
            await self._outbox.flushed()

        waiting = asyncio.create_task(last_words())
        try:
            await asyncio.wait({waiting, sending}, timeout=self._ingest.limits.drain_timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()

    def _settle_bytes(self, frame_bytes: int, *, is_pending: bool = True) -> None:
        """So many bytes need no memory here any more: raise the grant, in steps of a quarter window."""
        if is_pending and not self._is_gone:  # else all of them were counted out when it went
            self._pending_bytes -= frame_bytes
            self._ingest.count_pending(-frame_bytes)
        self._settled_bytes += frame_bytes
        window_bytes = self._ingest.window_bytes()
        if self._settled_bytes + window_bytes >= self._granted_bytes + window_bytes // 4:
            self._granted_bytes = self._settled_bytes + window_bytes
            self._outbox.credit(self._granted_bytes)
        self._room.set()

    def _go_back(self, next_seq: int, reason: str) -> None:
        """The store holds less than was submitted: what is still waiting there is void."""
        self._generation += 1
        self._numbers.restart(next_seq)
        self._settle_bytes(self._pending_bytes)
        self._put_rewind(next_seq, reason)

    def _refuse_foreign(self, foreign: Checked) -> None:
        reason = f"a frame of writer {foreign.writer_id:016x} on the stream of writer {self._opened.writer_id:016x}"
        if foreign.run_id != self._opened.run_id:
            reason = "a frame of another run than was opened"
        self._reject(pb.Reject.FORBIDDEN, reason)

    def _put_rewind(self, next_seq: int, reason: str) -> None:
        try:
            self._outbox.rewind(next_seq, reason)
        except BufferError as error:
            self._end(str(error))

    def _reject(self, code: pb.Reject.Code, reason: str, seq: int = 0) -> None:
        logger.warning("rejected writer %016x: %s", self._opened.writer_id, reason)
        self._put(pb.ServerMessage(reject=pb.Reject(code=code, reason=reason, seq=seq)))

    def _put(self, message: pb.ServerMessage) -> None:
        try:
            self._outbox.put(message)
        except BufferError as error:
            self._end(str(error))

    def _end(self, reason: str) -> None:
        self._ending = reason
        self._stop_reading.set()
        self._room.set()


async def serve_writer(ingest: Ingest, context: Context, grant: Grant | None) -> None:
    """One call of `Ingest.Stream`: wait for its Open, answer it, serve the stream."""
    try:
        await _serve(ingest, context, grant)
    except BadMessageError as error:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))


async def _serve(ingest: Ingest, context: Context, grant: Grant | None) -> None:
    try:
        message = await asyncio.wait_for(context.read(), ingest.limits.open_timeout_s)
    except asyncio.TimeoutError:
        await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "no Open was sent")
    if message is grpc.aio.EOF:
        return
    if message.WhichOneof("kind") != "open":
        refusal = pb.Reject(code=pb.Reject.BAD_OPEN, reason="the first message of a stream is Open")
        await context.write(pb.ServerMessage(reject=refusal))
        return
    frame = message.open.open_frame
    if len(frame) > ingest.limits.max_frame_bytes:
        refusal = pb.Reject(code=pb.Reject.BAD_OPEN, reason=f"an OPEN frame of {len(frame)} bytes")
        await context.write(pb.ServerMessage(reject=refusal))
        return
    client = grant.key_id if grant else context.peer().rpartition(":")[0]
    try:
        ingest.check_load(client)
        opened = await ingest.admission.open(context.peer(), message.open)
    except ShedError as error:
        throttle = pb.Throttle(retry_after_ms=retry_after_ms(frame), reason=str(error))
        await context.write(pb.ServerMessage(throttle=throttle))
        return
    except (StoreFullError, StoreBusyError) as error:
        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"the server cannot open a writer now: {error}")
    if isinstance(opened, pb.Reject):
        logger.warning("refused a writer: %s", opened.reason)
        await context.write(pb.ServerMessage(reject=opened))
        return
    if message.open.storage_epoch and message.open.storage_epoch != ingest.store.epoch:
        logger.warning("writer %016x knows another storage epoch: this store was restored or replaced", opened.writer_id)
    if message.open.first_available_seq > opened.next_seq:
        logger.error(
            "ALARM: writer %016x of run %s was acked frames up to %d and has let them go, this store holds them up to %d: it was "
            "restored from an older copy, or has lost data",
            opened.writer_id,
            opened.run_id.hex(),
            message.open.first_available_seq - 1,
            opened.next_seq - 1,
        )
    stream = WriterStream(ingest, context, opened, grant, is_replay=message.open.replay)
    with ingest.registered(stream, opened, client):
        await stream.run()
