"""What a writer says about its run, made into plain checked values: OPEN, FINISH and GAP maps, config and summary.

The maps come from bytes that anybody may have sent, so every value is looked at: a missing or strange one becomes its
default, never an exception. Only what identifies the run is demanded.

JSON cannot hold everything that msgpack can; such values become typed markers (`json_value`), the same everywhere a
document is stored or answered. Pure: no clock, no I/O.
"""

from __future__ import annotations

import base64
import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

MAX_IDENTITY_CHARS = 128
FORBIDDEN_IN_IDENTITY = re.compile(r"[/\x00-\x1f\x7f]")
"""Fewer than the client's rules: the server takes whatever can stand in a path of the read door."""
MAX_DEPTH = 32
MAX_FIELD_PATH_CHARS = 512
MAX_FIELD_TEXT_CHARS = 4_096
MAX_FIELDS = 10_000
"""Leaves of a document that filters and orders know: each is a row."""
MAX_TEXT_CHARS = 1 << 20
"""Of notes; other texts of a run are names, of at most MAX_NAME_CHARS."""
MAX_NAME_CHARS = 1_024
MAX_TAGS = 1_000
MAX_DOCUMENT_BYTES = 8 << 20
"""Of a config or summary with all its changes, as JSON: it is read and answered whole."""
INT64_MAX = 2**63 - 1
MAX_RECEIPT_METRICS = 1 << 14


class DocumentTooLargeError(ValueError):
    """A change would make a document larger than is kept."""


class BadOpenError(ValueError):
    """The OPEN frame does not say which run it is of."""


@dataclass(frozen=True, slots=True)
class Opening:
    """What OPEN says of a run and of the process that writes to it."""

    entity: str
    project: str
    id: str
    label: str
    name: str
    group: str
    job_type: str
    notes: str
    tags: tuple[str, ...] | None
    """None: not given, a resumed run keeps its own."""
    config: dict[str, Any]
    started_us: int
    host: str
    pid: int
    is_relative: bool
    is_child: bool
    predecessor: int
    """The writer that this one goes on for since it was set back; 0: none."""


@dataclass(frozen=True, slots=True)
class Finish:
    """What FINISH says."""

    exit_code: int
    ended_us: int
    state: str
    receipt: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Gap:
    """One counted absence."""

    seq: int
    count: int
    reason: str
    rows: int
    points: int
    bytes: int
    detail: str


@dataclass(frozen=True, slots=True)
class Change:
    """A CONFIG or SUMMARY block: top-level keys set and removed."""

    updates: dict[str, Any]
    removed: tuple[str, ...]

    def onto(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """The document after this change.

        Raises:
            DocumentTooLargeError: It would be too large to be kept; the change is not made, not even in part.
        """
        changed = {**document, **self.updates}
        for key in self.removed:
            changed.pop(key, None)
        size_bytes = len(json.dumps(changed))
        if size_bytes > MAX_DOCUMENT_BYTES:
            raise DocumentTooLargeError(f"with this change the document has {size_bytes} bytes, at most {MAX_DOCUMENT_BYTES} are kept")
        return changed


def opening_of(fields: Mapping[str, Any]) -> Opening:
    """Read an OPEN map.

    Raises:
        BadOpenError: Entity, project or id is missing or not allowed, or the config is too large.
    """
    tags = fields.get("tags")
    config = document_of(fields.get("config"))
    config_bytes = len(json.dumps(config))
    if config_bytes > MAX_DOCUMENT_BYTES:
        raise BadOpenError(f"the config has {config_bytes} bytes, at most {MAX_DOCUMENT_BYTES} are kept")
    return Opening(
        entity=_identity(fields, "entity"),
        project=_identity(fields, "project"),
        id=_identity(fields, "id"),
        label=_text(fields, "label"),
        name=_text(fields, "name"),
        group=_text(fields, "group"),
        job_type=_text(fields, "job_type"),
        notes=_text(fields, "notes", MAX_TEXT_CHARS),
        tags=_tags(tags) if isinstance(tags, list | tuple) and tags else None,
        config=config,
        started_us=_integer(fields, "started_us"),
        host=_text(fields, "host"),
        pid=_integer(fields, "pid"),
        is_relative=fields.get("relative") is True,
        is_child=_integer(fields, "parent_writer") != 0,
        predecessor=max(_integer(fields, "predecessor"), 0),
    )


def finish_of(fields: Mapping[str, Any]) -> Finish:
    """Read a FINISH map; a state that is neither finished nor failed follows from the exit code."""
    exit_code = _integer(fields, "exit_code")
    state = fields.get("state")
    if state not in {"finished", "failed"}:
        state = "failed" if exit_code else "finished"
    return Finish(exit_code=exit_code, ended_us=_integer(fields, "ended_us"), state=str(state), receipt=_receipt(fields.get("receipt")))


def _receipt(value: object) -> dict[str, Any] | None:
    """A receipt whose parts fit each other, else none."""
    if not isinstance(value, Mapping):
        return None
    names, points, hashes = (value.get(part) for part in ("names", "points", "hashes"))
    if not (isinstance(names, list) and isinstance(points, list) and isinstance(hashes, list)):
        return None
    if not len(names) == len(points) == len(hashes) <= MAX_RECEIPT_METRICS:
        return None
    metrics = [[str(name), _unsigned(count), _unsigned(total)] for name, count, total in zip(names, points, hashes, strict=True)]
    rest = [_unsigned(value.get("rest_points")), _unsigned(value.get("rest_hash"))]
    return {"covers": _integer(value, "covers"), "metrics": metrics, "rest": rest}


def _unsigned(value: object) -> int:
    return value % (1 << 64) if isinstance(value, int) else 0


def gap_of(seq: int, count: int, fields: Mapping[str, Any]) -> Gap:
    """Read a GAP map."""
    return Gap(
        seq=seq,
        count=max(count, 1),
        reason=_text(fields, "reason") or "unknown",
        rows=_integer(fields, "rows"),
        points=_integer(fields, "points"),
        bytes=_integer(fields, "bytes"),
        detail=_text(fields, "detail"),
    )


def change_of(updates: object, removed: object) -> Change:
    """Read the items of a CONFIG or SUMMARY block."""
    gone = tuple(key for key in removed if isinstance(key, str)) if isinstance(removed, list | tuple) else ()
    return Change(updates=document_of(updates), removed=gone)


def document_of(value: object) -> dict[str, Any]:
    """A map as a JSON document; anything else is an empty one."""
    if not isinstance(value, Mapping):
        return {}
    document: dict[str, Any] = json_value(value)
    return document


def json_value(value: object, depth: int = 0) -> Any:  # noqa: PLR0911 - one for each kind
    """The value as JSON can hold it: typed markers for NaN, infinities and bytes."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"_type": "float", "value": _float_name(value)}
    if isinstance(value, bytes | bytearray | memoryview):
        return {"_type": "bytes", "value": base64.b64encode(bytes(value)).decode("ascii")}
    if depth >= MAX_DEPTH:
        return {"_type": "too_deep", "value": str(value)[:200]}
    if isinstance(value, Mapping):
        return {str(key): json_value(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(item, depth + 1) for item in value]
    return str(value)


def fields_of(prefix: str, document: Mapping[str, Any]) -> Iterator[tuple[str, float | None, str | None]]:
    """The leaves of a document as `(path, number, text)`, for filters and orders: the first `MAX_FIELDS` of them.

    Lists, and texts too long to be compared, have a path without a value: they exist, and equal nothing.
    """
    return itertools.islice(_leaves(prefix, document), MAX_FIELDS)


def _leaves(prefix: str, document: Mapping[str, Any]) -> Iterator[tuple[str, float | None, str | None]]:
    for key, value in document.items():
        path = f"{prefix}.{key}"
        if len(path) > MAX_FIELD_PATH_CHARS:
            continue
        if isinstance(value, dict):
            marker = value.get("_type")
            if marker == "float":
                yield path, None, str(value.get("value"))
            elif isinstance(marker, str):
                yield path, None, None
            else:
                yield from _leaves(path, value)
        elif isinstance(value, bool):
            yield path, float(value), None
        elif isinstance(value, int | float):
            yield path, _as_float(value), None
        elif isinstance(value, str) and len(value) <= MAX_FIELD_TEXT_CHARS:
            yield path, None, value
        else:
            yield path, None, None


def name_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Read a META map: those of name, notes and tags that it gives."""
    given: dict[str, Any] = {}
    for key in ("name", "notes"):
        if isinstance(fields.get(key), str):
            given[key] = fields[key][: MAX_TEXT_CHARS if key == "notes" else MAX_NAME_CHARS]
    if isinstance(fields.get("tags"), list | tuple):
        given["tags"] = _tags(fields["tags"])
    return given


def _identity(fields: Mapping[str, Any], key: str) -> str:
    value = fields.get(key)
    if not isinstance(value, str) or not value:
        raise BadOpenError(f"the OPEN frame names no {key}")
    if len(value) > MAX_IDENTITY_CHARS:
        raise BadOpenError(f"the {key} has {len(value)} characters, at most {MAX_IDENTITY_CHARS} are allowed")
    if FORBIDDEN_IN_IDENTITY.search(value) or value in {".", ".."}:
        raise BadOpenError(f"the {key} {value!r} is not allowed: it may hold neither slashes nor control characters")
    return value


def _text(fields: Mapping[str, Any], key: str, most_chars: int = MAX_NAME_CHARS) -> str:
    value = fields.get(key)
    return value[:most_chars] if isinstance(value, str) else ""


def _integer(fields: Mapping[str, Any], key: str) -> int:
    value = fields.get(key)
    if isinstance(value, bool) or not isinstance(value, int):
        return 0
    return max(-INT64_MAX, min(INT64_MAX, value))


def _tags(tags: list[Any] | tuple[Any, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(tag[:MAX_NAME_CHARS] for tag in tags[:MAX_TAGS] if isinstance(tag, str)))


def _float_name(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def _as_float(value: float) -> float | None:
    try:
        return float(value)
    except OverflowError:
        return None
