"""What readers ask about projects, runs and writers: metadata and store put together. Speaks no HTTP.

# Paging
A page ends with a cursor that holds the sort key of its last run, not a position: runs that come or go meanwhile neither
repeat nor skip others. Runs without the sorted field come last in either direction. Ties are broken by creation, then id.

Calls block; the doors call them from a thread.
"""

from __future__ import annotations

import base64
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from runferry.server.filters import compile_filter
from runferry.server.metadata.schema import gap, project, run, run_field, writer
from runferry.server.metadata.writes import unsigned
from runferry.server.run_columns import UnknownFieldError, run_field_named, shown_name, silent_state, state_at

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.engine import Connection, Row

    from runferry.server.metadata.database import Database
    from runferry.server.store.protocol import Store, WriterState

RunDocument = dict[str, Any]
RunName = tuple[str, str, str]
"""Entity, project and id."""


_FIND = (
    sa.select(run.c.run_id)
    .join(project, run.c.project_id == project.c.project_id)
    .where(project.c.entity == sa.bindparam("entity"), project.c.name == sa.bindparam("project_name"), run.c.id == sa.bindparam("run_name"))
)
"""Begins every question about a run, so it is put together once: that takes longer than to ask it."""


class OrderError(ValueError):
    """The order or the cursor cannot be understood."""


MAX_PAGE_CHARS = 8 << 20
"""Documents in one page of runs; a page that would hold more ends before, and the next one goes on."""


@dataclass(frozen=True, slots=True)
class Page:
    """Some runs of a listing."""

    runs: list[RunDocument]
    next_cursor: str | None
    total: int


def now_us() -> int:
    """Wall time; the one place where reads look at the clock."""
    return time.time_ns() // 1_000


class Query:
    """Reads over the metadata and the store."""

    def __init__(self, database: Database, store: Store) -> None:
        """Read from these two."""
        self._database = database
        self._store = store

    def projects(self) -> list[dict[str, Any]]:
        """Every project, the last active one first."""
        last_active = sa.func.max(run.c.heartbeat_us).label("last_active_us")
        statement = (
            sa.select(project.c.entity, project.c.name.label("project"), sa.func.count().label("runs"), last_active)
            .join(run, run.c.project_id == project.c.project_id)
            .group_by(project.c.project_id)
            .order_by(last_active.desc(), project.c.project_id)
        )
        with self._database.read() as connection:
            return [dict(row) for row in connection.execute(statement).mappings()]

    def find(self, entity: str, project_name: str, id: str) -> bytes | None:  # noqa: A002 - the field's name everywhere
        """The run's key, or None: there is no such run."""
        with self._database.read() as connection:
            found: bytes | None = connection.scalar(_FIND, {"entity": entity, "project_name": project_name, "run_name": id})
            return found

    def find_all(self, names: Sequence[RunName]) -> dict[RunName, bytes]:
        """The keys of those that exist, in one statement."""
        ids: dict[tuple[str, str], list[str]] = {}
        for entity, project_name, id in names:  # noqa: A001 - the field's name everywhere
            ids.setdefault((entity, project_name), []).append(id)
        named = [
            (project.c.entity == entity) & (project.c.name == project_name) & run.c.id.in_(of_project)
            for (entity, project_name), of_project in ids.items()
        ]
        statement = sa.select(project.c.entity, project.c.name, run.c.id, run.c.run_id).join(
            project, run.c.project_id == project.c.project_id
        )
        with self._database.read() as connection:
            return {(row[0], row[1], row[2]): row[3] for row in connection.execute(statement.where(sa.or_(*named)))}

    def runs(  # noqa: PLR0913 - one for each parameter of the query
        self,
        *,
        entity: str | None = None,
        project_name: str | None = None,
        filters: object = None,
        order: str = "-created_at",
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page:
        """A page of runs.

        Raises:
            FilterError: The filter cannot be understood.
            OrderError: The order or the cursor cannot.
        """
        at_us = now_us()
        keys = _sort_keys(order, at_us)
        conditions = [] if filters is None else [compile_filter(filters, at_us)]
        if entity is not None:
            conditions.append(project.c.entity == entity)
        if project_name is not None:
            conditions.append(project.c.name == project_name)
        key_columns = [key.column.label(f"sort_{index}") for index, key in enumerate(keys)]
        documents = (run.c.config, run.c.last_summary, run.c.set_summary, run.c.notes)
        size = sum((sa.func.length(sa.cast(column, sa.Text)) for column in documents), sa.literal(0))
        statement = _select_runs(at_us, size.label("document_chars"), *key_columns)
        counting = sa.select(sa.func.count()).select_from(run).join(project, run.c.project_id == project.c.project_id)
        for key in keys:
            if key.joined is not None:
                statement = statement.outerjoin(key.joined, key.join_condition)
                break
        statement = statement.where(*conditions).order_by(*(key.column.desc() if key.is_descending else key.column for key in keys))
        if cursor is not None:
            statement = statement.where(_behind(keys, _read_cursor(cursor, order, len(keys))))
        with self._database.read() as connection:
            rows: list[Row[Any]] = []
            left_chars, next_cursor = MAX_PAGE_CHARS, None
            for row in connection.execute(statement.limit(limit + 1)):
                left_chars -= row.document_chars
                if rows and (len(rows) == limit or left_chars < 0):
                    next_cursor = _write_cursor(order, rows[-1][-len(keys) :])  # the sort keys are the last columns
                    break
                rows.append(row)
            total = connection.scalar(counting.where(*conditions)) or 0
        return Page([_document(row) for row in rows], next_cursor, total)

    def run(self, run_id: bytes) -> RunDocument | None:
        """One run, its counts as of now."""
        with self._database.read() as connection:
            document = self._run(connection, run_id)
        if document is not None:
            totals = self._store.totals(run_id)
            document.update(points=totals.points, rows=totals.rows, last_step=totals.last_step)
        return document

    def runs_by_key(self, run_ids: Sequence[bytes]) -> list[RunDocument]:
        """Several runs, as a listing shows them; those that do not exist are left out."""
        if not run_ids:
            return []
        with self._database.read() as connection:
            rows = connection.execute(_select_runs(now_us()).where(run.c.run_id.in_(list(run_ids)))).all()
        return [_document(row) for row in rows]

    def states(self, entity: str | None, project_name: str | None) -> dict[bytes, str]:
        """The state of each run whose writers have not said FINISH: what the clock alone may change."""
        statement = (
            sa.select(run.c.run_id, state_at(now_us()))
            .join(project, run.c.project_id == project.c.project_id)
            .where(run.c.state == "running")
        )
        if entity is not None:
            statement = statement.where(project.c.entity == entity)
        if project_name is not None:
            statement = statement.where(project.c.name == project_name)
        with self._database.read() as connection:
            return {row[0]: row[1] for row in connection.execute(statement)}

    def writers(self, run_id: bytes) -> list[dict[str, Any]]:
        """The writers of a run with their gaps, the first started first."""
        with self._database.read() as connection:
            public = {unsigned(row.writer_id): row for row in connection.execute(sa.select(writer).where(writer.c.run_id == run_id))}
            gaps: dict[int, list[dict[str, Any]]] = {}
            for row in connection.execute(sa.select(gap).where(gap.c.run_id == run_id).order_by(gap.c.seq)):
                found = {name: getattr(row, name) for name in ("seq", "rows", "points", "bytes", "reason", "detail")}
                found["count"] = row._mapping["count"]  # noqa: SLF001 - the documented way to a column named as a method of tuples
                gaps.setdefault(unsigned(row.writer_id), []).append(found)
        states = sorted(self._store.writers(run_id), key=lambda state: (state.started_us, state.writer_id))
        return [_writer_document(state, public.get(state.writer_id), gaps.get(state.writer_id, [])) for state in states]

    def receipts(self, run_id: bytes) -> list[dict[str, Any]]:
        """What each writer of a run said it packed, if it has, beside what is stored of it. Reads every byte of the run."""
        with self._database.read() as connection:
            receipts = {
                unsigned(row.writer_id): row.receipt
                for row in connection.execute(sa.select(writer.c.writer_id, writer.c.receipt).where(writer.c.run_id == run_id))
            }
        return [
            {
                "writer_id": f"{sums.writer_id:016x}",
                "next_seq": sums.next_seq,
                "receipt": receipts.get(sums.writer_id),
                "stored": [list(metric) for metric in sums.metrics],
            }
            for sums in self._store.sums(run_id)
        ]

    def _run(self, connection: Connection, run_id: bytes) -> RunDocument | None:
        row = connection.execute(_select_runs(now_us()).where(run.c.run_id == run_id)).one_or_none()
        return None if row is None else _document(row)


@dataclass(frozen=True, slots=True)
class _SortKey:
    column: Any
    is_descending: bool
    joined: Any = None
    join_condition: Any = None


def _sort_keys(order: str, at_us: int) -> list[_SortKey]:
    is_descending = order.startswith("-")
    try:
        field = run_field_named(order.removeprefix("+").removeprefix("-"), at_us)
    except UnknownFieldError as error:
        raise OrderError(str(error)) from error
    ties = [_SortKey(run.c.created_us, is_descending), _SortKey(run.c.run_id, is_descending)]
    if field.kind == "tags":
        raise OrderError("runs cannot be ordered by their tags")
    if field.kind == "document":
        leaf = run_field.alias("leaf")
        at = (leaf.c.run_id == run.c.run_id) & (leaf.c.path == field.name)
        rank = sa.case((leaf.c.num.is_not(None), 0), (leaf.c.txt.is_not(None), 1), else_=2)
        return [
            _SortKey(rank, is_descending=False, joined=leaf, join_condition=at),
            _SortKey(sa.func.coalesce(leaf.c.num, 0.0), is_descending),
            _SortKey(sa.func.coalesce(leaf.c.txt, ""), is_descending),
            *ties,
        ]
    if field.name == "created_at":
        return ties
    if field.kind == "text":
        return [_SortKey(sa.case((field.column == "", 1), else_=0), is_descending=False), _SortKey(field.column, is_descending), *ties]
    return [_SortKey(field.column, is_descending), *ties]


def _behind(keys: Sequence[_SortKey], values: Sequence[Any]) -> Any:
    """The condition "sorts behind these values": equal in the first keys, beyond in the next one."""
    cases = []
    for index, key in enumerate(keys):
        equal = [other.column == value for other, value in zip(keys[:index], values, strict=False)]
        beyond = key.column < values[index] if key.is_descending else key.column > values[index]
        cases.append(sa.and_(*equal, beyond))
    return sa.or_(*cases)


def _write_cursor(order: str, values: Sequence[Any]) -> str:
    plain = [value.hex() if isinstance(value, bytes) else value for value in values]
    return base64.urlsafe_b64encode(json.dumps([order, plain]).encode()).decode("ascii").rstrip("=")


def _read_cursor(cursor: str, order: str, count: int) -> list[Any]:
    try:
        found_order, values = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        values[-1] = bytes.fromhex(values[-1])
        is_whole = len(values) == count and all(isinstance(value, str | int | float | bytes) for value in values)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise OrderError("the cursor is not one of this listing") from error
    if found_order != order or not is_whole:
        raise OrderError("the cursor belongs to a listing of another order")
    result: list[Any] = values
    return result


def _select_runs(at_us: int, *more: Any) -> Any:
    state = state_at(at_us).label("shown_state")
    name = shown_name().label("shown_name")
    columns = (run, project.c.entity, project.c.name.label("project"), state, name, *more)
    return sa.select(*columns).join(project, run.c.project_id == project.c.project_id)


def _document(row: Row[Any]) -> RunDocument:
    return {
        "entity": row.entity,
        "project": row.project,
        "id": row.id,
        "name": row.shown_name,
        "group": row.group_name,
        "job_type": row.job_type,
        "notes": row.notes,
        "tags": row.tags,
        "state": row.shown_state,
        "config": row.config,
        "summary": {**row.last_summary, **row.set_summary},
        "created_at_us": row.created_us,
        "heartbeat_at_us": row.heartbeat_us,
        "finished_at_us": row.finished_us,
        "exit_code": row.exit_code,
        "points": row.points,
        "rows": row.rows,
        "last_step": row.last_step,
        "host": row.host,
        "writers": row.writers,
        "gaps": row.gaps,
        "duplicates": row.duplicates,
    }


def _writer_document(state: WriterState, public: Row[Any] | None, gaps: list[dict[str, Any]]) -> dict[str, Any]:
    """One writer: numbers from the store, what it said of itself from the metadata."""
    last_seen_us = max(state.last_seen_us, public.last_seen_us if public else 0)
    shown = public.state if public else "running"
    if shown == "running" and public is not None:
        shown = silent_state(now_us() - public.silent_since_us, public.backlog_frames)
    return {
        "writer_id": f"{state.writer_id:016x}",
        "label": state.label,
        "state": shown,
        "host": public.host if public else "",
        "pid": public.pid if public else 0,
        "started_us": state.started_us,
        "last_seen_us": last_seen_us,
        "next_seq": state.next_seq,
        "merged_seq": state.merged_seq,
        "duplicates": state.duplicates,
        "gaps": gaps,
        "lag_s": public.lag_s if public else 0.0,
        "backlog_frames": public.backlog_frames if public else 0,
        "finished": public.state in {"finished", "failed"} if public else False,
        "exit_code": public.exit_code if public else None,
    }
