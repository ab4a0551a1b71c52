"""A run of many steps in a browser: coarse as a whole, exact when zoomed into."""

from pathlib import Path

import numpy as np
from playwright.sync_api import Browser

from dynoscope import open_run
from tests.benchmarks.long_run import write_run
from tests.dashboard.test_live import TRACES, WAIT, WIDE, plot_id, serving, watching


def test_zooming_in_shows_every_step(browser: Browser, tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "one", 6000, 3)
    plot = {"kind": "layer", "name": "grad_l2"}
    frame = open_run(tmp_path / "runs" / "one").layers("grad_l2", "blocks.0.mlp.weight")
    link = "?run=one&layer=blocks.0.mlp.weight&metric=grad_l2"
    with serving(tmp_path / "runs") as url, watching(browser, url, **WIDE) as watched:
        watched.page.goto(url + link)
        watched.wait_for_points(plot, "one most", 0)
        whole = watched.traces(plot)["one"]
        assert len(whole["y"]) <= 500
        watched.locate(plot).scroll_into_view_if_needed()
        watched.zoom_in(plot)
        watched.zoom_in(plot)
        low, high = watched.zoom_in(plot)
        is_fine = f"([id, from]) => ({TRACES})(id).one?.x[0] === from"
        first = int(np.floor(low))
        watched.page.wait_for_function(
            is_fine, arg=[plot_id(plot), first], timeout=WAIT
        )
        fine = watched.traces(plot)["one"]  # the one on top has the name last
        assert fine["x"] == list(range(first, int(np.ceil(high)) + 1))
        expected = frame["grad_l2"].iloc[fine["x"]]
        np.testing.assert_array_equal(fine["y"], expected)
        assert watched.x_range(plot) == [low, high]
        inside = watched.locate(plot).locator(".nsewdrag").bounding_box()
        assert inside is not None
        middle = inside["x"] + inside["width"] / 2, inside["y"] + inside["height"] / 2
        watched.page.mouse.dblclick(*middle)
        watched.page.wait_for_function(
            is_fine, arg=[plot_id(plot), whole["x"][0]], timeout=WAIT
        )
        assert watched.traces(plot)["one"] == whole
