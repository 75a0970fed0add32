"""How the read door answers: strict JSON, one form of error, the same security headers everywhere."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from fastapi.responses import Response

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

SECURITY_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; font-src 'self'; connect-src 'self'; "
        "manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}
_SECURITY_HEADERS = [(name.encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]
LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "[::1]"})


class ApiError(Exception):
    """An answer that is not a success."""

    def __init__(self, status: int, code: str, message: str) -> None:
        """`code` is for programs, `message` for people."""
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


def dumps(value: object) -> str:
    """JSON of a value; one that JSON cannot hold is an error here, never `NaN` in an answer."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def json_answer(value: object, status: int = 200) -> Response:
    """An answer that is never cached: a run changes every second."""
    return written_answer(dumps(value), status)


def written_answer(text: str | bytes, status: int = 200) -> Response:
    """As `json_answer`, of a text that is JSON already."""
    return Response(text, status, {"cache-control": "no-store"}, "application/json")


def error_answer(status: int, code: str, message: str) -> Response:
    """The one form of an error."""
    return json_answer({"error": {"code": code, "message": message}}, status)


class GuardedApp:
    """Sets the security headers, says how long the answer took to begin, and refuses what a foreign web page asked by a name of its own.

    A page on any web site can have its own host name resolve to 127.0.0.1 and then read a server without keys as its own
    origin; it cannot choose the Host header. So a server on loopback answers to loopback's names only.
    """

    def __init__(self, app: ASGIApp, *, is_loopback: bool) -> None:
        """Guard this app."""
        self._app = app
        self._is_loopback = is_loopback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began_s = time.perf_counter()

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {name.lower() for name, _ in message["headers"]}
                extra = [header for header in _SECURITY_HEADERS if header[0] not in present]
                took_ms = (time.perf_counter() - began_s) * 1e3
                timing = (b"server-timing", b"total;dur=%.3f" % took_ms)
                message = {**message, "headers": [*message["headers"], *extra, timing]}
            await send(message)

        if self._is_loopback and not _is_loopback_name(scope):
            refusal = error_answer(421, "wrong_host", "this server answers to localhost and 127.0.0.1 only")
            await refusal(scope, receive, send_guarded)
            return
        await self._app(scope, receive, send_guarded)


def _is_loopback_name(scope: dict[str, Any] | Scope) -> bool:
    for name, value in scope["headers"]:
        if name == b"host":
            host = value.decode("latin-1").lower()
            without_port = host.rsplit(":", 1)[0] if not host.endswith("]") and ":" in host else host
            return without_port in LOOPBACK_NAMES
    return True  # HTTP/1.0 without a Host header: no browser sends that
