"""The page in a browser while a real run is being written by another process."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from dynoscope import open_run
from dynoscope.dashboard.theme import SCHEMES

SERVER = """
import sys
from dynoscope.dashboard import start
server = start(sys.argv[1], port=0)
print(server.url, flush=True)
sys.stdin.readline()
print("torch" in sys.modules, flush=True)
server.stop()
"""
TRAINING = Path(__file__).with_name("training.py")
WAIT = 30_000
WIDE: Any = {"viewport": {"width": 1440, "height": 900}}
MAP = {"kind": "page", "name": "map"}

# A plot's traces by name, as plotly holds them.
TRACES = """(id) => {
  const plot = document.getElementById(id)?.querySelector(".js-plotly-plot");
  const plain = (values) => values && Array.from(
    values, (v) => typeof v === "object" && v?.length ? Array.from(v) : v);
  return Object.fromEntries((plot?._fullData || []).map((trace) => [trace.name || "map",
    { x: plain(trace.x), y: plain(trace.y), ratio: plain(trace.customdata),
      dash: trace.line?.dash }]));
}"""


class Watched(NamedTuple):
    """A page and everything that went wrong in it."""

    page: Page
    url: str
    errors: list[str]

    def locate(self, name: dict[str, str]) -> Locator:
        return self.page.locator(f"[id='{plot_id(name)}']")

    def traces(self, name: dict[str, str]) -> dict[str, Any]:
        found: dict[str, Any] = self.page.evaluate(TRACES, plot_id(name))
        return found

    def wait_for_points(self, name: dict[str, str], trace: str, more: int) -> int:
        """Wait until a trace has more points than that; how many it has."""
        self.page.wait_for_function(
            f"([id, name, more]) => (({TRACES})(id)[name]?.y?.length || 0) > more",
            arg=[plot_id(name), trace, more],
            timeout=WAIT,
        )
        return len(self.traces(name)[trace]["y"])

    def x_range(self, name: dict[str, str]) -> list[float]:
        found: list[float] = self.page.evaluate(
            """(id) => document.getElementById(id).querySelector(".js-plotly-plot")
                ._fullLayout.xaxis.range""",
            plot_id(name),
        )
        return found

    def zoom_in(self, name: dict[str, str]) -> list[float]:
        """Drag over the middle of a plot, as a user would; the range it then has."""
        before = self.x_range(name)
        inside = self.locate(name).locator(".nsewdrag").bounding_box()
        assert inside is not None
        middle = inside["y"] + inside["height"] / 2
        self.page.mouse.move(inside["x"] + inside["width"] * 0.3, middle)
        self.page.mouse.down()
        self.page.mouse.move(inside["x"] + inside["width"] * 0.6, middle, steps=5)
        self.page.mouse.up()
        after = self.x_range(name)
        assert before[0] < after[0] < after[1] < before[1]
        return after

    def choose(self, label: str, option: str) -> None:
        self.page.get_by_role("textbox", name=label).click()
        self.page.get_by_role("option", name=option, exact=True).click()


def plot_id(name: dict[str, str]) -> str:
    """The id of a plot's element: dash spells a pattern as JSON, keys sorted."""
    return json.dumps({**name, "type": "plot"}, separators=(",", ":"), sort_keys=True)


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[str]:
    """A dashboard in a process of its own, which must never load torch."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline().strip() == "False", "torch was imported"
    assert process.returncode == 0


@contextlib.contextmanager
def watching(browser: Browser, url: str, **settings: Any) -> Iterator[Watched]:
    """A page that must log no error and fetch nothing from elsewhere."""
    errors: list[str] = []
    page = browser.new_page(**settings)
    page.on("pageerror", lambda error: errors.append(f"exception: {error}"))
    page.on(
        "console",
        lambda said: errors.append(said.text) if said.type == "error" else None,
    )
    page.on(
        "request",
        lambda request: (
            None
            if request.url.startswith((url, "data:", "blob:"))
            else errors.append(f"fetched {request.url}")
        ),
    )
    page.goto(url)
    yield Watched(page, url, errors)
    page.close()
    assert errors == []


@pytest.fixture
def watched(browser: Browser, tmp_path: Path) -> Iterator[Watched]:
    """A page over a folder without runs."""
    with serving(tmp_path / "runs") as url, watching(browser, url, **WIDE) as page:
        yield page


@pytest.fixture(scope="module")
def finished(
    browser: Browser, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Path]]:
    """A dashboard over two short runs that are over; its address, their folder."""
    folder = tmp_path_factory.mktemp("finished")
    one, two = train(folder / "first", "20"), train(folder / "second", "20", "bins")
    with one, two:
        end(one)
        end(two)
    with serving(folder) as url:
        yield url, folder


def train(folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, str(TRAINING), str(folder), *arguments]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def end(training: "subprocess.Popen[str]") -> None:
    said = training.communicate(timeout=60)[1]
    assert training.returncode == 0, said


def test_a_run_appears_grows_and_ends(watched: Watched, tmp_path: Path) -> None:
    page, path = watched.page, tmp_path / "runs" / "live"
    expect(page.get_by_role("heading", name="No runs yet")).to_be_visible(timeout=WAIT)
    scalar = {"kind": "page", "name": "scalar"}
    angle = {"kind": "layer", "name": "angular_update"}
    with train(path, "700") as training:
        seen = watched.wait_for_points(scalar, "live", 0)
        expect(page.locator("#header")).to_contain_text("running", timeout=WAIT)
        zoom = watched.zoom_in(scalar)
        seen = watched.wait_for_points(scalar, "live", seen)
        watched.wait_for_points(scalar, "live", seen)
        assert watched.x_range(scalar) == zoom  # it grew, and the zoom stayed
        end(training)
    expect(page.locator("#header")).to_contain_text("finished", timeout=WAIT)
    watched.wait_for_points(angle, "live", 699)
    watched.wait_for_points({"kind": "page", "name": "lr"}, "live", 699)
    check_numbers(watched, path)


def check_numbers(watched: Watched, path: Path) -> None:
    """Everything on the page equals the run as it is read from its folder."""
    run = open_run(path)
    page = watched.page
    row = page.locator("#runs .ag-row")
    expect(row).to_have_count(1)
    cells = {
        str(cell.get_attribute("col-id")): cell.inner_text()
        for cell in row.locator(".ag-cell").all()
    }
    assert cells["id"].split("\n")[:2] == ["live", run.manifest["model"]["name"]]
    assert cells["status"].split("\n") == [run.status, "AdamW"]
    assert cells["step"].split("\n")[0] == f"{run.last_step:,}"

    loss = watched.traces({"kind": "page", "name": "scalar"})["live"]
    np.testing.assert_array_equal(loss["y"], run.scalars("loss")["value"])
    lr = watched.traces({"kind": "page", "name": "lr"})["live"]
    np.testing.assert_array_equal(lr["y"], run.groups()["lr"])
    layer = page.get_by_role("textbox", name="Layer").input_value()
    assert layer in run.layer_names
    check_layer(watched, path, layer)
    dead = watched.traces({"kind": "count", "name": "dead"})["live, all layers"]
    counts = run.normalization().groupby("step")["dead"].sum()
    np.testing.assert_array_equal(dead["y"], counts)
    check_map(watched, path)


def check_layer(watched: Watched, path: Path, layer: str) -> None:
    frame = open_run(path).layers(layer=layer)
    for name, prediction in (
        ("angular_update", "pred_angular_update"),
        ("weight_norm", "pred_weight_norm"),
        ("update_norm", "pred_update_rms"),
        ("grad_l2", ""),
    ):
        traces = watched.traces({"kind": "layer", "name": name})
        np.testing.assert_allclose(traces["live"]["y"], frame[name], rtol=1e-6)
        np.testing.assert_array_equal(traces["live"]["x"], frame["step"])
        dashed = [trace for trace in traces.values() if trace["dash"] == "dash"]
        assert len(dashed) == bool(prediction)
        if prediction:
            values = frame[prediction].to_numpy()
            np.testing.assert_allclose(dashed[0]["y"], values, rtol=1e-6)


def check_map(watched: Watched, path: Path) -> None:
    run = open_run(path)
    trace = watched.traces(MAP)["map"]
    assert trace["y"] == run.layer_names
    frame = run.layers(["angular_update", "pred_angular_update"])
    frame = frame.dropna()  # a weight of zero has no angle
    frame["column"] = frame["step"] // 4  # 700 steps in at most 300 columns
    measured, predicted = (
        frame.pivot_table(name, "column", "layer", "sum")[run.layer_names].to_numpy()
        for name in ("angular_update", "pred_angular_update")
    )
    ratio = measured / predicted
    np.testing.assert_allclose(np.array(trace["ratio"]).T, ratio, rtol=1e-5)


def test_choices_live_in_the_address(
    browser: Browser, finished: tuple[str, Path]
) -> None:
    url, folder = finished
    curve = {"kind": "layer", "name": "grad_l2"}
    with watching(browser, url, **WIDE) as watched:
        page = watched.page
        page.goto(f"{url}?run=second&run=first&layer=0.weight&metric=grad_l2")
        watched.wait_for_points(curve, "second", 19)
        watched.wait_for_points(curve, "first", 19)
        expect(page.locator("#map-run")).to_have_text("second")
        watched.choose("Layer", "* (whole model)")
        page.wait_for_function("() => location.search.includes('layer=*')")
        check_last(watched, curve, folder / "second", "*")
        page.reload()
        watched.wait_for_points(curve, "first", 19)
        assert "run=second&run=first" in page.url
        layer = page.get_by_role("textbox", name="Layer")
        expect(layer).to_have_value("* (whole model)")
        # Unticking the first leaves the other one, which takes its place.
        row = page.locator(".ag-row", has_text="second")
        tick = row.locator("input[type=checkbox]")
        # The list is drawn before its ticks are: a click until then would set one.
        expect(tick).to_be_checked(timeout=WAIT)
        tick.click()
        expect(page.locator("#header h2")).to_have_text(["first"], timeout=WAIT)
        check_last(watched, curve, folder / "first", "*")


def check_last(watched: Watched, plot: dict[str, str], path: Path, layer: str) -> None:
    """Wait until a curve ends in the run's last number."""
    frame = open_run(path).layers(plot["name"], layer)
    watched.page.wait_for_function(
        f"([id, run, last]) => Math.abs("
        f"({TRACES})(id)[run]?.y.at(-1) / last - 1) < 1e-6",
        arg=[plot_id(plot), path.name, float(frame[plot["name"]].iloc[-1])],
        timeout=WAIT,
    )


def test_click_on_the_map_chooses_the_layer(
    browser: Browser, finished: tuple[str, Path]
) -> None:
    url, folder = finished
    with watching(browser, url, **WIDE) as watched:
        watched.wait_for_points(MAP, "map", 0)
        watched.locate(MAP).scroll_into_view_if_needed()
        inside = watched.locate(MAP).locator(".nsewdrag").bounding_box()
        assert inside is not None
        middle = inside["x"] + inside["width"] / 2
        watched.page.mouse.click(middle, inside["y"] + inside["height"] - 4)
        layer = watched.page.get_by_role("textbox", name="Layer")
        last = open_run(folder / "first").layer_names[-1]
        expect(layer).to_have_value(last, timeout=WAIT)


def test_histograms_are_shown_where_there_are_any(
    browser: Browser, finished: tuple[str, Path]
) -> None:
    with watching(browser, finished[0], **WIDE) as watched:
        watched.page.goto(f"{finished[0]}?run=first&layer=0.weight")
        watched.wait_for_points({"kind": "layer", "name": "weight_norm"}, "first", 0)
        card = watched.page.locator("#distribution")
        expect(card).to_be_hidden()
        row = watched.page.locator(".ag-row", has_text="second")
        row.locator("input[type=checkbox]").click()
        watched.wait_for_points({"kind": "page", "name": "distribution"}, "second", 0)
        expect(card).to_contain_text("step 19, 1/weight decay ±10")


def test_a_failed_run_says_why(watched: Watched, tmp_path: Path) -> None:
    with train(tmp_path / "runs" / "bad", "10", "fail") as training:
        assert "the data ran out" in training.communicate(timeout=60)[1]
    header = watched.page.locator("#header")
    expect(header).to_contain_text("failed", timeout=WAIT)
    expect(header).to_contain_text("ValueError: the data ran out")


@pytest.mark.parametrize("width", [1440, 420])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_fits_the_screen_in_both_schemes(
    browser: Browser, finished: tuple[str, Path], scheme: str, width: int
) -> None:
    size = {"width": width, "height": 800}
    with watching(browser, finished[0], viewport=size, color_scheme=scheme) as watched:
        page = watched.page
        page.goto(f"{finished[0]}?run=first")
        watched.wait_for_points({"kind": "layer", "name": "weight_norm"}, "first", 0)
        root = "document.documentElement"
        assert page.evaluate(f"{root}.scrollWidth - {root}.clientWidth") <= 0
        color = f"""() => document.getElementById('{plot_id(MAP)}')
            ?.querySelector(".js-plotly-plot")?._fullLayout?.paper_bgcolor"""
        first = page.evaluate(color)
        assert first == SCHEMES[scheme].paper
        other = SCHEMES["dark" if scheme == "light" else "light"].paper
        is_other = f"(other) => ({color})() === other"
        page.locator("#theme").click()
        page.wait_for_function(is_other, arg=other, timeout=WAIT)
        page.reload()  # the choice is kept, and wins over the system's
        page.wait_for_function(is_other, arg=other, timeout=WAIT)
