"""Which tests provoke which fault: read from the source, so that no test has to be imported or run to know.

Python tests carry `@pytest.mark.fault(3, 4)`; Rust tests a line `// fault: 3, 4` above `#[test]`.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
_RUST_MARK = re.compile(r"^\s*// fault: (?P<rows>[0-9, ]+)$")
_RUST_TEST = re.compile(r"^\s*(?:async )?fn (?P<name>\w+)")


class MarkError(Exception):
    """A mark that names no rows, or hangs on no test."""


@dataclass(frozen=True, slots=True, order=True)
class Test:
    """One test function."""

    file: str
    name: str


def tests_of_faults() -> dict[int, list[Test]]:
    """Tests by the number of the row they provoke, in order of file and name.

    Raises:
        MarkError: a mark without numbers, or one that no test follows.
    """
    found: dict[int, set[Test]] = defaultdict(set)
    for test, rows in [*_python(), *_rust()]:
        for row in rows:
            found[row].add(test)
    return {row: sorted(tests) for row, tests in found.items()}


def exists(test: Test) -> bool:
    """Whether the file has a test of this name."""
    path = ROOT / test.file
    return path.is_file() and re.search(rf"\b(?:def|fn) {re.escape(test.name)}\b", path.read_text()) is not None


def _python() -> Iterator[tuple[Test, list[int]]]:
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        tree = ast.parse(path.read_text())
        file = path.relative_to(ROOT).as_posix()
        of_all = [row for node in tree.body if isinstance(node, ast.Assign) and _assigns_marks(node) for row in _rows(node.value, file)]
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                rows = of_all + [row for mark in node.decorator_list for row in _rows(mark, file)]
                yield Test(file, node.name), rows


def _assigns_marks(node: ast.Assign) -> bool:
    return any(isinstance(target, ast.Name) and target.id == "pytestmark" for target in node.targets)


def _rows(marks: ast.expr, file: str) -> list[int]:
    rows = []
    for node in ast.walk(marks):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.fault":
            rows += [ast.literal_eval(argument) for argument in node.args]
    if ast.unparse(marks).count("pytest.mark.fault") and not rows:
        raise MarkError(f"{file}: `pytest.mark.fault` names the rows of docs/faults.md: fault(3, 4)")
    return rows


def _rust() -> Iterator[tuple[Test, list[int]]]:
    for path in sorted((ROOT / "rust").rglob("*.rs")):
        rows: list[int] = []
        file = path.relative_to(ROOT).as_posix()
        for line in path.read_text().splitlines():
            if mark := _RUST_MARK.match(line):
                rows = [int(row) for row in mark["rows"].split(",")]
            elif rows and (test := _RUST_TEST.match(line)):
                yield Test(file, test["name"]), rows
                rows = []
        if rows:
            raise MarkError(f"{file}: a `// fault:` line that no test follows")
