"""`runferry journal cat|stats|fsck`: look into a journal without a server."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from runferry.cli.command import declare
from runferry.cli.text import size
from runferry.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from runferry._native import JournalCheck
    from runferry.cli.command import Commands

_PROBLEM = 1


def add(commands: Commands) -> None:
    """Declare the command and its three verbs."""
    parser = declare(
        commands,
        "journal",
        run=_run,
        summary="look into a journal: list its frames, count them, check them",
        examples="runferry journal cat runferry/RUN/WRITER | head\nrunferry journal stats runferry\nrunferry journal fsck runferry",
    )
    parser.add_argument(
        "verb", choices=("cat", "stats", "fsck"), help="cat: one line a frame; stats: counts and sizes; fsck: check every byte"
    )
    parser.add_argument("path", metavar="PATH", help="folder of journals, of one writer, or a segment file")


def _run(asked: argparse.Namespace) -> int:
    from runferry import _native  # noqa: PLC0415 - not needed for the other commands' help

    if not Path(asked.path).exists():
        raise UsageError(f"{asked.path} does not exist")
    places = _journals(asked.path)
    if not places:
        raise UsageError(f"{asked.path} holds no journal")
    if asked.verb == "cat":
        return max(_cat(place) for place in places)
    checks = [_native.journal_fsck(place) for place in places]
    for check in checks:
        sys.stdout.write(_counts(check) if asked.verb == "stats" else _findings(check))
    has_findings = any(check["gaps"] or check["errors"] for check in checks)
    return _PROBLEM if has_findings and asked.verb == "fsck" else 0


def _journals(path: str) -> list[str]:
    """Journals meant by `path`: a segment file or a writer's folder is one, a folder above holds several."""
    if Path(path).is_file() or any(Path(path).glob("seg-*.rfj")):
        return [path]
    return sorted({str(segment.parent) for segment in Path(path).rglob("seg-*.rfj")})


def _cat(path: str) -> int:
    from runferry import _native  # noqa: PLC0415 - as above

    code = 0
    for frame in _native.journal_frames(path):
        place = f"{frame['segment']}+{frame['offset']}"
        if frame["error"]:
            code = _PROBLEM
            sys.stdout.write(f"{place}  seq {frame['seq']}  UNREADABLE: {frame['error']}\n")
        else:
            sizes = f"{frame['stored_bytes']:>9,} of {frame['raw_bytes']:>9,} bytes"
            sys.stdout.write(f"{place}  {frame['kind']:<7} seq {frame['seq']:<8} {frame['records']:>8,} records  {sizes}\n")
    return code


def _counts(check: JournalCheck) -> str:
    ratio = check["raw_bytes"] / check["stored_bytes"] if check["stored_bytes"] else 1.0
    per_row = f", {check['stored_bytes'] / check['rows']:.1f} bytes a row" if check["rows"] else ""
    return (
        f"{check['path']}\n"
        f"  {check['frames']:,} frames in {check['segments']:,} segments, numbers {check['first_seq']} to {check['next_seq'] - 1}\n"
        f"  {check['rows']:,} rows, {size(check['stored_bytes'])} stored, {size(check['raw_bytes'])} raw ({ratio:.1f} to 1){per_row}\n"
    )


def _findings(check: JournalCheck) -> str:
    lines = [f"  gap: {gap['count']:,} frames from seq {gap['seq']} ({gap['reason']})\n" for gap in check["gaps"]]
    lines += [f"  {error}\n" for error in check["errors"]]
    if check["torn_bytes"]:
        lines.append(
            f"  {check['torn_bytes']} bytes of a frame that was being written when its process died; no loss, the ring has its rows\n"
        )
    verdict = "damaged" if check["gaps"] or check["errors"] else "whole"
    return f"{check['path']}: {verdict}, {check['frames']:,} frames, {check['rows']:,} rows\n" + "".join(lines)
