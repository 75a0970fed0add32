"""The `runferry` command: one module a subcommand, each with `add` (its arguments and examples) and a function that does it.

Exit codes, the same everywhere: 0 done, 1 a problem was found (it is named), 2 the command line is wrong, 3 the server cannot be
reached.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from runferry import __version__
from runferry.cli import export, journal, login, runs, server, status, sync, verify
from runferry.errors import CommError, Error, NotRunferryError, UnreachableError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

OK, PROBLEM, WRONG_USAGE, UNREACHABLE = 0, 1, 2, 3
_INTERRUPTED = 130

_EPILOG = """\
a first look, without any server set up:
  python train.py            # calls runferry.init(), log(), finish(); the run goes to ./runferry
  runferry server            # in the same folder: shows it at http://127.0.0.1:7070

with a server:
  runferry login http://host:7070
  python train.py

exit codes: 0 done, 1 a problem was found, 2 the command line is wrong, 3 the server cannot be reached
"""


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(
        prog="runferry",
        description="Track training runs: log them fast, lose none, read them back exactly.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"runferry {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in (server, login, runs, export, verify, status, sync, journal):
        command.add(commands)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["server"]:
        return server.run(words[1:])  # the server's own parser knows its options and `--help`
    try:
        asked = parser().parse_args(words)
    except SystemExit as ending:  # argparse has printed the help or the error
        return ending.code if isinstance(ending.code, int) else WRONG_USAGE
    return _guarded(asked)


def _guarded(asked: argparse.Namespace) -> int:
    try:
        code: int = asked.run(asked)
    except UsageError as error:
        return _say(error, WRONG_USAGE)
    except CommError as error:
        return _say(error, UNREACHABLE if isinstance(error, (UnreachableError, NotRunferryError)) else PROBLEM)
    except (Error, OSError) as error:
        return _say(error, PROBLEM)
    except KeyboardInterrupt:
        return _INTERRUPTED
    return code


def _say(error: BaseException, code: int) -> int:
    if isinstance(error, BrokenPipeError):  # `runferry runs | head`
        sys.stderr.close()
        return code
    sys.stderr.write(f"runferry: {error}\n")
    return code


def entry() -> None:
    """The console script."""
    sys.exit(main())
