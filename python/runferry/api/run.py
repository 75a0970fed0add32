"""`Run`: one run as the server has it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from runferry.api.documents import from_stored, iso_time
from runferry.api.frames import frame_of
from runferry.api.scan import frames_of, rows_of
from runferry.api.verify import Verification, compare
from runferry.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from runferry._http import Server


class Run:
    """A stored run. Attributes are those of the moment it was fetched; `load` asks again. History is always asked for."""

    def __init__(self, server: Server, stored: Mapping[str, Any]) -> None:
        self._server = server
        self._take(stored)

    def _take(self, stored: Mapping[str, Any]) -> None:
        self.stored = stored
        """The server's own words for the run (`docs/http-api.md`, section 1)."""
        self.entity: str = stored["entity"]
        self.project: str = stored["project"]
        self.id: str = stored["id"]
        self.name: str = stored.get("name") or self.id
        self.state: str = stored["state"]
        """`running`, `finished`, `failed`, `quiet` (not heard of for a minute) or `lost` (for five, ten with a backlog).

        A run that is heard of again is `running`: only its own last word makes it `finished` or `failed`."""
        self.tags: list[str] = list(stored.get("tags") or [])
        self.group: str | None = stored.get("group") or None
        self.job_type: str | None = stored.get("job_type") or None
        self.notes: str | None = stored.get("notes") or None
        self.config: dict[str, Any] = from_stored(stored.get("config") or {})
        self.summary: dict[str, Any] = from_stored(stored.get("summary") or {})
        self.created_at: str | None = iso_time(stored.get("created_at_us"))
        """ISO time, UTC."""
        self.heartbeat_at: str | None = iso_time(stored.get("heartbeat_at_us"))
        """ISO time of the last sign of life, UTC."""

    def load(self, force: bool = False) -> Run:  # noqa: ARG002, FBT001, FBT002 - W&B signature
        """Ask the server again and return self."""
        self._take(self._server.get(["runs", *self._parts]))
        return self

    @property
    def _parts(self) -> list[str]:
        return [self.entity, self.project, self.id]

    @property
    def path(self) -> list[str]:
        """Entity, project and id."""
        return self._parts

    @property
    def url(self) -> str:
        """Page of the run."""
        return "/".join([self._server.base_url, "runs", *(quote(part, safe="") for part in self._parts)])

    @property
    def lastHistoryStep(self) -> int:  # noqa: N802 - W&B name
        """Highest stored step; -1 without rows."""
        last = self.stored.get("last_step")
        return -1 if last is None else int(last)

    @property
    def metadata(self) -> dict[str, Any]:
        """What is known of the machine and the counts: `host`, `rows`, `points`, `writers`, `gaps`, `duplicates`, `exit_code`."""
        names = ("host", "rows", "points", "writers", "gaps", "duplicates", "exit_code")
        return {name: self.stored.get(name) for name in names}

    @property
    def summary_metrics(self) -> dict[str, Any]:
        """The same as `summary`."""
        return self.summary

    @property
    def rawconfig(self) -> dict[str, Any]:
        """The same as `config`."""
        return self.config

    def metrics(self) -> list[dict[str, Any]]:
        """Name, kind, label, points and range of every series of the run."""
        return list(self._server.get(["runs", *self._parts, "metrics"])["metrics"])

    def writers(self) -> list[dict[str, Any]]:
        """Every start of every process that wrote to the run: state, lag, backlog, gaps."""
        return list(self._server.get(["runs", *self._parts, "writers"])["writers"])

    @property
    def gaps(self) -> list[dict[str, Any]]:
        """What is missing and counted, over all writers: `reason`, `rows`, `points` and `bytes` that went, and `detail` in words."""
        return [gap for writer in self.writers() for gap in writer["gaps"]]

    def verify(self, journals: str | None = None) -> Verification:
        """Compare, for every writer of the run, what it packed with what the server stores: counts and checksums of every metric.

        Args:
            journals: Folder of journals to take receipts from. A writer whose journal is not there is judged by what its
                last frame told the server; a writer that has not finished told nothing yet.

        Raises:
            CommError: The server cannot be reached or refuses.
        """
        from runferry import _native  # noqa: PLC0415 - the rest of the API does not need it

        path = "/".join(self._parts)
        here = _native.journal_list(journals) if journals else []
        places = {f"{state['writer_id']:016x}": state["path"] for state in here if state["run"] == path}
        gaps = {writer["writer_id"]: writer["gaps"] for writer in self.writers()}
        return compare(path, self._server.get(["runs", *self._parts, "receipts"])["writers"], gaps, places)

    def scan_history(
        self, keys: Sequence[str] | None = None, page_size: int = 1000, min_step: int = 0, max_step: int | None = None
    ) -> Iterator[dict[str, Any]]:
        """Every row, exactly as logged, ascending by step; streamed, so memory stays small.

        Args:
            keys: Only rows that hold all of these, and only these values. Default: all.
            page_size: Accepted; the answer is one stream.
            min_step: First step.
            max_step: The step after the last one, as in the W&B SDK. Default: to the end.

        Yields:
            A dict with `_step`, `_timestamp` and `_runtime` in seconds, and the values. Histograms are dicts with `values` and
            `bins`; a value that had no exact form is a dict with `_type` "marker".

        Raises:
            CommError: The server cannot be reached, refuses, or breaks off.
        """
        del page_size
        _refuse_one_name(keys)
        return self._scan(keys, min_step=min_step, max_step=None if max_step is None else max_step - 1, samples=None)

    def history(  # noqa: PLR0913, PLR0917 - the signature of the W&B SDK
        self,
        samples: int = 500,
        keys: Sequence[str] | None = None,
        x_axis: str = "_step",
        pandas: bool = True,  # noqa: FBT001, FBT002 - as above
        stream: str = "default",
        format: str | None = None,  # noqa: A002 - as in `Runs.histories` of the W&B SDK
    ) -> Any:
        """Evenly spaced rows, each exactly as logged; the same rows at every call as long as the run does not grow.

        Args:
            samples: Rows at most.
            keys: As in `scan_history`.
            x_axis: Name whose values order the rows; rows without it are left out.
            pandas: Return a pandas DataFrame if pandas is installed, else a list of dicts.
            stream: Only "default" is stored.
            format: "pandas", "polars" or "list", instead of `pandas`.

        Raises:
            UsageError: `samples` is not positive, `stream` or `format` is unknown, or the library of `format` is not installed.
            CommError: As `scan_history`.
        """
        if samples < 1:
            raise UsageError(f"samples={samples}: at least 1 row must be asked for")
        if stream != "default":
            raise UsageError(f"stream={stream!r}: only 'default' is stored")
        _refuse_one_name(keys)
        asked = None if keys is None else [*keys, *([] if x_axis in {"_step", *keys} else [x_axis])]
        rows = [row for row in self._scan(asked, min_step=0, max_step=None, samples=samples) if x_axis in row]
        if x_axis != "_step":
            rows.sort(key=lambda row: row[x_axis])
        if format is None:
            return frame_of(rows, "pandas", optional=True) if pandas else rows
        return frame_of(rows, format)

    def scan_history_frame(
        self,
        keys: Sequence[str] | None = None,
        min_step: int = 0,
        max_step: int | None = None,
        format: str = "pandas",  # noqa: A002
    ) -> Any:
        """All of `scan_history` as one data frame.

        Args:
            keys: As in `scan_history`.
            min_step: As in `scan_history`.
            max_step: As in `scan_history`.
            format: "pandas" or "polars".

        Raises:
            UsageError: `format` is unknown or its library is not installed.
        """
        return frame_of(list(self.scan_history(keys, min_step=min_step, max_step=max_step)), format)

    def _scan(self, keys: Sequence[str] | None, *, min_step: int, max_step: int | None, samples: int | None) -> Iterator[dict[str, Any]]:
        stored_keys = None if keys is None else [key for key in keys if key not in {"_step", "_timestamp", "_runtime"}]
        query = {"keys": stored_keys or None, "min_step": min_step or None, "max_step": max_step, "samples": samples}
        with self._server.stream(["runs", *self._parts, "scan"], query) as body:
            yield from rows_of(frames_of(body), start_us=self.stored.get("created_at_us") or 0, keys=stored_keys)

    def __repr__(self) -> str:
        """Its path and state."""
        return f"<Run {'/'.join(self._parts)} ({self.state})>"


def _refuse_one_name(keys: Sequence[str] | None) -> None:
    """A string is a sequence of strings to Python, and never what was meant."""
    if isinstance(keys, str):
        raise UsageError(f"keys={keys!r} must be a list of names")
