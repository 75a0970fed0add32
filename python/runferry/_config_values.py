"""Values of config and summary: how they come in, and the JSON-friendly form they are kept in.

Both are documents, not series: they are small, read by people and filtered by the server. So unlike `log`, whatever has no JSON form
becomes its `str` instead of an error.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

from runferry.errors import UsageError

INT64_MIN, INT64_MAX = -(1 << 63), (1 << 63) - 1
DEPTH_MAX = 64


def as_mapping(given: object) -> dict[str, Any]:  # noqa: PLR0911 - a table of forms
    """Items of a mapping, an `argparse.Namespace`, a dataclass, anything with items in its `__dict__`, or a YAML file.

    Raises:
        TypeError: It is none of these.
        UsageError: The YAML file cannot be read.
    """
    if given is None:
        return {}
    if hasattr(type(given), "as_dict"):  # a Config or a Summary
        return dict(given.as_dict())  # type: ignore[attr-defined]
    if isinstance(given, dict):
        return given
    if isinstance(given, (str, Path)):
        return _from_yaml(Path(given))
    if hasattr(given, "keys") and hasattr(given, "__getitem__"):
        return {key: given[key] for key in given.keys()}  # noqa: SIM118 - a mapping by its two methods alone
    if hasattr(given, "flag_values_dict"):  # absl FLAGS
        return dict(given.flag_values_dict())
    if isinstance(given, type) or not hasattr(given, "__dict__"):
        raise TypeError(f"config must be a dict, a Namespace, a dataclass or a path of a YAML file, not {type(given).__name__}")
    return {name: value for name, value in vars(given).items() if not name.startswith("_")}


def _from_yaml(path: Path) -> dict[str, Any]:
    try:
        from yaml import YAMLError, safe_load  # type: ignore[import-untyped, unused-ignore]  # noqa: PLC0415 - optional
    except ImportError:
        raise UsageError(f"config {str(path)!r} is a path, and reading YAML needs PyYAML: pip install pyyaml") from None
    try:
        loaded = safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        raise UsageError(f"config file {path} cannot be read: {error}") from error
    if not isinstance(loaded, dict):
        raise UsageError(f"config file {path} must hold a mapping, found {type(loaded).__name__}")
    # Files written by the W&B SDK nest each value: `lr: {desc: ..., value: 0.1}`.
    return {
        str(name): value["value"] if isinstance(value, dict) and "value" in value and set(value) <= {"value", "desc"} else value
        for name, value in loaded.items()
        if name != "wandb_version"
    }


def config_value(key: str, value: Any, depth: int = 0) -> Any:
    """`value` as lists, dicts, float, int, bool, str and None; what has no such form becomes its `str`.

    Raises:
        TypeError: Media and histograms are results, not inputs.
    """
    if value is None or isinstance(value, (bool, float)):
        return float(value) if isinstance(value, float) else value
    if isinstance(value, int):
        number = int(value)
        return number if INT64_MIN <= number <= INT64_MAX else _wide(number)
    if isinstance(value, str):
        return _encodable(str(value))
    if hasattr(type(value), "_runferry_encoded"):
        raise TypeError(f"config key {key!r}: a {type(value).__name__} is a result; log it instead")
    if depth >= DEPTH_MAX:
        return _encodable(type(value).__name__)
    return _container_value(key, value, depth)


def _wide(number: int) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf


def _container_value(key: str, value: Any, depth: int) -> Any:  # noqa: C901, PLR0911 - a table of types
    def inner(item: Any) -> Any:
        return config_value(key, item, depth + 1)

    if isinstance(value, dict):
        return {_encodable(str(name)): inner(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [inner(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return [inner(item) for item in sorted(value, key=str)]
    if isinstance(value, slice):
        return {"slice_start": inner(value.start), "slice_step": inner(value.step), "slice_stop": inner(value.stop)}
    if hasattr(type(value), "__dataclass_fields__"):
        return {name: inner(getattr(value, name, None)) for name in value.__dataclass_fields__}
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if hasattr(type(value), "__members__"):  # of an Enum
        return value.name
    numbers = getattr(value, "tolist", None)  # numpy, torch, jax
    if callable(numbers) and not isinstance(value, type) and hasattr(type(value), "shape"):
        try:
            listed = numbers()
        except Exception:  # noqa: BLE001 - a foreign object; its `str` is kept instead
            return _encodable(str(value))
        return inner(listed)
    namespace = getattr(sys.modules.get("argparse"), "Namespace", None)
    if namespace is not None and isinstance(value, namespace):
        return {name: inner(item) for name, item in vars(value).items()}
    try:
        return _encodable(str(value))
    except Exception:  # noqa: BLE001 - a foreign `__str__`
        return type(value).__name__


def _encodable(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()


def same(left: Any, right: Any) -> bool:
    """Equal in type and value; NaN equals NaN, so that a config can be given twice."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(same(one, other) for one, other in zip(left, right, strict=True))
    return bool(left == right) or (left != left and right != right)  # noqa: PLR0124 - NaN
