"""Two neighbouring free ports, for servers that are started again where they were.

Tests of several files run side by side: each of their processes has ports of its own to choose from.
"""

from __future__ import annotations

import os
import random
import socket

_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 12
_FIRST = 20_000 + 1_000 * _WORKER  # below the ports that the system gives away by itself


def free_port() -> int:
    """A port P such that P (HTTP) and P + 1 (write door) are free."""
    for _ in range(200):
        port = random.randrange(_FIRST, _FIRST + 1_000, 2)
        try:
            with socket.socket() as one, socket.socket() as other:
                one.bind(("127.0.0.1", port))
                other.bind(("127.0.0.1", port + 1))
        except OSError:
            continue
        return port
    raise AssertionError("no free ports")
