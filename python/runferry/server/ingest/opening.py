"""The first message of a stream: is it a writer we can serve, and where does it go on?

Everything here blocks (native checks, both databases) and runs in a thread. A refusal is a value, not an exception: the
stream sends it and ends.
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
from runferry.server.metadata.writes import open_writer
from runferry.server.query import now_us
from runferry.server.store.protocol import StoreBusyError

if TYPE_CHECKING:
    from runferry.server.metadata.database import Database
    from runferry.server.store.protocol import Store

PROTOCOL = 1
FRAME_VERSION = 1
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


def open_stream(message: pb.Open, database: Database, store: Store) -> Opened | pb.Reject:
    """Make the writer known to the store, then to the metadata; durable in both on return.

    In this order: a writer in the metadata without a row in the store would be shown and could not write; the other way round
    the next Open of the writer, which it sends before any frame, completes it.

    Raises:
        StoreFullError: No room for the writer.
        StoreBusyError: A database does not take it now.
    """
    try:
        run_id, writer_id, opening = _checked(message)
    except _RefusedError as refused:
        return pb.Reject(code=refused.code, reason=str(refused))
    state = store.open_writer(
        run_id,
        writer_id,
        message.open_frame,
        label=opening.label,
        started_us=opening.started_us or now_us(),
        is_relative=opening.is_relative,
        predecessor=opening.predecessor,
    )
    try:
        with database.write() as connection:
            run_existed = open_writer(connection, run_id, writer_id, opening, now_us())
    except sa.exc.OperationalError as error:  # full, or held by somebody
        raise StoreBusyError(f"metadata: {error.orig}") from error
    return Opened(run_id, writer_id, opening, state.next_seq, run_existed, store.totals(run_id).last_step, state.last_hash)


class _RefusedError(Exception):
    def __init__(self, code: pb.Reject.Code, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def _checked(message: pb.Open) -> tuple[bytes, int, Opening]:
    """Run, writer and OPEN map of a message."""
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
    return run_id, writer_id, opening
