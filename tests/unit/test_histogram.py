"""`Histogram`: numpy's bins, the W&B SDK's limits."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from runferry import Histogram


@given(st.lists(st.floats(-1e6, 1e6, allow_subnormal=False), min_size=1, max_size=200), st.integers(1, 512))
def test_every_number_falls_into_exactly_one_bin(numbers: list[float], bins: int) -> None:
    histogram = Histogram(numbers, num_bins=bins)

    assert sum(histogram.histogram) == len(numbers)
    assert len(histogram.histogram) == bins
    assert len(histogram.bins) == bins + 1
    if min(numbers) != max(numbers):
        assert (histogram.bins[0], histogram.bins[-1]) == (min(numbers), max(numbers))


@pytest.mark.parametrize("numbers", [[1, 1, 2], [0.0, 0.5, 1.0], list(range(100)), [-1e-3, 7.0]])
def test_bins_are_numpys(numbers: list[float]) -> None:
    counts, edges = np.histogram(numbers, 64)

    histogram = Histogram(numbers)

    assert histogram.histogram == counts.tolist()
    assert histogram.bins == pytest.approx(edges.tolist())


def test_nested_lists_tuples_and_arrays_are_flattened() -> None:
    by_list = Histogram([[1, 2], [3, (4,)]], num_bins=3)

    assert by_list.histogram == Histogram(np.array([[1, 2], [3, 4]]), num_bins=3).histogram == [1, 1, 2]


def test_without_values_all_counts_are_zero() -> None:
    assert Histogram([]).histogram == [0] * 64
    assert Histogram(np.array([])).histogram == [0] * 64


def test_counts_and_edges_can_be_given() -> None:
    histogram = Histogram(np_histogram=np.histogram([1, 2, 2, 5], bins=[0, 2, 4, 6]))

    assert histogram.to_json() == {"_type": "histogram", "values": [1, 2, 1], "bins": [0.0, 2.0, 4.0, 6.0]}


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("as_array", [False, True])
def test_a_value_without_a_place_is_a_value_error(bad: float, as_array: bool) -> None:  # noqa: FBT001 - a parameter of the test
    values = [1.0, bad, 2.0]

    with pytest.raises(ValueError, match="no finite range"):
        Histogram(np.array(values) if as_array else values)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({}, "give either"),
        ({"sequence": [1], "np_histogram": ([1], [0, 1])}, "give either"),
        ({"sequence": [1], "num_bins": 513}, "513 bins, 1 to 512 are allowed"),
        ({"sequence": [1], "num_bins": 0}, "0 bins"),
        ({"np_histogram": ([1, 2], [0, 1])}, "2 bins need 3 edges, found 2"),
        ({"np_histogram": ([1] * 513, list(range(514)))}, "513 bins"),
        ({"np_histogram": ([1], [1, 0])}, "ascend"),
        ({"np_histogram": ([-1], [0, 1])}, "zero or more"),
    ],
)
def test_a_wrong_argument_is_a_value_error_that_says_what_is_needed(arguments: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Histogram(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", ["text", ["a"], [None], 3j])
def test_what_is_no_number_is_a_type_error(wrong: object) -> None:
    with pytest.raises(TypeError, match="made of numbers"):
        Histogram(wrong)
