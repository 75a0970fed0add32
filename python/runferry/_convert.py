"""Values of `log()` that are not plainly a float, int, bool, str or None, as the plain ones the native writer takes.

The writer calls `convert` on the caller's thread for every such value, and for every key that is odd (empty, longer than
1 KiB, not encodable), so this is the slow path; a row of Python numbers never comes here. The rules are those of the W&B SDK
(tensor-likes by size: scalar, list, histogram), with two differences: NaN in an array is counted instead of raised, and
an odd string is kept as a marker instead of raised.

No library is imported: whoever logs a tensor has imported its library, so `sys.modules` has it.

# Plain results
`(path, plain)` with `plain` one of: float, int (within int64), bool, str (encodable), None, `("hist", bytes)`, `("json", value)`,
`("marker", type, text)` for a value that could not be kept as it was (stored, counted in `marked_values`), or `("drop", reason)`
for an item that has no place in a row (not stored, counted in `dropped_values`).
"""

from __future__ import annotations

import math
import struct
import sys
from typing import Any

from runferry import _native, _term

PATH_MAX_BYTES = 1024
LIST_MAX_ELEMENTS = 32
HISTOGRAM_BINS = 32
DEPTH_MAX = 64
INT64_MIN, INT64_MAX = -(1 << 63), (1 << 63) - 1
MARKER_TEXT_MAX_CHARS = 256


def convert(key: str, value: object) -> list[tuple[str, Any]]:
    """The stored leaves of one logged item: one, or for a dict one per leaf, paths joined by dots.

    Raises:
        TypeError: The value, or one inside it, is of a type without a stored form; the text names key and type.
    """
    leaves: list[tuple[str, Any]] = []
    _walk(key, value, leaves, 0)
    return leaves


def _walk(path: str, value: object, leaves: list[tuple[str, Any]], depth: int) -> None:
    items = _items(value)
    if items is not None:
        if depth >= DEPTH_MAX:
            leaves.append(_drop(path, f"nested deeper than {DEPTH_MAX} levels"))
            return
        for name, inner in items.items():
            _walk(f"{path}.{_nested_name(path, name)}", inner, leaves, depth + 1)
        return
    problem = _path_problem(path)
    leaves.append(_drop(path, problem) if problem else (path, _kept(path, value)))


def _kept(path: str, value: object) -> Any:
    """The leaf, or a marker when the value's own methods fail: a broken tensor must not stop a training."""
    try:
        return _plain(path, value)
    except TypeError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a foreign `__array__` or `tolist` raises
        return ("marker", _type_name(value), ascii(f"{type(error).__name__}: {error}")[1:-1][:MARKER_TEXT_MAX_CHARS])


def _path_problem(path: str) -> str | None:
    if not path:
        return "the key is empty"
    try:
        size_bytes = len(path.encode())
    except UnicodeEncodeError:
        return "the key holds a lone surrogate"
    return f"the key has {size_bytes} bytes, at most {PATH_MAX_BYTES} are stored" if size_bytes > PATH_MAX_BYTES else None


def _drop(path: str, reason: str) -> tuple[str, Any]:
    """An item without a place in a row. Told once for each reason: this may be every step of a training."""
    shown = ascii(path[:60])
    _term.termwarn(f"values under the key {shown} are dropped: {reason}; run.status().dropped_values counts them", repeat=False)
    return (path.encode(errors="replace")[:PATH_MAX_BYTES].decode(errors="ignore"), ("drop", reason))


def _nested_name(path: str, name: object) -> str:
    """A nested key as JSON would write it."""
    if isinstance(name, str):
        return name
    if name is None or isinstance(name, bool):
        return {None: "null", True: "true", False: "false"}[name]
    if isinstance(name, (int, float)):
        return repr(name) if type(name) in (int, float) else repr(name + 0)
    raise TypeError(f"key {path!r} holds a dict with a key of type {_type_name(name)}; str, int, float, bool or None is needed")


def _plain(path: str, value: Any) -> Any:  # noqa: PLR0911 - a table of types
    """One leaf. The order is by how often a type is logged."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, float):
        return float(value)
    if isinstance(value, int) and not _is_enum(value):
        return _plain_int(value)
    if isinstance(value, str) and not _is_enum(value):
        return _plain_str(value)
    encoded = getattr(type(value), "_runferry_encoded", None)
    if encoded is not None:
        return ("hist", encoded(value))
    array = as_array(value)
    if array is not None:
        return _plain_array(path, array)
    if _is_enum(value):
        return _plain(path, value.value)
    other = _rare(value)
    if other is not _NO_FORM:
        return other
    if isinstance(value, (list, tuple, set, frozenset)) or _is_generator(value):
        return ("json", json_value(path, value))
    raise TypeError(f"key {path!r}: a value of type {_type_name(value)} cannot be logged")


def _plain_int(value: int) -> int | float:
    number = int(value)
    if INT64_MIN <= number <= INT64_MAX:
        return number
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf


def _plain_str(value: str) -> Any:
    text = str(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        return ("marker", "str", ascii(text)[:MARKER_TEXT_MAX_CHARS])
    return text


def _encodable(text: str) -> str:
    plain = _plain_str(text)
    return plain if isinstance(plain, str) else ascii(text)[1:-1]


_NO_FORM: Any = object()
_TEXTS = (("decimal", "Decimal"), ("fractions", "Fraction"), ("uuid", "UUID"))
"""Module and class of what is its `str`."""


def _rare(value: Any) -> Any:  # noqa: PLR0911 - a table of types
    """Types with a textual form, or `_NO_FORM`."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        data = bytes(value)
        try:
            return data.decode()
        except UnicodeDecodeError:
            return ("marker", type(value).__name__, ascii(data[:64])[:MARKER_TEXT_MAX_CHARS])
    if isinstance(value, complex):
        return str(value).strip("()")
    if any(_is_of(module, name, value) for module, name in _TEXTS):
        return str(value)
    if any(_is_of("datetime", name, value) for name in ("datetime", "date", "time")):
        return value.isoformat().replace("+00:00", "Z")
    if _is_of("datetime", "timedelta", value):
        return _iso_duration(value)
    if callable(value) and hasattr(value, "__qualname__"):
        return _plain_str(f"{value.__module__}.{value.__qualname__}")
    return _NO_FORM


def json_value(path: str, value: Any, depth: int = 0) -> Any:
    """A list and what it holds: lists, dicts, float, int, bool, str, None. Histograms and large arrays inside become dicts.

    Raises:
        TypeError: As `convert`.
        ValueError: Nested too deep, as a list that holds itself is.
    """
    if depth >= DEPTH_MAX:
        raise ValueError(f"nested deeper than {DEPTH_MAX} levels")
    items = _items(value)
    if items is not None:
        return {_encodable(_nested_name(path, name)): json_value(path, inner, depth + 1) for name, inner in items.items()}
    if (isinstance(value, (list, tuple, set, frozenset)) and not _is_enum(value)) or _is_generator(value):
        return [json_value(path, inner, depth + 1) for inner in value]
    plain = _plain(path, value)
    if not isinstance(plain, tuple):
        return plain
    if plain[0] == "json":
        return plain[1]
    if plain[0] == "hist":
        edges, counts, _, _ = _native.histogram_decode(plain[1])
        return {"_type": "histogram", "values": counts, "bins": edges}
    return plain[2]


def as_array(value: Any) -> Any:
    """`value` as a numpy array or array scalar if a tensor library made it, else None.

    Without numpy a torch tensor becomes nested lists of numbers wrapped as `Elements`.
    """
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, (numpy.ndarray, numpy.generic)):
        return numpy.asarray(value)
    if _is_of("torch", "Tensor", value):
        return _torch_array(value, numpy)
    if not (hasattr(type(value), "__array__") and hasattr(type(value), "shape") and hasattr(type(value), "dtype")):
        return None
    return None if numpy is None else numpy.asarray(value)


def _torch_array(tensor: Any, numpy: Any) -> Any:
    """A torch tensor off its device and its graph; sparse ones with their zeros, bfloat16 widened exactly."""
    on_host = tensor.detach().cpu()
    if getattr(on_host, "is_sparse", False):
        on_host = on_host.to_dense()
    if str(on_host.dtype) in {"torch.bfloat16", "torch.float8_e4m3fn", "torch.float8_e5m2"}:
        on_host = on_host.float()
    if numpy is None:
        return Elements(on_host.tolist(), tuple(on_host.shape))
    return on_host.resolve_conj().resolve_neg().numpy() if hasattr(on_host, "resolve_conj") else numpy.asarray(on_host)


class Elements:
    """The numbers of a tensor where numpy is not installed, behind the few names of an array that are used here."""

    def __init__(self, nested: Any, shape: tuple[int, ...]) -> None:
        self._nested = nested
        self.size = math.prod(shape)

    def tolist(self) -> Any:
        """Numbers in nested lists, or one number."""
        return self._nested

    def floats(self) -> list[float]:
        """All numbers in one list."""
        flat, found = [self._nested], []
        while flat:
            item = flat.pop()
            if isinstance(item, list):
                flat.extend(item)
            else:
                found.append(float(item))
        return found


def _plain_array(path: str, array: Any) -> Any:
    if array.size == 1:
        only = array.tolist()
        while isinstance(only, list):
            only = only[0]
        return _plain(path, _exact(array, only))
    if array.size <= LIST_MAX_ELEMENTS or not _is_numeric(array):
        return ("json", json_value(path, array.tolist()))
    return ("hist", encode_histogram(array, HISTOGRAM_BINS))


def _exact(array: Any, only: Any) -> Any:
    """The Python value of a size-1 array. `tolist` keeps long doubles and extension floats (bfloat16) in their own type."""
    kind = getattr(getattr(array, "dtype", None), "kind", "O")
    if kind in "mM":
        return str(array.reshape(())[()])
    if kind == "O" or type(only).__module__ == "builtins":
        return only
    return complex(only) if kind == "c" else float(only)


def _is_numeric(array: Any) -> bool:
    dtype = getattr(array, "dtype", None)
    return dtype is None or dtype.kind in "fiub" or (dtype.kind == "V" and hasattr(dtype.type, "__float__"))


_NATIVE_DTYPES = {"f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"}


def encode_histogram(array: Any, bins: int) -> bytes:
    """The stored form of the histogram of all elements, in `bins` equal bins between the least and the greatest finite one.

    Bins are numpy's: half open, the last one closed; when all elements are equal the range is half a unit to each side. NaN
    and infinities are counted beside the bins.
    """
    if isinstance(array, Elements):
        numbers = array.floats()
        return _native.histogram_from_bytes(struct.pack(f"<{len(numbers)}d", *numbers), "f8", bins)
    dtype = array.dtype
    name = f"{dtype.kind}{dtype.itemsize}"
    if dtype.kind == "b":
        array, name = array.astype("u1"), "u1"
    elif name not in _NATIVE_DTYPES:  # float16, long double, bfloat16: float64 holds them, or all but their last bits
        array, name = array.astype("f8"), "f8"
    if array.dtype.byteorder == ">" or (array.dtype.byteorder == "=" and sys.byteorder == "big"):
        array = array.astype(array.dtype.newbyteorder("<"))
    return _native.histogram_from_bytes(array.tobytes(), name, bins)


def _is_of(module: str, name: str, value: object) -> bool:
    """Whether `value` is an instance of a class that exists only if its module is imported."""
    kind = getattr(sys.modules.get(module), name, None)
    return isinstance(kind, type) and isinstance(value, kind)


def _items(value: object) -> dict[Any, Any] | None:
    """What lies below a dict or an instance of a dataclass, unless that is a value of ours; None for anything else."""
    if isinstance(value, dict):
        return value
    if not hasattr(type(value), "__dataclass_fields__") or hasattr(type(value), "_runferry_encoded"):
        return None
    return {field.name: getattr(value, field.name) for field in sys.modules["dataclasses"].fields(value)}


def _iso_duration(value: Any) -> str:
    """A `timedelta` as ISO 8601 writes it, as `P1DT2H0.5S` without what is zero."""
    sign, span = ("-", -value) if value.days < 0 else ("", value)
    minutes, seconds = divmod(span.seconds, 60)
    hours, minutes = divmod(minutes, 60)
    fraction = f".{span.microseconds:06d}".rstrip("0").rstrip(".")
    time = "".join(f"{count}{unit}" for count, unit in ((hours, "H"), (minutes, "M")) if count)
    time += f"{seconds}{fraction}S" if seconds or fraction else ""
    days = f"{span.days}D" if span.days else ""
    return f"{sign}P{days}{'T' + time if time else ''}" if days or time else "PT0S"


def _is_enum(value: object) -> bool:
    return _is_of("enum", "Enum", value)


def _is_generator(value: object) -> bool:
    kind = type(value)
    return kind.__module__ == "builtins" and kind.__name__ in {"generator", "dict_keys", "dict_values", "map", "filter", "zip"}


def _type_name(value: object) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
