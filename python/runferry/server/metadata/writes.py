"""What changes the metadata: a writer opens, its documents are applied, it is alive, its metrics move.

Each function works on a connection of `Database.write`, so that several of them commit together.

# Which writer decides
A run has many writers: restarts, ranks, forked children. For each label the writer that was started last decides; the run
is finished when all of those are, and failed when one of them failed or died. Forked children never decide: most of them end
without a word. So the state does not depend on the order in which journals arrive.

# Config of a resumed run
Each opening merges its config over what is there, unless it is an older one that arrives late: then under it.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from runferry.server.documents import Change, DocumentTooLargeError, Finish, Gap, Opening, fields_of
from runferry.server.metadata.schema import gap, project, run, run_field, run_tag, writer

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy.engine import Connection, Row

logger = logging.getLogger(__name__)

CLOCK_SET_BACK_US = 60_000_000
"""A time so far ahead of a beat that comes is of a clock that was set back since. Beats out of order are seconds apart."""

FieldValue = tuple[float | None, str | None]


@dataclass(frozen=True, slots=True)
class Counters:
    """What a writer says of itself."""

    lag_s: float
    backlog_frames: int
    backlog_bytes: int
    dropped_rows: int
    retries: int


@dataclass(frozen=True, slots=True)
class Beat:
    """When a writer was last heard of."""

    run_id: bytes
    writer_id: int
    last_seen_us: int
    counters: Counters | None
    """None: it sent frames and said nothing of itself."""


@dataclass(frozen=True, slots=True)
class Totals:
    """Counts over a run, and the last value of each metric."""

    points: int
    rows: int
    last_step: int
    duplicates: int
    last_summary: Mapping[str, Any]


def signed(writer_id: int) -> int:
    """The 64-bit id as SQL can hold it."""
    return writer_id - (1 << 64) if writer_id >= 1 << 63 else writer_id


def unsigned(writer_id: int) -> int:
    """The 64-bit id as everyone else writes it."""
    return writer_id + (1 << 64) if writer_id < 0 else writer_id


def open_writer(connection: Connection, run_id: bytes, writer_id: int, opening: Opening, now_us: int) -> bool:
    """Make the writer and, for its first one, the run and the project; a second opening of a writer changes nothing.

    Returns:
        Whether the run has another writer.
    """
    started_us = opening.started_us if opening.started_us > 0 else now_us
    found = _run_row(connection, run_id)
    if found is None:
        _create_run(connection, run_id, opening, started_us, now_us)
    is_new = _insert_writer(connection, run_id, writer_id, opening, started_us, now_us)
    if found is None:
        return False  # its first writer: it runs, as it was made
    if is_new:
        _resume_run(connection, found, opening, started_us)
        decide_state(connection, run_id)
    return has_others(connection, run_id, writer_id)


def is_opened(connection: Connection, run_id: bytes, writer_id: int) -> bool:
    """Whether a writer is there: then opening it changes nothing."""
    mine = (writer.c.run_id == run_id) & (writer.c.writer_id == signed(writer_id))
    return connection.scalar(sa.select(writer.c.applied_seq).where(mine)) is not None


def has_others(connection: Connection, run_id: bytes, writer_id: int) -> bool:
    """Whether a run has another writer."""
    other = sa.select(writer.c.writer_id).where(writer.c.run_id == run_id, writer.c.writer_id != signed(writer_id))
    return connection.scalar(other.limit(1)) is not None


def last_step(connection: Connection, run_id: bytes) -> int:
    """The last step of a run as its totals were last written; -1: none."""
    found = connection.scalar(sa.select(run.c.last_step).where(run.c.run_id == run_id))
    return -1 if found is None else int(found)


def apply_config(connection: Connection, run_id: bytes, change: Change) -> None:
    """Apply a CONFIG block."""
    row = _known_run(connection, run_id)
    _write_config(connection, row, change.onto(row.config))


def apply_summary(connection: Connection, run_id: bytes, change: Change) -> None:
    """Apply a SUMMARY block: what the user set wins over the last value, until the user removes it."""
    row = _known_run(connection, run_id)
    _write_summary(connection, row, set_summary=change.onto(row.set_summary), last_summary=row.last_summary)


def apply_meta(connection: Connection, run_id: bytes, given: Mapping[str, Any]) -> None:
    """Apply a META block: any of name, notes and tags."""
    values = {key: given[key] for key in ("name", "notes") if key in given}
    if values:
        connection.execute(sa.update(run).where(run.c.run_id == run_id).values(**values))
    if "tags" in given:
        _write_tags(connection, run_id, given["tags"])


def apply_finish(connection: Connection, run_id: bytes, writer_id: int, finish: Finish, now_us: int) -> None:
    """Apply a FINISH frame to its writer and, where that decides, to the run."""
    connection.execute(
        sa.update(writer)
        .where(writer.c.run_id == run_id, writer.c.writer_id == signed(writer_id))
        .values(state=finish.state, exit_code=finish.exit_code, ended_us=finish.ended_us or now_us, receipt=finish.receipt)
    )
    decide_state(connection, run_id)


def apply_death(connection: Connection, run_id: bytes, writer_id: int, now_us: int) -> None:
    """Note that a writer died without FINISH, as somebody says who has taken over from it. Its next beat takes that back."""
    connection.execute(
        sa.update(writer)
        .where(writer.c.run_id == run_id, writer.c.writer_id == signed(writer_id), writer.c.state == "running")
        .values(state="died", ended_us=now_us)
    )
    decide_state(connection, run_id)


def apply_gap(connection: Connection, run_id: bytes, writer_id: int, found: Gap) -> None:
    """Keep a GAP frame."""
    mine = (gap.c.run_id == run_id) & (gap.c.writer_id == signed(writer_id)) & (gap.c.seq == found.seq)
    connection.execute(sa.delete(gap).where(mine))
    connection.execute(
        sa.insert(gap).values(
            run_id=run_id,
            writer_id=signed(writer_id),
            seq=found.seq,
            count=found.count,
            reason=found.reason,
            rows=found.rows,
            points=found.points,
            bytes=found.bytes,
            detail=found.detail,
        )
    )
    counted = sa.select(sa.func.count()).where(gap.c.run_id == run_id).scalar_subquery()
    connection.execute(sa.update(run).where(run.c.run_id == run_id).values(gaps=counted))


def applied_seqs(connection: Connection, writers: Sequence[tuple[bytes, int]]) -> dict[tuple[bytes, int], int]:
    """Up to which number everything of these writers is applied; those that are not known are missing."""
    rows = connection.execute(
        sa.select(writer.c.run_id, writer.c.writer_id, writer.c.applied_seq).where(_is_among(writers)),
    )
    return {(row.run_id, unsigned(row.writer_id)): row.applied_seq for row in rows}


def set_applied(connection: Connection, applied: Sequence[tuple[bytes, int, int]]) -> None:
    """Say that everything of these writers up to a number is applied: in the transaction that applied it."""
    mine = (writer.c.run_id == sa.bindparam("of_run")) & (writer.c.writer_id == sa.bindparam("of_writer"))
    statement = sa.update(writer).where(mine, writer.c.applied_seq < sa.bindparam("seq")).values(applied_seq=sa.bindparam("seq"))
    connection.execute(statement, [{"of_run": run_id, "of_writer": signed(writer_id), "seq": seq} for run_id, writer_id, seq in applied])


def _is_among(writers: Sequence[tuple[bytes, int]]) -> sa.ColumnElement[bool]:
    return sa.tuple_(writer.c.run_id, writer.c.writer_id).in_([(run_id, signed(writer_id)) for run_id, writer_id in writers])


def write_totals(connection: Connection, run_id: bytes, totals: Totals) -> None:
    """Write the counts of a run, and the last values into its summary."""
    row = _known_run(connection, run_id)
    connection.execute(
        sa.update(run)
        .where(run.c.run_id == run_id)
        .values(points=totals.points, rows=totals.rows, last_step=totals.last_step, duplicates=totals.duplicates)
    )
    if totals.last_summary != row.last_summary:
        _write_summary(connection, row, set_summary=row.set_summary, last_summary=dict(totals.last_summary))


def write_beats(connection: Connection, beats: Sequence[Beat]) -> None:
    """Write when writers were last heard of; a time goes back only where the clock does.

    Times from before the clock was set back would keep a run alive for as long as the clock takes to reach them again.
    """
    if not beats:
        return
    at_us: sa.BindParameter[int] = sa.bindparam("at_us", type_=sa.BigInteger)
    mine = (writer.c.run_id == sa.bindparam("of_run")) & (writer.c.writer_id == sa.bindparam("of_writer"))
    is_of_the_future = writer.c.last_seen_us > at_us + CLOCK_SET_BACK_US
    is_newer = (writer.c.last_seen_us <= at_us) | is_of_the_future
    seen = sa.update(writer).where(mine, is_newer)
    heard = [
        {"of_run": beat.run_id, "of_writer": signed(beat.writer_id), "at_us": beat.last_seen_us}
        | ({} if beat.counters is None else {f"now_{name}": value for name, value in asdict(beat.counters).items()})
        for beat in beats
    ]
    silent, talking = [one for one in heard if len(one) == _HEARD], [one for one in heard if len(one) > _HEARD]
    if silent:
        connection.execute(seen.values(last_seen_us=at_us), silent)
    if talking:
        said: dict[str, Any] = {field.name: sa.bindparam(f"now_{field.name}") for field in fields(Counters)}
        connection.execute(seen.values(last_seen_us=at_us, **said), talking)
    connection.execute(sa.update(writer).where(mine).values(silent_since_us=at_us), [_head(one) for one in heard])
    _take_back_deaths(connection, [beat for beat in beats if beat.counters is not None])
    latest_us: dict[bytes, int] = {}
    for beat in beats:
        latest_us[beat.run_id] = max(beat.last_seen_us, latest_us.get(beat.run_id, 0))
    _write_heartbeats(connection, latest_us)


_HEARD = 3


def _head(heard: Mapping[str, Any]) -> dict[str, Any]:
    return {name: heard[name] for name in ("of_run", "of_writer", "at_us")}


def _take_back_deaths(connection: Connection, beats: Sequence[Beat]) -> None:
    """Somebody took these for dead. A beat from before that may come late."""
    for begin in range(0, len(beats), _WRITERS_AT_ONCE):
        part = {(beat.run_id, signed(beat.writer_id)): beat for beat in beats[begin : begin + _WRITERS_AT_ONCE]}
        died = sa.select(writer.c.run_id, writer.c.writer_id, writer.c.ended_us).where(
            writer.c.state == "died", _is_among([(beat.run_id, beat.writer_id) for beat in part.values()])
        )
        for run_id, writer_id, ended_us in connection.execute(died).all():
            if ended_us < part[run_id, writer_id].last_seen_us:
                mine = (writer.c.run_id == run_id) & (writer.c.writer_id == writer_id)
                connection.execute(sa.update(writer).where(mine).values(state="running", ended_us=None))
                decide_state(connection, run_id)


_WRITERS_AT_ONCE = 1_000


def _write_heartbeats(connection: Connection, latest_us: Mapping[bytes, int]) -> None:
    """What the beats of its writers mean for each run."""
    of_run: sa.BindParameter[bytes] = sa.bindparam("of_run")
    ours, running = (writer.c.run_id == of_run), (writer.c.run_id == of_run) & (writer.c.state == "running")
    is_past = writer.c.last_seen_us <= sa.bindparam("at_us", type_=sa.BigInteger) + CLOCK_SET_BACK_US
    latest = sa.select(sa.func.max(writer.c.last_seen_us)).where(ours, is_past).scalar_subquery()
    silent = sa.select(sa.func.max(writer.c.silent_since_us)).where(running).scalar_subquery()
    waiting = sa.select(sa.func.sum(writer.c.backlog_frames)).where(running).scalar_subquery()
    values = {
        "heartbeat_us": sa.func.coalesce(latest, run.c.heartbeat_us),
        "silent_since_us": sa.func.coalesce(silent, run.c.silent_since_us),
        "backlog_frames": sa.func.coalesce(waiting, 0),  # what a writer that has ended said last is no backlog
    }
    told = [{"of_run": run_id, "at_us": at_us} for run_id, at_us in latest_us.items()]
    connection.execute(sa.update(run).where(run.c.run_id == of_run).values(**values), told)


def decide_state(connection: Connection, run_id: bytes) -> None:
    """Derive the run's state from its writers."""
    rows = connection.execute(
        sa.select(writer.c.label, writer.c.state, writer.c.exit_code, writer.c.ended_us)
        .where(writer.c.run_id == run_id)
        .order_by(writer.c.is_child.desc(), writer.c.started_us, writer.c.writer_id)
    ).all()
    deciding = {row.label: row for row in rows}.values()  # the last of each label: the newest that is no child, if there is one
    states = {row.state for row in deciding}
    if "running" in states:
        values: dict[str, Any] = {"state": "running", "exit_code": None, "finished_us": None}
    else:
        codes = [row.exit_code for row in deciding if row.exit_code]
        ended_us = max((row.ended_us for row in deciding), default=None)
        has_failed = not states.isdisjoint({"failed", "died"})
        # Nobody knows with what code a process ended that said nothing.
        exit_code = codes[0] if codes else None if "died" in states else 0
        values = {"state": "failed" if has_failed else "finished", "exit_code": exit_code, "finished_us": ended_us}
    connection.execute(sa.update(run).where(run.c.run_id == run_id).values(**values))


def _create_run(connection: Connection, run_id: bytes, opening: Opening, started_us: int, now_us: int) -> None:
    named = (project.c.entity == opening.entity) & (project.c.name == opening.project)
    project_id = connection.scalar(sa.select(project.c.project_id).where(named))
    if project_id is None:
        inserted = connection.execute(sa.insert(project).values(entity=opening.entity, name=opening.project, created_us=now_us))
        project_id = inserted.inserted_primary_key[0] if inserted.inserted_primary_key else None
    connection.execute(
        sa.insert(run).values(
            run_id=run_id,
            project_id=project_id,
            id=opening.id,
            name=opening.name,
            group_name=opening.group,
            job_type=opening.job_type,
            notes=opening.notes,
            tags=[],
            state="running",
            config={},
            set_summary={},
            last_summary={},
            created_us=started_us,
            started_us=started_us,
            heartbeat_us=now_us,
            silent_since_us=now_us,
            host=opening.host,
            backlog_frames=0,
            points=0,
            rows=0,
            last_step=-1,
            writers=0,
            gaps=0,
            duplicates=0,
        )
    )
    if opening.config:
        _write_config(connection, _known_run(connection, run_id), opening.config)
    if opening.tags:
        _write_tags(connection, run_id, opening.tags)


def _resume_run(connection: Connection, found: Row[Any], opening: Opening, started_us: int) -> None:
    is_newest = started_us >= found.started_us
    given = {"name": opening.name, "group_name": opening.group, "job_type": opening.job_type, "notes": opening.notes, "host": opening.host}
    values: dict[str, Any] = {column: value for column, value in given.items() if value and (is_newest or not getattr(found, column))}
    values["created_us"] = min(found.created_us, started_us)
    values["started_us"] = max(found.started_us, started_us)
    connection.execute(sa.update(run).where(run.c.run_id == found.run_id).values(**values))
    if opening.tags is not None and (is_newest or not found.tags):
        _write_tags(connection, found.run_id, opening.tags)
    older, newer = (found.config, opening.config) if is_newest else (opening.config, found.config)
    try:
        _write_config(connection, found, Change(newer, ()).onto(older))
    except DocumentTooLargeError:
        logger.exception("the config of a writer is not merged into that of its run, %s", found.id)


def _insert_writer(connection: Connection, run_id: bytes, writer_id: int, opening: Opening, started_us: int, now_us: int) -> bool:  # noqa: PLR0913, PLR0917 - one for each parameter of the query
    mine = (writer.c.run_id == run_id) & (writer.c.writer_id == signed(writer_id))
    if connection.scalar(sa.select(sa.func.count()).where(mine)):
        return False
    connection.execute(
        sa.insert(writer).values(
            run_id=run_id,
            writer_id=signed(writer_id),
            label=opening.label,
            host=opening.host,
            pid=opening.pid,
            started_us=started_us,
            last_seen_us=now_us,
            silent_since_us=now_us,
            is_child=int(opening.is_child),
            applied_seq=0,
            lag_s=0.0,
            backlog_frames=0,
            backlog_bytes=0,
            dropped_rows=0,
            retries=0,
            state="running",
        )
    )
    counted = sa.select(sa.func.count()).where(writer.c.run_id == run_id).scalar_subquery()
    connection.execute(sa.update(run).where(run.c.run_id == run_id).values(writers=counted, heartbeat_us=now_us, silent_since_us=now_us))
    return True


def _write_config(connection: Connection, row: Row[Any], config: Mapping[str, Any]) -> None:
    if config == row.config:
        return
    connection.execute(sa.update(run).where(run.c.run_id == row.run_id).values(config=dict(config)))
    _write_fields(connection, row, "config", row.config, config)


def _write_summary(connection: Connection, row: Row[Any], *, set_summary: Mapping[str, Any], last_summary: Mapping[str, Any]) -> None:
    connection.execute(
        sa.update(run).where(run.c.run_id == row.run_id).values(set_summary=dict(set_summary), last_summary=dict(last_summary))
    )
    before = {**row.last_summary, **row.set_summary}
    _write_fields(connection, row, "summary_metrics", before, {**last_summary, **set_summary})


def _write_fields(connection: Connection, row: Row[Any], prefix: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """Bring the rows of a document from what it was to what it is: only what changed is written."""
    old = _fields(prefix, before)
    new = _fields(prefix, after)
    gone = [path for path in old if path not in new]
    changed = [path for path, value in new.items() if old.get(path, ()) != value]
    replaced = [{"old_path": path} for path in (*gone, *(path for path in changed if path in old))]
    if replaced:
        mine = (run_field.c.run_id == row.run_id) & (run_field.c.path == sa.bindparam("old_path"))
        connection.execute(sa.delete(run_field).where(mine), replaced)
    if changed:
        connection.execute(
            sa.insert(run_field),
            [
                {"run_id": row.run_id, "path": path, "project_id": row.project_id, "num": new[path][0], "txt": new[path][1]}
                for path in changed
            ],
        )


def _fields(prefix: str, document: Mapping[str, Any]) -> dict[str, FieldValue]:
    # Two leaves may share a path ({"a.b": 1, "a": {"b": 2}}): the later one is compared, as it is the one that is written.
    return {path: (number, text) for path, number, text in fields_of(prefix, document)}


def _write_tags(connection: Connection, run_id: bytes, tags: Iterable[str]) -> None:
    tags = list(tags)
    connection.execute(sa.update(run).where(run.c.run_id == run_id).values(tags=tags))
    connection.execute(sa.delete(run_tag).where(run_tag.c.run_id == run_id))
    if tags:
        connection.execute(sa.insert(run_tag), [{"run_id": run_id, "tag": tag} for tag in tags])


def _run_row(connection: Connection, run_id: bytes) -> Row[Any] | None:
    return connection.execute(sa.select(run).where(run.c.run_id == run_id)).one_or_none()


def _known_run(connection: Connection, run_id: bytes) -> Row[Any]:
    return connection.execute(sa.select(run).where(run.c.run_id == run_id)).one()
