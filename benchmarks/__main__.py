"""`python -m benchmarks [NAME ...] [--save] [--at-most N]`: answer some questions or all, print tables, keep the figures as JSON.

They go to `benchmarks/out/latest.json`; with `--save` also to `benchmarks/results/<date>-<host>.json`. A question that is asked again
replaces its own figures of the day; `python -m benchmarks.report` makes the tables of docs/performance.md from the newest of each.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import os
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any

from benchmarks import figures

if TYPE_CHECKING:
    from collections.abc import Sequence

NAMES = (
    "log_call",
    "small_calls",
    "log_under_faults",
    "end_to_end",
    "bytes_per_point",
    "memory",
    "start",
    "ingest",
    "ingest_postgres",
    "writers",
    "reads",
    "histogram",
    "growth",
    "growth_writers",
    "growth_stored",
    "training_effect",
    "beside_peers",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Answer what was asked for; returns the exit code."""
    options = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure Runferry on this machine.")
    options.add_argument("name", nargs="*", metavar="NAME", help=f"one of {', '.join(NAMES)}; default: all")
    options.add_argument("--save", action="store_true", help="keep the figures in benchmarks/results/")
    options.add_argument("--at-most", type=int, metavar="N", help="how far growth_writers (10,000) and growth_stored (10^9 points) go")
    told = options.parse_args(arguments)
    if unknown := set(told.name) - set(NAMES):
        options.error(f"no such benchmark: {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")

    print("  ".join(f"{name} {value}" for name, value in figures.machine().items()))
    with tempfile.TemporaryDirectory(prefix="runferry-bench-") as folder:
        _forget_users_settings(folder)
        for name in told.name or NAMES:
            made = figures.circumstances()
            found = _answer(name, told.at_most)
            made["load_1min_after"] = figures.load_1min()
            for path in figures.kept_in(save=told.save):
                figures.keep(path, name, made, found)
                print(f"  kept in {path}", flush=True)
    return 0


def _answer(name: str, at_most: int | None) -> list[figures.Figure]:
    module: Any = importlib.import_module(f"benchmarks.{name}")
    is_bounded = at_most is not None and "at_most" in inspect.signature(module.measure).parameters
    began_s = time.monotonic()
    print(f"\n{name}: {(module.__doc__ or '').splitlines()[0]}", flush=True)
    found = list(module.measure(at_most=at_most) if is_bounded else module.measure())
    print(f"{figures.table(found)}\n  ({time.monotonic() - began_s:.1f} s, load {figures.load_1min()})", flush=True)
    return found


def _forget_users_settings(folder: str) -> None:
    """A benchmark measures the defaults, and writes to no server of the user's."""
    for name in [name for name in os.environ if name.startswith(("RUNFERRY_", "WANDB_"))]:
        del os.environ[name]
    os.environ["RUNFERRY_CONFIG_DIR"] = folder


if __name__ == "__main__":
    sys.exit(main())
