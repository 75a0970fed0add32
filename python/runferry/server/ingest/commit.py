"""Thread `rf-commit`: frames of all streams -> one transaction -> durable acks.

One fsync serves every writer that sent something meanwhile. A group is closed after `commit_linger_s` or at
`commit_group_bytes`, whichever comes first; while one commits, the next gathers.

# Who owns what
Streams submit from the event loop and are answered there (`Stream.settled`, `Stream.unsettled`); the thread owns only the group.
The queue needs no bound of its own: a stream stops reading when as many bytes as its credit are waiting here.

# Failure
Each part of a group that the store commits together (a shard) fails for itself.
- No room, hardly any (`shortage`), or the database held by somebody else: the same frames are kept and tried again; the writers
  are throttled and get no ack. Frames whose stream has gone are let go, since their writer sends them again.
- Outcome unknown: nothing is acked; the writers rewind to what the store says it holds, and until they have, their frames are
  dropped by generation.
- Any other error has stored nothing, and may be the fault of one batch: each is tried alone, and only a writer whose batch fails
  alone loses its stream, so that nobody can stop the commits of others.

# Shutdown
`stop` commits what was submitted before it and ends; a group that cannot be committed then is let go un-acked.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from runferry.server.store.protocol import Appended, Batch, OutcomeUnknownError, StoreBusyError, StoreError, StoreFullError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from runferry.server.store.protocol import Store

logger = logging.getLogger(__name__)

FULL_RETRY_S = 1.0
ERROR_RETRY_S = 1.0


class Committed(Protocol):
    """A stream, as the commits see it."""

    @property
    def is_gone(self) -> bool:
        """Nobody waits for the ack any more."""
        ...

    @property
    def generation(self) -> int:
        """Raised at each rewind: older submissions are void."""
        ...

    def settled(self, submission: Submission, appended: Appended) -> None:
        """On the loop: the store has answered."""
        ...

    def unsettled(self, next_seq: int | None, reason: str) -> None:
        """On the loop: outcome unknown; rewind to `next_seq` (None: the store does not even say that)."""
        ...

    def throttled(self, retry_after_s: float, reason: str) -> None:
        """On the loop: the frames wait for room."""
        ...


@dataclass(frozen=True, slots=True)
class Submission:
    """A stretch of frames of one stream."""

    stream: Committed
    generation: int
    batch: Batch
    frame_bytes: int
    has_documents: bool


class GroupCommitter:
    """The thread and its queue."""

    def __init__(
        self, store: Store, loop: asyncio.AbstractEventLoop, *, linger_s: float, group_bytes: int, shortage: Callable[[int], str | None]
    ) -> None:
        """Commit to this store, answer on this loop; `shortage` says why the disk shall not take so many bytes."""
        self._store = store
        self._shortage = shortage
        self._loop = loop
        self._linger_s = linger_s
        self._group_bytes = group_bytes
        self._changed = threading.Condition()
        self._waiting: list[Submission] = []
        self._waiting_bytes = 0
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name="rf-commit", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def submit(self, submission: Submission) -> None:
        """Take frames for the next group."""
        with self._changed:
            self._waiting.append(submission)
            self._waiting_bytes += submission.frame_bytes
            self._changed.notify()

    def stop(self) -> None:
        """Commit what was submitted, then end; returns when the last answer is on its way to the loop."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while True:
            group = self._gather()
            if not group:
                return
            self._commit(group)

    def _gather(self) -> list[Submission]:
        """The next group; empty when everything is done."""
        with self._changed:
            while not self._waiting and not self._is_stopping:
                self._changed.wait()
            close_at = time.monotonic() + self._linger_s
            while self._waiting_bytes < self._group_bytes and not self._is_stopping:
                left_s = close_at - time.monotonic()
                if left_s <= 0:
                    break
                self._changed.wait(left_s)
            group, self._waiting, self._waiting_bytes = self._waiting, [], 0
            return group

    def _commit(self, group: list[Submission]) -> None:
        while group := [submission for submission in group if submission.generation == submission.stream.generation]:
            waiting: list[Submission] = []
            reason = ""
            for part in self._parts(group):
                try:
                    self._check_room(part)
                    self._append(part)
                except (StoreFullError, StoreBusyError) as error:  # noqa: PERF203 - an iteration is a commit to a disk
                    logger.error("%d frames wait: %s", sum(len(item.batch.frames) for item in part), error)  # noqa: TRY400 - expected, its place is known
                    waiting += part
                    reason = "no room on the server's disk" if isinstance(error, StoreFullError) else "the server's database is busy"
                except Exception as error:
                    # Whatever it was: nothing may be acked, and the loop must not end.
                    logger.exception("commit failed")
                    self._commit_alone(part, error)
            if not waiting or self._is_stopping:
                return
            self._on_loop(_throttle, list({id(item.stream): item.stream for item in waiting}.values()), reason)
            group = [submission for submission in waiting if not submission.stream.is_gone]
            self._pause(FULL_RETRY_S)

    def _parts(self, group: list[Submission]) -> list[list[Submission]]:
        """What commits together; a group that the store cannot part is tried one by one."""
        try:
            parts = self._store.commit_groups([submission.batch for submission in group])
        except StoreError:
            return [[submission] for submission in group]
        return [[group[index] for index in part] for part in parts]

    def _check_room(self, part: Sequence[Submission]) -> None:
        shortage = self._shortage(sum(submission.frame_bytes for submission in part))
        if shortage is not None:
            raise StoreFullError(shortage)

    def _append(self, part: Sequence[Submission]) -> None:
        answers = self._store.append([submission.batch for submission in part])
        for submission, appended in zip(part, answers, strict=True):
            if appended.conflicting_frames:
                logger.error(
                    "writer %016x of run %s sent %d frames that differ from those stored under their numbers: the first ones count, "
                    "the others are in quarantine",
                    submission.batch.writer_id,
                    submission.batch.run_id.hex(),
                    appended.conflicting_frames,
                )
        self._on_loop(_settle, part, answers)

    def _commit_alone(self, part: list[Submission], error: Exception) -> None:
        """A part failed: with what effect is unknown, or for one of its batches."""
        if isinstance(error, OutcomeUnknownError):
            self._tell_unknown(part, error)
            return
        failed = []
        for submission in part:
            try:
                self._append([submission])
            except OutcomeUnknownError as unknown:  # noqa: PERF203 - as above
                self._tell_unknown([submission], unknown)
            except Exception as alone:
                logger.exception("commit of writer %016x failed alone", submission.batch.writer_id)
                self._on_loop(_unsettle, [submission], {}, f"its frames cannot be stored ({alone})")
                failed.append(submission)
        if len(failed) == len(part):  # it may as well be the store: do not spin
            self._pause(ERROR_RETRY_S / 10)

    def _tell_unknown(self, group: Sequence[Submission], error: Exception) -> None:
        by_run: dict[bytes, set[int]] = {}
        for submission in group:
            by_run.setdefault(submission.batch.run_id, set()).add(submission.batch.writer_id)
        known: dict[tuple[bytes, int], int] = {}
        for run_id, writer_ids in by_run.items():
            try:
                found = self._store.next_seqs(run_id, sorted(writer_ids))
            except StoreError:
                logger.exception("the store does not answer after a failed commit")
                continue
            known.update({(run_id, writer_id): next_seq for writer_id, next_seq in found.items()})
        self._on_loop(_unsettle, group, known, f"unknown outcome ({error})")
        self._pause(ERROR_RETRY_S)

    def _pause(self, pause_s: float) -> None:
        """Wait, unless the server is stopping; frames keep gathering meanwhile."""
        until = time.monotonic() + pause_s
        with self._changed:
            while not self._is_stopping and (left_s := until - time.monotonic()) > 0:
                self._changed.wait(left_s)

    def _on_loop(self, call: object, *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(call, *arguments)  # type: ignore[arg-type]  # one of the three functions below
        except RuntimeError:
            if not self._loop.is_closed():
                raise


def _settle(group: Sequence[Submission], answers: Sequence[Appended]) -> None:
    for submission, appended in zip(group, answers, strict=True):
        submission.stream.settled(submission, appended)


def _throttle(streams: Sequence[Committed], reason: str) -> None:
    for stream in streams:
        stream.throttled(FULL_RETRY_S, reason)


def _unsettle(group: Sequence[Submission], known: dict[tuple[bytes, int], int], reason: str) -> None:
    streams = {id(submission.stream): submission for submission in group}
    for submission in streams.values():
        batch = submission.batch
        submission.stream.unsettled(known.get((batch.run_id, batch.writer_id)), reason)
