"""Prints `docs/faults.md`."""

from __future__ import annotations

import sys
from itertools import groupby

from tests.faults.bugs import BUGS
from tests.faults.marks import MarkError, Test, exists, tests_of_faults
from tests.faults.rows import FAULTS, GROUPS, Fault

HEAD = """# Faults

What can go wrong between `log()` and a stored point, what must hold all the same, and the tests that make it go wrong.
`python -m tests.faults` writes this page from the marks on the tests (`make docs`; `make check` compares), so it cannot name a
test that is not there. `make test` runs all of them in a bounded form, `make torture` in a long one.
"""


def page() -> str:
    """The whole page.

    Raises:
        MarkError: marks or entries that name a row or a test which does not exist.
    """
    tests = tests_of_faults()
    if unknown := sorted(set(tests) - set(FAULTS)):
        raise MarkError(f"{tests[unknown[0]][0]}: there is no row {unknown[0]} in tests/faults/rows.py")
    lines = [HEAD, f"{len(tests)} of {len(FAULTS)} rows have tests."]
    for group in GROUPS:
        lines += ["", f"## {group.title}", "", "| # | fault | what must hold | tests |", "|---|---|---|---|"]
        lines += [
            f"| {fault.number} | {fault.what} | {fault.promise} | {_cell(fault, tests.get(fault.number, []))} |" for fault in group.faults
        ]
    lines += [
        "",
        "## Bugs these tests found",
        "",
        "Each was in Runferry, was found by provoking faults, and is kept out by the test named.",
        "",
    ]
    lines += ["| symptom | cause | test |", "|---|---|---|"]
    for bug in BUGS:
        if not exists(bug.test):
            raise MarkError(f"the record of bugs names {bug.test.name}, which is not in {bug.test.file}")
        lines.append(f"| {bug.symptom} | {bug.cause} | {_names([bug.test])} |")
    return "\n".join([*lines, ""])


def _cell(fault: Fault, tests: list[Test]) -> str:
    if not tests:
        return f"not tested: {fault.untested}" if fault.untested else "no test yet"
    return _names(tests) + (f"<br>not tested: {fault.untested}" if fault.untested else "")


def _names(tests: list[Test]) -> str:
    """By file."""
    files = groupby(tests, lambda test: test.file)
    return "<br>".join(
        f"[{file.removeprefix('tests/')}](../{file}): " + ", ".join(f"`{test.name}`" for test in found) for file, found in files
    )


if __name__ == "__main__":
    try:
        sys.stdout.write(page())
    except MarkError as error:
        sys.exit(str(error))
