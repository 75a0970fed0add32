"""Names of runs and projects: the rules they obey, and the ones Runferry makes up.

The rules are those of the W&B SDK, checked at `init` so that a bad name is an error with the value and the rule in it, not a
refusal by the server an hour later. Control characters are refused as well: a run's key is the hash of its three names
joined by NUL.
"""

from __future__ import annotations

import random
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from runferry.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

NAME_MAX_CHARS = 128
TAG_MAX_CHARS = 64
RUN_ID_CHARS = 8
_chance = random.SystemRandom()
"""The system's secure source. `secrets` is the same behind 3 MiB of OpenSSL."""
_BASE36 = "0123456789abcdefghijklmnopqrstuvwxyz"
_PROJECT_FORBIDDEN = "/\\#?%:"
_RUN_ID_FORBIDDEN = ":;,#?/'"
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_ADJECTIVES = (
    "amber", "bold", "brisk", "calm", "clear", "coral", "dapper", "early", "fair", "fleet", "gentle", "golden",
    "hardy", "inland", "jolly", "keen", "lively", "lucid", "mellow", "misty", "nimble", "northern", "patient", "plucky",
    "quiet", "rapid", "ready", "rolling", "sandy", "silver", "steady", "sunny", "swift", "tidal", "vivid", "windward",
)  # fmt: skip
_NOUNS = (
    "anchor", "bay", "beacon", "breeze", "bridge", "buoy", "canal", "cargo", "channel", "coast", "cove", "current",
    "delta", "dock", "ferry", "fjord", "harbor", "heron", "island", "jetty", "keel", "lagoon", "landing", "lighthouse",
    "marina", "otter", "pelican", "pier", "quay", "reef", "river", "rudder", "sail", "shore", "tide", "wharf",
)  # fmt: skip


def new_run_id() -> str:
    """Eight random characters of base 36, from the system's secure source."""
    return "".join(_chance.choice(_BASE36) for _ in range(RUN_ID_CHARS))


def new_run_name() -> str:
    """Two words and a number, chosen on this machine: readable, not unique."""
    return f"{_chance.choice(_ADJECTIVES)}-{_chance.choice(_NOUNS)}-{_chance.randint(1, 999)}"


def check_place(what: str, value: str) -> str:
    """Return `value` if it may name a project or an entity.

    Args:
        what: "project" or "entity", for the message.
        value: The name.

    Raises:
        UsageError: It breaks a rule; the message holds both.
    """
    _check_text(what, value)
    return _refuse_any_of(what, value, _PROJECT_FORBIDDEN)


def check_run_id(value: str) -> str:
    """Return `value` if it may be a run's id.

    Raises:
        UsageError: It breaks a rule; the message holds both.
    """
    _check_text("id", value)
    return _refuse_any_of("id", value, _RUN_ID_FORBIDDEN)


def check_label(what: str, value: str | None) -> str | None:
    """Return `value` if it may be a run's name, group or job type; None stays None.

    Raises:
        UsageError: It is not a string, or too long.
    """
    if value is None:
        return None
    if not isinstance(value, str):
        raise UsageError(f"{what} {value!r} must be a string, not {type(value).__name__}")
    if len(value) > NAME_MAX_CHARS:
        raise UsageError(f"{what} {_shown(value)} has {len(value)} characters, at most {NAME_MAX_CHARS} are allowed")
    if _CONTROL.search(value):
        raise UsageError(f"{what} {value!r} holds control characters")
    return value


def check_tags(tags: str | Iterable[str]) -> tuple[str, ...]:
    """Return the tags once each, in the order given; a single string is one tag.

    Raises:
        UsageError: A tag is not a string of 1 to 64 characters.
    """
    seen: dict[str, None] = {}
    for tag in [tags] if isinstance(tags, str) else tags:
        if not isinstance(tag, str):
            raise UsageError(f"tag {tag!r} must be a string, not {type(tag).__name__}")
        if not 1 <= len(tag) <= TAG_MAX_CHARS:
            raise UsageError(f"tag {_shown(tag)} has {len(tag)} characters, 1 to {TAG_MAX_CHARS} are allowed")
        if _CONTROL.search(tag):
            raise UsageError(f"tag {tag!r} holds control characters")
        seen[tag] = None
    return tuple(seen)


def default_project(working_dir: str) -> str:
    """Name of the git repository that holds `working_dir`, with the folder inside it, else `uncategorized`."""
    try:
        asked = subprocess.run(  # noqa: S603 - fixed arguments and a folder
            ["git", "-C", working_dir, "rev-parse", "--show-toplevel", "--show-prefix"],  # noqa: S607 - the user's git
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
        top, prefix = [*asked.stdout.split("\n"), ""][:2]
    except (OSError, subprocess.SubprocessError, ValueError):
        return "uncategorized"  # no git, no repository, or one that git refuses to touch
    name = "_".join(part for part in (Path(top).name, *Path(prefix).parts) if part)
    cleaned = _CONTROL.sub("_", re.sub(r"[/\\#?%:]", "_", name)).strip()[:NAME_MAX_CHARS]
    return cleaned if cleaned.strip("._") else "uncategorized"


def _check_text(what: str, value: str) -> None:
    if not isinstance(value, str):
        raise UsageError(f"{what} {value!r} must be a string, not {type(value).__name__}")
    if not value:
        raise UsageError(f"{what} {value!r} is empty")
    if value != value.strip():
        raise UsageError(f"{what} {value!r} has blanks at an end")
    if len(value) > NAME_MAX_CHARS:
        raise UsageError(f"{what} {_shown(value)} has {len(value)} characters, at most {NAME_MAX_CHARS} are allowed")
    if value in {".", ".."}:
        raise UsageError(f"{what} {value!r} is a folder's name for itself and cannot stand in an address")
    if _CONTROL.search(value):
        raise UsageError(f"{what} {value!r} holds control characters")


def _refuse_any_of(what: str, value: str, forbidden: str) -> str:
    found = [character for character in forbidden if character in value]
    if found:
        raise UsageError(f"{what} {value!r} holds {' '.join(found)}; none of {' '.join(forbidden)} is allowed")
    return value


def _shown(value: str) -> str:
    return repr(value if len(value) <= 40 else value[:37] + "...")  # noqa: PLR2004 - enough to recognise it
