import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from dynoscope.dashboard.report import write_report
from dynoscope.diff import Diff, diff
from dynoscope.diff.phrases import change, number, rows_of
from dynoscope.errors import DynoscopeError
from tests.diff.runs import adamw, lion, record

HOSTILE = "</script><script>document.title='no'</script><b>&amp;"


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Diff:
    folder = tmp_path_factory.mktemp("runs")
    a = record(folder / "adamw", adamw, 30, config={"note": HOSTILE})
    return diff(a, record(folder / "lion", lion, 24))


@pytest.fixture(scope="module")
def report(found: Diff, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(found, path)
    return path


@pytest.fixture(params=["light-1280", "dark-420"])
def page(
    request: pytest.FixtureRequest, browser: Browser, report: Path
) -> Iterator[Page]:
    scheme, width = request.param.split("-")
    opened = browser.new_page(
        viewport={"width": int(width), "height": 900}, color_scheme=scheme, offline=True
    )
    said: list[str] = []
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.goto(report.as_uri())
    opened.wait_for_selector("#heat .hm image")
    yield opened
    opened.close()
    assert said == []


def cells(page: Page, table: str) -> list[list[str]]:
    texts: list[list[str]] = page.eval_on_selector_all(
        f"#table-{table} tbody tr",
        "rows => rows.map(r => [...r.cells].map(c => c.textContent))",
    )
    return texts


def test_the_numbers_are_the_diffs(page: Page, found: Diff) -> None:
    expected = [
        [number(row.a), number(row.b), change(row.kind, row.relative)]
        for row in rows_of(found.whole)
        if row.a == row.a or row.b == row.b
    ]
    assert [row[1:4] for row in cells(page, "whole")] == expected
    top = found.most_different(20)
    assert [row[0] for row in cells(page, "top")] == list(top["layer"])
    assert [row[2] for row in cells(page, "top")] == [number(x) for x in top["a"]]
    settings = {row[0]: row[1:] for row in cells(page, "settings")}
    assert settings["optimizer.name"] == ["AdamW", "Lion"]
    assert settings["config.note"] == [HOSTILE, "-"]
    assert page.title() == "adamw against lion"


def test_the_curves_are_the_diffs(page: Page, found: Diff) -> None:
    curves = page.evaluate(
        "document.getElementById('rotation').data.map(t => [t.line.dash, [...t.y]])"
    )
    assert [dash for dash, _ in curves] == ["solid", "solid", "dash", "dash"]
    names = [
        f"{m}_{s}" for m in ("angular_update", "pred_angular_update") for s in "ab"
    ]
    for name, (_, values) in zip(names, curves, strict=True):
        assert values == pytest.approx(found.curves[name].tolist(), rel=1e-5)
    heat = page.evaluate("document.getElementById('heat').data[0].z.map(r => [...r])")
    assert len(heat) == found.layers["layer"].nunique()
    norm = found.layers.set_index(["layer", "metric"])["relative"]
    assert 2 ** heat[0][0] - 1 == pytest.approx(norm.iloc[0], rel=1e-4)


def test_it_fits_and_follows_the_scheme(page: Page) -> None:
    wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    assert wide <= 0
    dark = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    page.emulate_media(color_scheme="light" if dark else "dark")
    background = "document.getElementById('norm')._fullLayout.paper_bgcolor"
    page.wait_for_function(f"{background} == '{'#ffffff' if dark else '#1b1f24'}'")


def test_it_needs_nothing_else(report: Path) -> None:
    text = report.read_text(encoding="utf-8")
    head, data = text.split('id="figures">', 1)
    assert "src=" not in head
    assert "href=" not in head
    json.loads(data.split("</script>", 1)[0])


def test_nan_and_single_steps_are_drawn(
    found: Diff, tmp_path: Path, browser: Browser
) -> None:
    broken = record(tmp_path / "broken", adamw, 6, nan_from=0)
    said: list[str] = []
    for steps in (None, 3):
        path = tmp_path / "report.html"
        write_report(diff(found.a.run, broken, steps=steps), path)
        page = browser.new_page()
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(path.as_uri())
        page.wait_for_selector("#rotation .main-svg")
        page.close()
    assert said == []


def test_a_place_that_cannot_be_written(found: Diff, tmp_path: Path) -> None:
    with pytest.raises(DynoscopeError, match=r"cannot write .*No such file"):
        write_report(found, tmp_path / "nowhere" / "report.html")
