"""`Api`: the entrance to everything stored on a server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from runferry._access import server_of
from runferry.api.run import Run
from runferry.api.runs import Runs
from runferry.errors import NotFoundError, UsageError
from runferry.settings import resolve

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runferry.settings import Settings

LOCAL_SERVER = "http://127.0.0.1:7070"
TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Project:
    """A folder of runs."""

    entity: str
    name: str
    run_count: int
    last_active_us: int | None
    url: str


class Api:
    """Reads runs from a server.

    Args:
        overrides: `base_url`, `entity` and `project` instead of those of the settings.
        timeout: Seconds to wait for each answer. Default: 30.
        api_key: Key instead of that of the settings.

    Without a configured server the one that `runferry server` starts on this machine is asked.

    Example:
        >>> for run in runferry.Api().runs("local/demo", {"config.lr": {"$gt": 1e-4}}):
        ...     print(run.name, run.summary["loss"])
    """

    def __init__(self, overrides: Mapping[str, Any] | None = None, timeout: float | None = None, api_key: str | None = None) -> None:
        given = dict(overrides or {})
        unknown = set(given) - {"base_url", "entity", "project"}
        if unknown:
            raise UsageError(f"Api overrides {sorted(unknown)} are unknown: base_url, entity and project may be given")
        self.settings: Settings = resolve({**given, "api_key": api_key})
        """Settings in force."""
        waits_s = TIMEOUT_S if timeout is None else timeout
        self._server = server_of(self.settings, self.settings.base_url or LOCAL_SERVER, timeout_s=waits_s)

    @property
    def base_url(self) -> str:
        """Address of the server that is asked."""
        return self._server.base_url

    @property
    def default_entity(self) -> str:
        """Entity of paths that name none."""
        return self.settings.entity

    def runs(
        self, path: str | None = None, filters: Mapping[str, Any] | None = None, order: str = "+created_at", per_page: int = 50
    ) -> Runs:
        """Runs of a project; nothing is asked before the first one is looked at.

        Args:
            path: `entity/project` or `project`. Default: those of the settings.
            filters: Operators of `docs/http-api.md` over `config.*`, `summary_metrics.*`, `state`, `tags`, ...
            order: `+` or `-` and a key: `created_at`, `heartbeat_at`, `config.X`, `summary_metrics.X`.
            per_page: Runs asked for at once.

        Raises:
            UsageError: The path has not one or two parts, or no project is known.
        """
        entity, project = self._project_of(path)
        return Runs(self._server, entity, project, filters, order, per_page)

    def run(self, path: str) -> Run:
        """One run.

        Args:
            path: `entity/project/id`, `project/id`, or `id` alone in the project of the settings.

        Raises:
            ValueError: There is no such run.
            CommError: The server cannot be reached or refuses.
        """
        *places, run_id = [part for part in path.strip("/").split("/") if part not in {"", "runs"}] or [""]
        entity, project = self._project_of("/".join(places) or None)
        try:
            found = self._server.get(["runs", entity, project, run_id])
        except NotFoundError as error:
            raise RunNotFoundError(f"Could not find run {entity}/{project}/{run_id} at {self.base_url}: {error}") from error
        return Run(self._server, found)

    def projects(self, entity: str | None = None) -> list[Project]:
        """Projects of an entity, latest active first; None: of the settings' entity."""
        wanted = self.settings.entity if entity is None else entity
        found = self._server.get(["projects"])["projects"]
        return [
            Project(one["entity"], one["project"], one["runs"], one.get("last_active_us"), self._project_url(one))
            for one in sorted(found, key=lambda one: -(one.get("last_active_us") or 0))
            if one["entity"] == wanted
        ]

    def _project_url(self, one: Mapping[str, Any]) -> str:
        return "/".join([self.base_url, "p", quote(one["entity"], safe=""), quote(one["project"], safe="")])

    def _project_of(self, path: str | None) -> tuple[str, str]:
        parts = [part for part in (path or "").strip("/").split("/") if part]
        if not parts and self.settings.project is not None:
            return self.settings.entity, self.settings.project
        if not parts:
            raise UsageError("a project is needed: give a path like 'entity/project' or set RUNFERRY_PROJECT")
        if len(parts) > 2:  # noqa: PLR2004 - entity/project
            raise UsageError(f"path {path!r} has {len(parts)} parts, expected 'entity/project' or 'project'")
        return (self.settings.entity, parts[0]) if len(parts) == 1 else (parts[0], parts[1])


class RunNotFoundError(NotFoundError, ValueError):
    """No run has this path. Also a ValueError, as the W&B SDK raises it."""
