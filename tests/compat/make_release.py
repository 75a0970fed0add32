"""Keeps what a release writes, whole: a client's journals and a server's data directory. Run once per release, never again for one.

    python -m tests.compat.make_release

makes `tests/compat/golden/<version>/` of the version in this checkout: `journals.tar.gz`, the folder of a client that finished one run
offline and was killed in another; `data.tar.gz`, the folder of a server that was killed, with a run in chunks and one in frames that no
merge had come to; and `expected.json`, what was put in. `test_releases.py` says what later versions owe to these.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
import tarfile
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import runferry

from tests.support.exact import exact
from tests.support.keys import add_key
from tests.support.servers import RunningServer
from tests.support.trainers import Trainer, train, wait_until

GOLDEN = Path(__file__).parent / "golden"
PROJECT = "golden"
ROWS: list[dict[str, Any]] = [
    {"loss": 0.1, "n": 0, "flag": True, "text": "\u00fc/\U0001f680", "nothing": None},
    {"loss": -0.0, "n": -1, "flag": False, "opt": {"lr": 3e-4, "name": "adam"}},
    {"loss": float("nan"), "n": 2**63 - 1},
    {"loss": float("-inf"), "n": -(2**63)},
    {"loss": 5e-324, "one": 1, "list": [1, 2.5, None, True, "x"]},
    {"loss": 1.7976931348623157e308, "one": 1.0},
    {},
    *({"loss": 1 / number, "n": number, f"every/{number % 3}": number / 7} for number in range(1, 300)),
]
CONFIG = {"lr": 3e-4, "layers": [1, 2], "nested": {"deep": True, "none": None}}
SUMMARY = {"best": 0.25, "verdict": "good"}
TRAINING = """
import json, os, shutil, sys, runferry
id, mode, how = sys.argv[1:]
words = {{"name": f"name of {{id}}", "notes": "a note", "tags": ["a", "b"]}}
run = runferry.init(project={project!r}, id=id, config={config!r}, mode=mode, dir=".", settings={{"silent": True}}, **words)
nan, inf = float("nan"), float("inf")
for row in {rows!r}:
    run.log(row)
run.log({{"loss": 0.0}}, step=1)  # behind: dropped, and counted in a GAP
run.summary.update({summary!r})
assert run.flush(durable=True, acked=mode == "online", timeout=60)
if how == "finish":
    run.finish()
print(os.path.realpath(run.dir), flush=True)
sys.stdin.readline()
"""


def cells() -> list[list[Any]]:
    """Step and values of every row, as they are read back."""
    found = []
    for step, row in enumerate(ROWS):
        flat: dict[str, Any] = {}
        for name, value in row.items():
            flat.update({f"{name}.{inner}": part for inner, part in value.items()} if isinstance(value, dict) else {name: value})
        found.append([step, {name: exact(value) for name, value in flat.items()}])
    return found


def program() -> str:
    """The training."""
    return TRAINING.format(project=PROJECT, config=CONFIG, summary=SUMMARY, rows=ROWS)


def journals(folder: Path) -> Path:
    """A client's folder: one run finished, and one as a kill leaves it."""
    ended = train(with_arguments("finished", "offline", "finish"), folder)
    assert ended.returncode == 0, ended.stderr
    with Trainer(with_arguments("killed", "offline", "wait"), folder) as trainer:
        trainer.line()
        # Copied while it lives: the same files, and its ring is not left lying on this machine.
        kept = Path(shutil.copytree(folder / "runferry", folder / "kept"))
        trainer.tell("")
        trainer.ended()
    return kept


def data(folder: Path) -> Path:
    """A server's folder as a kill leaves it: one run merged, one not, and a key that writes only."""
    place = folder / "data"
    server = RunningServer(place)
    try:
        add_key(place, "golden", "--scope", "write")
        ended = train(with_arguments("merged", "online", "finish"), folder, base_url=server.url)
        assert ended.returncode == 0, ended.stderr
        wait_until(lambda: unmerged(place) == 0, "all is merged")
        with Trainer(with_arguments("waiting", "online", "wait"), folder, base_url=server.url) as trainer:
            trainer.line()
            server.kill()
            trainer.kill()
    finally:
        if server.process.poll() is None:
            server.kill()
    return place


def unmerged(place: Path) -> int:
    """Frames that no merge has come to; -1 while there is no run."""
    found = []
    for shard in (place / "metrics").glob("metrics-*.db"):
        with closing(sqlite3.connect(shard)) as connection:
            found += connection.execute("SELECT next_seq - 1 - merged_seq FROM writer").fetchall()
    return sum(frames for (frames,) in found) if found else -1


def with_arguments(*arguments: str) -> str:
    """The program with its `sys.argv`."""
    return f"import sys; sys.argv[1:] = {list(arguments)!r}\n{program()}"


def pack(folder: Path, archive: Path) -> None:
    """The folder's files under its own name, without what names this machine."""

    def anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
        entry.uid = entry.gid = entry.mtime = 0
        entry.uname = entry.gname = ""
        return None if entry.name.endswith(("-shm", ".sock")) else entry

    with tarfile.open(archive, "w:gz", compresslevel=9) as packed:
        packed.add(folder, archive.name.removesuffix(".tar.gz"), filter=anonymous)


def main() -> None:
    """Make the folder of this version."""
    place = GOLDEN / runferry.__version__
    if place.exists():
        sys.exit(f"{place} is there already: what a release wrote is never written again")
    with tempfile.TemporaryDirectory() as text:
        scratch = Path(text)
        (scratch / "client").mkdir()
        found = journals(scratch / "client"), data(scratch)
        place.mkdir(parents=True)
        for folder, name in zip(found, ("journals", "data"), strict=True):
            pack(folder, place / f"{name}.tar.gz")
    expected = {
        "project": PROJECT,
        "journals": {"finished": "finished", "killed": None},
        "data": {"merged": "finished", "waiting": None},
        "config": exact(CONFIG),
        "summary": exact(SUMMARY),
        "cells": cells(),
    }
    (place / "expected.json").write_text(json.dumps(expected, separators=(",", ":")) + "\n")
    sys.stdout.write(f"made {place}\n")


if __name__ == "__main__":
    main()
