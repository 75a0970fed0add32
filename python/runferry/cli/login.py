"""`runferry login URL`: which server the runs of this user go to."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from runferry._login import login
from runferry.cli.command import declare
from runferry.settings import settings_file

if TYPE_CHECKING:
    import argparse

    from runferry.cli.command import Commands


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = declare(
        commands,
        "login",
        run=_run,
        summary="choose the server that the runs of this user go to",
        examples="runferry login http://127.0.0.1:7070\nrunferry login https://runs.example.org --key-stdin < key.txt",
    )
    parser.add_argument("url", metavar="URL", help="address of the server, http://host:port")
    parser.add_argument("--key-stdin", action="store_true", help="read an API key from standard input")
    parser.add_argument("--no-verify", dest="verify", action="store_false", help="keep the address without asking it")


def _run(asked: argparse.Namespace) -> int:
    key = sys.stdin.readline().strip() if asked.key_stdin else None
    login(key=key or None, host=asked.url, verify=asked.verify)
    sys.stdout.write(f"runs go to {asked.url.rstrip('/')} (kept in {settings_file()})\n")
    return 0
