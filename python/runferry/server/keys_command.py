"""`runferry server keys add|list|revoke`: the keys of a data folder or database, whether its server runs or not.

The command writes to the metadata database itself; a running server reads the keys again every second.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from runferry.server.data_dir import metadata_file
from runferry.server.metadata import keys
from runferry.server.metadata.database import Database, NewerSchemaError
from runferry.server.settings import default_data_dir, default_store, store_option
from runferry.server.store.protocol import StoreError

if TYPE_CHECKING:
    from collections.abc import Sequence

_US_PER_S = 1_000_000
_UNITS_S = {"m": 60, "h": 3_600, "d": 86_400}
_HEAD = ("ID", "NAME", "SCOPES", "CREATED", "LAST USED", "EXPIRES", "STATE")


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    options = argparse.ArgumentParser(
        prog="runferry server keys",
        description="Keys that open a server. A running server notices a change within seconds, open streams included.",
        epilog="example: runferry server keys add alice --expires 90d   then, where alice trains: runferry login URL",
    )
    actions = options.add_subparsers(dest="action", metavar="ACTION", required=True)
    add = actions.add_parser("add", help="make a key; it is printed once and kept nowhere")
    add.add_argument("name", metavar="NAME", help="for whom or what it is")
    add.add_argument("--scope", type=_scopes, default=keys.SCOPES, help="read, write or read,write (default: both)")
    add.add_argument("--expires", type=_duration_s, metavar="TIME", help="how long it is good: 30m, 12h, 90d (default: until revoked)")
    listing = actions.add_parser("list", help="show all keys, revoked ones too, never their secret")
    revoke = actions.add_parser("revoke", help="end a key, and what uses it now")
    revoke.add_argument("key", metavar="NAME_OR_ID")
    for action in (add, listing, revoke):
        action.add_argument(
            "--data",
            type=Path,
            default=None,
            metavar="DIR",
            help="folder of the server's data (default: $RUNFERRY_SERVER_DATA or ~/.local/share/runferry)",
        )
        action.add_argument(
            "--store", type=store_option, default=default_store(), metavar="URL", help="its database (default: $RUNFERRY_SERVER_STORE)"
        )
    return options


def main(argv: Sequence[str]) -> int:
    """Run the command; returns the exit code: 2 if it was given something wrong."""
    told = parser().parse_args(argv)
    data_dir: Path = (told.data or default_data_dir()).expanduser().absolute()
    try:
        if told.store is None and told.action == "add":
            data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        elif told.store is None and not metadata_file(data_dir).exists():
            return _fail(f"there is no server data in {data_dir}: name its folder with --data")
        database = Database(told.store or metadata_file(data_dir))
    except (OSError, ImportError, NewerSchemaError, StoreError) as error:
        return _fail(str(error))
    try:
        return _do(told, database, time.time_ns() // 1_000)
    except keys.KeyNameError as error:
        return _fail(str(error))
    finally:
        database.close()


def _do(told: argparse.Namespace, database: Database, now_us: int) -> int:
    if told.action == "list":
        with database.read() as connection:
            _show(keys.all_keys(connection), now_us)
    elif told.action == "revoke":
        with database.write() as connection:
            revoked = keys.revoke_key(connection, told.key, now_us=now_us)
        sys.stdout.write(f"revoked {revoked.key_id} ({revoked.name})\n")
    else:
        expires_us = None if told.expires is None else now_us + told.expires * _US_PER_S
        with database.write() as connection:
            secret = keys.add_key(connection, told.name, told.scope, now_us=now_us, expires_us=expires_us)
        sys.stdout.write(f"{secret}\n")
        sys.stderr.write(f"key for {told.name} ({', '.join(told.scope)}); it is not shown again\n")
    return 0


def _show(found: list[keys.ApiKey], now_us: int) -> None:
    rows = [
        (
            key.key_id,
            key.name,
            ",".join(sorted(key.scopes)),
            _day(key.created_us),
            _day(key.last_used_us),
            _day(key.expires_us),
            "revoked" if key.revoked_us is not None else "expired" if key.refusal(now_us) else "good",
        )
        for key in found
    ]
    widths = [max(len(row[column]) for row in (_HEAD, *rows)) for column in range(len(_HEAD))]
    for row in (_HEAD, *rows):
        sys.stdout.write("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n")


def _day(time_us: int | None) -> str:
    return "-" if time_us is None else datetime.fromtimestamp(time_us / _US_PER_S, timezone.utc).strftime("%Y-%m-%d %H:%M")


def _scopes(text: str) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(text.split(",")))
    if not set(found) <= set(keys.SCOPES):
        raise argparse.ArgumentTypeError(f"{text!r} is not one of read, write, read,write")
    return found


def _duration_s(text: str) -> int:
    found = re.fullmatch(r"([1-9]\d{0,5})([mhd])", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time like 30m, 12h or 90d")
    return int(found[1]) * _UNITS_S[found[2]]


def _fail(text: str) -> int:
    sys.stderr.write(f"runferry server keys: {text}\n")
    return 2
