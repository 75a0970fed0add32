"""Two network namespaces with a cable between them, made by the test and gone after it: client on one side, server on the other.

    with cable() as (client, server):
        with RunningServer(data, "--host", server.address, "--insecure-no-auth", prefix=server.prefix) as running: ...
        server.unplug()

Each side has an IPv4 and an IPv6 address, and a resolver configuration of its own that programs there see as /etc/hosts and
/etc/resolv.conf. Nothing of the machine's own network is touched.
"""

from __future__ import annotations

import os
import platform
import secrets
import shutil
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

SILENT_ADDRESS = "10.79.0.53"
"""Nobody has it, and nobody says so: what is sent there is never answered."""
NOBODY = "02:00:00:00:00:53"


@dataclass(frozen=True)
class Side:
    """One end of the cable."""

    name: str
    device: str
    address: str
    second_address: str
    address6: str

    @property
    def prefix(self) -> tuple[str, ...]:
        """Words before a command that put it on this side; it keeps its pid."""
        return ("ip", "netns", "exec", self.name)

    @property
    def etc(self) -> Path:
        """What lies here is seen as /etc by programs of this side that start later."""
        return Path("/etc/netns") / self.name

    def hosts(self, **addresses: str) -> None:
        """Names this side knows from now on, running programs too; dots are written as underscores."""
        lines = [
            f"{address} {name.replace('_', '.')}\n"
            for name, address in {"localhost": "127.0.0.1", platform.node(): "127.0.0.1", **addresses}.items()
        ]
        (self.etc / "hosts").write_text("".join(lines), encoding="ascii")  # in place: the file is mounted

    def unplug(self) -> None:
        """The cable is out: no packet passes, and nobody is told."""
        _ip("-n", self.name, "link", "set", self.device, "down")

    def plug(self) -> None:
        """The cable is in again."""
        _ip("-n", self.name, "link", "set", self.device, "up")
        # Taking a device down removes its IPv6 addresses.
        _ip("-n", self.name, "addr", "replace", f"{self.address6}/64", "dev", self.device, "nodad")


@contextmanager
def cable() -> Iterator[tuple[Side, Side]]:
    """The two sides; skips the test where this user may not make them."""
    mark = f"rf{os.getpid() % 10_000}{secrets.token_hex(2)}"
    sides = [
        Side(f"{mark}{end}", f"{mark}{end}", f"10.79.0.{host}", f"10.79.0.{host}0", f"fd79::{host}") for end, host in (("a", 1), ("b", 2))
    ]
    one, other = sides
    if shutil.which("ip") is None:
        pytest.skip("not run: iproute2 is not installed")
    try:
        for side in sides:
            _ip("netns", "add", side.name)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"not run: needs the right to make network namespaces: {error.stderr.strip()}")
    try:
        _ip("link", "add", one.device, "netns", one.name, "type", "veth", "peer", "name", other.device, "netns", other.name)
        for side in sides:
            side.etc.mkdir(parents=True)
            side.hosts()
            (side.etc / "resolv.conf").write_text(f"nameserver {SILENT_ADDRESS}\noptions timeout:20 attempts:1\n", encoding="ascii")
            (side.etc / "nsswitch.conf").write_text("hosts: files dns\n", encoding="ascii")
            _ip("-n", side.name, "link", "set", "lo", "up")
            _ip("-n", side.name, "link", "set", side.device, "up")
            for address in (f"{side.address}/24", f"{side.second_address}/24"):
                _ip("-n", side.name, "addr", "add", address, "dev", side.device)
            _ip("-n", side.name, "addr", "add", f"{side.address6}/64", "dev", side.device, "nodad")
            _ip("-n", side.name, "neigh", "add", SILENT_ADDRESS, "lladdr", NOBODY, "dev", side.device, "nud", "permanent")
        yield one, other
    finally:
        for side in sides:
            subprocess.run(["ip", "netns", "delete", side.name], check=True, timeout=30)  # noqa: S607 - where the system has it
            shutil.rmtree(side.etc, ignore_errors=True)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True, timeout=30)  # noqa: S607 - where the system has it
