"""A virtual environment for each peer, made by pip from the pins below, so that no peer's dependencies meet another's or ours.

They lie in `.make/peers/NAME` and are kept: the second run installs nothing. A changed pin makes that one anew.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from benchmarks.figures import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

PINS: Mapping[str, Sequence[str]] = {
    "wandb": ("wandb==0.31.0",),
    "trackio": ("trackio==0.43.0",),
    "tensorboardX": ("tensorboardX==2.6.5",),
    "mlflow": ("mlflow==3.17.2",),
    "aim": ("aim==3.29.1",),
    "neptune-scale": ("neptune-scale==0.30.0",),
    "swanlab": ("swanlab==0.10.3",),
}
"""Distribution to what pip is asked for. What they depend on is pip's choice of the day; the versions of the peers are printed."""

FOLDER = ROOT / ".make" / "peers"
_AT_ONCE = 2
_TIMEOUT_S = 1800
_STAMP = "pins"


class Absent(Exception):  # noqa: N818 - a state of the table, no fault of the program
    """A peer that cannot be measured here, with the reason."""


def make(names: Sequence[str]) -> dict[str, Path | Absent]:
    """Each peer's Python, or why there is none; two are installed at a time."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return dict(zip(names, pool.map(_made, names), strict=True))


def _made(name: str) -> Path | Absent:
    folder = FOLDER / name
    python, stamp, pins = folder / "bin" / "python", folder / _STAMP, "\n".join(PINS[name])
    if stamp.exists() and stamp.read_text(encoding="utf-8") == pins:
        return python
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    commands = ([sys.executable, "-m", "venv", str(folder)], [str(python), "-m", "pip", "install", "--quiet", *PINS[name]])
    for command in commands:
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired:
            return Absent(f"its installation takes longer than {_TIMEOUT_S} s")
        if done.returncode != 0:
            return Absent(f"not installed: {(done.stderr.strip().splitlines() or ['no reason given'])[-1]}")
    stamp.write_text(pins, encoding="utf-8")
    return python
