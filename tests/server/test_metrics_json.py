"""Last values as JSON, written natively: what Python's own writer makes of the same values."""

from __future__ import annotations

import json
import math
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from runferry import _native
from runferry.server.http.models import Metrics
from runferry.server.store.protocol import Metric
from runferry.server.values import last_value

from tests.server.test_chart_json import ODD_NAMES
from tests.support.frames import Histogram, Json, Marker, ScriptedWriter

_values = st.one_of(
    st.floats(),
    st.sampled_from([math.nan, math.inf, -math.inf, -0.0, 5e-324, 1e308, None, "", *ODD_NAMES]),
    st.integers(-(2**63), 2**63 - 1),
    st.booleans(),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=10),
    st.builds(Histogram, st.just(0.0), st.just(1.0), st.lists(st.integers(0, 9), min_size=1, max_size=3)),
    st.builds(Json, st.dictionaries(st.sampled_from(ODD_NAMES), st.one_of(st.floats(), st.binary(max_size=3)), max_size=3)),
    st.builds(Marker, st.sampled_from(ODD_NAMES), st.sampled_from(ODD_NAMES)),
)
_names = st.one_of(st.sampled_from(ODD_NAMES), st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8))


def shown(kind: str, value: object) -> tuple[str, str]:
    """As the door says it."""
    return ("string" if kind == "marker" else kind), json.dumps(last_value(kind, value), ensure_ascii=False, allow_nan=False)


def in_python(one: Metric) -> dict[str, Any]:
    """A metric as the door shows it."""
    kind = "string" if one.kind == "marker" else one.kind
    places = {"points": one.points, "first_step": one.first_step, "last_step": one.last_step}
    return {"name": one.name, "label": one.label, "kind": kind, **places, "last": last_value(one.kind, one.last)}


@settings(max_examples=200, deadline=None)
@given(rows=st.lists(st.dictionaries(_names, _values, max_size=6), min_size=1, max_size=4), label=st.sampled_from(["", *ODD_NAMES]))
def test_last_values_are_written_as_python_would_write_them(rows: list[dict[str, Any]], label: str) -> None:
    tail = _native.Tail()
    tail.set_writers([(1, 0, 1, label, 0)])
    assert tail.add_frames([(1, ScriptedWriter().data([*enumerate(rows)]))], 1 << 30) == [None]

    found = _native.Metrics(tail, _native.StoredMetrics([]), None, 1_000)
    written = found.json(shown)

    expected = [in_python(Metric(*row)) for row in found.rows()]
    assert json.dumps(json.loads(written)) == json.dumps(expected), "the same values, kinds, signs of zero and order of members"
    assert [metric["name"] for metric in expected] == sorted({name for row in rows for name in row})
    assert len(found) == len(expected)
    assert found.last_name() == ((expected[-1]["name"], label) if expected else None)
    Metrics.model_validate({"metrics": expected})


def test_merged_and_waiting_metrics_are_put_together_by_name_and_the_newer_value_wins() -> None:
    number = b"\x01" + bytes(8)  # 0.0, as the store keeps it
    stored = [("a", "", 3, 0, 2, number, 1), ("b", "", 1, 9, 9, number, 1), ("d", "", 1, 0, 0, None, None)]
    merged = _native.StoredMetrics(stored)
    tail = _native.Tail()
    tail.set_writers([(1, 0, 1, "", 0)])
    assert tail.add_frames([(1, ScriptedWriter().data([(2, {"a": 7.0, "b": 8.0, "c": True})]))], 1 << 30) == [None]

    found = [Metric(*row) for row in _native.Metrics(tail, merged, None, 10).rows()]

    assert found == [
        Metric("a", "", "number", 4, 0, 2, 7.0),
        Metric("b", "", "number", 2, 2, 9, 0.0),
        Metric("c", "", "bool", 1, 2, 2, last=True),
        Metric("d", "", "string", 1, 0, 0, None),
    ]
    assert [row[0] for row in _native.Metrics(tail, merged, None, 2).rows()] == ["a", "b"]
    assert [row[0] for row in _native.Metrics(tail, merged, ("b", ""), 10).rows()] == ["c", "d"], "what is known may begin before"
