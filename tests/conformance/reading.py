"""Reads a store back as plain rows, for comparison."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from runferry import _native

if TYPE_CHECKING:
    from runferry.server.store.protocol import Store


def bits(value: Any) -> Any:
    """A value that equals another exactly if both have the same type and bits."""
    return ("float", struct.pack("<d", value)) if isinstance(value, float) else (type(value).__name__, value)


def scan_rows(store: Store, run_id: bytes, names: list[str] | None = None, **window: int) -> list[tuple[int, int, dict[str, Any]]]:
    """Every row of a scan as `(step, time_us, {name: bits})`; steps must ascend."""
    found: list[tuple[int, int, dict[str, Any]]] = []
    for frame in store.scan(run_id, names, **window):
        blocks = _native.decode_rows(frame)
        assert len(blocks) == 1, "one ROWS block a frame"
        for steps, times_us, columns in blocks:
            rows: list[dict[str, Any]] = [{} for _ in steps]
            for name, _kind, presence, values in columns:
                here = [index for index in range(len(steps)) if presence is None or presence[index]]
                for index, value in zip(here, values, strict=True):
                    assert name not in rows[index], "one value per name and row"
                    rows[index][name] = bits(value)
            found += zip(steps, times_us, rows, strict=True)
    steps = [row[0] for row in found]
    assert steps == sorted(set(steps)), "steps ascend, each once"
    return found
