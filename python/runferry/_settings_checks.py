"""Checks of setting values: each takes what a caller, a variable or a file gives and returns the one type, or raises ValueError.

The text of the ValueError is the rule that was broken; who called adds the name and the place it came from.
"""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable

_TRUE = {"1", "true", "yes", "on", "t", "y"}
_FALSE = {"0", "false", "no", "off", "f", "n", ""}
_UNITS = {"kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "b": 1}
_DAY_MS = 24 * 60 * 60 * 1000
MODES = {"online": "online", "offline": "offline", "disabled": "disabled", "dryrun": "offline", "run": "online", "shared": "shared"}


def as_text(value: object) -> str:
    """A string or a path."""
    if isinstance(value, str):
        return value
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    raise ValueError(f"expected a string, found {type(value).__name__}")


def as_bool(value: object) -> bool:
    """A bool, or a word for one."""
    if isinstance(value, bool):
        return value
    if isinstance(value, (str, int)):
        word = str(value).strip().lower()
        if word in _TRUE | _FALSE:
            return word in _TRUE
    raise ValueError("expected true or false")


def as_seconds(value: object) -> float:
    """A number of seconds, zero or more."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError(f"expected seconds, found {type(value).__name__}")  # noqa: TRY004 - the contract above
    try:
        seconds = float(value)
    except ValueError:
        raise ValueError("expected a number of seconds") from None
    if math.isnan(seconds) or seconds < 0:
        raise ValueError("expected zero seconds or more")
    return seconds


def as_milliseconds(value: object) -> int:
    """A whole number of milliseconds, zero to a day."""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise ValueError(f"expected milliseconds, found {type(value).__name__}")  # noqa: TRY004 - the contract above
    try:
        milliseconds = int(value)
    except ValueError:
        raise ValueError("expected a whole number of milliseconds") from None
    if not 0 <= milliseconds <= _DAY_MS:
        raise ValueError(f"expected 0 to {_DAY_MS} milliseconds")
    return milliseconds


def as_bytes(least: int, most: int) -> Callable[[object], int]:
    """A check for sizes from `least` to `most`: an int, or text like `16MiB`."""

    def check(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            raise ValueError(f"expected bytes, found {type(value).__name__}")  # noqa: TRY004 - the contract above
        size_bytes = value if isinstance(value, int) else _size_of(value)
        if not least <= size_bytes <= most:
            raise ValueError(f"expected {least} to {most} bytes")
        return size_bytes

    return check


def _size_of(text: str) -> int:
    word = text.strip().lower()
    for unit, factor in _UNITS.items():
        if word.endswith(unit):
            word, scale = word[: -len(unit)].strip(), factor
            break
    else:
        scale = 1
    try:
        return int(float(word) * scale)
    except (ValueError, OverflowError):
        raise ValueError("expected bytes, like 4194304 or 4MiB") from None


def as_tags(value: object) -> tuple[str, ...]:
    """Tags; a string is a comma list."""
    if isinstance(value, str):
        return tuple(tag.strip() for tag in value.split(",") if tag.strip())
    if isinstance(value, (list, tuple, set, frozenset)):
        return tuple(str(tag) for tag in value)
    raise ValueError(f"expected a list of strings, found {type(value).__name__}")


def as_choice(*choices: str) -> Callable[[object], str]:
    """A check for one word of several."""

    def check(value: object) -> str:
        if isinstance(value, str) and value in choices:
            return value
        raise ValueError(f"expected {', '.join(choices[:-1])} or {choices[-1]}")

    return check


def as_mode(value: object) -> str:
    """A mode under its present name (`dryrun` is `offline`, `run` is `online`)."""
    if isinstance(value, str) and value.lower() in MODES:
        return MODES[value.lower()]
    raise ValueError("expected online, offline or disabled")


def as_resume(value: object) -> str | None:
    """A rule for runs that exist; True is `auto` and False is no rule, as in the W&B SDK."""
    if isinstance(value, bool):
        return "auto" if value else None
    if isinstance(value, str) and value in {"allow", "never", "must", "auto"}:
        return value
    raise ValueError("expected allow or never")


def as_base_url(value: object) -> str:
    """An address `http(s)://host[:port][/path]`, without a slash at its end."""
    text = as_text(value).strip().rstrip("/")
    if any(character.isspace() or not character.isprintable() for character in text):
        raise ValueError("an address holds no blanks")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"not an address: {error}") from None
    if parts.scheme not in {"http", "https"}:
        raise ValueError("expected an address like http://host:7070")
    if not parts.hostname:
        raise ValueError("the address has no host; expected one like http://host:7070")
    if parts.username is not None or parts.query or parts.fragment or port == 0:
        raise ValueError("expected an address like http://host:7070, without user, query or fragment")
    return text
