"""Live routes: server-sent events, one task a subscriber, woken by ingest.

# Bounds
A subscriber gets at most `EVENTS_PER_S` deltas; what arrives in between is one delta, bucketed when it is large. A
subscriber that does not read holds one unsent event, since the next is only made after the last one left.

# Going on
Each event's `id:` is its cursor. A browser that reconnects sends it as `Last-Event-ID`, which wins over the query's.
"""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import StreamingResponse

from runferry import _native
from runferry.server.http.answers import dumps
from runferry.server.http.history import checked_keys
from runferry.server.http.series import RUN_PATH

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from runferry.server.http.context import ReadContext
    from runferry.server.live import Subscription

EVENTS_PER_S = 5
LISTINGS_PER_S = 2
HEARTBEAT_S = 15.0
MAX_DELTA_POINTS = 500
RUNS_PER_EVENT = 200
SILENT_FIELDS = frozenset({"heartbeat_at_us"})
"""Fields whose change alone is no news."""


def event_routes(context: ReadContext) -> APIRouter:
    """The routes, reading from this context."""
    router = APIRouter(prefix="/api/v1")

    @router.get(RUN_PATH + "/live", response_class=Response, summary="A run as it moves (server-sent events)")
    async def live_run(  # noqa: PLR0913, PLR0917 - one for each parameter of the query
        entity: str,
        project: str,
        id: str,  # noqa: A002 - the field's name everywhere
        cursor: str | None = None,
        keys: Annotated[list[str] | None, Query(description="names to send; repeat the parameter")] = None,
        last_event_id: Annotated[str | None, Header()] = None,
    ) -> Response:
        names = checked_keys(context, keys or [])
        told = last_event_id or cursor

        def begin(run_id: bytes) -> tuple[bytes, str]:
            return run_id, told or context.store.cursor(run_id)

        run_id, start = await context.of_run(entity, project, id, begin)
        return _events(_run_events(context, run_id, names, start))

    @router.get("/live", response_class=Response, summary="Runs of a project as they appear and change (server-sent events)")
    async def live_project(entity: str | None = None, project: str | None = None) -> Response:
        return _events(_project_events(context, entity, project))

    return router


def _events(events: AsyncIterator[str]) -> Response:
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return StreamingResponse(events, media_type="text/event-stream", headers=headers)


def _event(name: str, data: str, event_id: str | None = None) -> str:
    """An event whose data is JSON: that has no line breaks."""
    first = f"id: {event_id}\n" if event_id is not None else ""
    return f"{first}event: {name}\ndata: {data}\n\n"


class _RunReader:
    """What a subscriber of a run has been told already."""

    def __init__(self, context: ReadContext, run_id: bytes, names: list[str], cursor: str) -> None:
        self._context = context
        self._run_id = run_id
        self._names = names
        self._known = dict.fromkeys(names)
        self._told: dict[str, Any] = {}
        self.cursor = cursor

    def look(self, _changed: list[bytes]) -> str | None:
        """The event to send now, if there is news. Blocks."""
        store = self._context.store
        delta = store.delta(self._run_id, self.cursor, self._names, list(self._known), max_points=MAX_DELTA_POINTS)
        snapshot = _event("snapshot", dumps({"cursor": delta.cursor}), delta.cursor) if delta.is_snapshot_needed else ""
        self.cursor = delta.cursor
        self._known.update(dict.fromkeys(delta.new_keys))
        run = self._context.query.run(self._run_id) or {}
        changed = {key: value for key, value in run.items() if key not in self._told or self._told[key] != value}
        if not (delta.series or delta.new_keys or delta.other_keys or changed.keys() - SILENT_FIELDS):
            return snapshot or None
        self._told = run
        series = _native.series_json([item for item in delta.series if item.raw_points], added=True).decode()
        first = dumps({"cursor": delta.cursor, "run": changed})
        behind = dumps({"new_keys": delta.new_keys, "other_keys": delta.other_keys})
        return snapshot + _event("delta", f'{first[:-1]},"series":{series},{behind[1:]}', delta.cursor)


async def _run_events(context: ReadContext, run_id: bytes, names: list[str], cursor: str) -> AsyncIterator[str]:
    reader = _RunReader(context, run_id, names, cursor)
    with context.hub.follow_run(run_id) as subscription:
        subscription.wake()  # what happened between the cursor and now
        async for event in _paced(context, subscription, reader.look, EVENTS_PER_S):
            yield event


class _ProjectReader:
    """The states that a subscriber of a project has been told: the clock changes them without anything arriving."""

    def __init__(self, context: ReadContext, entity: str | None, project: str | None) -> None:
        self._context = context
        self._read_states = functools.partial(context.query.states, entity, project)
        self._states: dict[bytes, str] | None = None

    def look(self, runs_changed: list[bytes]) -> str | None:
        """The event to send now, if there is news. Blocks."""
        changed = dict.fromkeys(runs_changed)
        states = self._read_states()
        if self._states is not None:
            changed.update({run_id: None for run_id, state in states.items() if self._states.get(run_id, state) != state})
        self._states = states
        runs = self._context.query.runs_by_key(list(changed))
        return _event("runs", dumps({"runs": runs})) if runs else None


async def _project_events(context: ReadContext, entity: str | None, project: str | None) -> AsyncIterator[str]:
    with context.hub.follow_project(entity, project) as subscription:
        reader = _ProjectReader(context, entity, project)
        await context.call(reader.look, [])
        async for event in _paced(context, subscription, reader.look, LISTINGS_PER_S):
            yield event


async def _paced(
    context: ReadContext, subscription: Subscription, look: Callable[[list[bytes]], str | None], per_s: int
) -> AsyncIterator[str]:
    """Events when woken, at most `per_s` of them, and a comment when nothing else was sent for a while."""
    loop = asyncio.get_running_loop()
    yield ": open\n\n"
    said_at = loop.time()
    while True:
        await subscription.wait(max(0.0, said_at + HEARTBEAT_S - loop.time()))
        if subscription.is_closed:
            return
        looked_at = loop.time()
        event = await context.call(look, subscription.take_runs(RUNS_PER_EVENT))
        if event is not None or loop.time() >= said_at + HEARTBEAT_S:
            yield event or ": alive\n\n"
            said_at = loop.time()
        await asyncio.sleep(max(0.0, looked_at + 1 / per_s - loop.time()))
