"""`$regex`, bounded so that no pattern can keep the server busy.

Python's engine backtracks: `(a+)+$` on thirty letters takes minutes. So a repeated group may neither repeat nor choose
inside, unbounded repeats and choices are few, and only the first part of a long text is searched.
"""

from __future__ import annotations

import functools
import re

MAX_PATTERN_CHARS = 256
MAX_TEXT_CHARS = 256
MAX_OPEN_REPEATS = 2
"""Each unbounded repeat is one more power of the text's length in the worst case."""
MAX_CHOICES = 8
"""Each `?`, and each `|` inside a group, doubles the ways to try."""


class PatternError(ValueError):
    """The pattern is not valid, or could take too long."""


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Compile a pattern that a reader sent.

    Raises:
        PatternError: It is not a regular expression, or not one that is sure to end soon.
    """
    if len(pattern) > MAX_PATTERN_CHARS:
        raise PatternError(f"the pattern has {len(pattern)} characters, at most {MAX_PATTERN_CHARS} are allowed")
    if _open_repeats(pattern) > MAX_OPEN_REPEATS:
        raise PatternError(f"the pattern has more than {MAX_OPEN_REPEATS} unbounded repeats")
    if _repeats_a_repeat(pattern):
        raise PatternError("the pattern repeats a group that itself repeats or chooses, which can take very long")
    if _choices(pattern) > MAX_CHOICES:
        raise PatternError(f"the pattern has more than {MAX_CHOICES} choices")
    return _compiled(pattern)


def matches_pattern(pattern: str, text: object) -> bool:
    """Whether the pattern is found anywhere in the text: SQL's `text REGEXP pattern`."""
    if not isinstance(text, str):
        return False
    return _compiled(pattern).search(text[:MAX_TEXT_CHARS]) is not None


@functools.lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise PatternError(f"not a regular expression: {error}") from error


def _plain(pattern: str) -> str:
    """The pattern with escapes and character classes replaced by one letter each: only its structure is left."""
    without_escapes = re.sub(r"\\.", "x", pattern, flags=re.DOTALL)
    return re.sub(r"\[\^?\]?[^\]]*\]", "x", without_escapes)


def _open_repeats(pattern: str) -> int:
    return len(re.findall(r"[*+]|\{\d*,\d*\}", _plain(pattern)))


def _choices(pattern: str) -> int:
    plain = _plain(pattern)
    optional = len(re.findall(r"(?<![(*+?}])\?", plain))
    return optional + (plain.count("|") if "(" in plain else 0)


def _repeats_a_repeat(pattern: str) -> bool:
    plain = _plain(pattern)
    inner_repeats = [False]
    index = 0
    while index < len(plain):
        letter = plain[index]
        if letter == "(":
            inner_repeats.append(False)
            if plain[index + 1 : index + 2] == "?":
                index += 1  # `(?:`: the question mark is no repeat
        elif letter == ")" and len(inner_repeats) > 1:
            group_repeats = inner_repeats.pop()
            is_repeated = plain[index + 1 : index + 2] in {"*", "+", "{"}
            if group_repeats and is_repeated:
                return True
            inner_repeats[-1] = inner_repeats[-1] or group_repeats
        elif letter in "*+{?|":
            inner_repeats[-1] = True
        index += 1
    return False
