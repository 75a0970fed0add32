"""Servers for the tests of this folder: one shared by a file, each test with a project of its own."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

import httpx
import pytest
from runferry.server.metadata.database import Database

from tests.server.metadata_scene import Scene
from tests.support.frames import ScriptedWriter
from tests.support.servers import RunningServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.postgres import Cluster

_writer_ids = count(0x1000)
_projects = count(1)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server shared by the tests of a file."""
    with RunningServer(tmp_path_factory.mktemp("server") / "data") as running:
        yield running


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder that does not exist yet."""
    return tmp_path / "data"


@pytest.fixture
def project() -> str:
    """A project that no other test uses."""
    return f"project-{next(_projects)}"


@pytest.fixture
def writer(project: str) -> ScriptedWriter:
    """A writer of a new run in that project."""
    return ScriptedWriter(project=project, writer_id=next(_writer_ids))


@pytest.fixture
def api(server: RunningServer) -> Iterator[httpx.Client]:
    """The read door of the shared server."""
    with httpx.Client(base_url=server.url, timeout=20.0) as client:
        yield client


@pytest.fixture(params=["sqlite", "postgres"])
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    """A fresh metadata database on each engine."""
    if request.param == "sqlite":
        database = Database(tmp_path / "meta.db")
    else:
        cluster: Cluster = request.getfixturevalue("cluster")
        database = Database(cluster.url(request.getfixturevalue("postgres_database")))
    yield Scene(database)
    database.close()
