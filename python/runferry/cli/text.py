"""How the commands print: tables, sizes, ages, and a progress bar on a terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

BAR_CELLS = 30
_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86400
_KIB = 1024


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()) -> str:
    """Rows under a head, columns padded to their widest cell; columns named in `right` are set flush right."""
    clean = [[cell.replace("\n", " ").replace("\t", " ") for cell in row] for row in [head, *rows]]
    widths = [max(len(row[index]) for row in clean) for index in range(len(head))]
    lines = []
    for row in clean:
        cells = [cell.rjust(width) if name in right else cell.ljust(width) for name, cell, width in zip(head, row, widths, strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines) + "\n"


def size(size_bytes: float) -> str:
    """Bytes in the unit that fits."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size_bytes < _KIB:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= _KIB
    return f"{size_bytes:.1f} TiB"


def age(seconds: float) -> str:
    """A time span in the unit that fits."""
    if seconds < _MINUTE_S:
        return f"{seconds:.0f} s"
    if seconds < _HOUR_S:
        return f"{seconds / _MINUTE_S:.0f} min"
    return f"{seconds / _HOUR_S:.0f} h" if seconds < 2 * _DAY_S else f"{seconds / _DAY_S:.0f} d"


class Progress:
    """A bar on stderr while something long runs; prints nothing where stderr is no terminal. Use it in a `with` block."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._is_shown = sys.stderr.isatty()

    def update(self, done: float, total: float, note: str = "") -> None:
        """Draw the bar anew."""
        if not self._is_shown:
            return
        share = 1.0 if total <= 0 else min(1.0, done / total)
        filled = int(share * BAR_CELLS)
        sys.stderr.write(f"\r{self._what} [{'#' * filled}{'.' * (BAR_CELLS - filled)}] {share:4.0%} {note}\x1b[K")
        sys.stderr.flush()

    def __enter__(self) -> Progress:  # noqa: PYI034 - nobody subclasses it
        """Itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """Take the bar away, so that the result stands on a clean line."""
        if self._is_shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
