"""Rows as a data frame of pandas or polars, whichever is installed. Neither is needed, neither is imported before it is asked for."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from runferry.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

_FIRST = ("_step", "_timestamp", "_runtime")


def frame_of(rows: Sequence[dict[str, Any]], format: str, *, optional: bool = False) -> Any:  # noqa: A002 - the caller's word
    """A data frame with one column a name; absent values are the library's own nulls.

    Args:
        rows: Dicts of values.
        format: "pandas", "polars" or "list".
        optional: Return the rows where the library is not installed.

    Raises:
        UsageError: `format` is unknown, or its library is not installed and not optional.
    """
    if format == "list":
        return rows
    if format not in {"pandas", "polars"}:
        raise UsageError(f"format={format!r} is unknown: pandas, polars or list")
    if find_spec(format) is None:
        if optional:
            return rows
        raise UsageError(f"format={format!r} needs {format}: pip install {format}")
    library = import_module(format)
    columns = _columns(rows)
    if format == "pandas":
        return library.DataFrame({name: _pandas_column(library, values) for name, values in columns.items()})
    return library.DataFrame({name: _polars_column(library, name, values) for name, values in columns.items()})


def _columns(rows: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    names = dict.fromkeys(_FIRST) if rows else {}
    for row in rows:
        names.update(dict.fromkeys(row))
    return {name: [row.get(name) for row in rows] for name in names}


def _pandas_column(pandas: Any, values: list[Any]) -> Any:
    """Integers with holes stay integers (`Int64`) where a float would change them; everything else is pandas' own choice."""
    has_holes = any(value is None for value in values)
    if has_holes and all(value is None or type(value) is int for value in values) and any(value is not None for value in values):
        return pandas.array(values, dtype="Int64")
    return pandas.Series(values)


def _polars_column(polars: Any, name: str, values: list[Any]) -> Any:
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float} and len(kinds) > 1:
        return polars.Series(name, [None if value is None else float(value) for value in values])
    return polars.Series(name, values, strict=False) if len(kinds) <= 1 else polars.Series(name, values, dtype=polars.Object)
