"""`run.log` in a loop takes a short way that the class's `Run.log` does not: both leave the same rows, whatever is logged."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import runferry
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.exact import exact, from_bits
from tests.support.interpreters import interpreters
from tests.support.watched import watched
from tests.unit.conftest import Journals

if TYPE_CHECKING:
    from collections.abc import Sequence

NAMES = (("a",), ("loss", "lr", "epoch"), ("loss", "lr", "größe"), ("lr", "loss", "epoch"), tuple(f"m{index}" for index in range(40)))
NUMPY = ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool_")


class Key(str):
    """A name of a type of its own."""

    __slots__ = ()


class Number(float):
    """A float of a type of its own."""

    __slots__ = ()


floats = st.integers(0, 2**64 - 1).map(from_bits) | st.floats(allow_nan=True)
of_numpy = st.builds(lambda kind, number: getattr(np, kind)(number), st.sampled_from(NUMPY), st.integers(0, 120))
values = st.one_of(
    floats, floats, floats, st.integers(-(2**70), 2**70), st.booleans(), st.none(), st.text(max_size=3), of_numpy, st.builds(Number, floats)
)
steps = st.none() | st.integers(0, 30) | st.sampled_from([True, 2**63 - 1, 2**63, -1, np.int64(7)])


@st.composite
def calls(draw: st.DrawFn) -> tuple[dict[str, Any], tuple[Any, ...], dict[str, Any]]:
    """A dict under known or fresh key objects, and how the step is given."""
    names: Sequence[str] = draw(st.sampled_from(NAMES))
    form = draw(st.sampled_from(["same", "same", "fresh", "odd"]))
    if form == "fresh":
        names = ["".join([*name]) for name in names]
    elif form == "odd":
        names = [Key(name) for name in names]
    kinds = draw(st.sampled_from([floats, values]))
    data = {name: draw(kinds) for name in names}
    step, way = draw(steps), draw(st.sampled_from(["none", "none", "name", "place", "both"]))
    commit = draw(st.sampled_from([None, True, False]))
    return {
        "none": (data, (), {}),
        "name": (data, (), {"step": step}),
        "place": (data, (step,), {}),
        "both": (data, (), {"commit": commit, "step": step}),
    }[way]


@given(logged=st.lists(calls(), min_size=1, max_size=25))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_short_way_and_the_long_way_leave_the_same_rows(logged: list[Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    found = []
    for is_short in (True, False):
        folder = tmp_path_factory.mktemp("run")
        run = runferry.init(mode="offline", dir=folder, settings={"silent": True})
        log = run.log if is_short else lambda *args, of=run, **options: runferry.Run.log(of, *args, **options)
        for data, args, options in logged:
            log(data, *args, **options)
        step, status = run.step, run.status()
        run.finish()
        counts = (status.accepted_rows, status.behind_rows, status.dropped_rows, status.dropped_values, status.marked_values)
        rows = Journals(Path(folder)).rows()
        found.append((step, counts, {at: exact(row) for at, row in rows.items()}))

    assert found[0] == found[1]


@pytest.mark.parametrize("kind", NUMPY)
def test_scalars_of_numpy_are_what_numpy_says(kind: str, journals: Journals) -> None:
    of_kind = getattr(np, kind)
    limits = (np.finfo(of_kind).min, np.finfo(of_kind).max, 0.1, -0.0, math.inf, math.nan) if kind.startswith("float") else None
    numbers = limits or ((0, 1) if kind == "bool_" else (np.iinfo(of_kind).min, np.iinfo(of_kind).max, 1))
    scalars = [of_kind(number) for number in numbers]
    run = runferry.init(mode="offline")

    for scalar in scalars + scalars:
        run.log({"x": scalar})
    run.finish()

    stored = [row["x"] for _, row in sorted(journals.rows().items())]
    expected = [scalar.item() for scalar in scalars]
    assert [exact(value) for value in stored[len(scalars) :]] == [exact(value) for value in stored[: len(scalars)]]
    if kind != "uint64":
        assert [exact(value) for value in stored[: len(scalars)]] == [exact(value) for value in expected]


@pytest.mark.timeout(240)
@pytest.mark.parametrize("version", interpreters())
def test_in_every_python_a_value_is_read_as_it_is(tmp_path: Path, version: str) -> None:
    """Where an object keeps its value is no part of the stable ABI."""
    bits = [0, 1, 1 << 63, 0x7FF0000000000000, 0x7FF8000000000001, 0x0123456789ABCDEF, 0xC000000000000000]
    code = f"""
import struct, runferry
run = runferry.init(mode="offline", dir={str(tmp_path)!r}, settings={{"silent": True}})
floats = [struct.unpack("<d", struct.pack("<Q", bits))[0] for bits in {bits}]
for _ in range(3):
    for value in floats:
        run.log({{"float": value, "int": -(2**63), "bool": True, "none": None}})
    for value in floats:
        run.log({{"float": value, "other": value}})
run.finish()
"""
    ended = watched(code, tmp_path, python=interpreters()[version])

    assert (ended.returncode, ended.stderr) == (0, "")
    rows = [row for _, row in sorted(Journals(tmp_path).rows().items())]
    floats_of_rows = [struct.unpack("<Q", struct.pack("<d", row["float"]))[0] for row in rows]
    assert floats_of_rows == bits * 6
    assert all(exact(row).get("map", {}) | {"float": 0} == exact({"int": -(2**63), "bool": True, "none": None})["map"] | {"float": 0}
               for row in rows if "int" in row)  # fmt: skip
    assert sum("int" in row for row in rows) == 3 * len(bits)


@pytest.mark.parametrize(
    ("arguments", "options", "told"),
    [
        ((), {}, "missing 1 required positional argument: 'data'"),
        (({}, 1, True, 4), {}, "takes .* positional arguments"),
        (({},), {"stepp": 1}, "unexpected keyword argument 'stepp'"),
        (({},), {"step": "three"}, "'str' object cannot be interpreted as an integer|argument 'step'"),
        (([("a", 1)],), {}, "must be passed a dictionary"),
        (({1: 2},), {}, "must be strings"),
    ],
)
def test_a_wrong_call_is_told_as_ever(arguments: tuple[Any, ...], options: dict[str, Any], told: str) -> None:
    run = runferry.init(mode="offline")

    with pytest.raises(TypeError, match=told):
        run.log(*arguments, **options)

    assert run.status().accepted_rows == 0
    run.finish()


def test_all_arguments_may_be_named(journals: Journals) -> None:
    run = runferry.init(mode="offline")

    run.log(data={"a": 1.0}, step=4, commit=True)
    run.log(step=6, data={"a": 2.0})
    run.finish()

    assert journals.rows() == {4: {"a": 1.0}, 6: {"a": 2.0}}
