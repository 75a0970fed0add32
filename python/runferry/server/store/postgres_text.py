"""Text and numbers on their way into PostgreSQL and back, the same as they come out of SQLite.

PostgreSQL has no place for the character NUL in a text; names and documents may have one. So NUL is written as two characters, the
last one of Unicode (which means nothing) and a `0`, and that one itself as two of it. Integers go as 64 bits whatever their size, so
that a statement is prepared once and not once for each size; sums of integers come back as integers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psycopg.adapt import Dumper, Loader
from psycopg.pq import Format
from psycopg.types.numeric import Int8BinaryDumper, IntNumericBinaryDumper, NumericBinaryLoader

if TYPE_CHECKING:
    from psycopg.abc import AdaptContext, Buffer

_MARK = "\U0010ffff"
_MARK_BYTES = _MARK.encode()
_INT8_END = 1 << 63


def escaped(text: str) -> str:
    """The text without NUL."""
    if "\0" not in text and _MARK not in text:
        return text
    return text.replace(_MARK, _MARK + _MARK).replace("\0", _MARK + "0")


def plain(text: str) -> str:
    """The inverse of `escaped`."""
    if _MARK not in text:
        return text
    return _MARK.join(part.replace(_MARK + "0", "\0") for part in text.split(_MARK + _MARK))


class _TextDumper(Dumper):
    """Of no type in particular, as psycopg's own: PostgreSQL finds out by the place."""

    def dump(self, obj: str) -> bytes:
        return escaped(obj).encode()


class _BinaryTextDumper(_TextDumper):
    format = Format.BINARY
    oid = 25


class _TextLoader(Loader):
    def load(self, data: Buffer) -> str:
        raw = bytes(data)
        text = raw.decode()
        return plain(text) if _MARK_BYTES in raw else text


class _BinaryTextLoader(_TextLoader):
    format = Format.BINARY


class _IntDumper(Int8BinaryDumper):
    """Of 64 bits if they hold it, else numeric."""

    def get_key(self, obj: Any, format: Any) -> Any:  # noqa: A002, ARG002 - psycopg's
        return self.cls if -_INT8_END <= obj < _INT8_END else (self.cls, "numeric")

    def upgrade(self, obj: Any, format: Any) -> Any:  # noqa: A002, ARG002 - as above
        return self if -_INT8_END <= obj < _INT8_END else IntNumericBinaryDumper(self.cls)


class _WholeLoader(NumericBinaryLoader):
    """What PostgreSQL makes of sums of integers."""

    def load(self, data: Buffer) -> Any:
        value = super().load(data)
        return int(value) if value == value.to_integral_value() else float(value)


def adapt_text(context: AdaptContext) -> None:
    """Text goes as SQLite would have it."""
    adapters = context.adapters
    adapters.register_dumper(str, _BinaryTextDumper)
    adapters.register_dumper(str, _TextDumper)
    for name in ("text", "varchar"):
        adapters.register_loader(name, _TextLoader)
        adapters.register_loader(name, _BinaryTextLoader)


def adapt(context: AdaptContext) -> None:
    """Text and numbers go as SQLite would have them."""
    adapt_text(context)
    context.adapters.register_dumper(int, _IntDumper)
    context.adapters.register_loader("numeric", _WholeLoader)
