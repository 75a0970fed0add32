"""Every way to end a training x what the server does x where `log` is called at that moment x the installed Python versions.

No end hangs or crashes, none changes the exit code, and what was accepted is stored once, in order. All programs of a round log
into one folder, several at a time: whoever comes later adopts what the killed ones left. In CI each combination meets one version;
RUNFERRY_EFFORT_EXIT_ROUNDS says how many rounds there are, and after as many rounds as there are versions each has met all.
"""

from __future__ import annotations

import itertools
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.support import stored
from tests.support.effort import effort, record
from tests.support.interpreters import interpreters
from tests.support.trainers import command
from tests.support.watched import watched

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from tests.support.servers import RunningServer

NOBODY = "http://127.0.0.1:9"
"""An address where no server answers."""
ROUNDS = effort("exit_rounds", 1)
AT_ONCE = 4
HANG_S = 120.0

PROGRAM = """
import mmap, os, signal, sys, threading, time
import runferry
from runferry import _current
ending, place, run_id = sys.argv[1:4]
with open(run_id + ".returned", "w+b") as file:  # a page that outlives the process: how many calls had returned
    file.truncate(16)
    returned = mmap.mmap(file.fileno(), 16)
run = runferry.init(project="exits", id=run_id, settings={"silent": True})

def work(calls):
    number = 0
    while number < calls:
        more = {"list": [1, 2], "histogram": runferry.Histogram([1.0, 2.0])} if number % 4 == 0 else {}
        run.log({"n": number, **more})
        number += 1
        returned[:8] = number.to_bytes(8, "little")
        if number % 500 == 0:
            time.sleep(0.001)  # a ring that is full drops rows, counted: another test's matter

def signals(*numbers):
    while int.from_bytes(returned[:8], "little") < 100:
        time.sleep(0.001)
    returned[8:] = returned[:8]
    for number in numbers:
        os.kill(os.getpid(), number)
        until = time.monotonic() + 0.5
        while not _current.is_ending() and time.monotonic() < until:
            time.sleep(0.001)

def ends():
    if ending == "sys-exit": sys.exit(7)
    if ending == "exception": raise ValueError("bad batch")
    if ending == "os-exit": os._exit(3)
    if ending == "abort": os.abort()

numbers = {
    "sigterm": [signal.SIGTERM], "sigint": [signal.SIGINT], "sigint-twice": [signal.SIGINT] * 2, "sigkill": [signal.SIGKILL],
}.get(ending)
if numbers:
    threading.Thread(target=signals, args=numbers, daemon=True).start()
if place == "daemon":
    threading.Thread(target=work, args=(10**9,), daemon=True).start()
    while int.from_bytes(returned[:8], "little") < 100:
        time.sleep(0.001)
    if numbers:
        time.sleep(60)
else:
    work(10**9 if numbers else 100)
returned[8:] = returned[:8]
ends()
"""


@dataclass(frozen=True)
class Ending:
    """What the process, and the server if it is told, must say of an ending."""

    code: int
    run_code: int | None


ENDINGS = {
    "return": Ending(0, 0),
    "sys-exit": Ending(7, 7),
    "exception": Ending(1, 1),
    "os-exit": Ending(3, None),
    "abort": Ending(-signal.SIGABRT, None),
    "sigterm": Ending(-signal.SIGTERM, None),
    "sigint": Ending(-signal.SIGINT, 255),
    "sigint-twice": Ending(-signal.SIGINT, 255),
    "sigkill": Ending(-signal.SIGKILL, None),
}
SERVERS = ("online", "gone", "offline", "disabled")
PLACES = ("main", "daemon")


@dataclass(frozen=True)
class Combination:
    """One program."""

    ending: str
    server: str
    place: str
    version: str
    round: int

    @property
    def run_id(self) -> str:
        return f"{self.ending}-{self.server}-{self.place}-{self.version.replace('.', '-')}-{self.round}"


def combinations(number: int) -> list[Combination]:
    """Those of a round; over the rounds each meets every version."""
    versions = list(interpreters())
    all_of_them = enumerate(itertools.product(ENDINGS, SERVERS, PLACES))
    return [Combination(*one, versions[(place + place // len(versions) + number) % len(versions)], number) for place, one in all_of_them]


def run(one: Combination, folder: Path, url: str) -> subprocess.CompletedProcess[str]:
    settings = {
        "online": {"base_url": url, "exit_timeout": "60"},
        "gone": {"base_url": NOBODY, "exit_timeout": "0.3"},
        "offline": {"mode": "offline"},
        "disabled": {"mode": "disabled"},
    }[one.server]
    arguments = [one.ending, one.place, one.run_id]
    return watched(PROGRAM, folder, python=interpreters()[one.version], arguments=arguments, hang_s=HANG_S, **settings)


def complaint(one: Combination, ended: subprocess.CompletedProcess[str]) -> str | None:
    """What is wrong with how a program has ended."""
    said = ended.stderr
    if ended.returncode != ENDINGS[one.ending].code:
        return f"{one.run_id} ended with {ended.returncode}: {said}"
    expected = {
        "exception": "ValueError: bad batch",
        "sigint": "KeyboardInterrupt",
        "sigint-twice": "KeyboardInterrupt",
        "abort": "Aborted",
    }
    if one.ending not in expected:
        return f"{one.run_id} said: {said}" if said else None
    is_crash = "panicked" in said or ("Fatal" in said and one.ending != "abort")
    return f"{one.run_id} said: {said}" if is_crash or expected[one.ending] not in said else None


def loss(one: Combination, folder: Path, url: str) -> tuple[int, str | None]:
    """Rows stored of a program, and what is wrong with them."""
    counts = (folder / f"{one.run_id}.returned").read_bytes()
    returned, at_the_end = (int.from_bytes(part, "little") for part in (counts[:8], counts[8:]))
    path = f"local/exits/{one.run_id}"
    found = [row["n"] for row in stored.rows(url, path, keys=["n"])]
    if found != list(range(len(found))):
        return len(found), f"{one.run_id}: out of order, twice or missing: {found}"
    # At the end of the interpreter the calls of threads are turned away from some moment on, and return. All others were accepted.
    is_turned_away = ENDINGS[one.ending].run_code is not None and one.place == "daemon"
    is_whole = at_the_end <= len(found) <= returned + 1 if is_turned_away else len(found) - returned in {0, 1}
    if not is_whole or len(found) < 100:
        return len(found), f"{one.run_id}: {returned} calls had returned, {at_the_end} when it began to end, {len(found)} are stored"
    gaps, code = stored.gaps(url, path), stored.run(url, path).stored["exit_code"]
    # A second Ctrl-C may come before the run's end is written: then the next `init` or `sync` finds an orphan, rows and all.
    expected = {ENDINGS[one.ending].run_code, *([None] if one.ending == "sigint-twice" else [])}
    if gaps or code not in expected:
        return len(found), f"{one.run_id}: gaps {gaps}, exit code {code}"
    return len(found), None


@pytest.mark.fault(65, 66, 76, 78)
@pytest.mark.timeout(300)
def test_every_ending_keeps_its_exit_code_and_what_was_accepted(server: RunningServer, tmp_path: Path) -> None:
    programs = rows = 0
    for number in range(ROUNDS):
        folder = tmp_path / str(number)
        folder.mkdir()
        tried = combinations(number)

        with ThreadPoolExecutor(AT_ONCE) as pool:
            ended = list(pool.map(lambda one: run(one, folder, server.url), tried))  # noqa: B023 - done before the next round

        wrong = [said for one, end in zip(tried, ended, strict=True) if (said := complaint(one, end)) is not None]
        assert wrong == [], "\n".join(wrong)
        synced = command(folder, "sync", str(folder / "runferry"), base_url=server.url)
        assert synced.returncode == 0, synced.stdout + synced.stderr
        checked = [loss(one, folder, server.url) for one in tried if one.server != "disabled"]
        wrong = [said for _, said in checked if said is not None]
        assert wrong == [], "\n".join(wrong)
        programs, rows = programs + len(tried), rows + sum(count for count, _ in checked)
    versions = " ".join(interpreters())
    record("exit matrix", programs=programs, rows=rows, versions=versions, hangs=0, crashes=0, lost_rows=0)
