"""The ledger: what trainings say they logged, against what the server gives back through its read door.

A producer logs `call(thread, number)` for number 0, 1, 2, …, writes down after each call that it has returned, and dies or ends. `audit`
reads the run back and counts, as Jepsen's checker of queues does:

    attempted   calls begun: those returned, and for each thread the one that may have been cut off
    returned    calls whose `log` had returned
    stored      calls read back, whole and bit for bit
    recovered   of them, calls that had not returned
    lost        calls that had returned, are not stored, and that no GAP covers
    gapped      rows that the GAPs count
    unexpected  calls stored that nobody began, or with other values
    duplicated  calls stored twice, under two steps or (as the server counts its points) in two frames
    disordered  calls stored before an earlier one of their thread

Values follow from thread and number alone, so the ledger needs no log of its own. A thread's names are its own, so that calls of several
threads which meet in one row stay apart. What was trimmed before its ack would be lost with a GAP, so it is seen here too.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import runferry
from runferry.errors import CommError

from tests.support.exact import exact

if TYPE_CHECKING:
    from collections.abc import Sequence

OWN = ("_step", "_timestamp", "_runtime")


def call(thread: int, number: int) -> tuple[dict[str, Any], bool]:
    """The dict of a call and whether it ends its row: scalars mostly; open rows, texts, histograms, lists in between."""
    bits = (number * 0x9E37_79B9_7F4A_7C15 ^ thread << 17) & 0xFFFF_FFFF_FFFF_FFFF
    (value,) = struct.unpack("<d", struct.pack("<Q", bits))
    kind, own = number % 8, f"{thread}/"
    if kind == 4:
        return {f"{own}open": number, f"{own}part": value}, False
    row: dict[str, Any] = {f"{own}n": number, f"{own}x": value}
    if kind == 5:
        row[f"{own}text"] = f"call {number}"
    elif kind == 6:
        row[f"{own}h"] = runferry.Histogram(np_histogram=([number % 7, 1, 2], [0.0, 1.0, 2.5, 3.0]))
    elif kind == 7:
        row |= {f"{own}flag": number % 16 == 7, f"{own}none": None, f"{own}list": [number, 0.5]}
    return row, True


def cells_of(thread: int, numbers: Sequence[int]) -> dict[str, Any]:
    """What these calls of a thread leave in the row that they share, in the ledger's exact form."""
    cells: dict[str, Any] = {}
    for number in numbers:
        for name, value in call(thread, number)[0].items():
            is_histogram = isinstance(value, runferry.Histogram)
            shown = {"_type": "histogram", "values": list(value.histogram), "bins": list(value.bins)} if is_histogram else value
            cells[name] = exact(shown)
    return cells


@dataclass(frozen=True)
class Issued:
    """What one training says: for each thread how many calls had returned; and the highest durable ack it had seen."""

    run: str
    returned: tuple[int, ...]
    acked_frames: int = 0


@dataclass
class Verdict:
    """Counts of one run, or of many added up; `wrong` names the first findings."""

    attempted: int = 0
    returned: int = 0
    stored: int = 0
    recovered: int = 0
    lost: int = 0
    gapped: int = 0
    unexpected: int = 0
    duplicated: int = 0
    disordered: int = 0
    forgotten_acks: int = 0
    wrong: list[str] = field(default_factory=list)

    def add(self, other: Verdict) -> None:
        """Count another run in."""
        for one in fields(self):
            setattr(self, one.name, getattr(self, one.name) + getattr(other, one.name))
        del self.wrong[20:]

    def counts(self) -> dict[str, int]:
        """All numbers."""
        return {one.name: getattr(self, one.name) for one in fields(self) if one.name != "wrong"}

    def check(self, *, may_have_gaps: bool = False) -> None:
        """Everything is there once, in order, bit for bit.

        Raises:
            AssertionError: It is not, or there is a GAP and the scenario gives no cause for one.
        """
        faults = ["lost", "unexpected", "duplicated", "disordered", "forgotten_acks", *([] if may_have_gaps else ["gapped"])]
        found = {name: getattr(self, name) for name in faults if getattr(self, name)}
        assert not found, f"{found} of {self.counts()}: {'; '.join(self.wrong)}"


def audit(api: runferry.Api, issued: Issued) -> Verdict:
    """Read one run back."""
    verdict = Verdict(attempted=sum(issued.returned) + len(issued.returned), returned=sum(issued.returned))
    try:
        run = api.run(issued.run)
        rows = sorted(run.scan_history(), key=lambda row: int(row["_step"]))
        writers = run.writers()
    except (ValueError, CommError) as error:
        # Killed before the server had heard of it; then nothing can have returned.
        verdict.lost = verdict.returned
        if verdict.lost:
            verdict.wrong.append(f"{issued.run}: {error}")
        return verdict
    cell_count = _take_rows(verdict, issued, rows)
    gaps = [gap for writer in writers for gap in writer["gaps"]]
    verdict.gapped = sum(max(1, int(gap["rows"])) for gap in gaps)
    verdict.lost -= min(verdict.lost, sum(int(gap["rows"]) for gap in gaps))
    if gaps:
        verdict.wrong.append(f"{issued.run}: {gaps}")
    hidden = int(run.stored["points"]) - cell_count
    if hidden and not gaps:
        verdict.duplicated += max(0, hidden)
        verdict.unexpected += max(0, -hidden)
        verdict.wrong.append(f"{issued.run}: the server counts {run.stored['points']} points, its rows hold {cell_count}")
    stored_frames = max((int(writer["next_seq"]) for writer in writers), default=1) - 1
    if stored_frames < issued.acked_frames:
        verdict.forgotten_acks += issued.acked_frames - stored_frames
        verdict.wrong.append(f"{issued.run}: {issued.acked_frames} frames were acked durable, {stored_frames} are there")
    return verdict


def _take_rows(verdict: Verdict, issued: Issued, rows: Sequence[dict[str, Any]]) -> int:
    """Count the calls that the rows hold, in the order of their steps, and those they do not; the number of cells is the answer."""
    seen: list[set[int]] = [set() for _ in issued.returned]
    last = [-1 for _ in issued.returned]
    cell_count = 0
    for row in rows:
        cells = {name: exact(value) for name, value in row.items() if name not in OWN}
        cell_count += len(cells)
        for thread in sorted({int(name.partition("/")[0]) for name in cells}):
            mine = {name: value for name, value in cells.items() if name.startswith(f"{thread}/")}
            numbers = [mine[name] for name in (f"{thread}/open", f"{thread}/n") if name in mine]
            is_known = thread < len(seen) and all(isinstance(number, int) and 0 <= number <= issued.returned[thread] for number in numbers)
            if not is_known or mine != cells_of(thread, numbers):
                verdict.unexpected += 1
                verdict.wrong.append(f"{issued.run} step {row['_step']}: {mine}")
                continue
            for number in numbers:
                verdict.duplicated += number in seen[thread]
                verdict.disordered += number < last[thread]
                last[thread] = number
                seen[thread].add(number)
    for thread, returned in enumerate(issued.returned):
        missing = [number for number in range(returned) if number not in seen[thread]]
        if missing:
            verdict.wrong.append(f"{issued.run} thread {thread}: {len(missing)} of {returned} calls are missing, first {missing[0]}")
        verdict.lost += len(missing)
        verdict.stored += len(seen[thread])
        verdict.recovered += sum(number >= returned for number in seen[thread])
    return cell_count


def audit_all(url: str, issued: Sequence[Issued]) -> Verdict:
    """Read many runs back."""
    api, whole = runferry.Api({"base_url": url}), Verdict()
    for one in issued:
        whole.add(audit(api, one))
    return whole
