"""The ledger itself: it must see what it is there to see."""

from __future__ import annotations

from typing import Any, cast

import pytest
import runferry

from tests.support.ledger import Issued, Verdict, audit, call

CALLS = 20


class Stored:
    """A run as `Api` gives it, from the calls that were stored."""

    def __init__(self, rows: list[dict[str, Any]], points: int | None = None, gaps: list[dict[str, Any]] | None = None) -> None:
        self.rows, self.gaps = [{"_step": step, **row} for step, row in enumerate(rows)], gaps or []
        self.stored = {"points": sum(len(row) for row in rows) if points is None else points}

    def scan_history(self) -> list[dict[str, Any]]:
        return self.rows

    def writers(self) -> list[dict[str, Any]]:
        return [{"gaps": self.gaps, "next_seq": 4}]

    def run(self, path: str) -> Stored:
        del path
        return self


def rows(numbers: list[int]) -> list[dict[str, Any]]:
    """What the server gives back of these calls; an open row lies in the row of the next call."""
    found: list[dict[str, Any]] = [{}]
    for number in numbers:
        values, is_whole = call(0, number)
        for name, value in values.items():
            is_histogram = isinstance(value, runferry.Histogram)
            found[-1][name] = {"_type": "histogram", "values": value.histogram, "bins": value.bins} if is_histogram else value
        if is_whole:
            found.append({})
    return [row for row in found if row]


def judge(stored: Stored, returned: int = CALLS, acked_frames: int = 3) -> Verdict:
    return audit(cast("runferry.Api", stored), Issued("a/b/c", (returned,), acked_frames))


def test_what_is_whole_passes_with_or_without_the_call_that_was_cut_off() -> None:
    judge(Stored(rows(list(range(CALLS))))).check()
    more = judge(Stored(rows(list(range(CALLS + 1)))))
    more.check()
    assert (more.stored, more.recovered) == (CALLS + 1, 1)


@pytest.mark.parametrize(
    ("finding", "stored"),
    [
        ("lost", Stored(rows([number for number in range(CALLS) if number != 9]))),
        ("lost", Stored(rows(list(range(CALLS - 1))))),
        ("unexpected", Stored(rows(list(range(CALLS + 2))))),
        ("unexpected", Stored([{**row, "0/x": 0.5} if row.get("0/n") == 9 else row for row in rows(list(range(CALLS)))])),
        ("unexpected", Stored([{**row, "0/n": 9.0} if row.get("0/n") == 9 else row for row in rows(list(range(CALLS)))])),
        ("duplicated", Stored(rows([*range(CALLS), CALLS - 1]))),
        ("duplicated", Stored(rows(list(range(CALLS))), points=sum(len(row) for row in rows(list(range(CALLS)))) + 2)),
        ("disordered", Stored(rows([0, 2, 1, *range(3, CALLS)]))),
        ("gapped", Stored(rows(list(range(CALLS))), gaps=[{"rows": 1}])),
    ],
)
def test_what_is_wrong_is_named(finding: str, stored: Stored) -> None:
    verdict = judge(stored)

    assert getattr(verdict, finding) > 0, verdict
    with pytest.raises(AssertionError, match=finding):
        verdict.check()


def test_what_a_gap_counts_is_not_lost() -> None:
    verdict = judge(Stored(rows([number for number in range(CALLS) if number != 9]), gaps=[{"rows": 1}]))

    verdict.check(may_have_gaps=True)
    assert (verdict.lost, verdict.gapped) == (0, 1)


def test_an_ack_the_server_does_not_remember_is_named() -> None:
    assert judge(Stored(rows(list(range(CALLS)))), acked_frames=5).forgotten_acks == 2
