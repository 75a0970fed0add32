"""What we want to reach, each with the figure that tells: `report.py` sets both side by side in docs/performance.md.

A target that is missed stays in the table as it is; the page says why and what comes next.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.figures import shown, value_of

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Target:
    """A bound on one figure."""

    question: str
    benchmark: str
    figure: str
    """How the figure's name begins."""
    key: str
    least: float | None = None
    most: float | None = None

    def row(self, questions: Mapping[str, Any]) -> list[str]:
        """Question, bound, what was found, whether it is met."""
        bound = f"≥ {shown(self.least)}" if self.least is not None else f"≤ {shown(self.most)}"
        value = value_of(questions, self.benchmark, self.figure, self.key)
        if value is None:
            return [self.question, bound, "not measured", ""]
        is_met = value >= self.least if self.least is not None else self.most is not None and value <= self.most
        return [self.question, bound, shown(value), "yes" if is_met else "**no**"]


_WIDE = "wide, 2,000 metrics x 10 steps a frame, 4 streams,"
_BUSY = "while points arrive"
_RUNS = f"50 runs, 500 buckets, {_BUSY}"
_LASTS = f"last values of 2,000 metrics, {_BUSY}"
_CHART = f"1 series of 1,000,000 points, 1,000 buckets, {_BUSY}"

TARGETS = (
    Target("`log()` of 1 float, times an append", "log_call", "1 scalar", "times_append", most=1.0),
    Target("`log()` of 10 floats, times an append", "log_call", "10 scalars", "times_append", most=1.0),
    Target("`log()` of 100 floats, times an append", "log_call", "100 scalars", "times_append", most=0.5),
    Target("`log()` of 1,000 floats, times an append", "log_call", "1,000 scalars", "times_append", most=0.5),
    Target("`step=` given, times the same call without", "log_call", "10 scalars, step= given", "times_same_keys", most=1.2),
    Target("numpy float32 values, times Python floats", "log_call", "10 scalars, numpy float32", "times_same_keys", most=2.0),
    Target("fresh key objects, times the same ones", "log_call", "10 scalars, fresh key objects", "times_same_keys", most=3.0),
    Target("p99.9 of a call at 10,000 calls/s, ns", "log_call", "10 scalars, 10,000 calls/s", "p99.9_ns", most=20_000),
    Target("wandb's call of 10 floats, times ours", "beside_peers", "10 scalars: wandb", "times_ours", least=300),
    Target("trackio's call of 10 floats, times ours", "beside_peers", "10 scalars: trackio", "times_ours", least=40),
    Target("1 M float32 values as a histogram, times one copy", "histogram", "1,000,000 float32 values, the array", "times_copy", most=1.5),
    Target("a training of 2,000 steps/s and 50 scalars, slower by percent", "training_effect", "50 scalars", "slower_percent", most=1.0),
    Target("one process, `log()` to durable, scalars/s", "end_to_end", "4,000,000 rows", "durable_scalars_per_s", least=5e6),
    Target("server, frames of 75,000 points, durable points/s", "ingest", "4 streams,", "durable_points_per_s", least=25e6),
    Target("the same, merged points/s", "ingest", "4 streams,", "merged_points_per_s", least=25e6),
    Target("frames of 2,000 metrics x 10 steps, durable points/s", "ingest", _WIDE, "durable_points_per_s", least=10e6),
    Target("the same, merged points/s", "ingest", _WIDE, "merged_points_per_s", least=10e6),
    Target("over PostgreSQL, durable points/s", "ingest_postgres", "PostgreSQL, 4 streams,", "durable_points_per_s", least=8e6),
    Target("the same, merged points/s", "ingest_postgres", "PostgreSQL, 4 streams,", "merged_points_per_s", least=8e6),
    Target("frames of 20 points from 1,000 writers, durable frames/s", "writers", "1,000 writers,", "durable_frames_per_s", least=15e3),
    Target("10,000 writers connected, server MiB", "writers", "10,000 writers are connected", "server_mib", most=1_024),
    Target("of their 30,000 beats, unanswered", "writers", "10,000 writers are connected", "unanswered_beats", most=0),
    Target("all back after a restart of the server, s", "writers", "10,000 writers come back", "back_s", most=60),
    Target("1 M points in 1,000 buckets while points arrive, server ms", "reads", _CHART, "server_ms", most=3),
    Target("50 runs, 500 buckets each, while points arrive, server ms", "reads", _RUNS, "server_ms", most=40),
    Target("last values of 2,000 metrics while points arrive, server ms", "reads", _LASTS, "server_ms", most=5),
    Target("loss curve, bytes per point on the wire", "bytes_per_point", "loss curve, 10 scalars", "wire_journal_bytes", most=4.5),
    Target("loss curve, bytes per point merged", "bytes_per_point", "loss curve, 10 scalars", "stored_bytes", most=4.0),
    Target("memory beyond Python's, MiB", "memory", "beyond it: after", "resident_mib", most=24),
    Target("CPU of the background at 1,000 rows/s, percent", "memory", "at 1,000 rows/s", "background_cpu_percent", most=3),
    Target("`import runferry`, ms", "start", "online: import runferry", "median_ms", most=30),
    Target("`init` to the first `log`, ms", "start", "online: init and first log", "median_ms", most=30),
    Target("`finish` with nothing waiting, ms", "start", "online: finish with nothing waiting", "median_ms", most=50),
)
