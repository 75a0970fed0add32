"""Stored metric values as JSON: what summaries, listings and histograms answer."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from runferry import _native
from runferry.server.documents import MAX_DOCUMENT_BYTES, json_value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runferry.server.store.protocol import Metric


_NUMBER_BYTES = 24
_BETWEEN_BYTES = 4
_TOLD_BYTES = 64
LEFT_OUT = "_left_out"
"""Stands in a summary for the metrics that have no place in it: how many."""


def last_value(kind: str, last: object) -> Any:
    """The last value of a series as JSON; a histogram in W&B's form, a value that could not be kept as its text."""
    if kind == "histogram" and isinstance(last, bytes):
        return histogram_value(last)
    if kind == "marker" and isinstance(last, list | tuple) and len(last) == 2:  # noqa: PLR2004 - type and text
        return str(last[1])
    return json_value(last)


def histogram_value(value: bytes) -> dict[str, Any]:
    """A stored histogram as W&B writes one, with its counts of NaN and infinities where there are any."""
    try:
        edges, counts, nan_count, inf_count = _native.histogram_decode(value)
    except ValueError as error:  # anybody may have sent it
        return {"_type": "damaged", "value": str(error)}
    beyond = {name: count for name, count in (("nan_count", nan_count), ("inf_count", inf_count)) if count}
    return {"_type": "histogram", "bins": json_value(edges), "values": json_value(counts), **beyond}


def last_summary(metrics: Sequence[Metric], beyond: int = 0) -> dict[str, Any]:
    """The last value of each name; of several labels the one that is furthest. A null makes no entry.

    Values that would make the document larger than is kept are only told of; of names beyond that only the number is, under `LEFT_OUT`,
    with those that are not even in `metrics` (`beyond`).
    """
    furthest: dict[str, Metric] = {}
    for metric in sorted(metrics, key=lambda metric: metric.label, reverse=True):
        known = furthest.get(metric.name)
        if known is None or metric.last_step >= known.last_step:
            furthest[metric.name] = metric
    summary: dict[str, Any] = {}
    left_bytes = MAX_DOCUMENT_BYTES
    left_out = beyond
    for name, metric in sorted(furthest.items()):
        if metric.kind == "null":
            continue
        value = last_value(metric.kind, metric.last)
        name_bytes = len(json.dumps(name)) + _BETWEEN_BYTES
        size_bytes = name_bytes + (len(json.dumps(value)) if isinstance(value, str | list | dict) else _NUMBER_BYTES)
        if size_bytes > left_bytes:
            value = {"_type": "too_large", "value": f"{size_bytes} bytes"}
            size_bytes = name_bytes + _TOLD_BYTES
        if size_bytes > left_bytes:
            left_out += 1
            continue
        left_bytes -= size_bytes
        summary[name] = value
    if left_out:
        summary[LEFT_OUT] = left_out
    return summary
