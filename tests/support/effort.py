"""How hard a test tries: a bounded count in CI, as many as one likes by environment; and where a long run writes what it saw.

`RUNFERRY_EFFORT_KILLS=20000` makes the test that asks for `effort("kills", 300)` do 20,000. `make torture` sets all of them, and
`RUNFERRY_RESULTS` to the file that collects the figures, a JSON object a line.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

RESULTS = os.environ.get("RUNFERRY_RESULTS")
"""Read once: a test with a clean environment records all the same."""


def effort(name: str, default: int) -> int:
    """The count to try: of `RUNFERRY_EFFORT_<NAME>` if set, else `default`."""
    return int(os.environ.get(f"RUNFERRY_EFFORT_{name.upper()}", default))


def record(question: str, **figures: float | str) -> None:
    """Keep what a test measured, if somebody collects; printed either way (`pytest -s`)."""
    line = json.dumps({"question": question, **figures}, sort_keys=True)
    sys.stdout.write(line + "\n")
    if RESULTS:
        with Path(RESULTS).open("a", encoding="utf-8") as file:
            file.write(line + "\n")
