"""Comparing what writers packed with what a server stores: the account behind "nothing was lost".

Each writer keeps a receipt: points and a 64-bit checksum per metric, over step, kind and every bit of every value. It stands in its
journal and in the last frame it sends. The server adds up its stored bytes in the same way. Where both sides have
the same count and the same sum, what was packed is stored, bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from runferry._native import JournalReceipt

ROWS = ""
"""Stands for the rows themselves among the metrics."""
_LOST_ON_THE_WAY = frozenset({"corrupt", "missing", "rejected", "server_regressed", "disk"})
"""Reasons of GAPs that stand for rows which had been packed; the others tell of rows that never were."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A metric of which the two sides do not agree."""

    metric: str
    """Its name; empty: the rows themselves."""
    logged_points: int
    stored_points: int
    """Equal to `logged_points` where values differ."""


@dataclass(frozen=True, slots=True)
class WriterVerdict:
    """One writer (a start of a process), compared."""

    writer_id: str
    source: str
    """Where its receipt came from: `journal`, `server` (its last frame), `none`."""
    logged_rows: int = 0
    stored_rows: int = 0
    logged_points: int = 0
    stored_points: int = 0
    metrics: int = 0
    pending_frames: int = 0
    """Frames in its journal that the server does not have yet; they are not part of the comparison."""
    differences: tuple[Difference, ...] = ()
    explained_rows: int | None = 0
    """Rows that GAPs of this writer say were lost after they had been packed; None: a GAP could not count them."""
    never_packed_rows: int = 0
    """Rows that GAPs of this writer say were dropped or thinned before."""
    explanations: tuple[str, ...] = ()
    """Reasons of all its GAPs."""

    @property
    def verdict(self) -> str:
        """`whole`; `pending`: whole so far, more waits in the journal; `explained`: GAPs tell what is missing; `differs`; `unknown`."""
        if self.source == "none":
            return "unknown"
        if not self.differences:
            return "pending" if self.pending_frames else "whole"
        missing = [one.logged_points - one.stored_points for one in self.differences]
        # A row that was lost takes at most one point of a metric with it.
        is_told = self.explained_rows is None or max(missing) <= self.explained_rows
        return "explained" if is_told and min(missing) > 0 else "differs"


@dataclass(frozen=True, slots=True)
class Verification:
    """A run, compared writer by writer."""

    run: str
    writers: tuple[WriterVerdict, ...] = field(default_factory=tuple)

    @property
    def is_whole(self) -> bool:
        """Whether everything that was logged is stored, bit for bit, and nothing was dropped."""
        return bool(self.writers) and all(one.verdict == "whole" and not one.never_packed_rows for one in self.writers)


def compare(
    run: str, stored: Iterable[Mapping[str, Any]], gaps: Mapping[str, list[Mapping[str, Any]]], journals: Mapping[str, str]
) -> Verification:
    """Compare what the server answered with receipts; a journal at hand is preferred to what the server was told.

    Args:
        run: Path of the run.
        stored: Writers of `GET .../receipts`.
        gaps: GAPs by writer, of `GET .../writers`.
        journals: Folder of the journal by writer, where there is one on this machine.
    """
    known = {writer["writer_id"]: writer for writer in stored}
    unsent: dict[str, Mapping[str, Any]] = {
        writer_id: {"writer_id": writer_id, "next_seq": 1, "receipt": None, "stored": []} for writer_id in journals
    }
    return Verification(
        run,
        tuple(
            _compare_writer(writer, gaps.get(writer_id, []), journals.get(writer_id))
            for writer_id, writer in sorted({**unsent, **known}.items())
        ),
    )


def _compare_writer(writer: Mapping[str, Any], gaps: list[Mapping[str, Any]], journal: str | None) -> WriterVerdict:
    lost = [gap["rows"] for gap in gaps if gap["reason"] in _LOST_ON_THE_WAY]
    told: dict[str, Any] = {
        "explained_rows": sum(lost) if all(lost) else None,
        "never_packed_rows": sum(gap["rows"] for gap in gaps) - sum(lost),
        "explanations": tuple(sorted({gap["reason"] for gap in gaps})),
    }
    local = _journal_receipt(journal, writer["next_seq"]) if journal else None
    if local is not None and (local["covers"] == writer["next_seq"] or writer["receipt"] is None):
        source, logged, rest, pending = "journal", local["metrics"], local["rest"], max(0, local["next_seq"] - writer["next_seq"])
    elif writer["receipt"] is not None:
        source, logged, rest, pending = "server", writer["receipt"]["metrics"], writer["receipt"]["rest"], 0
    else:
        return WriterVerdict(writer["writer_id"], "none", **told)
    differences, logged_points, stored_points = _differences(logged, tuple(rest), writer["stored"])
    by_name = {name: points for name, points, _ in logged}
    return WriterVerdict(
        writer["writer_id"],
        source,
        logged_rows=by_name.get(ROWS, 0),
        stored_rows=sum(points for name, points, _ in writer["stored"] if name == ROWS),
        logged_points=logged_points,
        stored_points=stored_points,
        metrics=len(by_name) - (ROWS in by_name),
        pending_frames=pending,
        differences=tuple(differences),
        **told,
    )


def _journal_receipt(journal: str, until: int) -> JournalReceipt | None:
    from runferry import _native  # noqa: PLC0415 - not needed to ask a server

    try:
        found = _native.journal_receipt(journal, until)
    except ValueError:
        return None
    return None if found["unreadable_frames"] else found


def _differences(
    logged: Iterable[tuple[str, int, int]], rest: tuple[int, ...], stored: Iterable[tuple[str, int, int]]
) -> tuple[list[Difference], int, int]:
    """What differs, then points logged and points stored, rows not counted among either."""
    from runferry import _native  # noqa: PLC0415 - as above

    left = {name: (points, total) for name, points, total in logged}
    right = {name: (points, total) for name, points, total in stored}
    others = [(name, *right[name]) for name in right.keys() - left.keys()]
    rest_stored = _native.sums_together(others)
    found = [Difference(name, left[name][0], right.get(name, (0, 0))[0]) for name in sorted(left) if left[name] != right.get(name, (0, 0))]
    if tuple(rest) != rest_stored:
        shown = "metrics beyond the first 16,384" if rest[0] else ", ".join(sorted(name for name, *_ in others))
        found.append(Difference(shown, rest[0], rest_stored[0]))
    count = {side: sum(points for name, (points, _) in sums.items() if name != ROWS) for side, sums in (("left", left), ("right", right))}
    return found, count["left"] + rest[0], count["right"]
