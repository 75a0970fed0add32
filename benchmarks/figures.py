"""Figures as a benchmark yields them, what they were made on, and both as a table and as JSON.

A file of results is of one machine and one day. Each question in it carries what can differ between two of them: date, commit, version,
load. Files of later days hold only what was measured again: what a question's figures are is what the newest file that has it says.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import runferry

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "benchmarks" / "out"
RESULTS = ROOT / "benchmarks" / "results"
_GIT_TIMEOUT_S = 10
_MADE_HERE = (":!benchmarks/results", ":!docs/performance.md")
"""What a benchmark changes itself is no change of what it measures."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of a benchmark."""

    what: str
    values: Mapping[str, float]
    """Key with its unit last, to value."""
    absent: str = ""
    """Why there are no values."""


def machine() -> dict[str, Any]:
    """What all figures of a file depend on, as far as the machine tells."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "host": platform.node(),
    }


def circumstances() -> dict[str, Any]:
    """What one question's figures depend on beside the machine."""
    return {
        "date": time.strftime("%Y-%m-%d %H:%M:%S %Z"),
        "commit": _git("rev-parse", "--short=12", "HEAD") + ("+changes" if _git("status", "--porcelain", "--", ".", *_MADE_HERE) else ""),
        "runferry": runferry.__version__,
        "load_1min_before": load_1min(),
    }


def load_1min() -> float:
    """Programs that ran or waited for a core, on average over the last minute."""
    return round(os.getloadavg()[0], 2)


def table(figures: Sequence[Figure]) -> str:
    """The figures with aligned columns, in the order in which their keys first came."""
    keys = list(dict.fromkeys(key for figure in figures for key in figure.values))
    rows = [["", *keys], *([figure.what, *(shown(figure.values.get(key)) for key in keys)] for figure in figures if not figure.absent)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(keys) + 1)]
    lines = [[row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))] for row in rows]
    absent = [f"  {figure.what}  absent: {figure.absent}" for figure in figures if figure.absent]
    return "\n".join([*(f"  {'  '.join(cells)}".rstrip() for cells in lines), *absent])


def shown(value: float | None) -> str:
    """Three digits that count, or all of a whole number."""
    if value is None:
        return ""
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def kept_in(*, save: bool) -> list[Path]:
    """The files that a question's figures go to."""
    results = RESULTS / f"{time.strftime('%Y-%m-%d')}-{platform.node() or 'machine'}.json"
    return [OUT / "latest.json", *([results] if save else [])]


def keep(path: Path, name: str, made: Mapping[str, Any], found: Sequence[Figure]) -> None:
    """Put a question's figures into a file of results, in place of those that it has; a file of another machine is begun anew."""
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    questions = kept.get("questions", {}) if kept.get("machine") == machine() else {}
    lines = {figure.what: {"absent": figure.absent} if figure.absent else dict(figure.values) for figure in found}
    questions[name] = {"made": made, "figures": lines}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": machine(), "questions": questions}, indent=2) + "\n", encoding="utf-8")


def value_of(questions: Mapping[str, Any], question: str, what: str, key: str) -> float | None:
    """One kept value, of the first line that is called `what` or begins with it and a space; None if there is none."""
    lines: Mapping[str, Mapping[str, float]] = questions.get(question, {}).get("figures", {})
    return next((values for name, values in lines.items() if name == what or name.startswith(f"{what} ")), {}).get(key)


def newest(paths: Iterable[Path]) -> dict[str, Any]:
    """Of each question the figures made last, on the machine of the newest file; files of other machines are left out.

    Raises:
        FileNotFoundError: There are no files.
    """
    files = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(paths)]
    if not files:
        raise FileNotFoundError("no figures are kept; python -m benchmarks NAME --save makes some")
    questions: dict[str, Any] = {}
    for kept in files:
        if _is_same(kept["machine"], files[-1]["machine"]):
            fresh = {name: answer for name, answer in kept["questions"].items() if _date(answer) >= _date(questions.get(name))}
            questions |= fresh
    return {"machine": files[-1]["machine"], "questions": questions}


def _is_same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Its kernel and Python may have been updated between two days."""
    return all(one.get(name) == other.get(name) for name in ("host", "cpu", "cores", "memory_gib"))


def _date(answer: Mapping[str, Any] | None) -> str:
    return "" if answer is None else str(answer["made"]["date"])


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
