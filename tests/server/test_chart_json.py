"""Charts as JSON, written natively: what Python's own writer makes of the same lists."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from runferry import _native

from tests.support.frames import ScriptedWriter

EVERYTHING = (-(2**63), 2**63 - 1)
LISTS = ("step_first", "step_last", "time_last_us", "count", "min", "max", "mean", "last", "nan_count", "inf_count")
ODD_NAMES = ['a"b', "back\\slash", "line\nbreak\r\t\x00\x1f\x7f", "日本/\U0001f600", "\u2028", "</script>", "x" * 300]

_values = st.one_of(
    st.floats(),
    st.sampled_from([math.nan, math.inf, -math.inf, -0.0, 0.0, 5e-324, 1.7976931348623157e308, 1e16, 1e-7, 0.1, 123456789012345680.0]),
    st.integers(-(2**63), 2**63 - 1),
    st.booleans(),
)
_steps = st.integers(-(2**52), 2**52)


def chart(name: str, label: str, points: dict[int, Any], buckets: int) -> _native.Buckets:
    """The chart of some points that no merge has seen."""
    writer = ScriptedWriter()
    tail = _native.Tail()
    tail.set_writers([(1, 0, 1, label, 0)])
    if points:
        assert tail.add_frames([(1, writer.data([(step, {name: value}) for step, value in sorted(points.items())]))], 1 << 30) == [None]
    read = _native.SeriesRead(tail, label, name, _native.Heads([]), None, EVERYTHING, buckets)
    assert read.need() == []
    return read.finish()


def in_python(one: _native.Buckets, head: dict[str, Any]) -> dict[str, Any]:
    """The same, from its lists."""
    lists = {name: getattr(one, name) for name in LISTS}
    strict = {name: [None if value is None or not math.isfinite(value) else value for value in values] for name, values in lists.items()}
    return {"key": one.name, "label": one.label, **head, **strict}


def shown(document: object) -> str:
    """A text that is the same for the same values, kinds, signs of zero and order of members."""
    return json.dumps(document)


@settings(max_examples=200, deadline=None)
@given(
    name=st.one_of(st.sampled_from(ODD_NAMES), st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)),
    label=st.sampled_from(["", *ODD_NAMES]),
    points=st.dictionaries(_steps, _values, max_size=30),
    buckets=st.integers(1, 40),
)
def test_a_chart_is_written_as_python_would_write_its_lists(name: str, label: str, points: dict[int, Any], buckets: int) -> None:
    one = chart(name, label, points, buckets)
    whole = in_python(one, {"raw_points": one.raw_points, "drawn": len(one.count), "exact": one.is_exact})
    added = in_python(one, {"raw_points_added": one.raw_points})

    assert shown(json.loads(_native.series_json([one, one]))) == shown([whole, whole])
    assert shown(json.loads(_native.series_json([one], added=True))) == shown([added])
    assert one.raw_points == sum(one.count) == len(points)


def test_no_charts_are_an_empty_list() -> None:
    assert _native.series_json([]) == b"[]"


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_chart_without_points_has_empty_lists_and_its_name(name: str) -> None:
    (found,) = json.loads(_native.series_json([chart(name, "", {}, 10)]))

    assert (found["key"], found["drawn"], found["step_first"], found["exact"]) == (name, 0, [], True)
