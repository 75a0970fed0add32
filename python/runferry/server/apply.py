"""Thread `rf-apply`: documents of durable frames -> metadata.

Ingest only stores frames. What they say about the run (config, summary, META, FINISH, GAP) is applied here, later, from the
store: so nothing of it is lost in a crash between the two databases, and nothing is applied twice.

# Exactly once
`writer.applied_seq` in the metadata is set in the transaction that holds the effects. Only after it committed is the store
told (`mark_applied`), which may then drop the frames. After a crash the loop reads again from `applied_seq`.

# Summary
Two documents: what the user set, and the last value of each metric; readers see the first laid over the second. So a value that
the user set wins, however often the metric is logged afterwards, until the user removes it.

# Order
Frames of a writer by seq; between writers none is promised, nor needed.

# Waiting
A writer is due at once when a frame with documents arrived, else a second after its first new frame, and later where there are so
many such writers that they would take more than their share of the time. Counts and last values of runs follow (`totals`).

# Shutdown
`stop` applies everything that is durable, writes the last beats, and returns.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from runferry import _native
from runferry.server.documents import change_of, finish_of, gap_of, name_fields
from runferry.server.metadata import writes
from runferry.server.metadata.schema import project, run, writer
from runferry.server.metadata.silence import Listening
from runferry.server.query import now_us
from runferry.server.run_columns import state_at
from runferry.server.store.append import FINISH, GAP
from runferry.server.store.protocol import StoreFullError
from runferry.server.totals import Totals

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.engine import Connection

    from runferry.server.live import Hub
    from runferry.server.metadata.database import Database
    from runferry.server.store.protocol import Store

logger = logging.getLogger(__name__)

ROWS_DELAY_S = 1.0
BEATS_INTERVAL_S = 2.0
ROWS_SHARE = 5
"""Of the time one part in so many is given to writers that have sent nothing but rows."""
RETRY_DELAY_S = 1.0
TOLD_AGAIN_S = 60.0
TAKE_OVER_EVERY_S = 30.0
QUIET_US = 60 * 1_000_000
"""A writer that was not heard of for so long has lost its server, or has nothing to say."""
WRITERS_PER_PASS = 256
RECENT_WRITERS = 1_000
KNOWN_RUNS = 20_000

WriterKey = tuple[bytes, int]


class Applier:
    """The loop; `notify` and `beat` may be called from any thread."""

    def __init__(self, database: Database, store: Store, hub: Hub, *, is_shared: bool = False) -> None:
        """Apply from this store to this database, and tell this hub; `is_shared`: other servers, which may die, have both too."""
        self._is_shared = is_shared
        self._database = database
        self._store = store
        self._hub = hub
        self._changed = threading.Condition()
        self._due_at: dict[WriterKey, float] = {}
        """Writers with documents, or whatever a crash has left."""
        self._rows_due_at: dict[WriterKey, float] = {}
        self._rows_free_at = 0.0
        self._beats: dict[WriterKey, writes.Beat] = {}
        self._is_stopping = False
        self._totals = Totals(database, store)
        self._names: dict[bytes, tuple[str, str]] = {}
        self._told_at: dict[str, float] = {}
        self._listening = Listening()
        self._thread = threading.Thread(target=self._run, name="rf-apply", daemon=True)

    def start(self) -> None:
        """Begin, with what an earlier process left unapplied."""
        self._thread.start()

    def notify(self, run_id: bytes, writer_id: int, *, has_documents: bool) -> None:
        """Frames of this writer have become durable."""
        key = (run_id, writer_id)
        with self._changed:
            if has_documents:
                self._rows_due_at.pop(key, None)
                if self._due_at.get(key, 1.0) > 0.0:
                    self._due_at[key] = 0.0
                    self._changed.notify()
            elif key not in self._due_at and key not in self._rows_due_at:
                self._rows_due_at[key] = time.monotonic() + ROWS_DELAY_S
                if len(self._rows_due_at) == 1:
                    self._changed.notify()

    def beat(self, beat: writes.Beat) -> None:
        """A writer was heard of."""
        with self._changed:
            self._beats[beat.run_id, beat.writer_id] = beat

    def seen(self, run_id: bytes, writer_id: int, at_us: int) -> None:
        """A writer sent frames: as a beat that says nothing new of its backlog."""
        with self._changed:
            known = self._beats.get((run_id, writer_id))
            self._beats[run_id, writer_id] = writes.Beat(run_id, writer_id, at_us, known.counters if known else None)

    def stop(self) -> None:
        """Apply what is durable, then end."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        is_recovered = self._try(self._recover)
        beats_at = looked_at = time.monotonic()
        while True:
            due, rows_due, is_stopping = self._wait(beats_at + BEATS_INTERVAL_S)
            is_recovered = is_recovered or self._try(self._recover)
            self._apply(due)
            if rows_due:
                began = time.monotonic()
                self._apply(rows_due)
                self._rows_free_at = time.monotonic() + (time.monotonic() - began) * (ROWS_SHARE - 1)
            if is_stopping or time.monotonic() >= self._totals.due_at():
                self._try(self._write_totals, is_stopping)
            if self._is_shared and time.monotonic() >= looked_at + TAKE_OVER_EVERY_S:
                looked_at = time.monotonic()
                self._try(self._take_over)
            if is_stopping or time.monotonic() >= beats_at + BEATS_INTERVAL_S:
                beats_at = time.monotonic()
                self._try(self._write_beats, is_stopping)
            if is_stopping:
                return

    def _apply(self, due: list[WriterKey]) -> None:
        if due and not self._try(self._pass, due):
            # One writer's trouble must not hold up the others: each alone, and those that fail once more later.
            self._again([key for key in due if not self._try(self._pass, [key])])

    def _wait(self, until: float) -> tuple[list[WriterKey], list[WriterKey], bool]:
        """Writers with documents, or else writers with rows, as soon as some are due; whether it is the last time."""
        until = min(until, self._totals.due_at())
        with self._changed:
            while True:
                now = time.monotonic()
                if self._is_stopping:
                    return [*_taken(self._due_at), *_taken(self._rows_due_at)], [], True
                due = _taken(self._due_at, now, WRITERS_PER_PASS)
                rows_due = _taken(self._rows_due_at, now, WRITERS_PER_PASS) if not due and now >= self._rows_free_at else []
                if due or rows_due or now >= until:
                    return due, rows_due, False
                rows_at = max(self._rows_free_at, min(self._rows_due_at.values(), default=float("inf")))
                self._changed.wait(max(0.0, min([until, rows_at, *self._due_at.values()]) - now))

    def _try(self, step: Any, *arguments: Any) -> bool:
        """Run one step; the loop outlives its errors, which are all retried."""
        try:
            step(*arguments)
        except sa.exc.OperationalError as error:
            self._tell(str(error.orig))
            return False
        except StoreFullError as error:
            self._tell(str(error))
            return False
        except BaseException:
            logger.exception("metadata could not be brought up to date; trying again")
            return False
        self._told_at.clear()
        return True

    def _tell(self, trouble: str) -> None:
        """A disk that is full or a database that is held stays so for a while: said once a minute."""
        now = time.monotonic()
        if now - self._told_at.get(trouble, -TOLD_AGAIN_S) >= TOLD_AGAIN_S:
            self._told_at[trouble] = now
            logger.error("metadata could not be brought up to date; trying again: %s", trouble)

    def _again(self, due: Iterable[WriterKey]) -> None:
        with self._changed:
            for key in due:
                self._due_at.setdefault(key, time.monotonic() + RETRY_DELAY_S)

    def _recover(self) -> None:
        """What an earlier process left: unapplied documents of writers without FINISH, marks the store may not have got."""
        unfinished_writers = writer.c.state.in_(("running", "died"))
        with self._database.read() as connection:
            unfinished = connection.execute(sa.select(writer.c.run_id, writer.c.writer_id).where(unfinished_writers)).all()
            recent = connection.execute(
                sa.select(writer.c.run_id, writer.c.writer_id, writer.c.applied_seq)
                .where(~unfinished_writers)
                .order_by(writer.c.last_seen_us.desc())
                .limit(RECENT_WRITERS)
            ).all()
        self._store.mark_applied([(row.run_id, writes.unsigned(row.writer_id), row.applied_seq) for row in recent])
        for row in unfinished:
            self.notify(row.run_id, writes.unsigned(row.writer_id), has_documents=True)
            self._totals.want(row.run_id)

    def _take_over(self) -> None:
        """Documents of writers whose server has died before it applied them, and which found no other one yet."""
        for run_id, writer_id in self._store.unapplied(now_us() - QUIET_US):
            self.notify(run_id, writer_id, has_documents=True)

    def _pass(self, due: list[WriterKey]) -> None:
        by_run: dict[bytes, list[int]] = {}
        for run_id, writer_id in due:
            by_run.setdefault(run_id, []).append(writer_id)
        durable: dict[WriterKey, int] = {}
        for run_id, writer_ids in by_run.items():  # before their documents are read: so none up to here can be missed
            durable |= {(run_id, writer_id): next_seq - 1 for writer_id, next_seq in self._store.next_seqs(run_id, writer_ids).items()}
        with self._database.read() as connection:
            # Those that are missing have no OPEN in the metadata yet: `notify` follows when they have.
            applied = {key: seq for key, seq in writes.applied_seqs(connection, due).items() if self._is_known(connection, key[0])}
        behind = [key for key, seq in applied.items() if durable.get(key, 0) > seq]
        found: dict[bytes, set[str]] = {}
        if behind:
            with self._database.write() as connection:
                found = self._apply_writers(connection, behind, applied, durable)
        self._store.mark_applied([(*key, seq) for key, seq in applied.items()])
        for run_id, kinds in found.items():
            if "finish" in kinds:
                self._totals.forget(run_id)
            else:
                self._totals.want(run_id)
            if kinds:
                self._hub.metadata_changed_from_thread(run_id, *self._names[run_id])

    def _apply_writers(
        self, connection: Connection, behind: list[WriterKey], applied: dict[WriterKey, int], durable: dict[WriterKey, int]
    ) -> dict[bytes, set[str]]:
        """Apply what is new of some writers, and say so in `applied`; returns what was found of each run."""
        found: dict[bytes, set[str]] = {}
        applied |= writes.applied_seqs(connection, behind)  # now that nobody else writes: another server may have applied them
        for key in behind:
            last_seq, kinds = self._apply_writer(connection, *key, applied[key])
            applied[key] = max(durable[key], last_seq)
            found.setdefault(key[0], set()).update(kinds)
        writes.set_applied(connection, [(*key, applied[key]) for key in behind])
        for run_id, kinds in found.items():
            if "finish" in kinds:
                # In the same transaction: who sees the run finished sees its last values and counts too.
                self._try(self._write_last_totals, connection, run_id)
        return found

    def _apply_writer(self, connection: Connection, run_id: bytes, writer_id: int, applied_seq: int) -> tuple[int, set[str]]:
        """Apply what is new of one writer."""
        found: set[str] = set()
        last_seq = applied_seq
        for seq, frame in self._store.documents_after(run_id, writer_id, applied_seq):
            try:
                with connection.begin_nested():
                    found |= self._apply_frame(connection, run_id, writer_id, seq, frame)
            except sa.exc.OperationalError:
                raise  # the database's trouble, not the frame's
            except Exception as error:
                logger.exception("documents of frame %d of writer %016x cannot be applied; a copy goes into quarantine", seq, writer_id)
                self._store.set_document_aside(run_id, writer_id, seq, f"{type(error).__name__}: {error}"[:500], frame)
            last_seq = seq
        return last_seq, found

    def _apply_frame(self, connection: Connection, run_id: bytes, writer_id: int, seq: int, frame: bytes) -> set[str]:
        try:
            documents = _native.documents(frame)
        except ValueError as error:
            # The merge keeps the frame in quarantine, where readers see it; the next frame does not depend on it.
            logger.warning("frame %d of writer %016x does not decode: %s", seq, writer_id, error)
            documents = []
        # These two say something by being there: a FINISH ends its writer and a GAP's numbers are missing, whatever else they hold.
        if (said := {FINISH: "finish", GAP: "gap"}.get(frame[5])) and not any(isinstance(value, dict) for _, value in documents):
            documents = [(said, {})]
        for name, value in documents:
            if not isinstance(value, dict):
                continue
            if name == "config":
                writes.apply_config(connection, run_id, change_of(value.get("updates"), value.get("removed")))
            elif name == "summary":
                writes.apply_summary(connection, run_id, change_of(value.get("updates"), value.get("removed")))
            elif name == "meta":
                writes.apply_meta(connection, run_id, name_fields(value))
            elif name == "finish":
                writes.apply_finish(connection, run_id, writer_id, finish_of(value), now_us())
            elif name == "gap":
                count = int.from_bytes(frame[48:52], "little")
                writes.apply_gap(connection, run_id, writer_id, gap_of(seq, count, value))
        return {name for name, _ in documents}

    def _write_totals(self, is_last: bool) -> None:  # noqa: FBT001 - called by `_try`, which has no keywords
        for run_id in self._totals.write(is_last=is_last):
            self._hub.metadata_changed_from_thread(run_id, *self._names_of(run_id))

    def _write_last_totals(self, connection: Connection, run_id: bytes) -> None:
        """Counts and last values; what keeps them from being read must not keep the documents from being applied."""
        totals = self._totals.read(run_id)
        with connection.begin_nested():
            writes.write_totals(connection, run_id, totals)

    def _names_of(self, run_id: bytes) -> tuple[str, str]:
        if run_id not in self._names:
            with self._database.read() as connection:
                self._is_known(connection, run_id)
        return self._names[run_id]

    def _is_known(self, connection: Connection, run_id: bytes) -> bool:
        if run_id not in self._names:
            row = connection.execute(
                sa.select(project.c.entity, project.c.name)
                .join(run, run.c.project_id == project.c.project_id)
                .where(run.c.run_id == run_id)
            ).one_or_none()
            if row is None:
                return False
            if len(self._names) > KNOWN_RUNS:
                self._names.clear()
            self._names[run_id] = (row.entity, row.name)
        return True

    def _write_beats(self, is_last: bool) -> None:  # noqa: FBT001 - called by `_try`, which has no keywords
        with self._changed:
            beats, self._beats = list(self._beats.values()), {}
        at_us = now_us()
        if not beats and not is_last and not self._listening.is_due(at_us):
            self._listening.heard(at_us)
            return
        try:
            with self._database.write() as connection:
                self._listening.note(connection, at_us)
                was_silent = run.c.run_id.in_({beat.run_id for beat in beats}) & state_at(at_us).in_(("quiet", "lost", "failed"))
                back = [
                    run_id for run_id in connection.scalars(sa.select(run.c.run_id).where(was_silent)) if self._is_known(connection, run_id)
                ]
                writes.write_beats(connection, beats)
        except sa.exc.SQLAlchemyError:
            with self._changed:
                for beat in beats:
                    self._beats.setdefault((beat.run_id, beat.writer_id), beat)
            raise
        self._listening.noted(at_us)
        for run_id in back:
            self._hub.metadata_changed_from_thread(run_id, *self._names[run_id])


def _taken(waiting: dict[WriterKey, float], now: float = float("inf"), most: int | None = None) -> list[WriterKey]:
    """Takes those that are due."""
    due = list(itertools.islice((key for key, at in waiting.items() if at <= now), most))
    for key in due:
        del waiting[key]
    return due
