"""Which runs this process has, and which one the module-level names stand for.

`runferry.log`, `run`, `config` and `summary` are attributes of the package that `activate` sets: after `init`, `runferry.log` *is* the
run's native method, with nothing in between. Before `init`, and after `finish`, guards stand there that say what is missing.

# Fork
A child inherits the runs but none of the threads behind them. `_after_fork` takes the native methods away, so that the first
use in the child goes through `Run.log` of the class, which opens a writer of the child's own (`Run._own_writer`).
"""

from __future__ import annotations

import os
import sys

from runferry.errors import Error

TYPE_CHECKING = False  # as in `__init__`
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from runferry._run import Run

live: list[Run] = []
"""Runs of this process that are not finished, oldest first."""
finishing: list[Run] = []
"""Those of them whose `finish` is under way in some thread."""
_state: dict[str, Run | None] = {"active": None}
_hooks = {"fork": False, "ending": False}


def active() -> Run | None:
    """The run that the module-level names stand for."""
    return _state["active"]


def add(run: Run) -> None:
    """Note a new run; forks are watched from the first one on."""
    live.append(run)
    if not _hooks["fork"] and hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_after_fork)
        _hooks["fork"] = True


def remove(run: Run) -> None:
    """Forget a finished run; if it was the active one the guards come back, unless the process ends: nobody is to be told then."""
    if run in live:
        live.remove(run)
    if active() is run and not is_ending():
        activate(None)


def put_back(run: Run) -> None:
    """A `finish` of this run was interrupted before its end: it is to be finished once more, at the latest when the process ends."""
    if run in finishing:
        finishing.remove(run)
    if run not in live:
        live.append(run)


def end() -> None:
    """The process ends: what is logged from now on is counted and nothing else, whoever still calls."""
    _hooks["ending"] = True


def is_ending() -> bool:
    """Whether the process ends."""
    return _hooks["ending"]


def activate(run: Run | None) -> None:
    """Make `run` the one behind `runferry.log`, `run`, `config` and `summary`; None: nobody."""
    _state["active"] = run
    package = sys.modules[__package__]
    names: dict[str, Any] = {"run": None, "log": log, "config": config, "summary": summary}
    if run is not None:
        names = {"run": run, "log": run.log, "config": run.config, "summary": run.summary}
    for name, value in names.items():
        setattr(package, name, value)


def _after_fork() -> None:
    """In the child: no native method may be reached without a look at the process it runs in."""
    finishing.clear()
    for run in live:
        run._forget_native()  # noqa: SLF001 - the other half of the mechanism described above
    if active() is not None:
        activate(active())


def log(data: dict[str, Any], step: int | None = None, commit: bool | None = None) -> None:  # noqa: FBT001 - W&B signature
    """`runferry.log` while no run is active. Reached later too, through `from runferry import log` before `init`."""
    run = active()
    if run is None:
        raise Error("You must call runferry.init() before runferry.log()")
    run.log(data, step, commit)


class Guard:
    """Stands for `runferry.config` or `runferry.summary` while no run is active: every use but `_private` names raises."""

    def __init__(self, name: str) -> None:
        object.__setattr__(self, "_name", name)

    _name: str

    def __getattr__(self, key: str) -> Any:
        """The active run's, for those who imported the guard before `init`."""
        if key.startswith("_"):
            raise AttributeError(key)
        return getattr(self._target(f".{key}"), key)

    def __setattr__(self, key: str, value: Any) -> None:
        """As reading."""
        setattr(self._target(f".{key}"), key, value)

    def __getitem__(self, key: str) -> Any:
        """As reading."""
        return self._target(f"[{key!r}]")[key]

    def __setitem__(self, key: str, value: Any) -> None:
        """As reading."""
        self._target(f"[{key!r}]")[key] = value

    def __repr__(self) -> str:
        """Never raises: debuggers call it."""
        return f"<runferry.{self._name}: no run yet>"

    def _target(self, use: str) -> Any:
        run = active()
        return getattr(run, self._name) if run is not None else self._raise(use)

    def _raise(self, use: str) -> NoReturn:
        raise Error(f"You must call runferry.init() before runferry.{self._name}{use}")


config = Guard("config")
summary = Guard("summary")
