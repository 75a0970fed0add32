"""`runferry server`: handed to the server, an extra of its own; the client never imports it otherwise."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from runferry.cli.command import declare

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from runferry.cli.command import Commands

_PROBLEM = 1


def add(commands: Commands) -> None:
    """Declare the command; only for the list of commands, its words never reach this parser."""
    declare(
        commands,
        "server",
        run=_run,
        summary="serve the page, and take and keep runs; journals in this folder are adopted",
        examples="runferry server\nrunferry server --host 0.0.0.0 --port 7070 --data /var/lib/runferry\nrunferry server --help",
    )


def _run(asked: argparse.Namespace) -> int:
    del asked
    return run([])


def run(words: Sequence[str]) -> int:
    """Start the server with its own command line; returns its exit code."""
    try:
        from runferry.server.__main__ import main  # noqa: PLC0415 - the extra

        return main(list(words)) or 0
    except SystemExit as ending:  # argparse has printed the help or the error
        return ending.code if isinstance(ending.code, int) else int(ending.code is not None)
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.startswith("runferry.server."):
            raise  # a broken installation, not a missing extra
        sys.stderr.write(f"runferry: the server is an extra and {error.name} is missing: pip install 'runferry[server]'\n")
        return _PROBLEM
