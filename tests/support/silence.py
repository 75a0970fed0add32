"""Silence of writers without waiting for it: what a server has noted of when they were last heard is set back."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

TEN_MINUTES_US = 600_000_000


def ten_minutes_pass(data: Path) -> bool:
    """As far as silence goes. A beat that was on its way undoes it, hence the answer: to be asked again and again inside a condition."""
    with sqlite3.connect(data / "meta.db", timeout=30) as connection:
        for table in ("run", "writer"):
            connection.execute(f"UPDATE {table} SET silent_since_us = silent_since_us - {TEN_MINUTES_US}")  # noqa: S608 - two fixed names
    connection.close()
    return True
