"""Routes over the metrics of a run: names and last values, histograms, exact rows."""

from __future__ import annotations

import base64
import contextlib
import json
import math
from collections.abc import Generator
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse

from runferry import _native
from runferry.server.http import models
from runferry.server.http.answers import ApiError, dumps, json_answer, written_answer
from runferry.server.values import last_value

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator

    from runferry.server.http.context import ReadContext
    from runferry.server.store.protocol import Histogram

FRAMES_MEDIA_TYPE = "application/vnd.runferry.frames"
RUN_PATH = "/runs/{entity}/{project}/{id}"
MAX_HISTOGRAMS = 5_000
METRICS_A_PAGE = 5_000
MAX_STEP = 2**63 - 1

Step = Annotated[int | None, Query(ge=-MAX_STEP - 1, le=MAX_STEP)]


def series_routes(context: ReadContext) -> APIRouter:
    """The routes, reading from this context."""
    router = APIRouter(prefix="/api/v1", responses={404: {"model": models.Error}, 400: {"model": models.Error}})

    @router.get(RUN_PATH + "/metrics", response_model=models.Metrics, summary="Names, kinds and last values")
    async def metrics(
        entity: str,
        project: str,
        id: str,  # noqa: A002 - the field's name everywhere
        limit: Annotated[int | None, Query(ge=1, description="so many, and a cursor for the next; none: all")] = None,
        cursor: Annotated[str | None, Query(description="`next_cursor` of the page before")] = None,
    ) -> Response:
        after = None if cursor is None else _metric_of(cursor)
        most = METRICS_A_PAGE if limit is None else min(limit, METRICS_A_PAGE)

        def read(run_id: bytes) -> tuple[bytes, _MetricPage]:
            return run_id, _metric_page(context, run_id, after, most)

        run_id, page = await context.of_run(entity, project, id, read)  # an error before the first byte has a status
        if limit is not None or page.last is None:
            next_cursor = b"" if limit is None else b',"next_cursor":' + dumps(_cursor_of(page.last)).encode()
            return written_answer(b'{"metrics":[%s]%s}' % (page.shown, next_cursor))
        return StreamingResponse(_all_metrics(context, run_id, page), media_type="application/json", headers={"cache-control": "no-store"})

    @router.get(RUN_PATH + "/histograms", response_model=models.Histograms, summary="Histograms of one key, evenly thinned")
    async def histograms(  # noqa: PLR0913, PLR0917 - one for each parameter of the query
        entity: str,
        project: str,
        id: str,  # noqa: A002 - the field's name everywhere
        key: str,
        buckets: Annotated[int, Query(ge=1)] = 200,
        min_step: Step = None,
        max_step: Step = None,
    ) -> Response:
        limit = min(buckets, MAX_HISTOGRAMS)

        def read(run_id: bytes) -> dict[str, Any]:
            raw_points, found = context.store.histograms(run_id, key, limit=limit, min_step=min_step, max_step=max_step)
            return {"key": key, "raw_points": raw_points, "histograms": [*_histograms(found)]}

        return json_answer(await context.of_run(entity, project, id, read))

    @router.get(
        RUN_PATH + "/scan",
        summary="Rows, exact: DATA frames of docs/format.md, one behind the other",
        response_class=Response,
        responses={200: {"content": {FRAMES_MEDIA_TYPE: {}}}},
    )
    async def scan(  # noqa: PLR0913, PLR0917 - one for each parameter of the query
        entity: str,
        project: str,
        id: str,  # noqa: A002 - the field's name everywhere
        keys: Annotated[list[str] | None, Query(description="names; none: all")] = None,
        min_step: Step = None,
        max_step: Step = None,
        samples: Annotated[int | None, Query(ge=1, description="so many evenly spaced rows of all that match")] = None,
    ) -> Response:
        def read(run_id: bytes) -> tuple[Iterator[bytes], bytes | None]:
            frames = context.store.scan(run_id, keys or None, min_step=min_step, max_step=max_step, samples=samples)
            return frames, _next(frames)  # an error before the first byte still gets a status

        frames, first = await context.of_run(entity, project, id, read)
        return StreamingResponse(_stream(context, frames, first), media_type=FRAMES_MEDIA_TYPE, headers={"cache-control": "no-store"})

    return router


class _MetricPage(NamedTuple):
    shown: bytes
    """Metrics as JSON, with commas between them."""
    last: tuple[str, str] | None
    """Name and label of the last of a full page."""


def _metric_of(cursor: str) -> tuple[str, str]:
    """The name and label that a page ended with.

    Raises:
        ApiError: Nobody was given this cursor.
    """
    try:
        name, label = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, TypeError) as error:
        raise ApiError(400, "bad_cursor", f"{cursor!r} is no cursor of this list") from error
    if not isinstance(name, str) or not isinstance(label, str):
        raise ApiError(400, "bad_cursor", f"{cursor!r} is no cursor of this list")
    return name, label


def _metric_page(context: ReadContext, run_id: bytes, after: tuple[str, str] | None, limit: int) -> _MetricPage:
    found = context.store.metric_page(run_id, after=after, limit=limit)
    if found is None:
        return _MetricPage(b"", None)
    return _MetricPage(found.json(_shown)[1:-1], found.last_name() if len(found) == limit else None)


def _shown(kind: str, value: object) -> tuple[str, str]:
    """Kind and JSON of a last value that is more than a number or a text."""
    return ("string" if kind == "marker" else kind), dumps(last_value(kind, value))


def _cursor_of(last: tuple[str, str] | None) -> str | None:
    return None if last is None else base64.urlsafe_b64encode(dumps(last).encode()).decode().rstrip("=")


async def _all_metrics(context: ReadContext, run_id: bytes, page: _MetricPage) -> AsyncIterator[bytes]:
    """One answer in pages: a run may have a million names, and neither a thread nor the memory is theirs alone."""
    yield b'{"metrics":[' + page.shown
    while page.last is not None:
        page = await context.call(_metric_page, context, run_id, page.last, METRICS_A_PAGE)
        if page.shown:
            yield b"," + page.shown
    yield b"]}"


def _histograms(found: Iterable[Histogram]) -> Iterator[dict[str, Any]]:
    """Those that can be read: anybody may have sent them."""
    for point in found:
        try:
            edges, counts, nan_count, inf_count = _native.histogram_decode(point.value)
        except ValueError:
            continue
        yield {
            "step": point.step,
            "time_us": point.time_us,
            "edges": _finite(edges),
            "counts": _finite(counts),
            "nan_count": nan_count,
            "inf_count": inf_count,
        }


def _finite(values: list[float]) -> list[float | None]:
    """Numbers that JSON cannot hold become null."""
    return [value if math.isfinite(value) else None for value in values]


def _next(frames: Iterator[bytes]) -> bytes | None:
    return next(frames, None)


async def _stream(context: ReadContext, frames: Iterator[bytes], first: bytes | None) -> AsyncIterator[bytes]:
    frame = first
    try:
        while frame is not None:
            yield frame
            frame = await context.call(_next, frames)
    finally:
        # Not awaited: when the reader has gone this task is cancelled, and the read transaction must end all the same.
        context.threads.submit(_close, frames)


def _close(frames: Iterator[bytes]) -> None:
    """End a scan; one that is still making its next frame ends when that is dropped."""
    if isinstance(frames, Generator):
        with contextlib.suppress(ValueError):
            frames.close()
