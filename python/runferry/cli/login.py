"""`runferry login URL`: which server the runs of this user go to."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from runferry._access import server_of
from runferry._login import LOGIN_TIMEOUT_S, login
from runferry.cli.command import declare
from runferry.settings import resolve, settings_file

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
        examples="runferry login http://127.0.0.1:7070\nrunferry login https://runs.example.org     # asks for the key, if one is wanted\n"
        "runferry login https://runs.example.org --key-stdin < key.txt",
    )
    parser.add_argument("url", metavar="URL", help="address of the server, http://host:port")
    keys = parser.add_mutually_exclusive_group()
    keys.add_argument("--key", metavar="KEY", help="API key; other users of this machine can see it while the command runs")
    keys.add_argument("--key-stdin", action="store_true", help="read the API key from standard input")
    parser.add_argument("--no-verify", dest="verify", action="store_false", help="keep the address without asking it")


def _run(asked: argparse.Namespace) -> int:
    key = sys.stdin.readline().strip() if asked.key_stdin else asked.key
    login(key=key or _asked_key(asked), host=asked.url, verify=asked.verify)
    sys.stdout.write(f"runs go to {asked.url.rstrip('/')} (kept in {settings_file()})\n")
    return 0


def _asked_key(asked: argparse.Namespace) -> str | None:
    """The key that the user types, unseen, if the server wants one and there is somebody to ask."""
    if asked.key_stdin or asked.key or not asked.verify or not sys.stdin.isatty():
        return None
    settings = resolve({"base_url": asked.url})
    if not server_of(settings, settings.base_url or "", timeout_s=LOGIN_TIMEOUT_S).door().get("wants_key"):
        return None
    from getpass import getpass  # noqa: PLC0415 - only to ask

    return getpass(f"API key for {settings.base_url}: ").strip() or None
