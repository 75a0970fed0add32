"""Connections whose request head does not come: given up, so that they cannot use up all there are.

A head is some hundred bytes; a client that sends it a byte a minute costs the server a connection and itself nothing. The answers
may be as slow as their readers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    import asyncio


def impatient_protocol(head_timeout_s: float) -> type[asyncio.Protocol]:
    """The HTTP/1.1 of uvicorn, closing connections whose first request has no whole head in so many seconds."""

    class ImpatientProtocol(H11Protocol):
        """One connection. From its second request on uvicorn's keep-alive timeout watches it."""

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._impatience = self.loop.call_later(head_timeout_s, self._give_up)

        def connection_lost(self, exc: Exception | None) -> None:
            self._impatience.cancel()
            super().connection_lost(exc)

        def _give_up(self) -> None:
            if self.cycle is None and not self.transport.is_closing():
                self.transport.close()

    return ImpatientProtocol
