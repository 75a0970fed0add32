"""What the server asks of a store, whichever engine is behind it.

Ingest appends whole frames and gets back numbers; readers ask for series. Nothing here speaks gRPC or HTTP, and nothing
here knows what a project is: a run is its 16-byte id, a writer its 64-bit one. Every engine passes `tests/conformance/`.
Calls block; each is safe from any thread.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runferry._native import Buckets, Metrics


class StoreError(Exception):
    """The store could not do what was asked; nothing of it has happened unless `OutcomeUnknownError`."""


class StoreFullError(StoreError):
    """No room on the disk: rolled back; throttle the writers and try again later."""


class StoreBusyError(StoreError):
    """Somebody else holds the database: nothing has happened; try the same again."""


class OutcomeUnknownError(StoreError):
    """COMMIT itself failed: ask `next_seqs` again, rewind the writers of the group."""


class DamagedError(StoreError):
    """A stored chunk or frame failed its checksum: the answer would be wrong, so there is none."""


@dataclass(frozen=True, slots=True)
class WriterState:
    """The store's row of one writer."""

    run_id: bytes
    writer_id: int
    label: str
    next_seq: int
    """Number of the next frame the store accepts: everything below is durable."""
    merged_seq: int
    """Every frame up to and including this one is in chunk rows."""
    open_frame: bytes
    started_us: int
    last_seen_us: int
    finished_seq: int | None
    exit_code: int | None
    step_offset: int
    """Added to every step of this writer (a relative resume), else 0."""
    gaps: int
    duplicates: int
    last_hash: bytes | None
    """Both checksums of the frame below `next_seq`; None before the first, and if it is a GAP."""


@dataclass(frozen=True, slots=True)
class WriterOpening:
    """What makes a writer's row."""

    run_id: bytes
    writer_id: int
    open_frame: bytes
    label: str
    started_us: int
    is_relative: bool
    """Its steps begin behind the run's last step."""
    predecessor: int = 0
    """A writer of the run whose steps it goes on with; 0: none."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Frames of one writer, contiguous, checksums already verified, each a whole frame."""

    run_id: bytes
    writer_id: int
    first_seq: int
    next_seq: int
    """The number after the last frame (a GAP frame covers several)."""
    frames: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Appended:
    """What became of one batch: `next_seq` after it, and how many frames were already there."""

    next_seq: int
    accepted_frames: int
    duplicate_frames: int
    is_gap: bool
    """The batch begins above `next_seq`: nothing of it was stored, the writer must rewind."""
    conflicting_frames: int = 0
    """Duplicates that are not: another frame of the same number was stored first; they are in quarantine."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One series of a run."""

    name: str
    label: str
    kind: str
    """"number", "bool", "string", "histogram", "json", "null" or "marker": of the last value."""
    points: int
    first_step: int
    last_step: int
    last: object
    """The last value as a Python object (a histogram as bytes of docs/format.md section 5)."""


@dataclass(frozen=True, slots=True)
class RunTotals:
    """Counts over a run, tail included."""

    points: int
    rows: int
    last_step: int
    """-1: no row yet."""
    stored_bytes: int


@dataclass(frozen=True, slots=True)
class WriterSums:
    """What is stored of one writer."""

    writer_id: int
    next_seq: int
    metrics: list[tuple[str, int, int]]
    """Name, points, wrapping 64-bit sum of their hashes (docs/format.md section 7); rows have the empty name."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """One stored histogram value."""

    step: int
    time_us: int
    value: bytes


@dataclass(frozen=True, slots=True)
class Delta:
    """What arrived in a run since a cursor."""

    cursor: str
    is_snapshot_needed: bool
    series: list[Buckets]
    new_keys: list[str]
    """Names seen in the new frames that the caller did not list in `known_keys`."""
    other_keys: list[str] = field(default_factory=list)
    """Names seen in the new frames that have no numbers in `series`: histograms, texts, and numbers not asked for."""


class Store(Protocol):
    """One engine: SQLite shards (default), or a PostgreSQL database."""

    @property
    def epoch(self) -> bytes:
        """16 random bytes, new for each created database."""
        ...

    def open_writer(  # noqa: PLR0913 - the columns of the row
        self, run_id: bytes, writer_id: int, open_frame: bytes, *, label: str, started_us: int, is_relative: bool, predecessor: int = 0
    ) -> WriterState:
        """Make the writer's row unless it exists, and return it; durable on return.

        Its steps are moved as those of `predecessor` are, a writer of the run; else, if they are relative, behind the run's last step.
        """
        ...

    def open_writers(self, openings: Sequence[WriterOpening]) -> list[WriterState]:
        """As `open_writer`, many in as few transactions as there are databases; one answer per opening, in order."""
        ...

    def append(self, batches: Sequence[Batch]) -> list[Appended]:
        """Store a group of batches in one transaction per shard; durable on return. One answer per batch, in order."""
        ...

    def commit_groups(self, batches: Sequence[Batch]) -> list[list[int]]:
        """The places of those batches that `append` would commit together: what fails in one group says nothing of the others."""
        ...

    def writers(self, run_id: bytes) -> list[WriterState]:
        """All writers of a run, in the order they were first seen."""
        ...

    def next_seqs(self, run_id: bytes, writer_ids: Sequence[int]) -> dict[int, int]:
        """The number each of the known writers continues with."""
        ...

    def documents_after(self, run_id: bytes, writer_id: int, applied_seq: int) -> Iterator[tuple[int, bytes]]:
        """`(seq, frame)` of stored frames above `applied_seq` that carry DOCS, FINISH or GAP, in order."""
        ...

    def set_document_aside(self, run_id: bytes, writer_id: int, seq: int, reason: str, frame: bytes) -> None:
        """Keep a copy of a frame whose documents cannot be applied in quarantine."""
        ...

    def mark_applied(self, applied: Sequence[tuple[bytes, int, int]]) -> None:
        """`(run_id, writer_id, seq)`: the metadata database holds everything up to `seq`; frames merged and applied may go."""
        ...

    def unapplied(self, quiet_since_us: int) -> list[tuple[bytes, int]]:
        """`(run_id, writer_id)` of writers with frames above what `mark_applied` said of them, none of which is as young as that."""
        ...

    def quarantined(self, run_id: bytes) -> list[tuple[int, int, str]]:
        """`(writer_id, seq, reason)` of frames kept aside because they did not decode."""
        ...

    def sums(self, run_id: bytes) -> list[WriterSums]:
        """What the stored bytes of a run add up to, writer by writer, superseded points included; reads every byte of it."""
        ...

    def metrics(self, run_id: bytes, *, after: tuple[str, str] | None = None, limit: int | None = None) -> list[Metric]:
        """The series of a run by name and label, in the order of code points: those behind `after`, at most `limit` of them."""
        ...

    def metric_page(self, run_id: bytes, *, after: tuple[str, str] | None = None, limit: int | None = None) -> Metrics | None:
        """As `metrics`, as what writes itself as JSON; None: there is no such run."""
        ...

    def metric_count(self, run_id: bytes) -> int:
        """How many series a run has; those that wait to be merged are counted as far as there are more of them than merged ones."""
        ...

    def duplicates(self, run_id: bytes) -> int:
        """Frames that writers of a run have sent again."""
        ...

    def totals(self, run_id: bytes) -> RunTotals:
        """Counts over a run; a tail value that replaces a merged one at its step counts as one more until the merge."""
        ...

    def cursor(self, run_id: bytes) -> str:
        """A cursor for `delta` that stands for everything stored now."""
        ...

    def series(
        self, run_id: bytes, names: Sequence[str], *, buckets: int, min_step: int | None = None, max_step: int | None = None
    ) -> list[Buckets]:
        """One chart per name and label, in the order of `names`; unknown names have none.

        Raises:
            DamagedError: A checksum does not fit.
        """
        ...

    def history(
        self, run_id: bytes, names: Sequence[str], *, buckets: int, min_step: int | None = None, max_step: int | None = None
    ) -> tuple[str, list[Buckets]]:
        """As `series`, and the cursor of what it shows: a `delta` from there may repeat some of it, and leaves nothing out.

        Raises:
            DamagedError: A checksum does not fit.
        """
        ...

    def histograms(
        self, run_id: bytes, name: str, *, limit: int, min_step: int | None = None, max_step: int | None = None
    ) -> tuple[int, list[Histogram]]:
        """Number of stored histograms that match, and at most `limit` of them, evenly spaced."""
        ...

    def scan(
        self,
        run_id: bytes,
        names: Sequence[str] | None,
        *,
        min_step: int | None = None,
        max_step: int | None = None,
        samples: int | None = None,
    ) -> Iterator[bytes]:
        """DATA frames of ROWS, rows by ascending step, each step once (the later writer wins per name); None: all names."""
        ...

    def delta(self, run_id: bytes, cursor: str, names: Sequence[str], known_keys: Sequence[str], *, max_points: int) -> Delta:
        """What arrived in a run since a cursor; `is_snapshot_needed` when the frames behind it are gone."""
        ...

    def merge(self, run_id: bytes | None = None, *, final: bool = False) -> int:
        """Merge waiting frames into chunks (of one run, or of those that are due); returns frames merged. `final`: small chunks too."""
        ...

    def check(self, run_id: bytes) -> list[str]:
        """What is wrong with a stored run, one sentence per finding; reads every byte of it."""
        ...

    def close(self) -> None:
        """End the merger and close every file; calls after that raise `StoreError`."""
        ...
