"""One server for a file of fault tests, and the clean world of tests that call the client themselves."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.support.servers import RunningServer
from tests.support.world import clean_world

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["clean_world"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A long run (`make torture`) has counts that no timeout of a test was made for."""
    if "RUNFERRY_RESULTS" in os.environ:
        for item in items:
            item.add_marker(pytest.mark.timeout(0), append=False)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server shared by the tests of a file."""
    with RunningServer(tmp_path_factory.mktemp("server") / "data") as running:
        yield running


@pytest.fixture(scope="session", autouse=True)
def ctrl_c_is_heard() -> None:
    """Who runs the tests in the background of a shell has SIGINT ignored, and every program that they start would inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
