"""`runferry server` and `python -m runferry.server`: the options, and nothing else. `runferry server keys` is a command of its own."""

from __future__ import annotations

import argparse
import logging
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from runferry.server import check, keys_command
from runferry.server.adopt import default_folders
from runferry.server.settings import DEFAULT_PORT, Advertised, Limits, Settings, default_data_dir, default_store, store_option

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_PORT = 65_534


def parser() -> argparse.ArgumentParser:
    """The options of the server."""
    options = argparse.ArgumentParser(
        prog="runferry server",
        description="Serve runs: take them from training processes, keep them, show them. Stops on Ctrl-C or SIGTERM, losing nothing.",
        epilog="`runferry server keys` makes keys, `runferry server check` sees whether a data folder holds all that was acked.\n"
        "example: runferry server --port 7070 --data ~/runs   then, to train: RUNFERRY_BASE_URL=http://127.0.0.1:7070\n"
        "for other machines: runferry server keys add NAME   then: runferry server --host 0.0.0.0 --tls-cert FILE --tls-key FILE",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s, this machine only)")
    options.add_argument(
        "--port",
        type=_port,
        default=DEFAULT_PORT,
        help="port of HTTP; the write door takes the next one; 0: free ones (default: %(default)s)",
    )
    options.add_argument(
        "--advertise-write",
        type=_advertised,
        default=None,
        metavar="HOST:PORT",
        help="where writers reach the write door if not at the host they asked and its own port: a load balancer, a mapped port "
        "(:PORT keeps the host)",
    )
    options.add_argument(
        "--data",
        type=Path,
        default=None,
        metavar="DIR",
        help="folder of the data (default: $RUNFERRY_SERVER_DATA or ~/.local/share/runferry)",
    )
    options.add_argument(
        "--store",
        type=store_option,
        default=default_store(),
        metavar="URL",
        help="keep everything in this PostgreSQL database, which servers may share, instead of the folder: postgresql://USER@HOST/DATABASE "
        "(default: $RUNFERRY_SERVER_STORE)",
    )
    options.add_argument(
        "--adopt",
        type=Path,
        action="append",
        default=None,
        metavar="DIR",
        help="follow the local journals in DIR, live ones too; may be repeated (default: ./runferry if it exists)",
    )
    options.add_argument(
        "--tls-cert",
        type=Path,
        default=None,
        metavar="FILE",
        help="PEM file of the certificate of both doors; read again when it changes",
    )
    options.add_argument("--tls-key", type=Path, default=None, metavar="FILE", help="PEM file of its private key")
    options.add_argument(
        "--require-keys", action="store_true", help="want a key from clients of this machine too; beyond it one is always wanted"
    )
    options.add_argument(
        "--insecure-no-auth", action="store_true", help="want no keys beyond this machine: whoever can connect can read, write and delete"
    )
    options.add_argument(
        "--keep-free",
        type=_size,
        default=Limits().keep_free_bytes,
        metavar="SIZE",
        help="room on the data's disk below which writers have to wait, as 500MiB; at most 5%% of the disk (default: 1GiB; 0: none)",
    )
    options.add_argument(
        "--max-writers",
        type=_count,
        default=Limits().max_streams,
        metavar="N",
        help="writers connected at once; more are told when to come back, and so is a client that has five sixths of them (default: 12000)",
    )
    options.add_argument(
        "--max-frame-rate",
        type=_count,
        default=int(Limits().most_frames_per_s),
        metavar="N",
        help="frames a second of all writers together above which they are asked for fewer and larger ones (default: 8000)",
    )
    options.add_argument("--verbose", action="store_true", help="log what the server does")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Run the server, or `keys ...` or `check ...`, with these arguments; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["check"]:
        return check.main(words[1:])
    if words[:1] == ["keys"]:
        return keys_command.main(words[1:])
    told = parser().parse_args(words)
    logging.basicConfig(level=logging.INFO if told.verbose else logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for folder in told.adopt or ():
        if not folder.is_dir():
            print(f"runferry server: --adopt {folder}: no such folder", file=sys.stderr)  # noqa: T201 - the answer to the command
            return 2
    from runferry.server.app import run_server  # noqa: PLC0415 - a second that `keys` does not need

    return run_server(
        Settings(
            data_dir=(told.data or default_data_dir()).expanduser().absolute(),
            store=told.store,
            host=told.host,
            port=told.port,
            adopt=told.adopt if told.adopt is not None else default_folders(Path.cwd()),
            advertised_write=told.advertise_write,
            require_keys=told.require_keys,
            insecure_no_auth=told.insecure_no_auth,
            limits=Limits(keep_free_bytes=told.keep_free, max_streams=told.max_writers, most_frames_per_s=told.max_frame_rate),
            tls_cert=told.tls_cert,
            tls_key=told.tls_key,
        )
    )


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of at least 1")
    return int(text)


def _advertised(text: str) -> Advertised:
    try:
        return Advertised.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _size(text: str) -> int:
    found = re.fullmatch(r"(\d+)(|KiB|MiB|GiB)", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size: a number of bytes, or one with KiB, MiB or GiB behind it")
    return int(found[1]) << {"": 0, "KiB": 10, "MiB": 20, "GiB": 30}[found[2]]


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= MAX_PORT:
        raise argparse.ArgumentTypeError(f"{port} is not between 0 and {MAX_PORT}")
    return port


if __name__ == "__main__":
    sys.exit(main())
