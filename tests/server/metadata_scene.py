"""Runs in a metadata database without a server: what the tests of filters, paging and state stand on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from runferry.server.documents import Change, Finish, opening_of
from runferry.server.metadata import writes
from runferry.server.query import Page, Query

from tests.support.frames import START_US, run_key

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runferry.server.metadata.database import Database
    from runferry.server.store.protocol import Store

NOW_US = START_US + 1_000_000


class Scene:
    """A database and short words to fill it."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.query = Query(database, cast("Store", None))  # listings do not ask the store

    def open(self, id: str, writer_id: int = 1, *, project: str = "demo", now_us: int = NOW_US, **fields: Any) -> bool:  # noqa: A002 - the field's name everywhere
        """Open a writer; returns whether the run has another one."""
        opening = opening_of({"entity": "local", "project": project, "id": id, "started_us": START_US, **fields})
        with self.database.write() as connection:
            return writes.open_writer(connection, run_key("local", project, id), writer_id, opening, now_us)

    def config(self, id: str, updates: Mapping[str, Any], removed: tuple[str, ...] = ()) -> None:  # noqa: A002 - the field's name everywhere
        """Apply a CONFIG block."""
        with self.database.write() as connection:
            writes.apply_config(connection, run_key("local", "demo", id), Change(dict(updates), removed))

    def summary(self, id: str, updates: Mapping[str, Any], removed: tuple[str, ...] = ()) -> None:  # noqa: A002 - the field's name everywhere
        """Apply a SUMMARY block."""
        with self.database.write() as connection:
            writes.apply_summary(connection, run_key("local", "demo", id), Change(dict(updates), removed))

    def last_values(self, id: str, values: Mapping[str, Any]) -> None:  # noqa: A002 - the field's name everywhere
        """The metrics have moved."""
        with self.database.write() as connection:
            totals = writes.Totals(points=1, rows=1, last_step=0, duplicates=0, last_summary=values)
            writes.write_totals(connection, run_key("local", "demo", id), totals)

    def finish(self, id: str, writer_id: int = 1, exit_code: int = 0) -> None:  # noqa: A002 - the field's name everywhere
        """Apply a FINISH frame."""
        finish = Finish(exit_code=exit_code, ended_us=START_US + 5, state="failed" if exit_code else "finished")
        with self.database.write() as connection:
            writes.apply_finish(connection, run_key("local", "demo", id), writer_id, finish, NOW_US)

    def run(self, id: str) -> dict[str, Any]:  # noqa: A002 - the field's name everywhere
        """The run as a listing shows it."""
        (found,) = self.page(filters={"id": id}).runs
        return found

    def page(self, **asked: Any) -> Page:
        """A page of runs."""
        return self.query.runs(**asked)

    def ids(self, filters: object = None, **asked: Any) -> list[str]:
        """Ids of the runs that match."""
        return [run["id"] for run in self.page(filters=filters, order=asked.pop("order", "+created_at"), **asked).runs]
