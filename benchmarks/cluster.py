"""What would a cluster of 1,000 nodes with 8 ranks each ask of its servers? Arithmetic from kept figures: none of it was run.

`report.py` puts it into docs/performance.md, so that it changes with the figures. Costs are taken as additive: a frame has a price and a
point has one, as the questions `writers` (frames of 20 points) and `ingest` (frames of 75,000, or wide rows) found them, and the bytes of
a frame's envelope are what a point takes more in a small frame. A server is one process beside its senders on the machine of the figures;
how several of them share the writers is the operator's choice (PostgreSQL below all, or projects of their own).

Left out: readers, system metrics, replication, what a network adds.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any

from benchmarks.figures import shown, value_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SMALL_FRAME_POINTS = 20
MEASURED_WRITERS = 10_000
_DAY_S = 86_400

_WIDE = "wide, 2,000 metrics x 10 steps a frame, 4 streams,"
_FIGURES = {
    "wire bytes a point": ("bytes_per_point", "loss curve, 10 scalars", "wire_journal_bytes"),
    "wire bytes a point in frames of 20": ("bytes_per_point", "one of 1,000 ranks", "wire_journal_bytes"),
    "bytes a point in the database": ("bytes_per_point", "loss curve, 10 scalars", "pages_bytes"),
    "merged points/s of a server": ("ingest", "4 streams,", "merged_points_per_s"),
    "CPU s per million points": ("ingest", "4 streams,", "server_cpu_s_per_million_points"),
    "merged points/s of a server, wide rows": ("ingest", _WIDE, "merged_points_per_s"),
    "CPU s per million points, wide rows": ("ingest", _WIDE, "server_cpu_s_per_million_points"),
    "frames/s of a server": ("writers", "1,000 writers,", "durable_frames_per_s"),
    "CPU us a frame": ("writers", "1,000 writers,", "server_cpu_us_per_frame"),
    "KiB a writer": ("writers", "10,000 writers are connected", "kib_per_writer"),
    "s until 10,000 writers are back": ("writers", "10,000 writers come back", "back_s"),
}


@dataclass(frozen=True, slots=True)
class Load:
    """What the whole cluster logs."""

    name: str
    writers: int
    scalars: int
    steps_per_s: float
    frames_per_s: float
    """Of one writer."""
    rows: str = ""
    """What the figures of its rows are called."""

    @property
    def points_per_s(self) -> float:
        """Of all writers."""
        return self.writers * self.scalars * self.steps_per_s

    @property
    def all_frames_per_s(self) -> float:
        """Of all writers."""
        return self.writers * self.frames_per_s


LOADS = (
    # A writer closes a frame 0.1 s after its first row came: two rows of ten a second.
    Load("10 scalars, 10 steps/s of each rank", writers=8_000, scalars=10, steps_per_s=10, frames_per_s=5),
    Load("the same, a frame a second", writers=8_000, scalars=10, steps_per_s=10, frames_per_s=1),
    Load("200 scalars, 1 step/s of each rank", writers=8_000, scalars=200, steps_per_s=1, frames_per_s=1, rows=", wide rows"),
    Load("2,000 scalars, 1 step/s of one rank a node", writers=1_000, scalars=2_000, steps_per_s=1, frames_per_s=1, rows=", wide rows"),
)


def filled(questions: Mapping[str, Any]) -> tuple[Sequence[Sequence[str]], str]:
    """Table and sentence, or no table and what has to be measured first."""
    if lacking := _missing(questions):
        return [], f"Not measured yet: {', '.join(f'`make bench NAME={name}`' for name in lacking)}."
    return _rows(questions), _sources(questions)


def _missing(questions: Mapping[str, Any]) -> list[str]:
    """The questions without whose figures there is no arithmetic."""
    return sorted({place[0] for place in _FIGURES.values() if value_of(questions, *place) is None})


def _rows(questions: Mapping[str, Any]) -> list[list[str]]:
    """A table with its head: a line for each quantity, a column for each load. Nothing may be missing."""
    found = _found(questions)
    columns = [_needs(load, found) for load in LOADS]
    return [["", *(load.name for load in LOADS)], *([what, *(column[what] for column in columns)] for what in columns[0])]


def _sources(questions: Mapping[str, Any]) -> str:
    """The figures that it is made from, in a sentence."""
    told = [f"{what} {shown(value)} (`{_FIGURES[what][0]}`)" for what, value in _found(questions).items()]
    return f"From: {', '.join(told)}."


def _found(questions: Mapping[str, Any]) -> dict[str, float]:
    values = {what: value_of(questions, *place) for what, place in _FIGURES.items()}
    return {what: value for what, value in values.items() if value is not None}


def _needs(load: Load, found: Mapping[str, float]) -> dict[str, str]:
    points, frames = load.points_per_s, load.all_frames_per_s
    envelope_bytes = SMALL_FRAME_POINTS * (found["wire bytes a point in frames of 20"] - found["wire bytes a point"])
    wire_bytes = points * found["wire bytes a point"] + frames * envelope_bytes
    cores = frames * found["CPU us a frame"] / 1e6 + points * found[f"CPU s per million points{load.rows}"] / 1e6
    servers = {
        "points": points / found[f"merged points/s of a server{load.rows}"],
        "frames": frames / found["frames/s of a server"],
        "writers": load.writers / MEASURED_WRITERS,
    }
    count = max(1, ceil(max(servers.values())))
    back_s = found["s until 10,000 writers are back"] * load.writers / count / MEASURED_WRITERS
    return {
        "writers": shown(load.writers),
        "points/s": shown(points),
        "frames/s": shown(frames),
        "MB/s into the servers": shown(wire_bytes / 1e6),
        "of it from one node, kB/s": shown(wire_bytes / 1e3 / 1_000),
        "CPU cores of the servers": shown(cores),
        "GB a day on their disks": shown(points * found["bytes a point in the database"] * _DAY_S / 1e9),
        "MiB for the writers' streams": shown(load.writers * found["KiB a writer"] / 1024),
        **{f"servers, by their {what}": shown(share) for what, share in servers.items()},
        "servers": shown(count),
        "scarce": _longest(servers),
        "s until all are back, one server restarted": shown(back_s),
    }


def _longest(servers: Mapping[str, float]) -> str:
    return max(servers, key=lambda what: servers[what])
