"""Values in a form in which two are equal only if they are the same: kind and every bit, NaN payloads and the sign of zero included."""

from __future__ import annotations

import struct
from typing import Any


def exact(value: Any) -> Any:
    """`value` as plain JSON that tells `1`, `1.0` and `True` apart, and every NaN from every other."""
    if isinstance(value, bool):
        return {"bool": value}
    if isinstance(value, float):
        return {"float": struct.pack(">d", value).hex()}
    if isinstance(value, (bytes, bytearray)):
        return {"bytes": bytes(value).hex()}
    if isinstance(value, (list, tuple)):
        return [exact(inner) for inner in value]
    if isinstance(value, dict):
        return {"map": {name: exact(inner) for name, inner in value.items()}}
    if value is None or isinstance(value, (int, str)):
        return value
    raise TypeError(f"{type(value).__name__} is no stored value")


def from_bits(bits: int) -> float:
    """The float of these 64 bits."""
    value: float = struct.unpack("<d", struct.pack("<Q", bits))[0]
    return value
