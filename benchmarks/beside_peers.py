"""What does a call cost with other trackers, with ours beside it in the same process?

For each peer a process in its own environment (`peers/environments.py`) lets three calls take turns: `rows.append(dict(row))`, our
`log` with ring, journal and server on, and the peer's, offline or on local files as its documentation shows it. Units: us per call;
the ratios are those of medians of one process. Then each tracker alone, ours offline too: how long after the last call its process
ends, and how many bytes a point takes in its files by then.

Not measured: the peers' servers and networks. Where this user may make a network namespace, the processes have no network but
loopback; otherwise the switches of `peers/loggers.py` are trusted. A peer that does not install or run here is reported as absent.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.figures import ROOT, Figure
from benchmarks.peers import environments
from benchmarks.peers.environments import Absent
from benchmarks.peers.loggers import PEERS, QUIET
from benchmarks.peers.loop import ALONE_SCALARS, bytes_in
from benchmarks.scene import running_server

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

TIMEOUT_S = 600
"""Of one peer's process."""


def measure() -> Iterator[Figure]:
    """Each peer beside ours, then each alone."""
    pythons = environments.make(list(environments.PINS))
    with _network_of_loopback() as prefix:
        with running_server(prefix=prefix) as server:
            for name, peer in PEERS.items():
                yield from _beside(name, pythons[peer.distribution], prefix, server.url)
        yield _alone("runferry", Path(sys.executable), prefix)
        for name, peer in PEERS.items():
            yield _alone(name, pythons[peer.distribution], prefix)


def _beside(name: str, python: Path | Absent, prefix: Sequence[str], url: str) -> Iterator[Figure]:
    try:
        found, _, _ = _asked("beside", name, python, prefix, RUNFERRY_BASE_URL=url)
    except Absent as reason:
        yield Figure(f"10 scalars: {name}", {}, absent=str(reason))
        return
    for width, kinds in found["widths"].items():
        append, ours, theirs = kinds["append"], kinds["ours"], kinds["theirs"]
        yield Figure(
            f"{width} scalar{'' if width == '1' else 's'}: {name} {found['version']}",
            {
                **{key.replace("_ns", "_us"): value / 1000 for key, value in theirs.items() if key.endswith("_ns")},
                "calls": theirs["calls"],
                "ours_median_us": ours["median_ns"] / 1000,
                "append_median_us": append["median_ns"] / 1000,
                "times_ours": theirs["median_ns"] / ours["median_ns"],
                "times_append": theirs["median_ns"] / append["median_ns"],
                "ours_times_append": ours["median_ns"] / append["median_ns"],
            },
        )


def _alone(name: str, python: Path | Absent, prefix: Sequence[str]) -> Figure:
    try:
        found, ended_s, bytes_after = _asked("alone", name, python, prefix, RUNFERRY_MODE="offline")
    except Absent as reason:
        return Figure(f"alone: {name}", {}, absent=str(reason))
    return Figure(
        f"alone: {name}",
        {
            "rows": found["rows"],
            "logging_s": found["logged_s"] - found["began_s"],
            "until_its_end_s": ended_s - found["logged_s"],
            "rows_per_s_to_its_end": found["rows"] / (ended_s - found["began_s"]),
            "bytes_per_point": (bytes_after - found["bytes_before"]) / (found["rows"] * ALONE_SCALARS),
        },
    )


def _asked(word: str, name: str, python: Path | Absent, prefix: Sequence[str], **settings: str) -> tuple[dict[str, Any], float, int]:
    """What the loop found, the time at which its process had ended, and the bytes of all that it wrote.

    Raises:
        Absent: It was not installed, or failed; then the reason is the last that it said.
    """
    if isinstance(python, Absent):
        raise python
    with tempfile.TemporaryDirectory(prefix="runferry-bench-") as folder:
        environment = {
            **QUIET,
            **settings,
            "PATH": os.environ["PATH"],
            "HOME": folder,
            "PYTHONPATH": f"{ROOT}:{ROOT / 'python'}",
            "RUNFERRY_SILENT": "1",
        }
        try:
            done = subprocess.run(
                [*prefix, python, "-m", "benchmarks.peers.loop", word, name, folder],
                cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise Absent(f"it had not ended after {TIMEOUT_S} s") from error
        ended_s = time.monotonic()
        answer = Path(folder) / "answer.json"
        if done.returncode != 0 or not answer.exists():
            raise Absent(f"it ended with {done.returncode}: {(done.stderr.strip().splitlines() or ['no reason given'])[-1]}")
        return json.loads(answer.read_text(encoding="utf-8")), ended_s, bytes_in(Path(folder))


@contextlib.contextmanager
def _network_of_loopback() -> Iterator[Sequence[str]]:
    """Words before a command that leave it no network but loopback; none where this user may not do that."""
    name = f"rfbench{secrets.token_hex(3)}"
    try:
        subprocess.run(["ip", "netns", "add", name], check=True, capture_output=True)  # noqa: S607 - ip as installed
    except (OSError, subprocess.CalledProcessError):
        print("  no network namespace can be made: the peers' switches are trusted", flush=True)
        yield ()
        return
    try:
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)  # noqa: S607 - as above
        yield ("ip", "netns", "exec", name)
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)  # noqa: S607 - as above
