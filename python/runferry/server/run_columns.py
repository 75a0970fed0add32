"""What a run can be filtered and ordered by: columns of its row, its tags, and the leaves of its documents.

Both `filters` and `query` name fields through here, so a field that can be filtered can be ordered too. Pure SQL
expressions; the current time comes in as an argument, since quiet and lost are a matter of the clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from runferry.server.metadata.schema import run

QUIET_AFTER_US = 60 * 1_000_000
LOST_AFTER_US = 300 * 1_000_000
LOST_AFTER_WITH_BACKLOG_US = 600 * 1_000_000

DOCUMENT_PREFIXES = ("config.", "summary_metrics.")
_ALIASES = {
    "display_name": "name",
    "displayName": "name",
    "createdAt": "created_at",
    "heartbeatAt": "heartbeat_at",
    "jobType": "job_type",
    "run_id": "id",
}


class UnknownFieldError(ValueError):
    """No run has a field of this name."""


@dataclass(frozen=True, slots=True)
class RunField:
    """A field by which runs are filtered or ordered."""

    name: str
    kind: str
    """"text", "time", "tags" or "document"."""
    column: Any
    """Its SQL expression; None for tags and documents, which are rows of other tables."""


def run_field_named(name: str, now_us: int) -> RunField:
    """The field of this name.

    Raises:
        UnknownFieldError: There is none.
    """
    if name.startswith("summary."):
        name = "summary_metrics." + name.removeprefix("summary.")
    if name.startswith(DOCUMENT_PREFIXES) and not name.endswith("."):
        return RunField(name, "document", None)
    name = _ALIASES.get(name, name)
    if name == "tags":
        return RunField(name, "tags", None)
    columns: dict[str, tuple[str, Any]] = {
        "id": ("text", run.c.id),
        "name": ("text", shown_name()),
        "group": ("text", run.c.group_name),
        "job_type": ("text", run.c.job_type),
        "host": ("text", run.c.host),
        "state": ("text", state_at(now_us)),
        "created_at": ("time", run.c.created_us),
        "heartbeat_at": ("time", run.c.heartbeat_us),
    }
    if name not in columns:
        known = ", ".join([*columns, "display_name", "tags", "config.*", "summary_metrics.*"])
        raise UnknownFieldError(f"unknown field {name!r}; known are {known}")
    kind, column = columns[name]
    return RunField(name, kind, column)


def shown_name() -> Any:
    """The run's name, or its id while it has none."""
    return sa.case((run.c.name != "", run.c.name), else_=run.c.id)


def state_at(now_us: int) -> Any:
    """The state as SQL: a running run that is not heard of becomes quiet, then lost; FINISH alone is final."""
    lost_after_us = sa.case((run.c.backlog_frames > 0, LOST_AFTER_WITH_BACKLOG_US), else_=LOST_AFTER_US)
    silent_us = sa.literal(now_us) - run.c.silent_since_us
    return sa.case(
        (run.c.state != "running", run.c.state),
        (silent_us > lost_after_us, "lost"),
        (silent_us > QUIET_AFTER_US, "quiet"),
        else_="running",
    )


def silent_state(silent_us: int, backlog_frames: int) -> str:
    """The same rule for one writer: running, quiet or lost."""
    if silent_us > (LOST_AFTER_WITH_BACKLOG_US if backlog_frames > 0 else LOST_AFTER_US):
        return "lost"
    return "quiet" if silent_us > QUIET_AFTER_US else "running"
