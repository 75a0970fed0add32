"""What a run's summary holds of its metrics: all of them, as long as that is a document."""

from __future__ import annotations

import json

import pytest
from runferry.server.documents import MAX_DOCUMENT_BYTES
from runferry.server.store.protocol import Metric
from runferry.server.values import LEFT_OUT, last_summary


@pytest.mark.fault(60)
@pytest.mark.parametrize("value", [0.5, "text", "x" * (MAX_DOCUMENT_BYTES + 1)])
def test_a_summary_of_very_many_names_is_no_larger_than_a_document_and_says_how_many_are_left_out(value: object) -> None:
    kind = "number" if isinstance(value, float) else "string"
    count = 100_000 if len(str(value)) < 100 else 300  # as many as do not fit
    metrics = [Metric(f"{number:07}{'n' * (10_000_000 // count)}", "", kind, 1, 0, 0, value) for number in range(count)]

    summary = last_summary(metrics)

    left_out = summary.pop(LEFT_OUT)
    assert left_out > 0
    assert len(summary) + left_out == count
    assert len(json.dumps(summary)) <= MAX_DOCUMENT_BYTES


def test_a_summary_that_fits_has_every_name() -> None:
    metrics = [Metric(f"m{number}", "", "number", 1, 0, 0, number) for number in range(1_000)]

    assert last_summary(metrics) == {f"m{number}": number for number in range(1_000)}
