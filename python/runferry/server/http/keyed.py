"""Lets requests in by key: the one place of the read door where that is decided.

Whoever may connect gets the page's files, `/api/v1/door` and the login (`/api/v1/session`); they hold no data. Everything else under `/api`
wants a key that may read, or write where the request changes something: in `Authorization: Bearer`, or as the cookie that the login set.

Live answers last for hours, so they are ended when their key is.
"""

from __future__ import annotations

import asyncio
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING

from runferry.server.auth import DeniedError, Gate, Grant, bearer
from runferry.server.http.answers import error_answer

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

OPEN_PATHS = frozenset({"/api/v1/door", "/api/v1/session"})
READING_METHODS = frozenset({"GET", "HEAD"})


class KeyedApp:
    """Asks the gate before the app is asked; the grant lies in `scope["state"]["grant"]`."""

    def __init__(self, app: ASGIApp, gate: Gate) -> None:
        """Guard this app."""
        self._app = app
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        path: str = scope["path"] if scope["type"] == "http" else ""
        if not path.startswith("/api/") or path in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        needed = "read" if scope["method"] in READING_METHODS else "write"
        try:
            grant = await self._gate.admit(bearer(_header(scope, b"authorization")), needed, session=session_of(scope))
        except DeniedError as denied:
            answer = error_answer(403 if denied.is_scope else 401, "forbidden" if denied.is_scope else "unauthenticated", str(denied))
            if not denied.is_scope:
                answer.headers["www-authenticate"] = 'Bearer realm="runferry"'
            await answer(scope, receive, send)
            return
        if grant is not None and path.endswith("/live"):
            await self._serve_while_good(grant, scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _serve_while_good(self, grant: Grant, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve, and end the answer in order when the grant ends."""
        is_open = False

        async def send_noting(message: Message) -> None:
            nonlocal is_open
            is_open = message["type"] == "http.response.start" or bool(message.get("more_body"))
            await send(message)

        serving = asyncio.ensure_future(self._app(scope, receive, send_noting))
        refused = asyncio.ensure_future(self._gate.until_refused(grant))
        try:
            await asyncio.wait({serving, refused}, return_when=asyncio.FIRST_COMPLETED)
            if serving.done():
                serving.result()
        finally:
            serving.cancel()
            refused.cancel()
            await asyncio.gather(serving, refused, return_exceptions=True)
        if is_open:
            await send({"type": "http.response.body", "body": b"", "more_body": False})


def session_cookie(scope: Scope) -> str:
    """The cookie's name. Browsers share cookies among the ports of a host, so it holds the port."""
    return f"runferry_session_{(scope.get('server') or ('', 0))[1]}"


def session_of(scope: Scope) -> str | None:
    """The session a browser shows."""
    cookies = SimpleCookie()
    try:
        cookies.load(_header(scope, b"cookie") or "")
    except CookieError:
        return None
    found = cookies.get(session_cookie(scope))
    return None if found is None else found.value


def _header(scope: Scope, wanted: bytes) -> str | None:
    for name, value in scope["headers"]:
        if name == wanted:
            text: str = value.decode("latin-1")
            return text
    return None
