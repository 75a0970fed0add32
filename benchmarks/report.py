"""`python -m benchmarks.report [RESULTS.json ...]`: the tables of docs/performance.md, made anew from kept figures.

A table stands between two marks, of which the first says what it holds, so that the text around it is free and no figure is typed:

    <!-- figures log_call | rows: 10 scalars | columns: median_ns, times_append as times an append -->
    <!-- end -->

`rows` keeps the lines whose name contains one of the given texts (parted by `;`) and may be left out, as may a column's name after
`as`. `<!-- machine -->`, `<!-- targets -->` (`targets.py`) and `<!-- cluster -->` (`cluster.py`) are replaced in the same way. A question
without figures leaves a line that says so. Of each question the figures count that were made last, by all files of `benchmarks/results`
or those that are named.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import cluster
from benchmarks.figures import RESULTS, ROOT, newest, shown
from benchmarks.targets import TARGETS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PAGE = ROOT / "docs" / "performance.md"
_MARK = r"(<!-- (figures (?P<question>\w+)(?P<parts>[^>]*)|machine|targets|cluster) -->\n)"
_MARKED = re.compile(rf"{_MARK}(?P<old>.*?)(<!-- end -->)", re.DOTALL)


def main(arguments: Sequence[str]) -> int:
    """Rewrite the page; returns the exit code."""
    paths = [Path(argument) for argument in arguments] or sorted(RESULTS.glob("*.json"))
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), newest(paths)), encoding="utf-8")
    print(f"{PAGE} shows {', '.join(map(str, paths))}")
    return 0


def filled(page: str, kept: Mapping[str, Any]) -> str:
    """The page with every marked place made anew."""

    def fill(found: re.Match[str]) -> str:
        if found[2] == "targets":
            new = _drawn([["", "target", "found", "met"], *(target.row(kept["questions"]) for target in TARGETS)])
        elif found[2] == "cluster":
            table, sources = cluster.filled(kept["questions"])
            new = f"{_drawn(table)}\n\n{sources}" if table else sources
        elif found["question"] is None:
            new = "  \n".join(f"{name}: {value}" for name, value in kept["machine"].items() if name != "host")
        else:
            parts = dict(part.strip().split(": ", 1) for part in found["parts"].split("|") if part.strip())
            new = _table(found["question"], kept["questions"].get(found["question"]), parts)
        return f"{found[1]}\n{new}\n\n{found[6]}"

    return _MARKED.sub(fill, page)


def _table(question: str, answer: Mapping[str, Any] | None, parts: Mapping[str, str]) -> str:
    if answer is None:
        return f"Not measured yet: `make bench NAME={question}`."
    chosen = [text.strip() for text in parts.get("rows", "").split(";")]
    lines = {what: values for what, values in answer["figures"].items() if any(text in what for text in chosen)}
    columns = [column.strip().partition(" as ") for column in parts["columns"].split(",")]
    rows = [["", *(name or key for key, _, name in columns)]]
    for what, values in lines.items():
        if "absent" in values:
            rows.append([what, f"absent: {values['absent']}", *("" for _ in columns[1:])])
        else:
            rows.append([what, *(shown(values.get(key)) for key, _, _ in columns)])
    made = answer["made"]
    source = f"`make bench NAME={question}`, {made['date'][:10]}, commit {made['commit']}, load {made['load_1min_before']}"
    return f"{_drawn(rows)}\n\n{source}."


def _drawn(rows: Sequence[Sequence[str]]) -> str:
    head, *body = rows
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, ["---", *("---:" for _ in head[1:])], *body])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
