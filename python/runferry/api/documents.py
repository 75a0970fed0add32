"""Config, summary and times as the server writes them in JSON, back as the values they were."""

from __future__ import annotations

from typing import Any

_FLOATS = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}
_US_PER_S = 1_000_000


def from_stored(value: Any) -> Any:
    """`value` with the typed markers for what JSON cannot hold replaced by floats and bytes."""
    if isinstance(value, dict):
        kind = value.get("_type")
        if kind == "float" and value.get("value") in _FLOATS:
            return _FLOATS[value["value"]]
        if kind == "bytes" and isinstance(value.get("value"), str):
            import base64  # noqa: PLC0415 - rare

            return base64.b64decode(value["value"])
        return {name: from_stored(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [from_stored(inner) for inner in value]
    return value


def iso_time(time_us: int | None) -> str | None:
    """Microseconds since 1970 as ISO text, UTC; None stays None."""
    if time_us is None:
        return None
    from datetime import datetime, timedelta, timezone  # noqa: PLC0415 - with the first answer

    return (datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(microseconds=time_us)).isoformat().replace("+00:00", "Z")
