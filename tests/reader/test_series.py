"""A curve for the screen: all rows, or those that keep its look."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dynoscope.errors import DynoscopeError
from dynoscope.reader import open_run, thin
from dynoscope.reader import series as series_module
from dynoscope.reader.footers import EVERYTHING, Window
from dynoscope.reader.series import curve, rolled_curve
from dynoscope.schema.folder import SORTED_BY
from dynoscope.schema.levels import numbers_of
from dynoscope.sealing import coarse
from tests.dashboard.runs import WrittenRun
from tests.reader.runs import frame_of, write_runs
from tests.sealing.runs import LAYERS

LAYOUTS = ("journal", "parts", "segment", "mixed")


@pytest.fixture(scope="module")
def runs(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[str, dict[str, Path]]]:
    steps = np.arange(0, 4800, 3)
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coarse, "LEAST", 1)
        patch.setattr(coarse, "WORTH", 4)
        yield {
            table: write_runs(folder / table, table, steps, LAYOUTS)
            for table in ("layers", "neurons", "scalars")
        }


def rows_of(run: Path, table: str, name: str, metric: str) -> pd.Series:
    """The slow way: all rows, then those of one curve."""
    frame = frame_of(run, table)
    mine = frame[frame[SORTED_BY.get(table, "layer")] == name]
    return mine.set_index("step")[metric].sort_index(kind="stable")


@pytest.mark.parametrize("table", ["layers", "neurons", "scalars"])
@pytest.mark.parametrize("window", [EVERYTHING, Window(None, 900, 2000)])
def test_a_series_is_rows_of_the_table(
    runs: dict[str, dict[str, Path]], table: str, window: Window
) -> None:
    metric = numbers_of(table)[-1]
    wanted = rows_of(runs[table]["journal"], table, LAYERS[0], metric)
    wanted = wanted.loc[window.start : window.stop - 1]
    for run in runs[table].values():
        found = curve(run / table, metric, LAYERS[0], window, 10**6)
        assert found.kind == "all"
        assert not found.problems
        np.testing.assert_array_equal(found.step, wanted.index)
        np.testing.assert_array_equal(found.value, wanted)
        few = curve(run / table, metric, LAYERS[0], window, 100)
        assert few.kind == "thinned"
        assert len(few.step) <= 100
        np.testing.assert_array_equal(few.value, wanted.loc[few.step.tolist()])
        # The extremes are what a thinned curve must not lose.
        assert np.nanmax(few.value) == wanted.max()
        assert np.nanmin(few.value) == wanted.min()


def test_what_is_too_long_is_read_from_levels(
    runs: dict[str, dict[str, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(series_module, "MOST_ROWS", 100)
    metric = numbers_of("layers")[0]
    run = runs["layers"]["segment"]
    wanted = rows_of(run, "layers", LAYERS[1], metric)
    found = curve(run / "layers", metric, LAYERS[1], EVERYTHING, 50)
    assert found.kind == "extremes"
    assert len(found.step) <= 52
    assert np.nanmax(found.value) == wanted.max()
    assert np.nanmin(found.value) == wanted.min()
    assert (np.diff(found.step) >= 0).all()


@pytest.fixture
def run(tmp_path: Path) -> WrittenRun:
    written = WrittenRun(tmp_path / "run")
    for _ in range(3):
        written.write(100)
        written.flush()
    written.end()
    return written


@pytest.mark.parametrize("module", ["*", "a.*"])
def test_a_module_is_rolled_up_exactly_where_it_is_short(
    run: WrittenRun, module: str
) -> None:
    opened = open_run(run.path)
    for metric in ("weight_norm", "update_norm", "angular_update", "lr"):
        found = opened.series(metric, module)
        assert found.kind == "all"
        wanted = opened.layers(metric, module)
        np.testing.assert_array_equal(found.step, wanted["step"])
        np.testing.assert_allclose(found.value, wanted[metric], rtol=1e-6)
    assert opened.series("grad_l2", module, points=20).kind == "thinned"


def test_a_long_module_is_rolled_up_from_means(
    runs: dict[str, dict[str, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where layers do not change within a bucket, that is exact."""
    monkeypatch.setattr(series_module, "ROLLED_ROWS", 1000)
    run = runs["layers"]["segment"]
    members = dict.fromkeys(LAYERS, 100)
    turns = np.zeros(len(LAYERS), np.int64)
    found = rolled_curve(run / "layers", "weight_norm", members, turns, EVERYTHING, 80)
    assert found.kind == "means"
    assert 0 < len(found.step) <= 80
    norms = [rows_of(run, "layers", name, "weight_norm") for name in LAYERS]
    width = 1 << 9 if len(found.step) < 20 else 1 << 6
    places = norms[0].index // width
    with np.errstate(invalid="ignore"):
        squares = [norm.groupby(places).mean() ** 2 for norm in norms]
    wanted = np.sqrt(sum(squares))
    np.testing.assert_allclose(found.value, wanted, rtol=1e-5)


def test_what_there_is_not_is_said(run: WrittenRun) -> None:
    opened = open_run(run.path)
    with pytest.raises(DynoscopeError, match="no layer 'c'"):
        opened.series("weight_norm", "c")
    with pytest.raises(DynoscopeError, match="no column"):
        opened.series("loss", "a.bias")
    assert len(opened.series("value", "accuracy", table="scalars").step) == 0


def test_tables_with_other_curves(run: WrittenRun) -> None:
    opened = open_run(run.path)
    loss = opened.series("value", "loss", table="scalars")
    np.testing.assert_array_equal(loss.value, opened.scalars("loss")["value"])
    lr = opened.series("lr", 0, (10, 20), table="groups")
    np.testing.assert_array_equal(lr.value, opened.groups((10, 20))["lr"])


def test_thin_keeps_gaps_and_extremes() -> None:
    steps, values = np.arange(5000), np.sin(np.arange(5000) / 100)
    values[1234], values[4000] = 7.0, np.nan
    kept = thin(steps, values, 100)
    assert len(kept) <= 100
    assert {0, 1234, 4000, 4999} <= set(kept.tolist())
    assert thin(steps[:50], values[:50], 100).tolist() == list(range(50))
