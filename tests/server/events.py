"""Reads server-sent events in tests, with an end to the waiting."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import httpx


@dataclass(frozen=True)
class Event:
    """One event."""

    name: str
    id: str | None
    data: Any


class EventReader:
    """Events of one response, one after the other."""

    def __init__(self, response: httpx.Response) -> None:
        assert response.status_code == 200, response.read()
        self._lines = response.iter_lines()
        self._events = self._parse()

    def next(self) -> Event:
        """The next event; the client's read timeout ends the waiting."""
        return next(self._events)

    def until(self, is_it: Callable[[Event], bool]) -> list[Event]:
        """Events up to the first that is it."""
        seen = []
        for event in self._events:
            seen.append(event)
            if is_it(event):
                return seen
        raise AssertionError(f"the events ended after {seen}")

    def _parse(self) -> Iterator[Event]:
        fields: dict[str, str] = {}
        for line in self._lines:
            if line:
                name, _, value = line.partition(":")
                fields[name] = value.removeprefix(" ")
            elif "data" in fields:
                yield Event(fields.get("event", "message"), fields.get("id"), json.loads(fields["data"]))
                fields = {}
            else:
                fields = {}
