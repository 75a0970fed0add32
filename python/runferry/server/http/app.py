"""Puts the read door together: routes, errors, guards."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import DataError, OperationalError
from starlette.exceptions import HTTPException

from runferry.server.http.answers import ApiError, GuardedApp, error_answer
from runferry.server.http.events import event_routes
from runferry.server.http.history import history_routes
from runferry.server.http.keyed import KeyedApp
from runferry.server.http.pages import page_routes
from runferry.server.http.runs import run_routes
from runferry.server.http.series import series_routes
from runferry.server.http.session import session_routes
from runferry.server.store.protocol import StoreError

if TYPE_CHECKING:
    from fastapi import Request, Response

    from runferry.server.http.context import ReadContext

logger = logging.getLogger(__name__)
_CODES = {404: "not_found", 405: "method_not_allowed"}


def read_door(context: ReadContext, *, is_loopback: bool) -> GuardedApp:
    """The ASGI app of the read door."""
    app = FastAPI(title="Runferry read door", version=context.version, openapi_url=None, docs_url=None, redoc_url=None)
    app.include_router(session_routes(context))
    app.include_router(run_routes(context))
    app.include_router(history_routes(context))
    app.include_router(series_routes(context))
    app.include_router(event_routes(context))
    app.include_router(page_routes(app))
    _add_errors(app)
    return GuardedApp(KeyedApp(app, context.gate), is_loopback=is_loopback)


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(ApiError)
    async def api_error(_request: Request, error: ApiError) -> Response:
        return error_answer(error.status, error.code, error.message)

    @app.exception_handler(RequestValidationError)
    async def bad_parameter(_request: Request, error: RequestValidationError) -> Response:
        found = [f"{'.'.join(str(part) for part in item['loc'][1:])}: {item['msg']}" for item in error.errors()]
        return error_answer(400, "bad_request", "; ".join(found))

    @app.exception_handler(HTTPException)
    async def http_error(_request: Request, error: HTTPException) -> Response:
        return error_answer(error.status_code, _CODES.get(error.status_code, "error"), str(error.detail))

    @app.exception_handler(StoreError)
    async def store_error(_request: Request, error: StoreError) -> Response:
        logger.error("the store could not answer: %s", error)
        return error_answer(503, "store_unavailable", f"the store could not answer: {error}")

    @app.exception_handler(OperationalError)
    async def metadata_error(_request: Request, error: OperationalError) -> Response:
        logger.error("the metadata could not be read: %s", error.orig)
        return error_answer(503, "store_unavailable", "the database of the server could not answer: try again")

    @app.exception_handler(DataError)
    async def not_of_this_database(_request: Request, error: DataError) -> Response:
        return error_answer(400, "bad_request", f"the database does not take that: {str(error.orig).partition(chr(10))[0]}")

    @app.exception_handler(Exception)
    async def unexpected(_request: Request, _error: Exception) -> Response:
        return error_answer(500, "internal", "the server made a mistake; its log has the details")
