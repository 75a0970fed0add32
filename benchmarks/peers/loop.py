"""The process that calls a tracker: `python -m benchmarks.peers.loop beside|alone TRACKER FOLDER`, in the tracker's environment.

`beside`: bursts of `rows.append(dict(row))`, of our `log` and of the tracker's take turns (`benchmarks.bursts`) in one process and
one interpreter, once for each width of row. `alone`: the tracker only, as fast as its call returns, then its end. What came of it
is written to FOLDER/answer.json, as trackers print what they like.
"""

from __future__ import annotations

import json
import os
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import bursts
from benchmarks.peers.loggers import OURS, PEERS

if TYPE_CHECKING:
    from benchmarks.peers.loggers import Logger

WIDTHS = {1: 6, 10: 16, 100: 6}
"""Scalars in a row to bursts that count."""
BURST_S = 0.5
ALONE_ROWS, ALONE_SCALARS, ALONE_S = 5_000, 10, 5.0

_REST_WINDOW_S, _REST_AT_MOST_S = 0.1, 2.0
_REST_TICKS = 1
"""A tenth of a core and less is rest."""


def main() -> None:
    """One of the two words."""
    word, name, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    found = {"beside": _beside, "alone": _alone}[word](name, folder)
    (folder / "answer.json").write_text(json.dumps(found), encoding="utf-8")


def _beside(name: str, folder: Path) -> dict[str, Any]:
    theirs = PEERS[name].opened(_made(folder / "theirs"))
    ours = OURS.opened(_made(folder / "ours"))
    found = {}
    for width, counted in WIDTHS.items():
        rows = bursts.rows(width)
        kinds = {
            "append": bursts.appending(rows),
            "ours": bursts.calling(ours.log, rows, lambda: _flush(ours)),
            "theirs": bursts.calling(theirs.log, rows, lambda: _rest(theirs), most_s=BURST_S),
        }
        timed_ns = bursts.in_turns(kinds, bursts=counted, warm_up=2)
        found[width] = {kind: bursts.quantiles(of_kind, "ns") | {"calls": len(of_kind)} for kind, of_kind in timed_ns.items()}
    ours.finish()
    theirs.finish()
    return {"version": metadata.version(PEERS[name].distribution), "widths": found}


def _alone(name: str, folder: Path) -> dict[str, Any]:
    rows = bursts.rows(ALONE_SCALARS, count=ALONE_ROWS)  # no row twice: what repeats takes next to nothing once it is compressed
    logger = {**PEERS, "runferry": OURS}[name].opened(_made(folder / "theirs"))
    logger.log(rows[0])
    _rest(logger)
    size_bytes = bytes_in(folder)
    began_s = time.monotonic()
    for logged, row in enumerate(rows, 1):  # noqa: B007 - counts
        logger.log(row)
        if time.monotonic() > began_s + ALONE_S:
            break
    logged_s = time.monotonic()
    logger.finish()
    return {"rows": logged, "bytes_before": size_bytes, "began_s": began_s, "logged_s": logged_s}


def bytes_in(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _rest(logger: Logger) -> None:
    """Until this process and its children have next to nothing left to do, 2 s at most."""
    _flush(logger)
    deadline_s, ticks = time.monotonic() + _REST_AT_MOST_S, _ticks()
    while time.monotonic() < deadline_s:
        time.sleep(_REST_WINDOW_S)
        before, ticks = ticks, _ticks()
        if ticks - before <= _REST_TICKS:
            return


def _flush(logger: Logger) -> None:
    if logger.flush is not None:
        logger.flush()


def _ticks() -> int:
    """Ticks of CPU that this process and those below it have used."""
    used, parents = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        parents[int(folder.name)], used[int(folder.name)] = int(fields[1]), int(fields[11]) + int(fields[12])
    return sum(ticks for pid, ticks in used.items() if _is_below(pid, parents))


def _is_below(pid: int, parents: dict[int, int]) -> bool:
    while pid in parents:
        if pid == os.getpid():
            return True
        pid = parents[pid]
    return False


if __name__ == "__main__":
    main()
