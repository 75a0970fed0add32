"""Figures as a benchmark yields them, the machine they were made on, and both as a table and as JSON."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import runferry

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "benchmarks" / "out"
RESULTS = ROOT / "benchmarks" / "results"
_GIT_TIMEOUT_S = 10


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of a benchmark."""

    what: str
    values: Mapping[str, float]
    """Key with its unit last, to value."""


def quantiles(samples: Sequence[float], unit: str) -> dict[str, float]:
    """Median, 99th and 99.9th percentile of many samples."""
    ordered = sorted(samples)
    at = {name: ordered[int(quantile * (len(ordered) - 1))] for name, quantile in (("p99", 0.99), ("p99.9", 0.999))}
    return {f"median_{unit}": statistics.median(ordered), **{f"{name}_{unit}": value for name, value in at.items()}}


def machine() -> dict[str, Any]:
    """What the figures depend on, as far as the machine tells."""
    return {
        "date": time.strftime("%Y-%m-%d %H:%M:%S %Z"),
        "commit": _git("rev-parse", "--short=12", "HEAD") + ("+changes" if _git("status", "--porcelain") else ""),
        "runferry": runferry.__version__,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "kernel": f"{platform.system()} {platform.release()}",
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "host": platform.node(),
        "load_1min_before": round(os.getloadavg()[0], 2),
    }


def table(figures: Sequence[Figure]) -> str:
    """The figures with aligned columns, in the order in which their keys first came."""
    keys = list(dict.fromkeys(key for figure in figures for key in figure.values))
    rows = [["", *keys], *([figure.what, *(_shown(figure.values.get(key)) for key in keys)] for figure in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(keys) + 1)]
    lines = [[row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))] for row in rows]
    return "\n".join(f"  {'  '.join(cells)}".rstrip() for cells in lines)


def write(made_on: Mapping[str, Any], found: Mapping[str, Sequence[Figure]], *, save: bool) -> list[Path]:
    """Write all figures to `out/latest.json`, and with `save` to a file of `results/` that is kept; returns the paths."""
    shown = {name: {figure.what: dict(figure.values) for figure in figures} for name, figures in found.items()}
    text = json.dumps({"machine": made_on, "figures": shown}, indent=2) + "\n"
    paths = [OUT / "latest.json"]
    if save:
        paths.append(RESULTS / f"{time.strftime('%Y-%m-%d')}-{platform.node() or 'machine'}.json")
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return paths


def _shown(value: float | None) -> str:
    if value is None:
        return ""
    if value == int(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:,.1f}" if abs(value) >= 100 else f"{value:,.2f}"


def _git(*arguments: str) -> str:
    try:
        found = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=_GIT_TIMEOUT_S, check=True)  # noqa: S607 - git as installed
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return found.stdout.strip()


def _cpu_model() -> str:
    if sys.platform != "linux":
        return platform.processor()
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
