"""A worker's own account of what it logged, kept where Runferry has no hand in it.

One line per `log` call that returned: the step, a digest of every value bit by bit, and what the call cost. The line is written
with one system call right after `log` returned, so a kill can hide at most the call that was in flight: that one may be on the
server without a line here, no line may be here without its row on the server.
"""

from __future__ import annotations

import hashlib
import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_DIGEST_BYTES = 12
_PLACE_KEYS = ("_step", "_timestamp", "_runtime")


@dataclass(frozen=True, slots=True)
class Entry:
    """One call that returned."""

    step: int
    digest: str
    log_ns: int
    """Time inside `run.log`."""
    histograms_ns: int
    """Time to make the row's histograms before it; 0: the row has scalars only."""


class Ledger:
    """Appends entries to a file; a restarted worker goes on in the same one."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)

    def note(self, step: int, row: Mapping[str, Any], *, log_ns: int, histograms_ns: int) -> None:
        """Write down a call that has returned."""
        os.write(self._descriptor, f"{step}\t{digest_of(row)}\t{log_ns}\t{histograms_ns}\n".encode("ascii"))


def read(path: Path) -> list[Entry]:
    """All entries, in the order of the calls."""
    lines = path.read_text(encoding="ascii").split("\n")[:-1]
    return [Entry(int(step), digest, int(log_ns), int(made_ns)) for step, digest, log_ns, made_ns in (line.split("\t") for line in lines)]


def count(path: Path) -> int:
    """How many calls have returned so far."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


def digest_of(row: Mapping[str, Any]) -> str:
    """A digest of names, types and bits: of a row as it is logged, and of the same row as it is read back."""
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for name in sorted(row):
        if name not in _PLACE_KEYS:
            digest.update(name.encode() + b"\0" + _bits(row[name]))
    return digest.hexdigest()


def _bits(value: Any) -> bytes:
    """The value's type and bits. `1` and `1.0` differ, so do `0.0` and `-0.0`."""
    if isinstance(value, bool):
        return b"b1" if value else b"b0"
    if isinstance(value, int):
        return b"i" + value.to_bytes(8, "little", signed=True)
    if isinstance(value, float):
        return b"f" + struct.pack("<d", value)
    if isinstance(value, str):
        return b"s" + value.encode() + b"\0"
    histogram = value if isinstance(value, dict) else value.to_json()
    counts, edges = histogram["values"], histogram["bins"]
    return b"h" + struct.pack(f"<II{len(counts)}d{len(edges)}d", len(counts), len(edges), *counts, *edges)
