"""The shapes of the read door's answers, as `docs/http-api.md` promises them and `/api/v1/openapi.json` shows them.

Answers are written straight from plain dicts: checking each point of a chart again would cost more than reading it. That the
dicts have these shapes is what the tests check.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Shape(BaseModel):
    """An answer; nothing may be in it that is not described."""

    model_config = ConfigDict(extra="forbid")


class ErrorBody(Shape):
    """What went wrong."""

    code: str = Field(description="For programs: not_found, bad_request, ...")
    message: str = Field(description="For people.")


class Error(Shape):
    """Every answer that is not a success."""

    error: ErrorBody


class Door(Shape):
    """Where and how to write."""

    service: Literal["runferry"]
    version: str
    protocol: int
    write_port: int
    write_host: str | None = Field(description="null: the host that was asked")
    tls: bool
    wants_key: bool
    storage_epoch: str


class Session(Shape):
    """Who asks."""

    required: bool = Field(description="whether this server wants a key at all")
    name: str | None = Field(description="of the key; null: none was needed")
    scopes: list[Literal["read", "write"]]


class Project(Shape):
    """One project."""

    entity: str
    project: str
    runs: int
    last_active_us: int


class Projects(Shape):
    """All projects, the last active one first."""

    projects: list[Project]


class Run(Shape):
    """One run."""

    entity: str
    project: str
    id: str
    name: str
    group: str
    job_type: str
    notes: str
    tags: list[str]
    state: Literal["running", "finished", "failed", "quiet", "lost"]
    config: dict[str, Any]
    summary: dict[str, Any]
    created_at_us: int
    heartbeat_at_us: int
    finished_at_us: int | None
    exit_code: int | None
    points: int
    rows: int
    last_step: int
    host: str
    writers: int
    gaps: int
    duplicates: int


class Runs(Shape):
    """A page of runs."""

    runs: list[Run]
    next_cursor: str | None
    total: int


class Metric(Shape):
    """One series of a run."""

    name: str
    label: str
    kind: Literal["number", "histogram", "string", "bool", "json", "null"]
    points: int
    first_step: int
    last_step: int
    last: Any


class Metrics(Shape):
    """The series of a run."""

    metrics: list[Metric]
    next_cursor: str | None = None
    """Of a page (`limit`) behind which there may be more."""


class Series(Shape):
    """A series in buckets; one list item per bucket that is not empty."""

    key: str
    label: str
    raw_points: int
    drawn: int
    exact: bool = Field(description="every bucket holds one point")
    step_first: list[int]
    step_last: list[int]
    time_last_us: list[int]
    count: list[int]
    min: list[float | None]
    max: list[float | None]
    mean: list[float | None]
    last: list[float | None]
    nan_count: list[int]
    inf_count: list[int]


class History(Shape):
    """Bucketed series, and the cursor from which `live` goes on."""

    cursor: str
    series: list[Series]


class RunHistory(History):
    """The same of one of several runs."""

    entity: str
    project: str
    id: str


class Histories(Shape):
    """Series of several runs, in the order in which they were asked for."""

    runs: list[RunHistory]
    missing: list[str] = Field(description="those that do not exist, as they were asked for")


class Histogram(Shape):
    """One logged histogram."""

    step: int
    time_us: int
    edges: list[float | None]
    counts: list[float | None]
    nan_count: int
    inf_count: int


class Histograms(Shape):
    """Histograms of one key, evenly thinned."""

    key: str
    raw_points: int
    histograms: list[Histogram]


class Gap(Shape):
    """One counted absence."""

    seq: int
    count: int
    reason: str
    rows: int
    points: int
    bytes: int
    detail: str


class Writer(Shape):
    """One process start that wrote to the run."""

    writer_id: str
    label: str
    state: Literal["running", "finished", "failed", "died", "quiet", "lost"]
    host: str
    pid: int
    started_us: int
    last_seen_us: int
    next_seq: int
    merged_seq: int
    duplicates: int
    gaps: list[Gap]
    lag_s: float
    backlog_frames: int
    finished: bool
    exit_code: int | None


class Receipt(Shape):
    """What a writer packed: `[name, points, sum of hashes]` per metric, rows under the empty name."""

    covers: int
    metrics: list[tuple[str, int, int]]
    rest: tuple[int, int]


class WriterReceipt(Shape):
    """What a writer said it packed, and what is stored of it."""

    writer_id: str
    next_seq: int
    receipt: Receipt | None
    stored: list[tuple[str, int, int]]


class Receipts(Shape):
    """The two sides of every writer's account."""

    writers: list[WriterReceipt]


class Writers(Shape):
    """The writers of a run."""

    writers: list[Writer]
