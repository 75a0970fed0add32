"""The lines Runferry prints: all on stderr, all behind the prefix `runferry:`.

Loudness is process-wide, as in the W&B SDK: `quiet` keeps warnings and errors, `silent` keeps nothing. `init` sets it from
the settings. Printing never raises: a closed or broken stderr is no reason to stop a training.
"""

from __future__ import annotations

import sys

_loudness = {"quiet": False, "silent": False}
_told: set[str] = set()


def set_loudness(*, quiet: bool, silent: bool) -> None:
    """Set what is printed from now on."""
    _loudness["quiet"] = quiet
    _loudness["silent"] = silent


def termlog(string: str = "", newline: bool = True, repeat: bool = True) -> None:  # noqa: FBT001, FBT002 - W&B signature
    """Print a line of information to stderr, unless `quiet` or `silent`.

    Args:
        string: The text; each of its lines gets the prefix.
        newline: Whether a line break follows.
        repeat: False: print this text at most once in this process.
    """
    if not _loudness["quiet"]:
        _print("", string, newline=newline, repeat=repeat)


def termwarn(string: str, newline: bool = True, repeat: bool = True) -> None:  # noqa: FBT001, FBT002 - W&B signature
    """Print a warning to stderr, unless `silent`. Arguments as in `termlog`."""
    _print("warning: ", string, newline=newline, repeat=repeat)


def termerror(string: str, newline: bool = True, repeat: bool = True) -> None:  # noqa: FBT001, FBT002 - W&B signature
    """Print an error to stderr, unless `silent`. Arguments as in `termlog`."""
    _print("error: ", string, newline=newline, repeat=repeat)


def _print(level: str, string: str, *, newline: bool, repeat: bool) -> None:
    if _loudness["silent"]:
        return
    if not repeat:
        if string in _told:
            return
        _told.add(string)
    text = "\n".join(f"runferry: {level}{line}" for line in str(string).split("\n"))
    try:
        sys.stderr.write(text + ("\n" if newline else ""))
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError, UnicodeError):
        # stderr is closed, full, None (pythonw) or cannot encode the text: there is nowhere left to say it.
        return
