"""`runferry sync`: send what lies in journals to a server. Exact and repeatable: nothing is ever stored twice."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from runferry._access import access_of
from runferry.cli.command import declare
from runferry.cli.status import journals_in
from runferry.cli.text import Progress, size, table
from runferry.errors import UsageError
from runferry.settings import Settings, resolve

if TYPE_CHECKING:
    from runferry._native import SyncProgress, SyncResult
    from runferry.cli.command import Commands

_PROBLEM, _UNREACHABLE = 1, 3
_TIMEOUT_S = 5.0
_MAX_TIMEOUT_S = 86_400.0


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = declare(
        commands,
        "sync",
        run=_run,
        summary="send journals to the server; safe to repeat, nothing is stored twice",
        examples="runferry sync runferry\nrunferry sync runferry --dry-run\nrunferry sync /nfs/node*/runferry --base-url http://host:7070",
    )
    parser.add_argument("paths", metavar="PATH", nargs="+", help="folder of journals, of one run or one writer, or a segment file")
    parser.add_argument(
        "--base-url", metavar="URL", help="server to send to, instead of the configured one or the one the run was made for"
    )
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=_seconds,
        default=_TIMEOUT_S,
        help="how long to try a server that cannot be reached or does not answer (default: %(default)g); one that answers but is busy "
        "is given a minute without progress",
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what would be sent")


def _run(asked: argparse.Namespace) -> int:
    paths = [path if Path(path).is_file() else journals_in(path) for path in asked.paths]
    missing = [path for path in paths if not Path(path).exists()]
    if missing:
        raise UsageError(f"{missing[0]} does not exist")
    return _say_what_would_be_sent(paths) if asked.dry_run else _send(paths, asked.base_url, asked.timeout)


def _say_what_would_be_sent(paths: list[str]) -> int:
    from runferry import _native  # noqa: PLC0415 - not needed for the other commands' help

    found = [state for path in paths for state in _native.journal_list(path)]
    rows = [[state["run"], f"{state['backlog_frames']:,}", size(state["backlog_bytes"]), state["path"]] for state in found]
    sys.stdout.write(table(("RUN", "FRAMES", "BYTES", "JOURNAL"), rows, right=("FRAMES", "BYTES")))
    return 0


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds <= _MAX_TIMEOUT_S:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and {_MAX_TIMEOUT_S:g} seconds")
    return seconds


def _send(paths: list[str], base_url: str | None, timeout_s: float) -> int:
    from runferry import _native  # noqa: PLC0415 - as above

    settings = resolve(Settings(base_url=base_url) if base_url else None)
    with Progress("sync") as progress:

        def draw(state: SyncProgress) -> None:
            progress.update(state["sent_bytes"], state["total_bytes"], f"{size(state['sent_bytes'])} of {size(state['total_bytes'])}")

        results = _native.sync(paths, settings.base_url, access_of(settings), draw, timeout_s)
    rows = [_row(result) for result in results]
    if not rows:
        sys.stdout.write("no journals found\n")
        return 0
    sys.stdout.write(table(("RUN", "ROWS", "FRAMES", "ON SERVER", "SERVER", "RESULT"), rows, right=("ROWS", "FRAMES", "ON SERVER")))
    failed = [result for result in results if result["error"]]
    if not failed:
        return 0
    is_unreachable = len(failed) == len(results) and all(result["unreachable"] for result in failed)
    return _UNREACHABLE if is_unreachable else _PROBLEM


def _row(result: SyncResult) -> list[str]:
    return [
        result["run"],
        f"{result['rows']:,}",
        f"{result['frames']:,}",
        f"{result['acked_frames']:,}",
        result["base_url"] or "",
        result["error"] or "complete",
    ]
