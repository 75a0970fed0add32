"""`python -m benchmarks [NAME] [--save]`: run one benchmark or all, print tables, write JSON.

The figures go to `benchmarks/out/latest.json`; with `--save` also to `benchmarks/results/<date>-<machine>.json`, which is kept.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any

from benchmarks import figures

if TYPE_CHECKING:
    from collections.abc import Sequence

NAMES = ("log_call", "log_under_faults", "end_to_end", "bytes_per_point", "memory", "start", "ingest")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for; returns the exit code."""
    options = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure Runferry on this machine.")
    options.add_argument("name", nargs="?", choices=NAMES, help="one benchmark; default: all")
    options.add_argument("--save", action="store_true", help="keep the figures in benchmarks/results/")
    told = options.parse_args(arguments)

    made_on = figures.machine()
    print("  ".join(f"{name} {value}" for name, value in made_on.items()))
    found = {}
    with tempfile.TemporaryDirectory(prefix="runferry-bench-") as folder:
        _forget_users_settings(folder)
        for name in [told.name] if told.name else NAMES:
            found[name] = _run(name)
    made_on["load_1min_after"] = round(os.getloadavg()[0], 2)
    for path in figures.write(made_on, found, save=told.save):
        print(f"written: {path}")
    return 0


def _run(name: str) -> list[figures.Figure]:
    module: Any = importlib.import_module(f"benchmarks.{name}")
    began_s = time.monotonic()
    print(f"\n{name}: {(module.__doc__ or '').splitlines()[0]}", flush=True)
    found = list(module.measure())
    print(f"{figures.table(found)}\n  ({time.monotonic() - began_s:.1f} s, load {os.getloadavg()[0]:.1f})", flush=True)
    return found


def _forget_users_settings(folder: str) -> None:
    """A benchmark measures the defaults, and writes to no server of the user's."""
    for name in [name for name in os.environ if name.startswith(("RUNFERRY_", "WANDB_"))]:
        del os.environ[name]
    os.environ["RUNFERRY_CONFIG_DIR"] = folder


if __name__ == "__main__":
    sys.exit(main())
