"""`runferry status`: the journals of this machine, and how far each has got."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from runferry.cli.command import declare
from runferry.cli.text import age, size, table
from runferry.settings import resolve

if TYPE_CHECKING:
    import argparse

    from runferry._native import JournalState
    from runferry.cli.command import Commands

_PROBLEM = 1
_US_PER_S = 1_000_000
_HEAD = ("RUN", "WRITER", "STATE", "MODE", "FRAMES", "WAITING", "BYTES", "LAST ACK")


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = declare(
        commands,
        "status",
        run=_run,
        summary="show the journals of a folder: who writes, what waits for the server",
        examples="runferry status\nrunferry status ~/trainings/runferry",
    )
    parser.add_argument("path", metavar="PATH", nargs="?", help="folder of journals, or the folder it lies in (default: where runs go)")


def journals_in(path: str | None) -> str:
    """The folder of journals meant by `path`: itself, or `runferry/` in it."""
    given = Path(path if path is not None else resolve().root_dir).expanduser()
    inner = given / "runferry"
    return str((inner if inner.is_dir() else given).absolute())


def _run(asked: argparse.Namespace) -> int:
    from runferry import _native  # noqa: PLC0415 - not needed for the other commands' help

    root = journals_in(asked.path)
    found = _native.journal_list(root)
    if not found:
        sys.stdout.write(f"no journals in {root}\n")
        return 0
    sys.stdout.write(table(_HEAD, [_row(state) for state in found], right=("FRAMES", "WAITING", "BYTES", "LAST ACK")))
    waiting = [state for state in found if state["backlog_frames"] and not state["alive"]]
    if waiting:
        sys.stdout.write(f"\n{len(waiting)} journals wait for a server; send them: runferry sync {root}\n")
    troubled = [state for state in found if state["error"]]
    for state in troubled:
        sys.stdout.write(f"{state['path']}: {state['error']}\n")
    return _PROBLEM if troubled else 0


def _row(state: JournalState) -> list[str]:
    last_ack_us = state["last_ack_us"]
    return [
        state["run"],
        f"{state['writer_id']:016x}",
        "error" if state["error"] else "writing" if state["alive"] else "finished" if state["finished"] else "orphan",
        state["mode"],
        f"{state['frames']:,}",
        f"{state['backlog_frames']:,}",
        size(state["backlog_bytes"]),
        "never" if last_ack_us is None else age(max(0.0, time.time() - last_ack_us / _US_PER_S)) + " ago",
    ]
