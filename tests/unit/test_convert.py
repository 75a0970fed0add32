"""`convert`: what a logged value becomes, type by type."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import functools
import math
import struct
import sys
import uuid
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from runferry import _native
from runferry._convert import PATH_MAX_BYTES, convert
from runferry.data import Histogram


class Colour(enum.Enum):
    RED = 1


class Level(enum.IntEnum):
    HIGH = 3


def a_function() -> None:
    """For its name."""


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (2**63 - 1, 2**63 - 1),
        (-(2**63), -(2**63)),
        (2**63, float(2**63)),
        (2**70, 1.1805916207174113e21),
        (10**400, math.inf),
        (-(10**400), -math.inf),
        (np.float64(0.1), 0.1),
        (np.float32(0.1), 0.10000000149011612),
        (np.float16(0.1), 0.0999755859375),
        (np.int8(-3), -3),
        (np.uint64(2**64 - 1), float(2**64 - 1)),
        (np.bool_(True), True),  # noqa: FBT003 - the value under test
        (np.str_("text"), "text"),
        (np.array(7), 7),
        (np.array([[2.5]]), 2.5),
        (np.complex64(1 + 2j), "1+2j"),
        (1 + 2j, "1+2j"),
        (dt.timedelta(days=-1, microseconds=5), "-PT23H59M59.999995S"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (decimal.Decimal("1.10"), "1.10"),
        (b"caf\xc3\xa9", "café"),
        (dt.datetime(2026, 1, 2, 3, 4, tzinfo=dt.timezone.utc), "2026-01-02T03:04:00Z"),
        (dt.date(2026, 1, 2), "2026-01-02"),
        (np.datetime64("2026-01-02T03:04"), "2026-01-02T03:04"),
        (Colour.RED, 1),
        (Level.HIGH, 3),
        (a_function, f"{__name__}.a_function"),
        (math.sqrt, "math.sqrt"),
        ([1, 2.5, "x", None, True], ("json", [1, 2.5, "x", None, True])),
        ((1, (2, 3)), ("json", [1, [2, 3]])),
        ({7}, ("json", [7])),
        (frozenset({7}), ("json", [7])),
        (range(0), None),
        (np.arange(3), ("json", [0, 1, 2])),
        (np.arange(4).reshape(2, 2), ("json", [[0, 1], [2, 3]])),
        (np.array([]), ("json", [])),
        (np.array(["a", "b"]), ("json", ["a", "b"])),
        ([np.float32(0.5), {"a": np.int64(1)}], ("json", [0.5, {"a": 1}])),
        ([], ("json", [])),
        ("\ud800x", ("marker", "str", "'\\ud800x'")),
        (b"\xff", ("marker", "bytes", "b'\\xff'")),
    ],
    ids=repr,
)
def test_a_value_becomes_its_plain_form(value: object, plain: Any) -> None:
    if isinstance(value, range):
        with pytest.raises(TypeError, match="key 'k': a value of type range cannot be logged"):
            convert("k", value)
        return

    [(path, found)] = convert("k", value)

    assert path == "k"
    assert found == plain
    assert type(found) is type(plain)


def test_a_generator_becomes_a_list() -> None:
    assert convert("k", (number * 2 for number in range(3))) == [("k", ("json", [0, 2, 4]))]


@given(st.floats(width=32))
def test_float32_is_widened_exactly_bit_for_bit(value: float) -> None:
    [(_, found)] = convert("k", np.float32(value))

    assert struct.pack("<d", found) == struct.pack("<d", value)


@given(st.one_of(st.floats(), st.integers(-(2**63), 2**63 - 1), st.booleans(), st.none(), st.text(st.characters(codec="utf-8"))))
def test_a_list_item_stays_what_it_is(value: object) -> None:
    [(_, (kind, [found]))] = convert("k", [value])

    assert kind == "json"
    assert type(found) is type(value)
    assert found == value or (found != found and value != value)  # noqa: PLR0124 - NaN


def test_nested_dicts_become_paths_with_keys_as_json_writes_them() -> None:
    value = {"a": {"b": 1.5}, 7: 2, None: 3, True: 4, 2.5: 5, "c.d": 6, "empty": {}}

    assert convert("n", value) == [("n.a.b", 1.5), ("n.7", 2), ("n.null", 3), ("n.true", 4), ("n.2.5", 5), ("n.c.d", 6)]


def test_the_callers_dict_is_not_changed() -> None:
    value = {"a": {"b": np.float32(1)}}

    convert("n", value)

    assert list(value) == ["a"]
    assert isinstance(value["a"]["b"], np.float32)


@pytest.mark.parametrize("value", [object(), type("Thing", (), {})(), {"deep": [object()]}, {("a",): 1}])
def test_a_value_without_a_stored_form_is_a_type_error_that_names_the_key(value: object) -> None:
    with pytest.raises(TypeError, match=r"key 'loss"):
        convert("loss", value)


@pytest.mark.parametrize(("key", "reason"), [("", "the key is empty"), ("x" * (PATH_MAX_BYTES + 1), "1025 bytes"), ("\udc00", "surrogate")])
def test_an_item_without_a_storable_key_is_dropped_with_the_reason_and_told_once(
    key: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    results = [convert(key, 1.0) for _ in range(3)]

    for [(path, (kind, told))] in results:
        assert kind == "drop"
        assert reason in told
        assert len(path.encode()) <= PATH_MAX_BYTES
    assert capsys.readouterr().err.count("are dropped") == 1


def test_a_path_of_exactly_one_kib_is_kept() -> None:
    assert convert("é" * 512, 1.0) == [("é" * 512, 1.0)]


def test_nesting_without_end_is_a_marker_or_a_drop_and_never_a_crash() -> None:
    endless_list: list[Any] = []
    endless_list.append(endless_list)
    endless_dict: dict[str, Any] = {}
    endless_dict["a"] = endless_dict

    [(_, listed)] = convert("k", endless_list)
    [(_, nested)] = convert("k", endless_dict)

    assert listed[:2] == ("marker", "list")
    assert nested[0] == "drop"


def test_a_tensor_whose_own_methods_fail_is_a_marker() -> None:
    class Broken:
        shape, dtype = (2,), "f4"

        def __array__(self) -> Any:
            raise RuntimeError("device lost")

    [(_, plain)] = convert("k", Broken())

    assert plain[0] == "marker"
    assert "device lost" in plain[2]


def decoded(plain: Any) -> tuple[list[float], list[float], int, int]:
    assert plain[0] == "hist"
    return _native.histogram_decode(plain[1])


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?", ">f4", ">i8", "longdouble"])
def test_a_large_array_becomes_numpys_histogram_of_32_bins(dtype: str) -> None:
    array = (np.arange(100) % 7).astype(dtype)

    [(_, plain)] = convert("k", array)
    edges, counts, nan_count, inf_count = decoded(plain)
    expected_counts, expected_edges = np.histogram(array.astype("f8"), 32)

    assert counts == expected_counts.tolist()
    assert edges == pytest.approx(expected_edges.tolist(), rel=1e-15)
    assert (nan_count, inf_count) == (0, 0)


def test_an_array_that_is_not_contiguous_is_binned_whole() -> None:
    array = np.arange(400.0).reshape(20, 20).T[::2]

    [(_, plain)] = convert("k", array)

    assert sum(decoded(plain)[1]) == array.size


def test_nan_and_infinity_in_an_array_are_counted_beside_the_bins() -> None:
    array = np.concatenate([np.arange(50.0), [np.nan, np.inf, -np.inf, np.nan]])

    [(_, plain)] = convert("k", array)
    edges, counts, nan_count, inf_count = decoded(plain)

    assert (sum(counts), nan_count, inf_count) == (50, 2, 2)
    assert (edges[0], edges[-1]) == (0.0, 49.0)


def test_a_constant_array_has_half_a_unit_to_each_side() -> None:
    [(_, plain)] = convert("k", np.full(64, 3.0))
    edges, counts, _, _ = decoded(plain)

    assert (edges[0], edges[-1], sum(counts)) == (2.5, 3.5, 64)


def test_a_histogram_object_keeps_its_bins() -> None:
    [(_, plain)] = convert("k", Histogram(np_histogram=([1, 2], [0.0, 0.5, 2.0])))

    assert decoded(plain) == ([0.0, 0.5, 2.0], [1.0, 2.0], 0, 0)


class Tensor:
    """The few methods of a torch tensor that are used; this one lies on a device and in a graph."""

    def __init__(self, numbers: list[float], dtype: str = "torch.float32", *, on_host: bool = False, detached: bool = False) -> None:
        self.numbers, self.dtype, self.on_host, self.detached = numbers, dtype, on_host, detached
        self.shape = (len(numbers),) if len(numbers) != 1 else ()

    def detach(self) -> Tensor:
        return Tensor(self.numbers, self.dtype, on_host=self.on_host, detached=True)

    def cpu(self) -> Tensor:
        return Tensor(self.numbers, self.dtype, on_host=True, detached=self.detached)

    def float(self) -> Tensor:
        return Tensor(self.numbers, "torch.float32", on_host=self.on_host, detached=self.detached)

    def __array__(self, *arguments: object, **options: object) -> np.ndarray[Any, Any]:
        assert self.on_host
        assert self.detached
        assert self.dtype != "torch.bfloat16", "numpy has no bfloat16"
        return np.array(self.numbers, "f4").reshape(self.shape)

    def tolist(self) -> Any:
        assert self.on_host
        return self.numbers[0] if self.shape == () else self.numbers


@pytest.fixture
def torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", type(sys)("torch"))
    monkeypatch.setattr(sys.modules["torch"], "Tensor", Tensor, raising=False)


@pytest.mark.usefixtures("torch")
@pytest.mark.parametrize("dtype", ["torch.float32", "torch.bfloat16"])
def test_a_tensor_is_taken_off_its_device_and_its_graph(dtype: str) -> None:
    assert convert("k", Tensor([0.5], dtype)) == [("k", 0.5)]
    assert convert("k", Tensor([0.5, 2.0], dtype)) == [("k", ("json", [0.5, 2.0]))]
    [(_, plain)] = convert("k", Tensor([float(number) for number in range(64)], dtype))
    assert sum(decoded(plain)[1]) == 64


@pytest.mark.usefixtures("torch")
def test_tensors_need_no_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "numpy")

    assert convert("k", Tensor([0.5])) == [("k", 0.5)]
    assert convert("k", Tensor([0.5, 2.0])) == [("k", ("json", [0.5, 2.0]))]


def test_a_partial_function_has_no_name_and_is_refused() -> None:
    with pytest.raises(TypeError, match=r"functools\.partial"):
        convert("k", functools.partial(a_function))
