"""Everything the server can be told, read once at the edge and passed down as plain values.

No other module of the server reads the environment: who wonders where a number comes from finds it here. The
command line wins over the environment, the environment over the defaults.
"""

from __future__ import annotations

import argparse
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DEFAULT_PORT = 7070
LOOPBACK_HOSTS = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of what the server keeps in memory and answers at once."""

    max_message_bytes: int = 16 << 20
    """Of one gRPC message."""
    max_frame_bytes: int = (8 << 20) + 72
    """Of one frame: 8 MiB of payload, the header, the padding."""
    commit_linger_s: float = 0.005
    """How long a group commit waits for more frames; at most 50 ms is allowed."""
    keep_free_bytes: int = 1 << 30
    """Room on the data's disk that frames do not get; at most 5 % of the disk."""
    commit_group_bytes: int = 1 << 20
    """A group commit of so many bytes does not wait."""
    open_timeout_s: float = 30.0
    """A stream that has not sent its Open by then is closed."""
    max_streams: int = 12_000
    """Writers connected at once; more are told when to come back."""
    client_share: float = 5 / 6
    """Of these what one client may have, by its key or, where none is wanted, its address: the others always find room."""
    max_streams_per_connection: int = 256
    """A writer has a connection of its own; tools that replay many may share one."""
    max_waiting_opens: int = 2_048
    max_waiting_opens_per_connection: int = 64
    max_waiting_open_bytes: int = 64 << 20
    """Openings that wait for their turn; more are told when to come back."""
    max_pending_bytes: int = 256 << 20
    """Frames of all streams that wait for their commit: then nothing more is read, and new writers are told to come back."""
    most_frames_per_s: float = 8_000.0
    """Of all writers together; with more, writers are asked to let their frames fill for longer."""
    stream_age_s: float = 3_600.0
    """A stream older than this (give or take a tenth) is drained, so that writers spread over servers that come and go."""
    drain_timeout_s: float = 10.0
    """How long a shutdown waits for the last commits and acks."""
    page_runs: int = 1_000
    """Runs in one answer, at most."""
    max_buckets: int = 20_000
    max_keys: int = 1_000
    """Series in one answer, at most."""
    max_runs: int = 200
    """Runs whose series are in one answer, at most."""
    max_answer_buckets: int = 1_000_000
    """Buckets of all series in one answer, at most."""
    max_http_connections: int = 2_000
    http_head_timeout_s: float = 20.0
    """A request whose head has not come by then is given up."""


class Advertised(NamedTuple):
    """The write door as writers reach it: behind a load balancer, or a container's mapped ports."""

    host: str | None
    """None: the host that was asked."""
    port: int

    @classmethod
    def parse(cls, text: str) -> Advertised:
        """Reads `HOST:PORT`, `:PORT` or `[IPV6]:PORT`.

        Raises:
            ValueError: It is none of them.
        """
        host, colon, port = text.rpartition(":")
        is_bracketed = host.startswith("[") and host.endswith("]")
        has_good_host = is_bracketed or not set(host) & set("[]:/@ ")
        if not colon or not has_good_host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 1 << 16:
            raise ValueError(f"{text!r} is not HOST:PORT, :PORT or [IPV6]:PORT")
        return cls(host or None, int(port))


@dataclass(frozen=True, slots=True)
class Settings:
    """One server."""

    data_dir: Path
    store: str | None = None
    """URL of a PostgreSQL database that holds everything; None: files in `data_dir`."""
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    """Of the read door; the write door takes the next one. 0: any two free ports."""
    advertised_write: Advertised | None = None
    """Where writers are sent; None: to the host they asked, at the port that the write door has here."""
    adopt: Sequence[Path] = ()
    """Folders of local journals to follow."""
    require_keys: bool = False
    """Want keys on loopback too."""
    insecure_no_auth: bool = False
    """Want no keys beyond loopback either: anyone who can connect may then read and write."""
    tls_cert: Path | None = None
    """PEM file of the certificate and those that vouch for it; with `tls_key`: both doors speak TLS, and nothing else."""
    tls_key: Path | None = None
    limits: Limits = field(default_factory=Limits)

    @property
    def is_loopback(self) -> bool:
        """Only this machine can connect."""
        return self.host in LOOPBACK_HOSTS

    @property
    def shown_place(self) -> str:
        """Where everything is kept, without a password."""
        return str(self.data_dir) if self.store is None else re.sub(r"//([^@/:]*):[^@/]*@", r"//\1@", self.store)

    @property
    def place_option(self) -> str:
        """The option that names the same place to another command."""
        return f"--data {self.data_dir}" if self.store is None else f"--store {self.shown_place}"

    @property
    def wants_keys(self) -> bool:
        """Whether who has no key stays outside."""
        return self.require_keys or not (self.is_loopback or self.insecure_no_auth)


def default_store(environ: Mapping[str, str] | None = None) -> str | None:
    """`RUNFERRY_SERVER_STORE`, if it is set."""
    environ = os.environ if environ is None else environ
    return environ.get("RUNFERRY_SERVER_STORE") or None


def store_option(text: str) -> str:
    """The URL of a PostgreSQL database, as it was given on the command line.

    Raises:
        ArgumentTypeError: It is none.
    """
    if not text.startswith(("postgresql://", "postgres://")):
        raise argparse.ArgumentTypeError("not the URL of a PostgreSQL database: postgresql://USER@HOST/DATABASE")
    return text


def default_data_dir(environ: Mapping[str, str] | None = None) -> Path:
    """`RUNFERRY_SERVER_DATA`, else a folder in the user's data home."""
    environ = os.environ if environ is None else environ
    told = environ.get("RUNFERRY_SERVER_DATA")
    if told:
        return Path(told).expanduser()
    data_home = environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(data_home).expanduser() / "runferry"
