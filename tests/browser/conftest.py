"""A real headless Chromium in front of a real server, for tests of the page.

A machine without Chromium, Playwright or a built page skips these tests and says what is missing.
"""

from __future__ import annotations

import shutil
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser.training import ROOT, Training
from tests.support.servers import RunningServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM_ARGUMENTS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
EXPECT_TIMEOUT_MS = 10_000
_projects = count(1)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The machine's Chromium, driven by Playwright."""
    playwright_api = pytest.importorskip("playwright.sync_api", reason="not run: Playwright is missing (pip install playwright)")
    chromium = next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)
    if chromium is None:
        pytest.skip("not run: Chromium is missing (apt-get install chromium)")
    if not (ROOT / "python/runferry/server/static/index.html").is_file():
        pytest.skip("not run: the page is not built (cd web && npm ci && npm run build)")
    playwright_api.expect.set_options(timeout=EXPECT_TIMEOUT_MS)
    with playwright_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_ARGUMENTS)
        yield launched
        launched.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page of its own; the test fails if a script fails or the security policy is broken."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    context.set_default_timeout(EXPECT_TIMEOUT_MS)
    opened = context.new_page()
    complaints: list[str] = []
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("console", lambda message: complaints.append(message.text) if "Content Security Policy" in message.text else None)
    yield opened
    context.close()
    assert complaints == []


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Iterator[RunningServer]:  # noqa: ARG001 - skips before it starts
    """A server shared by the tests of a file."""
    with RunningServer(tmp_path_factory.mktemp("server") / "data") as running:
        yield running


@pytest.fixture
def train(tmp_path: Path) -> Callable[..., Training]:
    """Starts training processes, each with a folder of its own: `train(server, project=...)`."""
    numbers = count(1)

    def start(server: RunningServer, **init: Any) -> Training:
        return Training(server.url, tmp_path / f"training-{next(numbers)}", **init)

    return start


@pytest.fixture
def project() -> str:
    """A project that no other test uses."""
    return f"project-{next(_projects)}"
