"""`runferry export`: all rows of a run as a file, streamed."""

from __future__ import annotations

import csv
import json
import math
import os
import sys
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from runferry.api import Api
from runferry.cli.command import declare
from runferry.cli.text import Progress
from runferry.errors import UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator

    from runferry.api import Run
    from runferry.cli.command import Commands

FORMATS = ("csv", "jsonl", "parquet")
_LEADING = ("_step", "_timestamp", "_runtime")


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = declare(
        commands,
        "export",
        run=_run,
        summary="write every row of a run to a file",
        examples="runferry export local/demo/x7k2m9qa -o run.csv\nrunferry export demo/x7k2m9qa --format jsonl | jq .loss\n"
        "runferry export demo/x7k2m9qa --format parquet -o run.parquet",
    )
    parser.add_argument("path", metavar="RUN", help="ENTITY/PROJECT/ID or PROJECT/ID")
    parser.add_argument("--format", choices=FORMATS, help="default: by the name of the file, else csv")
    parser.add_argument("-o", "--output", metavar="FILE", help="default: standard output")
    parser.add_argument("--keys", metavar="A,B", help="only rows that hold all of these names, and only these")
    parser.add_argument("--min-step", type=int, default=0, help="first step")
    parser.add_argument("--max-step", type=int, help="the step after the last one")
    parser.add_argument("--base-url", metavar="URL", help="server to ask, instead of the configured one")


def _run(asked: argparse.Namespace) -> int:
    chosen = asked.format or _format_of(asked.output)
    if chosen == "parquet" and asked.output is None:
        raise UsageError("parquet is no text: name a file with -o")
    if chosen == "parquet" and not (find_spec("polars") or find_spec("pyarrow")):
        raise UsageError("parquet needs polars or pyarrow: pip install polars")
    run = Api({"base_url": asked.base_url} if asked.base_url else None).run(asked.path)
    keys = asked.keys.split(",") if asked.keys else None
    rows = _counted(run.scan_history(keys, min_step=asked.min_step, max_step=asked.max_step), run)
    names = [*_LEADING, *(keys if keys is not None else (metric["name"] for metric in run.metrics()))]
    names = [name for name in dict.fromkeys(names) if name != "_timestamp" or name in _LEADING]
    if chosen == "parquet":
        _write_parquet(Path(asked.output), names, list(rows))
        return 0
    with _output(asked.output) as file:
        if chosen == "csv":
            _write_csv(file, names, rows)
        else:
            file.writelines(json.dumps(_json_row(row), ensure_ascii=False) + "\n" for row in rows)
    return 0


def _format_of(output: str | None) -> str:
    suffix = Path(output).suffix.lstrip(".") if output else ""
    return {"ndjson": "jsonl", "json": "jsonl", "pq": "parquet"}.get(suffix, suffix if suffix in FORMATS else "csv")


def _counted(rows: Iterable[dict[str, Any]], run: Run) -> Iterator[dict[str, Any]]:
    """The rows, with a bar on stderr."""
    total = run.metadata["rows"] or 0
    with Progress("export") as progress:
        for count, row in enumerate(rows, start=1):
            if count % 1000 == 0:
                progress.update(count, max(total, count), f"{count:,} rows")
            yield row


@contextmanager
def _output(path: str | None) -> Iterator[IO[str]]:
    """Standard output, or a file that appears under its name only when it is whole."""
    if path is None:
        yield sys.stdout
        return
    target = Path(path)
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with draft.open("w", encoding="utf-8", newline="") as file:
            yield file
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


def _write_csv(file: IO[str], names: list[str], rows: Iterable[dict[str, Any]]) -> None:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        writer.writerow([_cell(row.get(name)) for name in names])


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return repr(value)
    return value if isinstance(value, str) else json.dumps(_json_value(value), ensure_ascii=False)


def _json_row(row: dict[str, Any]) -> dict[str, Any]:
    return {name: _json_value(value) for name, value in row.items()}


def _json_value(value: Any) -> Any:
    """What JSON cannot hold becomes its name, as in the W&B SDK's exports."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    if isinstance(value, dict):
        return {name: _json_value(inner) for name, inner in value.items()}
    return [_json_value(inner) for inner in value] if isinstance(value, list) else value


def _write_parquet(path: Path, names: list[str], rows: list[dict[str, Any]]) -> None:
    columns = {name: _parquet_column([row.get(name) for row in rows]) for name in names}
    if find_spec("polars"):
        import polars as pl  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415 - optional

        pl.DataFrame(columns, strict=False).write_parquet(path)
        return
    import pyarrow as pa  # type: ignore[import-not-found, import-untyped, unused-ignore]  # noqa: PLC0415 - optional
    import pyarrow.parquet as pq  # type: ignore[import-not-found, import-untyped, unused-ignore]  # noqa: PLC0415 - optional

    pq.write_table(pa.table(columns), path)


def _parquet_column(values: list[Any]) -> list[Any]:
    """One type a column: integers, numbers, bools or text; anything else, and any mixture, as JSON text."""
    kinds = {type(value) for value in values if value is not None}
    if len(kinds) <= 1 and not kinds & {dict, list}:
        return values
    if kinds <= {int, float}:
        return [None if value is None else float(value) for value in values]
    return [None if value is None else _cell(value) for value in values]
