"""The page's login: a key goes in once, a cookie comes out that no script can read.

The cookie is `SameSite=Strict`, so no other site can make a browser use it, and `Secure` where the server speaks TLS. The key stands in
the body of one request: never in an address, where logs and histories would keep it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from runferry.server.auth import SESSION_DAYS, DeniedError, Grant, bearer
from runferry.server.http import models
from runferry.server.http.answers import ApiError, json_answer
from runferry.server.http.keyed import session_cookie, session_of

if TYPE_CHECKING:
    from runferry.server.http.context import ReadContext

MAX_KEY_CHARS = 1_000


class Login(BaseModel):
    """What the login form sends."""

    model_config = ConfigDict(extra="forbid")

    key: str = Field(min_length=1, max_length=MAX_KEY_CHARS)


def session_routes(context: ReadContext) -> APIRouter:
    """The routes."""
    router = APIRouter(prefix="/api/v1", responses={401: {"model": models.Error}})
    gate = context.gate

    def described(grant: Grant | None) -> Response:
        scopes = ["read", "write"] if grant is None else sorted(grant.scopes)
        return json_answer({"required": gate.is_required, "name": grant.name if grant else None, "scopes": scopes})

    @router.get("/session", response_model=models.Session, summary="Which key the request shows")
    async def session(request: Request) -> Response:
        try:
            grant = await gate.admit(bearer(request.headers.get("authorization")), None, session=session_of(request.scope))
        except DeniedError as denied:
            raise ApiError(401, "unauthenticated", str(denied)) from denied
        return described(grant)

    @router.post("/session", response_model=models.Session, summary="Log in with a key: sets the page's cookie")
    async def log_in(request: Request, login: Login) -> Response:
        try:
            grant = await gate.admit(login.key, "read")
        except DeniedError as denied:
            raise ApiError(403 if denied.is_scope else 401, "forbidden" if denied.is_scope else "unauthenticated", str(denied)) from denied
        answer = described(grant)
        if grant is not None:
            answer.set_cookie(
                session_cookie(request.scope),
                gate.keyring.session(grant),
                max_age=SESSION_DAYS * 86_400,
                httponly=True,
                samesite="strict",
                secure=context.has_tls,
            )
        return answer

    @router.delete("/session", summary="Log out: removes the page's cookie", status_code=204)
    async def log_out(request: Request) -> Response:
        answer = Response(status_code=204)
        answer.delete_cookie(session_cookie(request.scope), httponly=True, samesite="strict", secure=context.has_tls)
        return answer

    return router
