"""The table at the end of the demo."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from audit import Audit
    from ledger import Entry
    from stored import Stored

_LABEL_CHARS, _NUMBER_CHARS = 53, 11
_NS_PER_US, _KIB_BYTES = 1000, 1024


@dataclass(frozen=True, slots=True)
class RankResult:
    """What is known of one rank when all is over."""

    audit: Audit
    entries: Sequence[Entry]
    starts: int
    """Processes that wrote to the run, as the server counts them."""
    gaps: int
    """Counted absences, as the server counts them."""
    test_accuracy_ratio: float
    journaled_bytes: int
    """Bytes of frames of the last process, which went to the journal and over the wire alike."""
    journaled_points: int

    @staticmethod
    def journal_counts(status_file: Path) -> tuple[int, int]:
        """Bytes and points of the frames of a worker that ended well, from the `run.status()` it left behind."""
        status = json.loads(status_file.read_text(encoding="utf-8"))
        return int(status["journaled_bytes"]), int(status["packed_points"])


def table_of(ranks: Sequence[RankResult], stored: Stored) -> str:
    """The table, one column a rank and one for all."""
    total = ranks[0].audit
    for rank in ranks[1:]:
        total += rank.audit
    audits = [*(rank.audit for rank in ranks), total]
    blank = [""] * len(ranks)
    lines = [
        _line("", [*(f"rank {index}" for index in range(len(ranks))), "together"]),
        _line("log calls that returned", _counts(audit.calls for audit in audits)),
        _line("rows stored, read back from the server", _counts(audit.stored_rows for audit in audits)),
        _line("  lost", _counts(audit.lost_rows for audit in audits)),
        _line("  duplicated", _counts(audit.duplicated_rows for audit in audits)),
        _line("  changed in any bit", _counts(audit.changed_rows for audit in audits)),
        _line("  of a call cut off by the kill", _counts(audit.unseen_rows for audit in audits)),
        _line("process starts", _counts([*(rank.starts for rank in ranks), sum(rank.starts for rank in ranks)])),
        _line("gaps counted by the server", _counts([*(rank.gaps for rank in ranks), sum(rank.gaps for rank in ranks)])),
        _line("test accuracy at the end", [f"{rank.test_accuracy_ratio:.3f}" for rank in ranks]),
        "",
        _line("points stored (a histogram is one)", _counts(audit.points for audit in audits)),
        _line("bytes per point, on the wire and in the journal", _bytes_per_point(ranks)),
        _line("bytes per point, merged into the server's store", [*blank, f"{stored.merged_bytes / max(1, stored.merged_points):.1f}"]),
        _line("KiB, all of the server's files, empty pages included", [*blank, f"{stored.files_bytes // _KIB_BYTES:,}"]),
        "",
        *_cost_lines([rank.entries for rank in ranks]),
    ]
    return "\n".join(lines)


def _counts(numbers: Iterable[int]) -> list[str]:
    return [f"{number:,}" for number in numbers]


def _bytes_per_point(ranks: Sequence[RankResult]) -> list[str]:
    pairs = [(rank.journaled_bytes, rank.journaled_points) for rank in ranks]
    pairs.append((sum(pair[0] for pair in pairs), sum(pair[1] for pair in pairs)))
    return [f"{size_bytes / max(1, points):.1f}" for size_bytes, points in pairs]


def _cost_lines(ledgers: Sequence[Sequence[Entry]]) -> list[str]:
    """What the training loop paid: medians, and the call that one in a thousand is slower than."""
    everything = [entry for entries in ledgers for entry in entries]
    scalar_calls = [[entry.log_ns for entry in entries if not entry.histograms_ns] for entries in [*ledgers, everything]]
    histogram_calls = [[entry.log_ns for entry in entries if entry.histograms_ns] for entries in [*ledgers, everything]]
    making = [[entry.histograms_ns for entry in entries if entry.histograms_ns] for entries in [*ledgers, everything]]
    return [
        _line("us in run.log(), scalars only, median", _quantiles(scalar_calls, 0.5)),
        _line("us in run.log(), scalars only, p99.9", _quantiles(scalar_calls, 0.999)),
        _line("us in run.log(), scalars and 8 histograms, median", _quantiles(histogram_calls, 0.5)),
        _line("us in run.log(), scalars and 8 histograms, p99.9", _quantiles(histogram_calls, 0.999)),
        _line("us to make 8 histograms of 9,620 values, median", _quantiles(making, 0.5)),
    ]


def _quantiles(samples: Sequence[Sequence[int]], quantile: float) -> list[str]:
    return [f"{sorted(times_ns)[int(quantile * (len(times_ns) - 1))] / _NS_PER_US:.1f}" if times_ns else "-" for times_ns in samples]


def _line(label: str, numbers: Sequence[str]) -> str:
    return f"  {label:<{_LABEL_CHARS}}" + "".join(f"{number:>{_NUMBER_CHARS}}" for number in numbers)
