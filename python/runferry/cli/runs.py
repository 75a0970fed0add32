"""`runferry runs`: the runs of a project as a table."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from runferry.api import Api
from runferry.cli.command import declare
from runferry.cli.text import age, table
from runferry.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from runferry.api import Run
    from runferry.cli.command import Commands

_US_PER_S = 1_000_000
_SUMMARY_KEYS_SHOWN = 3
_HEAD = ("ID", "NAME", "STATE", "STEPS", "ROWS", "POINTS", "SEEN", "GROUP", "SUMMARY")


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = declare(
        commands,
        "runs",
        run=_run,
        summary="list projects, or the runs of a project",
        examples="runferry runs\nrunferry runs local/demo --order -summary_metrics.loss\n"
        """runferry runs demo --filters '{"config.lr": {"$gt": 0.001}, "state": "finished"}'""",
    )
    parser.add_argument("path", metavar="PATH", nargs="?", help="ENTITY/PROJECT or PROJECT; without it the projects are listed")
    parser.add_argument(
        "--filters", metavar="JSON", help="operators $gt $in $regex $and ... over config.*, summary_metrics.*, state, tags, name"
    )
    parser.add_argument("--order", default="-created_at", help="+ or - and a key, like +created_at or -summary_metrics.loss")
    parser.add_argument("--limit", type=int, default=50, help="rows at most (default 50)")
    parser.add_argument("--json", action="store_true", help="one JSON object a line instead of a table")
    parser.add_argument("--base-url", metavar="URL", help="server to ask, instead of the configured one")


def _run(asked: argparse.Namespace) -> int:
    api = Api({"base_url": asked.base_url} if asked.base_url else None)
    if asked.path is None and api.settings.project is None:
        return _list_projects(api)
    found = api.runs(asked.path, _filters(asked.filters), asked.order, per_page=max(1, min(asked.limit, 500)))
    shown = [run for run, _ in zip(found, range(asked.limit), strict=False)]
    if asked.json:
        import json  # noqa: PLC0415 - one of the two forms

        sys.stdout.writelines(json.dumps(run.stored) + "\n" for run in shown)
        return 0
    sys.stdout.write(table(_HEAD, [_row(run) for run in shown], right=("STEPS", "ROWS", "POINTS", "SEEN")))
    if len(found) > len(shown):
        sys.stdout.write(f"{len(shown)} of {len(found)} runs; more with --limit\n")
    return 0


def _list_projects(api: Api) -> int:
    rows = [[f"{project.entity}/{project.name}", f"{project.run_count:,}", _seen(project.last_active_us)] for project in api.projects()]
    sys.stdout.write(table(("PROJECT", "RUNS", "ACTIVE"), rows, right=("RUNS", "ACTIVE")))
    return 0


def _filters(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    import json  # noqa: PLC0415 - only with filters

    try:
        filters = json.loads(text)
    except ValueError as error:
        raise UsageError(f"--filters {text!r} is not JSON: {error}") from None
    if not isinstance(filters, dict):
        raise UsageError(f"--filters {text!r} must be a JSON object")
    return filters


def _row(run: Run) -> list[str]:
    counts = run.metadata
    return [
        run.id,
        run.name,
        run.state,
        f"{run.lastHistoryStep + 1:,}",
        f"{counts['rows'] or 0:,}",
        f"{counts['points'] or 0:,}",
        _seen(run.stored.get("heartbeat_at_us")),
        run.group or "",
        _summary(run.summary),
    ]


def _seen(time_us: int | None) -> str:
    return "" if time_us is None else age(max(0.0, time.time() - time_us / _US_PER_S))


def _summary(summary: dict[str, Any]) -> str:
    numbers = [(name, value) for name, value in summary.items() if isinstance(value, (int, float)) and not name.startswith("_")]
    return " ".join(f"{name}={value:.4g}" for name, value in numbers[:_SUMMARY_KEYS_SHOWN])
