"""Keys of a test's server, made and revoked as an operator does it: by the command, in another process."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from tests.support.servers import server_environment

if TYPE_CHECKING:
    from pathlib import Path


def keys_command(data: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """`runferry server keys WORDS --data DATA` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "runferry.server", "keys", *words, "--data", str(data)],
        env=server_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def add_key(data: Path, name: str, *words: str) -> str:
    """A new key."""
    made = keys_command(data, "add", name, *words)
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


def revoke_key(data: Path, name: str) -> None:
    """End it."""
    revoked = keys_command(data, "revoke", name)
    assert revoked.returncode == 0, revoked.stderr
