"""Two neighbouring free ports, for servers that are started again where they were."""

from __future__ import annotations

import random
import socket

_FIRST, _LAST = 20_000, 32_000  # below the ports that the system gives away by itself


def free_port() -> int:
    """A port P such that P (HTTP) and P + 1 (write door) are free."""
    for _ in range(200):
        port = random.randrange(_FIRST, _LAST, 2)
        try:
            with socket.socket() as one, socket.socket() as other:
                one.bind(("127.0.0.1", port))
                other.bind(("127.0.0.1", port + 1))
        except OSError:
            continue
        return port
    raise AssertionError("no free ports")
