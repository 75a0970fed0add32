"""The live page: what a training process logs is in front of the reader's eyes, exactly and at once."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.support.ports import free_port
from tests.support.servers import RunningServer

sync_api = pytest.importorskip("playwright.sync_api", reason="not run: Playwright is missing (pip install playwright)")

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from playwright.sync_api import Locator, Page

    from tests.browser.training import Training

    Train = Callable[..., Training]

pytestmark = pytest.mark.browser
DRAWN_WITHIN_S = 1.0
MOST_BUCKETS = 1_200
"""Twice what the page asks for: then it lays them onto fewer."""
MOST_CHARTS = 50
"""What fits on a screen and a little around it."""

NOTE_WHEN_DRAWN = """
(key) => {
  const chart = document.querySelector(`figure[data-key="${key}"]`);
  window.drawnAtMs = {};
  const note = () => { window.drawnAtMs[chart.dataset.lastValue] ??= Date.now(); };
  new MutationObserver(note).observe(chart, {attributes: true, attributeFilter: ["data-last-value"]});
}
"""
INKED_PIXELS = """
(canvas) => {
  const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const colours = new Set();
  for (let at = 0; at < data.length; at += 4) colours.add(`${data[at]} ${data[at + 1]} ${data[at + 2]} ${data[at + 3]}`);
  return colours.size;
}
"""

IS_EXACT = """
() => {
  const {rawPoints, drawn} = document.querySelector("figure").dataset;
  return Number(rawPoints) < 1000 && rawPoints === drawn;
}
"""


def chart(page: Page, key: str) -> Locator:
    """The chart of a metric."""
    return page.locator(f"figure[data-testid=chart][data-key={json.dumps(key)}]")


def open_run(page: Page, server: RunningServer, training: Training) -> None:
    """Open a run's page and wait until its push channel is open."""
    page.goto(f"{server.url}/runs/{training.path}")
    sync_api.expect(page.get_by_test_id("run-page")).to_have_attribute("data-connection", "live")


def test_a_point_logged_now_is_drawn_within_a_second(page: Page, server: RunningServer, train: Train, project: str) -> None:
    with train(server, project=project) as training:
        training.log(loss=9.0)
        open_run(page, server, training)
        sync_api.expect(chart(page, "loss")).to_have_attribute("data-raw-points", "1")
        page.evaluate(NOTE_WHEN_DRAWN, "loss")

        for points, value in enumerate([8.5, 8.25, 7.75], start=2):
            logged_at_s = training.log(loss=value)
            sync_api.expect(chart(page, "loss")).to_have_attribute("data-last-value", str(value))
            drawn_at_s = page.evaluate(f"window.drawnAtMs['{value}']") / 1000

            assert drawn_at_s - logged_at_s < DRAWN_WITHIN_S
            sync_api.expect(chart(page, "loss")).to_have_attribute("data-raw-points", str(points))
        assert chart(page, "loss").locator("canvas").evaluate(INKED_PIXELS) > 1


def test_a_new_metric_gets_a_chart_within_a_second(page: Page, server: RunningServer, train: Train, project: str) -> None:
    with train(server, project=project) as training:
        training.log(loss=1.0)
        open_run(page, server, training)
        sync_api.expect(chart(page, "loss")).to_have_attribute("data-raw-points", "1")

        logged_at_s = training.log(loss=0.5, accuracy=0.75)
        sync_api.expect(chart(page, "accuracy")).to_have_attribute("data-last-value", "0.75")

        assert page.evaluate("Date.now()") / 1000 - logged_at_s < 2 * DRAWN_WITHIN_S


def test_every_chart_says_how_many_raw_points_stand_behind_it(page: Page, server: RunningServer, train: Train, project: str) -> None:
    with train(server, project=project) as training:
        training.log(times=5_000, loss=2.0)
        open_run(page, server, training)
        sync_api.expect(chart(page, "loss")).to_have_attribute("data-raw-points", "5000")

        training.log(times=5_000, loss=3.0)
        sync_api.expect(chart(page, "loss")).to_have_attribute("data-raw-points", "10000")

        sync_api.expect(chart(page, "loss")).to_contain_text("10,000 raw points")
        drawn = int(chart(page, "loss").get_attribute("data-drawn") or 0)
        assert 1 < drawn <= MOST_BUCKETS


def test_values_that_are_not_finite_are_counted_beside_the_line(page: Page, server: RunningServer, train: Train, project: str) -> None:
    with train(server, project=project) as training:
        training.log(loss=1.0)
        training.log(loss="nan")
        training.log(loss="inf")
        open_run(page, server, training)

        sync_api.expect(chart(page, "loss")).to_contain_text("1 NaN")
        sync_api.expect(chart(page, "loss")).to_contain_text("1 infinite")
        sync_api.expect(chart(page, "loss")).to_have_attribute("data-raw-points", "3")


def test_names_that_look_like_markup_are_shown_as_text(page: Page, server: RunningServer, train: Train, project: str) -> None:
    metric = '<b>a/"b"</b>'
    with train(server, project=project, name="<i>run</i>", config={"<u>lr</u>": "<script>1</script>"}) as training:
        training.log_named({metric: 1.0})
        open_run(page, server, training)

        sync_api.expect(page.get_by_test_id("chart").get_by_text(metric, exact=True)).to_be_visible()
        sync_api.expect(page.get_by_role("heading", name="<i>run</i>")).to_be_visible()
        page.get_by_role("button", name="Config, summary, writers").click()
        sync_api.expect(page.get_by_text("<script>1</script>", exact=True)).to_be_visible()
        sync_api.expect(page.get_by_role("rowheader", name=metric)).to_be_visible()
        assert page.locator("main b, main i, main u, main script").count() == 0


def test_a_run_appears_in_the_open_table_and_changes_its_state(page: Page, server: RunningServer, train: Train, project: str) -> None:
    page.goto(f"{server.url}/p/acme/{project}")
    sync_api.expect(page.get_by_test_id("empty")).to_contain_text("runferry.init(")
    page.evaluate("window.isTheSamePage = true")

    with train(server, project=project, name="first of its kind") as training:
        training.log(loss=1.0)
        row = page.get_by_test_id("runs").get_by_role("row").filter(has_text="first of its kind")
        sync_api.expect(row).to_contain_text("running")
    sync_api.expect(row).to_contain_text("finished")

    assert page.evaluate("window.isTheSamePage") is True
    row.get_by_role("link").click()
    sync_api.expect(page.get_by_test_id("run-header")).to_have_attribute("data-state", "finished")
    assert page.evaluate("window.isTheSamePage") is True


def test_histograms_are_a_strip_that_grows(page: Page, server: RunningServer, train: Train, project: str) -> None:
    with train(server, project=project) as training:
        training.log(histograms={"weights": [0.1, 0.2, 0.2, 0.9]})
        open_run(page, server, training)
        strip = page.locator("figure[data-testid=heat-strip][data-key=weights]")
        sync_api.expect(strip).to_have_attribute("data-raw-points", "1")

        training.log(histograms={"weights": [0.1, 0.4, 0.4, 0.8]})
        sync_api.expect(strip).to_have_attribute("data-raw-points", "2")

        sync_api.expect(strip).to_contain_text("2 raw histograms, 2 drawn")
        assert strip.locator("canvas").evaluate(INKED_PIXELS) > 1


def test_a_zoom_asks_for_every_point_of_its_steps(page: Page, server: RunningServer, train: Train, project: str) -> None:
    with train(server, project=project) as training:
        training.log(times=20_000, loss=1.0)
        open_run(page, server, training)
        sync_api.expect(chart(page, "loss")).to_have_attribute("data-raw-points", "20000")
        plot = chart(page, "loss").locator(".u-over").bounding_box()
        assert plot is not None

        page.mouse.move(plot["x"] + 100, plot["y"] + 40)
        page.mouse.down()
        page.mouse.move(plot["x"] + 106, plot["y"] + 40, steps=3)
        page.mouse.up()

        sync_api.expect(page.get_by_test_id("zoom")).to_be_visible()
        page.wait_for_function(IS_EXACT)
        page.get_by_test_id("zoom").click()
        sync_api.expect(chart(page, "loss")).to_have_attribute("data-raw-points", "20000")


def test_of_five_hundred_metrics_only_those_in_view_are_followed(page: Page, server: RunningServer, train: Train, project: str) -> None:
    with train(server, project=project) as training:
        training.log_named({f"metric_{number}": number for number in range(500)})
        open_run(page, server, training)
        sync_api.expect(chart(page, "metric_0")).to_have_attribute("data-raw-points", "1")
        assert page.get_by_test_id("chart").count() < MOST_CHARTS

        page.evaluate("scrollTo(0, document.body.scrollHeight)")

        sync_api.expect(chart(page, "metric_499")).to_have_attribute("data-last-value", "499")
        assert page.get_by_test_id("chart").count() < MOST_CHARTS


def test_counts_stay_exact_while_points_pour_in_and_charts_come_and_go(
    page: Page, server: RunningServer, train: Train, project: str
) -> None:
    row = {f"metric_{number}": float(number) for number in range(60)}
    with train(server, project=project) as training:
        training.log_named(row)
        open_run(page, server, training)
        sync_api.expect(chart(page, "metric_0")).to_have_attribute("data-raw-points", "1")

        for place in ("document.body.scrollHeight", "0", "document.body.scrollHeight / 2", "document.body.scrollHeight", "0"):
            training.log_named(row, times=2_000)
            page.evaluate(f"scrollTo(0, {place})")

        sync_api.expect(page.get_by_test_id("run-header")).to_contain_text("10,001")
        sync_api.expect(chart(page, "metric_0")).to_have_attribute("data-raw-points", "10001")
        for shown in page.get_by_test_id("chart").all():
            sync_api.expect(shown).to_have_attribute("data-raw-points", "10001")


def test_a_page_opened_before_its_run_exists_shows_it_when_it_starts(page: Page, server: RunningServer, train: Train, project: str) -> None:
    page.goto(f"{server.url}/runs/acme/{project}/early")
    sync_api.expect(page.get_by_role("alert")).to_contain_text("does not exist")

    with train(server, project=project, id="early") as training:
        training.log(loss=1.0)

        sync_api.expect(chart(page, "loss")).to_have_attribute("data-raw-points", "1")


def test_the_page_recovers_by_itself_when_the_server_was_gone(page: Page, tmp_path: Path, train: Train, project: str) -> None:
    with ExitStack() as servers:
        port = free_port()
        first = servers.enter_context(RunningServer(tmp_path / "data", port=port))
        with train(first, project=project) as training:
            training.log(loss=3.0)
            open_run(page, first, training)
            sync_api.expect(chart(page, "loss")).to_have_attribute("data-raw-points", "1")
            page.evaluate("window.isTheSamePage = true")

            first.kill()
            sync_api.expect(page.get_by_test_id("connection-lost")).to_be_visible()
            training.log(loss=2.0)
            servers.enter_context(RunningServer(tmp_path / "data", port=port))
            training.log(loss=1.0)

            sync_api.expect(chart(page, "loss")).to_have_attribute("data-raw-points", "3", timeout=20_000)
            sync_api.expect(chart(page, "loss")).to_have_attribute("data-last-value", "1")
            sync_api.expect(page.get_by_test_id("connection-lost")).to_have_count(0)
            assert page.evaluate("window.isTheSamePage") is True
