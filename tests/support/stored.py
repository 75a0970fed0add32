"""What a server holds, read back as a user would: through `Api`."""

from __future__ import annotations

from typing import Any

import runferry
from runferry.errors import CommError

from tests.support.exact import exact
from tests.support.trainers import wait_until

OWN = ("_step", "_timestamp", "_runtime")


def rows(url: str, path: str, keys: list[str] | None = None) -> list[dict[str, Any]]:
    """Every row of a run."""
    return list(runferry.Api({"base_url": url}).run(path).scan_history(keys=keys))


def cells(url: str, path: str) -> list[tuple[int, dict[str, Any]]]:
    """Step and values of every row, in a form that is equal only bit for bit."""
    return [(row["_step"], {name: exact(value) for name, value in row.items() if name not in OWN}) for row in rows(url, path)]


def run(url: str, path: str) -> Any:
    """The run as it is now."""
    return runferry.Api({"base_url": url}).run(path)


def wait_for_state(url: str, path: str, state: str) -> None:
    """Wait until the run exists and has this state."""

    def is_there() -> bool:
        try:
            return bool(run(url, path).state == state)
        except (ValueError, CommError):
            return False

    wait_until(is_there, f"{path} is {state}")


def gaps(url: str, path: str) -> list[dict[str, Any]]:
    """The gaps of all writers of a run."""
    return [gap for writer in run(url, path).writers() for gap in writer["gaps"]]
