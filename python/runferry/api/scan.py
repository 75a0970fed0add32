"""Rows out of the `scan` answer: frames one behind the other, each with one ROWS block, decoded as they arrive.

A row is a dict: the values under their names, `_step`, `_timestamp` (seconds since 1970) and `_runtime` (seconds since the run
began). Several columns of one name (`1` in one row, `1.0` in another) meet in the row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runferry import _native
from runferry.errors import CommError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Protocol

    class Readable(Protocol):
        """What is read of an HTTP response."""

        def read(self, amount: int, /) -> bytes:
            """At most `amount` bytes; fewer, or none, only at the end."""


HEADER_BYTES = 64
ALIGNMENT_BYTES = 8
MAGIC = b"\xf5\x9e\xd1\x8a"
PAYLOAD_MAX_BYTES = 8 << 20
HIDDEN = "_timestamp"
_US_PER_S = 1_000_000


def frames_of(body: Readable) -> Iterator[bytes]:
    """Whole frames, as they arrive.

    Raises:
        CommError: The body ends inside a frame or is none; nothing that was yielded before is wrong.
    """
    while True:
        header = _read(body, HEADER_BYTES)
        if not header:
            return
        if len(header) < HEADER_BYTES or header[:4] != MAGIC:
            raise CommError(f"the scan answer is broken: {header[:8].hex()} at the place of a frame's magic")
        payload_bytes = int.from_bytes(header[8:12], "little")
        if payload_bytes > PAYLOAD_MAX_BYTES:
            raise CommError(f"the scan answer is broken: a frame of {payload_bytes} bytes, at most {PAYLOAD_MAX_BYTES} are allowed")
        padded_bytes = -(-(HEADER_BYTES + payload_bytes) // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
        rest = _read(body, padded_bytes - HEADER_BYTES)
        if len(rest) < padded_bytes - HEADER_BYTES:
            raise CommError(f"the scan answer broke off: {padded_bytes - HEADER_BYTES - len(rest)} bytes of a frame are missing")
        yield header + rest


def _read(body: Readable, wanted: int) -> bytes:
    parts: list[bytes] = []
    missing = wanted
    while missing:
        try:
            part = body.read(missing)
        except (OSError, ValueError) as error:
            raise CommError(f"the scan answer broke off: {error}") from error
        except Exception as error:
            if type(error).__name__ == "IncompleteRead":  # http.client's, without importing it for a name
                raise CommError(f"the scan answer broke off: {error}") from error
            raise
        if not part:
            break
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


def rows_of(frames: Iterator[bytes], *, start_us: int, keys: Sequence[str] | None) -> Iterator[dict[str, Any]]:
    """Rows of the frames, ascending by step; with `keys` only rows that hold all of them, and nothing but them.

    Raises:
        CommError: A frame cannot be decoded.
    """
    wanted = None if keys is None else {*keys} - {"_step", "_timestamp", "_runtime"}
    for frame in frames:
        try:
            blocks = _native.decode_rows(frame)
        except ValueError as error:
            raise CommError(f"the scan answer is broken: {error}") from error
        for steps, times_us, columns in blocks:
            rows: list[dict[str, Any]] = [
                {"_step": step, "_timestamp": time_us / _US_PER_S, "_runtime": (time_us - start_us) / _US_PER_S}
                for step, time_us in zip(steps, times_us, strict=True)
            ]
            for name, kind, presence, values in columns:
                if (name == HIDDEN and kind == "null") or (wanted is not None and name not in wanted):
                    continue
                places = rows if presence is None else [row for row, has in zip(rows, presence, strict=True) if has]
                shown = _SHOWN.get(kind)
                for row, value in zip(places, values, strict=True):
                    row[name] = value if shown is None else shown(value)
            yield from rows if wanted is None else (row for row in rows if all(name in row for name in wanted))


def _histogram(value: bytes) -> dict[str, Any]:
    edges, counts, _, _ = _native.histogram_decode(value)
    return {"_type": "histogram", "values": [int(count) if float(count).is_integer() else count for count in counts], "bins": edges}


def _marker(value: tuple[str, str]) -> dict[str, str]:
    return {"_type": "marker", "type": value[0], "text": value[1]}


_SHOWN: dict[str, Callable[[Any], Any]] = {"histogram": _histogram, "marker": _marker}
