"""Every kind of value that the W&B SDK takes, logged and read back from the server as it is documented, bit for bit."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import fractions
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import runferry

from tests.support import stored
from tests.support.exact import exact, from_bits

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.servers import RunningServer


class Colour(enum.Enum):
    RED = 1


def a_function() -> None:
    """Stored by its name."""


PLAIN: dict[str, Any] = {
    "nan": math.nan,
    "nan with a payload": from_bits(0x7FF8_0000_DEAD_BEEF),
    "negative nan": from_bits(0xFFF8_0000_0000_0000),
    "signalling nan": from_bits(0x7FF0_0000_0000_0001),
    "inf": math.inf,
    "-inf": -math.inf,
    "-0.0": -0.0,
    "least subnormal": 5e-324,
    "greatest float": 1.7976931348623157e308,
    "0.1": 0.1,
    "1.0": 1.0,
    "1": 1,
    "0": 0,
    "2**53 + 1": 2**53 + 1,
    "int64 max": 2**63 - 1,
    "int64 min": -(2**63),
    "true": True,
    "false": False,
    "text": "\u00fc \U0001f680 \u0000 end",
    "empty text": "",
    "none": None,
    "long text": "x" * 100_000,
    "empty list": [],
    "list": [1, 2.5, "x", None, True, [from_bits(0xFFF8_0000_0000_0007), {"k": [-0.0]}]],
    "long list": list(range(1_000)),
}
CHANGED: dict[str, tuple[Any, Any]] = {
    "2**63": (2**63, 9.223372036854775808e18),
    "2**70": (2**70, 1180591620717411303424.0),
    "-(2**70)": (-(2**70), -1180591620717411303424.0),
    "10**400": (10**400, math.inf),
    "tuple": ((1, 2), [1, 2]),
    "generator": ((number for number in (1, 2)), [1, 2]),
    "bytes": (b"abc", "abc"),
    "date": (dt.datetime(2020, 1, 2, 3, 4, 5, tzinfo=dt.timezone.utc), "2020-01-02T03:04:05Z"),
    "decimal": (decimal.Decimal("1.10"), "1.10"),
    "fraction": (fractions.Fraction(1, 3), "1/3"),
    "complex": (1 + 2j, "1+2j"),
    "enum": (Colour.RED, 1),
    "function": (a_function, f"{a_function.__module__}.a_function"),
    "np.float64": (np.float64(0.1), 0.1),
    "np.float32": (np.float32(0.1), 0.10000000149011612),
    "np.float16": (np.float16(0.1), 0.0999755859375),
    "np.float16 nan": (np.float16("nan"), math.nan),
    "np.float32 -inf": (np.float32("-inf"), -math.inf),
    "np.longdouble": (np.longdouble(1) / 4, 0.25),
    "np.int8": (np.int8(-128), -128),
    "np.int16": (np.int16(-32768), -32768),
    "np.int32": (np.int32(2**31 - 1), 2**31 - 1),
    "np.int64": (np.int64(-(2**63)), -(2**63)),
    "np.uint8": (np.uint8(255), 255),
    "np.uint16": (np.uint16(65535), 65535),
    "np.uint32": (np.uint32(2**32 - 1), 2**32 - 1),
    "np.uint64": (np.uint64(2**64 - 1), 18446744073709551616.0),
    "np.bool": (np.bool_(1), True),
    "np.str": (np.str_("x"), "x"),
    "np.datetime64": (np.datetime64("2020-01-02T03:04:05"), "2020-01-02T03:04:05"),
    "0-d array": (np.array(2.5), 2.5),
    "size-1 array": (np.array([[7]]), 7),
    "size-1 bool array": (np.array([True]), True),
    "small array": (np.array([1.0, 2.0]), [1.0, 2.0]),
    "small matrix": (np.arange(4).reshape(2, 2), [[0, 1], [2, 3]]),
    "array of 32": (np.arange(32), list(range(32))),
    "empty array": (np.array([]), []),
    "big-endian scalar": (np.array([1.5], dtype=">f8"), 1.5),
}


def read_back(server: RunningServer, tmp_path: Path, run_id: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Log rows, finish, and the rows as the server gives them."""
    run = runferry.init(project="values", id=run_id, dir=tmp_path, settings={"base_url": server.url, "silent": True})
    for row in rows:
        run.log(row)
    run.finish()
    assert (run.status().marked_values, run.status().dropped_values, run.status().dropped_rows) == (0, 0, 0)
    return [cells for _, cells in stored.cells(server.url, run.path)]


@pytest.mark.fault(59)
def test_plain_values_keep_kind_and_every_bit_alone_in_their_row(server: RunningServer, tmp_path: Path) -> None:
    found = read_back(server, tmp_path, "plain", [{name: value} for name, value in PLAIN.items()])

    assert found == [{name: exact(value)} for name, value in PLAIN.items()]


@pytest.mark.fault(59)
def test_plain_values_keep_kind_and_every_bit_under_one_name(server: RunningServer, tmp_path: Path) -> None:
    found = read_back(server, tmp_path, "one-name", [{"x": value} for value in PLAIN.values()])

    assert found == [{"x": exact(value)} for value in PLAIN.values()]


@pytest.mark.fault(59)
def test_plain_values_keep_kind_and_every_bit_in_one_row(server: RunningServer, tmp_path: Path) -> None:
    assert read_back(server, tmp_path, "one-row", [PLAIN]) == [{name: exact(value) for name, value in PLAIN.items()}]


@pytest.mark.fault(59)
def test_other_values_become_their_stored_form(server: RunningServer, tmp_path: Path) -> None:
    found = read_back(server, tmp_path, "changed", [{name: value} for name, (value, _) in CHANGED.items()])

    assert found == [{name: exact(value)} for name, (_, value) in CHANGED.items()]


def test_nested_dicts_become_paths_and_a_key_may_change_between_dict_and_scalar(server: RunningServer, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"a": {"b": {"c": 1}, "d": -0.0}, "e.f": 2},
        {"a": 1.0},
        {"n": {1: "int", 2.5: "float", False: "bool", None: "null"}},
        {"empty": {}},
    ]

    found = read_back(server, tmp_path, "nested", rows)

    assert found == [
        {"a.b.c": 1, "a.d": exact(-0.0), "e.f": 2},
        {"a": exact(1.0)},
        {"n.1": "int", "n.2.5": "float", "n.false": "bool", "n.null": "null"},
        {},
    ]


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?", ">f8", ">i4"])
def test_large_arrays_become_the_histogram_that_numpy_makes(server: RunningServer, tmp_path: Path, dtype: str) -> None:
    values = (np.random.default_rng(5).random(1_000) * 100).astype(dtype)
    run = runferry.init(
        project="values",
        id=f"array-{np.dtype(dtype).name}{dtype[0] == '>':d}",
        dir=tmp_path,
        settings={"base_url": server.url, "silent": True},
    )
    run.log({"h": values})
    run.finish()

    (row,) = stored.rows(server.url, run.path)

    counts, edges = np.histogram(values.astype("f8"), bins=32)
    assert row["h"]["values"] == counts.tolist()
    np.testing.assert_allclose(row["h"]["bins"], edges, rtol=1e-12)


def test_histograms_are_read_back_and_nan_and_inf_are_counted(server: RunningServer, tmp_path: Path) -> None:
    run = runferry.init(project="values", id="histograms", dir=tmp_path, settings={"base_url": server.url, "silent": True})
    run.log({"made": runferry.Histogram(np_histogram=([1, 2, 3], [0.0, 0.5, 2.0, 9.0]))})
    run.log({"made": np.array([1.0, 2.0, math.nan, math.inf, 2.0] * 10)})
    run.log({"made": np.array([math.nan] * 40)})
    run.finish()

    first, second, third = (row["made"] for row in stored.rows(server.url, run.path))

    assert (first["values"], first["bins"]) == ([1, 2, 3], [0.0, 0.5, 2.0, 9.0])
    assert (second["values"][0], second["values"][-1], sum(second["values"])) == (10, 20, 30)
    assert (second["bins"][0], second["bins"][-1]) == (1.0, 2.0)
    assert sum(third["values"]) == 0
    (metric,) = stored.run(server.url, run.path).metrics()
    assert (metric["kind"], metric["points"]) == ("histogram", 3)


@pytest.mark.fault(59)
def test_values_without_an_exact_form_are_markers_with_a_count(server: RunningServer, tmp_path: Path) -> None:
    class Broken:
        shape, dtype = (2,), "f4"

        def __array__(self, *_: object, **__: object) -> Any:
            raise RuntimeError("meta tensor")

    run = runferry.init(project="values", id="markers", dir=tmp_path, settings={"base_url": server.url, "silent": True})
    run.log({"surrogate": "\ud800", "bytes": b"\xff\xfe", "tensor": Broken(), "fine": 1})
    run.log({"x" * 1_025: 1, "": 2, "fine": 2})
    run.finish()

    first, second = stored.rows(server.url, run.path)

    assert {first[name]["_type"] for name in ("surrogate", "bytes", "tensor")} == {"marker"}
    assert "meta tensor" in first["tensor"]["text"]
    assert (first["fine"], second["fine"]) == (1, 2)
    assert len([name for name in second if not name.startswith("_")]) == 1
    assert (run.status().marked_values, run.status().dropped_values) == (3, 2)


def test_config_and_summary_come_back_as_they_were_given(server: RunningServer, tmp_path: Path) -> None:
    config: dict[str, Any] = {
        "lr": 3e-4,
        "layers": [1, [2, None]],
        "deep": {"a": {"b": True}},
        "nan": math.nan,
        "inf": -math.inf,
        "n": 2**53 + 1,
    }
    run = runferry.init(project="values", id="config", dir=tmp_path, config=config, settings={"base_url": server.url, "silent": True})
    run.config["later"] = "x"
    run.config.update({"lr": 1e-3}, allow_val_change=True)
    run.log({"loss": 0.5, "acc": math.nan, "a": {"b": 1}})
    run.log({"loss": 0.25})
    run.summary["best"] = {"loss": 0.25, "at": [1, 2]}
    run.summary["inf"] = math.inf
    run.name, run.tags, run.notes = "renamed", ["x", "y"], "two\nlines"
    run.finish()

    stored.wait_for_state(server.url, run.path, "finished")
    found = stored.run(server.url, run.path)
    assert exact(found.config) == exact({**config, "lr": 1e-3, "later": "x"})
    summary = {name: value for name, value in found.summary.items() if not name.startswith("_")}
    assert summary["loss"] == 0.25
    assert math.isnan(summary["acc"])
    assert summary["best"] == {"loss": 0.25, "at": [1, 2]}
    assert summary["inf"] == math.inf
    assert (found.name, found.tags, found.notes) == ("renamed", ["x", "y"], "two\nlines")
