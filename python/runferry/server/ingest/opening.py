"""The first message of a stream: is it a writer we can serve, and where does it go on?

Everything here blocks (native checks, both databases) and runs in a thread. Openings that came together share their transactions: after
a restart thousands come at once. A refusal is a value, not an exception: the stream sends it and ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

import sqlalchemy as sa

from runferry import _native
from runferry.server._generated import ingest_pb2 as pb
from runferry.server.documents import BadOpenError, Opening, opening_of
from runferry.server.ingest.sequence import KIND_OPEN
from runferry.server.metadata import writes
from runferry.server.query import now_us
from runferry.server.store.protocol import StoreBusyError, WriterOpening

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runferry.server.metadata.database import Database
    from runferry.server.store.protocol import Store

PROTOCOL = 1
FRAME_VERSION = 1
FEW = 16
"""Where more come back together, `last_step` is the one that the metadata knew last: about a second old."""
FRAME_MAGIC = b"\xf5\x9e\xd1\x8a"


@dataclass(frozen=True, slots=True)
class Opened:
    """A writer that may send."""

    run_id: bytes
    writer_id: int
    opening: Opening
    next_seq: int
    run_existed: bool
    last_step: int
    last_frame_hash: bytes | None

    @property
    def run_url(self) -> str:
        """Path of the run's page."""
        names = (self.opening.entity, self.opening.project, self.opening.id)
        return "/runs/" + "/".join(quote(name, safe="") for name in names)


def is_newer_format(frame: bytes) -> bool:
    """The frame is one, but of a version this server cannot read."""
    return frame[:4] == FRAME_MAGIC and frame[4:5] != bytes([FRAME_VERSION])


Outcome = Opened | pb.Reject | Exception


def open_streams(messages: Sequence[pb.Open], database: Database, store: Store) -> list[Outcome]:
    """Make writers known to the store, then to the metadata, durable in both on return; one outcome per message, in order.

    In this order: a writer in the metadata without a row in the store would be shown and could not write; the other way round
    the next Open of the writer, which it sends before any frame, completes it.

    They share their transactions. Where those fail each is tried alone, so that nobody's Open fails for another's.
    `StoreFullError`: no room for the writer; `StoreBusyError`: a database does not take it now.
    """
    outcomes: dict[int, Outcome] = {}
    good: dict[int, _Checked] = {}
    for index, message in enumerate(messages):
        try:
            good[index] = _checked(message)
        except _RefusedError as refused:  # noqa: PERF203 - next to what is done with a good one that is nothing
            outcomes[index] = pb.Reject(code=refused.code, reason=str(refused))
        except Exception as error:  # noqa: BLE001 - anybody may have sent it; it is the answer to this one alone
            outcomes[index] = error
    try:
        outcomes |= zip(good, _open_all(list(good.values()), database, store), strict=True)
    except Exception as error:  # noqa: BLE001 - handed to the streams
        for index, checked in good.items():
            outcomes[index] = error if len(good) == 1 else _open_alone(checked, database, store)
    return [outcomes[index] for index in range(len(messages))]


def _open_alone(checked: _Checked, database: Database, store: Store) -> Outcome:
    try:
        return _open_all([checked], database, store)[0]
    except Exception as error:  # noqa: BLE001 - as above
        return error


def _open_all(checked: Sequence[_Checked], database: Database, store: Store) -> list[Opened]:
    if not checked:
        return []
    states = store.open_writers([one.for_the_store for one in checked])
    try:
        with database.read() as connection:
            known = [writes.is_opened(connection, one.run_id, one.writer_id) for one in checked]
            found = [
                (writes.has_others(connection, one.run_id, one.writer_id), writes.last_step(connection, one.run_id)) for one in checked
            ]
        if not all(known):
            with database.write() as connection:
                for index, one in enumerate(checked):
                    if not known[index]:
                        run_existed = writes.open_writer(connection, one.run_id, one.writer_id, one.opening, now_us())
                        found[index] = (run_existed, -1)
    except sa.exc.OperationalError as error:  # full, or held by somebody
        raise StoreBusyError(f"metadata: {error.orig}") from error
    opened = []
    for one, state, is_back, (run_existed, last_step) in zip(checked, states, known, found, strict=True):
        # To know the last step exactly all that waits to be merged is decoded: not for thousands that come back at once.
        is_exact = (run_existed or is_back) and not (is_back and len(checked) > FEW)
        step = store.totals(one.run_id).last_step if is_exact else last_step
        opened.append(Opened(one.run_id, one.writer_id, one.opening, state.next_seq, run_existed, step, state.last_hash))
    return opened


@dataclass(frozen=True, slots=True)
class _Checked:
    """Run, writer and OPEN map of a message."""

    run_id: bytes
    writer_id: int
    opening: Opening
    frame: bytes

    @property
    def for_the_store(self) -> WriterOpening:
        opening = self.opening
        return WriterOpening(
            self.run_id,
            self.writer_id,
            self.frame,
            opening.label,
            opening.started_us or now_us(),
            opening.is_relative,
            opening.predecessor,
        )


class _RefusedError(Exception):
    def __init__(self, code: pb.Reject.Code, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def _checked(message: pb.Open) -> _Checked:
    if message.protocol != PROTOCOL:
        raise _RefusedError(pb.Reject.INCOMPATIBLE, f"protocol {message.protocol}, this server speaks {PROTOCOL}")
    frame = message.open_frame
    if is_newer_format(frame):
        raise _RefusedError(pb.Reject.INCOMPATIBLE, f"frame format version {frame[4]}, this server reads {FRAME_VERSION}")
    kind, _flags, run_id, writer_id, _seq, _next_seq, _records, error = _native.verify_frames([frame])[0]
    if error is not None:
        raise _RefusedError(pb.Reject.BAD_OPEN, f"the OPEN frame cannot be read: {error}")
    if kind != KIND_OPEN or writer_id == 0:
        raise _RefusedError(pb.Reject.BAD_OPEN, f"expected an OPEN frame of a writer, found kind {kind} of writer {writer_id}")
    try:
        documents = dict(_native.documents(frame))
        fields = documents.get("open")
        opening = opening_of(fields if isinstance(fields, dict) else {})
    except BadOpenError as bad:
        raise _RefusedError(pb.Reject.BAD_OPEN, str(bad)) from bad
    except ValueError as bad:
        raise _RefusedError(pb.Reject.BAD_OPEN, f"the OPEN frame cannot be read: {bad}") from bad
    if _native.run_key(opening.entity, opening.project, opening.id) != run_id:
        raise _RefusedError(pb.Reject.BAD_OPEN, f"the frame's run id is not that of {opening.entity}/{opening.project}/{opening.id}")
    return _Checked(run_id, writer_id, opening, frame)
