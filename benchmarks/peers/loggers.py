"""How each tracker takes a row, as its documentation shows it: opened offline or on local files, with telemetry off.

Each function opens one in a folder of its own and returns how to log a row, how to wait until the row has left the caller's
hands, where there is such a call, and how to end. Steps are given where the tracker asks for them. What is not said is the
tracker's default. Imports are inside: each environment has one of them.
"""

# ruff: noqa: PLC0415 - the reason stands above

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    Row = dict[str, float]

QUIET: Mapping[str, str] = {
    "DO_NOT_TRACK": "1",
    "WANDB_MODE": "offline",
    "WANDB_SILENT": "true",
    "WANDB_ERROR_REPORTING": "false",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "NEPTUNE_MODE": "offline",
    "SWANLAB_MODE": "offline",
}
"""The documented switches against the network, for all of them; Aim and tensorboardX have nothing to switch off."""

_PROJECT = "benchmarks"


@dataclass(frozen=True)
class Logger:
    """An open run of some tracker."""

    log: Callable[[Row], object]
    finish: Callable[[], object]
    flush: Callable[[], object] | None = None
    """Waits until everything logged is handed on; None: the tracker has no such call."""


def runferry(folder: Path) -> Logger:
    """This checkout's; with the server of `RUNFERRY_BASE_URL`, if that is set."""
    import runferry as ours

    run = ours.init(project=_PROJECT, dir=str(folder), settings={"silent": True, "disable_git": True})
    return Logger(run.log, run.finish, lambda: run.flush(acked=not run.offline, timeout=60))


def wandb(folder: Path) -> Logger:
    import wandb as peer

    run = peer.init(project=_PROJECT, dir=folder, mode="offline")
    return Logger(run.log, run.finish)


def trackio(folder: Path) -> Logger:
    os.environ["TRACKIO_DIR"] = str(folder)
    import trackio as peer

    run = peer.init(project=_PROJECT, embed=False)
    return Logger(run.log, peer.finish)


def tensorboardX(folder: Path) -> Logger:  # noqa: N802 - its name
    """A call for each scalar: `add_scalars` would make a writer for each key."""
    from tensorboardX import SummaryWriter

    writer, steps = SummaryWriter(str(folder)), itertools.count()

    def log(row: Row) -> None:
        step = next(steps)
        for name, value in row.items():
            writer.add_scalar(name, value, step)

    return Logger(log, writer.close, writer.flush)


def mlflow(folder: Path) -> Logger:
    return _mlflow(folder, synchronous=True)


def mlflow_async(folder: Path) -> Logger:
    return _mlflow(folder, synchronous=False)


def _mlflow(folder: Path, *, synchronous: bool) -> Logger:
    """On SQLite, its default store."""
    import mlflow as peer

    peer.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    peer.set_experiment(_PROJECT)
    peer.start_run()
    steps = itertools.count()
    flush: Callable[[], object] | None = None if synchronous else peer.flush_async_logging
    return Logger(lambda row: peer.log_metrics(row, step=next(steps), synchronous=synchronous), peer.end_run, flush)


def aim(folder: Path) -> Logger:
    from aim import Run

    run, steps = Run(repo=str(folder), experiment=_PROJECT), itertools.count()
    return Logger(lambda row: run.track(row, step=next(steps)), run.close)


def neptune_scale(folder: Path) -> Logger:
    from neptune_scale import Run

    run, steps = Run(project=f"local/{_PROJECT}", mode="offline", log_directory=str(folder)), itertools.count()
    return Logger(lambda row: run.log_metrics(row, step=next(steps)), run.close)


def swanlab(folder: Path) -> Logger:
    import swanlab as peer

    run = peer.init(project=_PROJECT, mode="offline", log_dir=str(folder))
    return Logger(run.log, run.finish)


@dataclass(frozen=True)
class Peer:
    """A tracker, and where it comes from."""

    distribution: str
    """What its version is asked of; a key of `environments.PINS`, but for ours."""
    opened: Callable[[Path], Logger]


PEERS: dict[str, Peer] = {
    "wandb": Peer("wandb", wandb),
    "trackio": Peer("trackio", trackio),
    "SwanLab": Peer("swanlab", swanlab),
    "tensorboardX": Peer("tensorboardX", tensorboardX),
    "MLflow, async": Peer("mlflow", mlflow_async),
    "MLflow": Peer("mlflow", mlflow),
    "Aim": Peer("aim", aim),
    "neptune-scale": Peer("neptune-scale", neptune_scale),
}
OURS: Any = Peer("runferry", runferry)
