"""`Runs`: the runs of a project as a lazy sequence, fetched page by page and kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

from runferry.api.run import Run

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from runferry._http import Server


class Runs:
    """A sequence of `Run`. Iteration asks for pages as it goes; `len` asks for the first page only."""

    def __init__(  # noqa: PLR0913, PLR0917 - made by `Api.runs` alone
        self, server: Server, entity: str, project: str, filters: Mapping[str, Any] | None, order: str, per_page: int
    ) -> None:
        self.entity = entity
        self.project = project
        self._server = server
        self._query = {"entity": entity, "project": project, "filters": _json(filters), "order": order, "limit": per_page}
        self._found: list[Run] = []
        self._cursor: str | None = None
        self._total: int | None = None

    @property
    def more(self) -> bool:
        """Whether there are runs that were not fetched yet, as far as is known."""
        return self._total is None or self._cursor is not None

    def __len__(self) -> int:
        """Runs that match, fetched or not."""
        if self._total is None:
            self._fetch_page()
        return self._total or 0

    def __iter__(self) -> Iterator[Run]:
        """Over all runs, in order."""
        index = 0
        while self._has(index):
            yield self._found[index]
            index += 1

    @overload
    def __getitem__(self, index: int) -> Run: ...
    @overload
    def __getitem__(self, index: slice) -> list[Run]: ...
    def __getitem__(self, index: int | slice) -> Run | list[Run]:
        """A run by its place, or several; IndexError behind the last."""
        if isinstance(index, slice):
            return list(self)[index]
        if index < 0:
            return list(self)[index]
        if not self._has(index):
            raise IndexError(f"run {index} of {len(self._found)}")
        return self._found[index]

    def _has(self, index: int) -> bool:
        while index >= len(self._found) and self.more:
            self._fetch_page()
        return index < len(self._found)

    def _fetch_page(self) -> None:
        answer = self._server.get(["runs"], {**self._query, "cursor": self._cursor})
        self._found.extend(Run(self._server, run) for run in answer["runs"])
        self._cursor = answer.get("next_cursor") if answer["runs"] else None
        self._total = answer.get("total", len(self._found))

    def __repr__(self) -> str:
        """The project and how many runs are known."""
        return f"<Runs {self.entity}/{self.project}: {'?' if self._total is None else self._total}>"


def _json(filters: Mapping[str, Any] | None) -> str | None:
    if not filters:
        return None
    import json  # noqa: PLC0415 - with the first request

    return json.dumps(filters)
