"""Filters in the manner of MongoDB, compiled to SQL over runs.

`{"state": "finished", "config.lr": {"$lt": 0.1}}`: a document of fields and of `$and $or $nor $not`; a field stands against a
value or a document of operators. What MongoDB says of missing fields holds: `$ne` and `$nin` match a run that has no such
field, `{"field": null}` matches one whose field is missing or null.

The filter comes from anybody: depth and size are bounded, values are bound parameters, never SQL text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any

import sqlalchemy as sa

from runferry.server.metadata.patterns import PatternError, compile_pattern
from runferry.server.metadata.schema import run, run_field, run_tag
from runferry.server.run_columns import RunField, UnknownFieldError, run_field_named

MAX_DEPTH = 16
MAX_CONDITIONS = 200
MAX_LIST_ITEMS = 1_000
SECONDS_BELOW = 10**11
"""A time given as a smaller number is seconds since 1970, a larger one microseconds."""

Condition = Any
_COMPARE: dict[str, Callable[[Any, Any], Condition]] = {
    "$gt": lambda left, right: left > right,
    "$gte": lambda left, right: left >= right,
    "$lt": lambda left, right: left < right,
    "$lte": lambda left, right: left <= right,
}


class FilterError(ValueError):
    """The filter cannot be understood; the message says where."""


def compile_filter(filters: object, now_us: int) -> Condition:
    """The filter as a condition on `run`.

    Raises:
        FilterError: It is not a filter, or too large a one.
    """
    return _Compiler(now_us).document(filters, 0)


class _Compiler:
    """One compilation: carries the time and counts the conditions."""

    def __init__(self, now_us: int) -> None:
        self._now_us = now_us
        self._conditions = 0

    def document(self, filters: object, depth: int) -> Condition:
        if not isinstance(filters, Mapping):
            raise FilterError(f"a filter is a JSON object, not {_kind(filters)}")
        if depth > MAX_DEPTH:
            raise FilterError(f"the filter is nested deeper than {MAX_DEPTH}")
        return sa.and_(sa.true(), *(self._entry(key, value, depth) for key, value in filters.items()))

    def _entry(self, key: str, value: object, depth: int) -> Condition:
        if key in {"$and", "$or", "$nor"}:
            if not isinstance(value, list) or not value:
                raise FilterError(f"{key} takes a list of filters, not {_kind(value)}")
            parts = [self.document(item, depth + 1) for item in value]
            if key == "$and":
                return sa.and_(*parts)
            return sa.or_(*parts) if key == "$or" else sa.not_(sa.or_(*parts))
        if key == "$not":
            return sa.not_(self.document(value, depth + 1))
        if key.startswith("$"):
            raise FilterError(f"unknown operator {key!r}; known are $and, $or, $nor, $not")
        try:
            field = run_field_named(key, self._now_us)
        except UnknownFieldError as error:
            raise FilterError(str(error)) from error
        return self._field(field, value, depth)

    def _field(self, field: RunField, value: object, depth: int) -> Condition:
        if isinstance(value, Mapping):
            if not value or not all(isinstance(key, str) and key.startswith("$") for key in value):
                raise FilterError(f"{field.name!r} is compared with a value or an object of operators, got {_kind(value)}")
            if depth > MAX_DEPTH:
                raise FilterError(f"the filter is nested deeper than {MAX_DEPTH}")
            return sa.and_(*(self._operator(field, operator, operand, depth) for operator, operand in value.items()))
        return self._operator(field, "$eq", value, depth)

    def _operator(self, field: RunField, operator: str, operand: object, depth: int) -> Condition:  # noqa: C901, PLR0911 - one branch for each operator
        self._conditions += 1
        if self._conditions > MAX_CONDITIONS:
            raise FilterError(f"the filter has more than {MAX_CONDITIONS} conditions")
        if operator == "$not":
            return sa.not_(self._field(field, operand, depth + 1))
        if operator in {"$ne", "$nin"}:
            return sa.not_(self._operator(field, "$eq" if operator == "$ne" else "$in", operand, depth))
        if operator == "$in":
            if not isinstance(operand, list) or len(operand) > MAX_LIST_ITEMS:
                raise FilterError(f"$in and $nin take a list of at most {MAX_LIST_ITEMS} values, got {_kind(operand)}")
            return sa.or_(sa.false(), *(_equals(field, item) for item in operand))
        if operator == "$eq":
            return _equals(field, operand)
        if operator == "$exists":
            if not isinstance(operand, bool):
                raise FilterError(f"$exists takes true or false, not {_kind(operand)}")
            return _exists(field) if operand else sa.not_(_exists(field))
        if operator == "$regex":
            return _regex(field, operand)
        if operator in _COMPARE:
            return _compares(field, _COMPARE[operator], operand, operator)
        raise FilterError(f"unknown operator {operator!r} on {field.name!r}")


def _rows(field: RunField, *conditions: Condition) -> Condition:
    """Some leaf of the run's documents at this path meets the conditions."""
    at = (run_field.c.run_id == run.c.run_id, run_field.c.project_id == run.c.project_id, run_field.c.path == field.name)
    return sa.exists().where(*at, *conditions).correlate(run)


def _tagged(*conditions: Condition) -> Condition:
    return sa.exists().where(run_tag.c.run_id == run.c.run_id, *conditions).correlate(run)


def _equals(field: RunField, value: object) -> Condition:  # noqa: PLR0911 - one for each kind
    if isinstance(value, Mapping | list):
        raise FilterError(f"{field.name!r} is compared with a plain value, not {_kind(value)}")
    if field.kind == "document":
        if value is None:
            return sa.not_(_rows(field, sa.or_(run_field.c.num.is_not(None), run_field.c.txt.is_not(None))))
        if isinstance(value, str):
            return _rows(field, run_field.c.txt == value)
        return _rows(field, run_field.c.num == _number(field, value))
    if value is None:
        return sa.not_(_exists(field))
    if field.kind == "tags":
        return _tagged(run_tag.c.tag == _text(field, value))
    if field.kind == "time":
        return field.column == _time_us(field, value)
    return field.column == _text(field, value)


def _exists(field: RunField) -> Condition:
    if field.kind == "document":
        return _rows(field)
    if field.kind == "tags":
        return _tagged()
    return sa.true() if field.kind == "time" else field.column != ""


def _compares(field: RunField, compare: Callable[[Any, Any], Condition], value: object, operator: str) -> Condition:
    if field.kind == "tags":
        raise FilterError(f"{operator} cannot be used on tags; use $in, $eq or $regex")
    if field.kind == "document":
        if isinstance(value, str):
            return _rows(field, compare(run_field.c.txt, value))
        return _rows(field, compare(run_field.c.num, _number(field, value)))
    if field.kind == "time":
        return compare(field.column, _time_us(field, value))
    return compare(field.column, _text(field, value))


def _regex(field: RunField, pattern: object) -> Condition:
    if not isinstance(pattern, str):
        raise FilterError(f"$regex takes a pattern, not {_kind(pattern)}")
    if field.kind == "time":
        raise FilterError(f"$regex cannot be used on {field.name!r}")
    try:
        compile_pattern(pattern)
    except PatternError as error:
        raise FilterError(f"$regex on {field.name!r}: {error}") from error
    if field.kind == "document":
        return _rows(field, _matches(run_field.c.txt, pattern))
    if field.kind == "tags":
        return _tagged(_matches(run_tag.c.tag, pattern))
    return _matches(field.column, pattern)


def _matches(column: Any, pattern: str) -> Condition:
    return sa.func.regexp(pattern, column, type_=sa.Boolean) == sa.true()


def _number(field: RunField, value: object) -> float:
    if not isinstance(value, bool | int | float):
        raise FilterError(f"{field.name!r} is compared with a number or a text, not {_kind(value)}")
    try:
        return float(value)
    except OverflowError as error:
        raise FilterError(f"{field.name!r}: the number is too large") from error


def _text(field: RunField, value: object) -> str:
    if not isinstance(value, str):
        raise FilterError(f"{field.name!r} is compared with a text, not {_kind(value)}")
    return value


def _time_us(field: RunField, value: object) -> int:
    if isinstance(value, str):
        try:
            when = datetime.fromisoformat(value.replace("Z", "+00:00"))
        except ValueError as error:
            raise FilterError(f"{field.name!r}: {value!r} is not an ISO 8601 time") from error
        when = when if when.tzinfo else when.replace(tzinfo=timezone.utc)
        return round(when.timestamp() * 1_000_000)
    number = _number(field, value)
    if not -(2**62) < number < 2**62:
        raise FilterError(f"{field.name!r}: {value!r} is not a time")
    return round(number * 1_000_000) if abs(number) < SECONDS_BELOW else round(number)


def _kind(value: object) -> str:
    names: dict[type, str] = {dict: "an object", list: "a list", str: "a text", bool: "true or false", int: "a number", float: "a number"}
    return "null" if value is None else names.get(type(value), type(value).__name__)
