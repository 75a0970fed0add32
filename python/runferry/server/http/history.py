"""Routes over series in buckets, what charts are drawn from: of one run, or of several in one answer.

A chart that compares fifty runs asks once: fifty answers would cost fifty times what an answer costs beside its numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Query, Response

from runferry import _native
from runferry.server.http import models
from runferry.server.http.answers import ApiError, dumps, written_answer
from runferry.server.http.series import RUN_PATH, Step

if TYPE_CHECKING:
    from runferry._native import Buckets
    from runferry.server.http.context import ReadContext
    from runferry.server.query import RunName


def history_routes(context: ReadContext) -> APIRouter:
    """The routes, reading from this context."""
    router = APIRouter(prefix="/api/v1", responses={404: {"model": models.Error}, 400: {"model": models.Error}})

    @router.get(RUN_PATH + "/history", response_model=models.History, summary="Series in buckets, for charts")
    async def history(  # noqa: PLR0913, PLR0917 - one for each parameter of the query
        entity: str,
        project: str,
        id: str,  # noqa: A002 - the field's name everywhere
        keys: Annotated[list[str], Query(description="names; repeat the parameter")],
        buckets: Annotated[int, Query(ge=1)] = 500,
        min_step: Step = None,
        max_step: Step = None,
    ) -> Response:
        names = checked_keys(context, keys)
        limit = shared_buckets(context, buckets, len(names))

        def read(run_id: bytes) -> bytes:
            return b"{%s}" % _history_members(*context.store.history(run_id, names, buckets=limit, min_step=min_step, max_step=max_step))

        return written_answer(await context.of_run(entity, project, id, read))

    @router.get("/history", response_model=models.Histories, summary="The same series of several runs in buckets, for charts that compare")
    async def histories(
        runs: Annotated[list[str], Query(description="entity/project/id; repeat the parameter")],
        keys: Annotated[list[str], Query(description="names; repeat the parameter")],
        buckets: Annotated[int, Query(ge=1)] = 500,
        min_step: Step = None,
        max_step: Step = None,
    ) -> Response:
        asked = _run_names(context, runs)
        names = checked_keys(context, keys, len(asked))

        def read() -> bytes:
            found = context.query.find_all(asked)
            limit = shared_buckets(context, buckets, len(names) * len(found))
            of_runs = []
            for run in asked:
                if run in found:
                    history = context.store.history(found[run], names, buckets=limit, min_step=min_step, max_step=max_step)
                    head = dumps(dict(zip(("entity", "project", "id"), run, strict=True)))[1:-1].encode()
                    of_runs.append(b"{%s,%s}" % (head, _history_members(*history)))
            missing = dumps(["/".join(run) for run in asked if run not in found]).encode()
            return b'{"runs":[%s],"missing":%s}' % (b",".join(of_runs), missing)

        return written_answer(await context.call(read))

    return router


def checked_keys(context: ReadContext, keys: list[str], runs: int = 1) -> list[str]:
    """The keys, each once.

    Raises:
        ApiError: Those of so many runs are too many for one answer.
    """
    names = list(dict.fromkeys(keys))
    most = context.limits.max_keys
    if len(names) * runs > most:
        what = f"{len(names)} keys" if runs == 1 else f"{len(names)} keys of {runs} runs"
        raise ApiError(400, "too_many_keys", f"{what} in one request, at most {most} series are allowed")
    return names


def _run_names(context: ReadContext, runs: list[str]) -> list[RunName]:
    """The runs, each once.

    Raises:
        ApiError: There are too many for one answer, or one is not named as a run is.
    """
    names: dict[RunName, None] = {}
    for run in runs:
        parts = run.split("/")
        if len(parts) != 3:  # noqa: PLR2004 - see the message
            raise ApiError(400, "bad_run", f"{run!r} does not name a run: ENTITY/PROJECT/ID is expected")
        names[parts[0], parts[1], parts[2]] = None
    if len(names) > context.limits.max_runs:
        raise ApiError(400, "too_many_runs", f"{len(names)} runs in one request, at most {context.limits.max_runs} are allowed")
    return list(names)


def shared_buckets(context: ReadContext, buckets: int, series: int) -> int:
    """How many buckets each of some series gets: those that were asked for, unless all would become too large an answer."""
    return min(buckets, context.limits.max_buckets, max(1, context.limits.max_answer_buckets // max(1, series)))


def _history_members(cursor: str, series: list[Buckets]) -> bytes:
    """What a history says, as members of a JSON object."""
    return b'"cursor":%s,"series":%s' % (dumps(cursor).encode(), _native.series_json(series))
