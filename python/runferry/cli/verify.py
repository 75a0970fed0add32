"""`runferry verify`: does the server have what was logged, bit for bit?"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from runferry.api import Api
from runferry.cli.command import declare
from runferry.cli.status import journals_in
from runferry.cli.text import table

if TYPE_CHECKING:
    import argparse

    from runferry.api.verify import Difference, WriterVerdict
    from runferry.cli.command import Commands

_PROBLEM = 1
_DIFFERENCES_SHOWN = 20
_HEAD = ("WRITER", "RECEIPT", "METRICS", "ROWS LOGGED", "ROWS STORED", "POINTS LOGGED", "POINTS STORED", "RESULT")


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = declare(
        commands,
        "verify",
        run=_run,
        summary="compare what was logged with what the server stores: counts and checksums of every metric",
        examples="runferry verify local/demo/RUN\nrunferry verify demo/RUN --journals /data/runferry",
    )
    parser.add_argument("run_path", metavar="RUN", help="ENTITY/PROJECT/RUN, PROJECT/RUN or RUN")
    parser.add_argument("--journals", metavar="PATH", help="folder of the writers' journals (default: where runs go)")
    parser.add_argument("--base-url", metavar="URL", help="server to ask, instead of the configured one")


def _run(asked: argparse.Namespace) -> int:
    run = Api({"base_url": asked.base_url} if asked.base_url else None).run(asked.run_path)
    found = run.verify(journals_in(asked.journals))
    sys.stdout.write(table(_HEAD, [_row(one) for one in found.writers], right=_HEAD[2:7]))
    for one in found.writers:
        sys.stdout.writelines(f"writer {one.writer_id}: {_sentence(difference)}\n" for difference in one.differences[:_DIFFERENCES_SHOWN])
        if len(one.differences) > _DIFFERENCES_SHOWN:
            sys.stdout.write(f"writer {one.writer_id}: and {len(one.differences) - _DIFFERENCES_SHOWN:,} metrics more\n")
    sys.stdout.write(f"{found.run}: {'everything that was logged is stored, bit for bit' if found.is_whole else 'not verified'}\n")
    return 0 if found.is_whole else _PROBLEM


def _row(one: WriterVerdict) -> list[str]:
    counts = (one.metrics, one.logged_rows, one.stored_rows, one.logged_points, one.stored_points)
    return [one.writer_id, one.source, *(f"{count:,}" for count in counts), _result(one)]


def _result(one: WriterVerdict) -> str:
    words = {
        "whole": "whole",
        "pending": f"whole so far; {one.pending_frames:,} frames wait in its journal",
        "explained": f"{one.logged_rows - one.stored_rows:,} rows missing, told by GAPs ({', '.join(one.explanations)})",
        "differs": "DIFFERS",
        "unknown": "no receipt: it has not finished, and its journal is not here",
    }[one.verdict]
    return f"{words}; {one.never_packed_rows:,} rows dropped before ({', '.join(one.explanations)})" if one.never_packed_rows else words


def _sentence(difference: Difference) -> str:
    name = f"{difference.metric!r}" if difference.metric else "rows"
    if difference.logged_points == difference.stored_points:
        return f"{name}: {difference.stored_points:,} points, with other values"
    return f"{name}: {difference.logged_points:,} points logged, {difference.stored_points:,} stored"
