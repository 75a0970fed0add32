"""Routes over projects, runs and writers."""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Query, Response

from runferry.server.filters import FilterError
from runferry.server.http import models
from runferry.server.http.answers import ApiError, json_answer
from runferry.server.query import OrderError

if TYPE_CHECKING:
    from runferry.server.http.context import ReadContext

PROTOCOL = 1
MAX_FILTER_CHARS = 65_536


def run_routes(context: ReadContext) -> APIRouter:
    """The routes, reading from this context."""
    router = APIRouter(prefix="/api/v1", responses={404: {"model": models.Error}, 400: {"model": models.Error}})

    @router.get("/door", response_model=models.Door, summary="Where and how to write")
    async def door() -> Response:
        answer = {
            "service": "runferry",
            "version": context.version,
            "protocol": PROTOCOL,
            "write_port": context.write.port,
            "write_host": context.write.host,
            "tls": context.has_tls,
            "wants_key": context.gate.is_required,
            "storage_epoch": context.store.epoch.hex(),
        }
        return json_answer(answer)

    @router.get("/projects", response_model=models.Projects, summary="All projects")
    async def projects() -> Response:
        return json_answer({"projects": await context.call(context.query.projects)})

    @router.get("/runs", response_model=models.Runs, summary="Runs by filter, in order, a page at a time")
    async def runs(  # noqa: PLR0913, PLR0917 - one for each parameter of the query
        entity: str | None = None,
        project: str | None = None,
        filters: Annotated[str | None, Query(max_length=MAX_FILTER_CHARS, description="JSON, in the manner of MongoDB")] = None,
        order: Annotated[str, Query(description="+created_at, -summary_metrics.loss, +config.lr, ...")] = "-created_at",
        limit: Annotated[int, Query(ge=1)] = 50,
        cursor: str | None = None,
    ) -> Response:
        read = functools.partial(
            context.query.runs,
            entity=entity,
            project_name=project,
            filters=_parsed(filters),
            order=order.replace(" ", "+", 1) if order.startswith(" ") else order,  # a bare `+` in a query string is a space
            limit=min(limit, context.limits.page_runs),
            cursor=cursor,
        )
        try:
            page = await context.call(read)
        except (FilterError, OrderError) as error:
            raise ApiError(400, "bad_filter" if isinstance(error, FilterError) else "bad_order", str(error)) from error
        return json_answer({"runs": page.runs, "next_cursor": page.next_cursor, "total": page.total})

    @router.get("/runs/{entity}/{project}/{id}", response_model=models.Run, summary="One run")
    async def run(entity: str, project: str, id: str) -> Response:  # noqa: A002 - the field's name everywhere
        return json_answer(await context.of_run(entity, project, id, context.query.run))

    @router.get(
        "/runs/{entity}/{project}/{id}/writers", response_model=models.Writers, summary="Who wrote the run, how far, with which gaps"
    )
    async def writers(entity: str, project: str, id: str) -> Response:  # noqa: A002 - the field's name everywhere
        return json_answer({"writers": await context.of_run(entity, project, id, context.query.writers)})

    @router.get(
        "/runs/{entity}/{project}/{id}/receipts", response_model=models.Receipts, summary="What each writer packed and what is stored of it"
    )
    async def receipts(entity: str, project: str, id: str) -> Response:  # noqa: A002 - the field's name everywhere
        return json_answer({"writers": await context.of_run(entity, project, id, context.query.receipts)})

    return router


def _parsed(filters: str | None) -> object:
    if filters is None or not filters.strip():
        return None
    try:
        return json.loads(filters)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, "bad_filter", f"filters is not JSON: {error}") from error
