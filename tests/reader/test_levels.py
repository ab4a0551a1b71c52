"""Overviews are what all rows say, from whatever they are read."""

import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynoscope.errors import DynoscopeError, DynoscopeWarning
from dynoscope.metrics.buckets import bucket, merge, places_of, starts_of
from dynoscope.reader import Overview, open_run
from dynoscope.reader import levels as levels_module
from dynoscope.reader.footers import EVERYTHING, Window, footer_of
from dynoscope.reader.levels import overviews
from dynoscope.schema.folder import SORTED_BY
from dynoscope.schema.levels import BUCKETED, numbers_of
from dynoscope.sealing import coarse
from tests.dashboard.runs import WrittenRun
from tests.reader.runs import frame_of, write_runs
from tests.sealing.runs import LAYERS

LAYOUTS = ("journal", "parts", "segment", "mixed")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments of few rows have levels, too."""
    monkeypatch.setattr(coarse, "LEAST", 1)
    monkeypatch.setattr(coarse, "WORTH", 4)


@pytest.fixture(scope="module", params=["every", "some"])
def runs(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, dict[str, Path]]]:
    """For each table with levels, runs of the same rows; all steps, or one of 30."""
    random = np.random.default_rng(0)
    steps = np.arange(1500)
    if request.param == "some":
        steps = np.sort(random.choice(50_000, 1500, replace=False))
    folder = tmp_path_factory.mktemp(request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coarse, "LEAST", 1)
        patch.setattr(coarse, "WORTH", 4)
        yield {t: write_runs(folder / t, t, steps, LAYOUTS) for t in BUCKETED}


def expected(
    frame: pd.DataFrame, key: str, metric: str, names: list[str], width: int
) -> dict[str, np.ndarray]:
    """The slow way: a group for each bucket and curve."""
    frame = frame[frame[key].isin(names)]
    place = frame["step"] // width
    groups = frame[metric].astype(float).groupby([place, frame[key]])
    statistics: dict[str, Any] = {
        "min": groups.min(),
        "mean": groups.apply(lambda values: np.mean(values[~np.isnan(values)])),
        "max": groups.max(),
        "count": groups.count(),
    }
    found = {"step": frame["step"].groupby(place).min().to_numpy()}
    for name, series in statistics.items():
        wide = series.unstack().reindex(columns=names)
        found[name] = wide.to_numpy()
    return found


def assert_same(found: Overview, wanted: dict[str, np.ndarray]) -> None:
    np.testing.assert_array_equal(found.step, wanted["step"])
    np.testing.assert_array_equal(found.min, wanted["min"])
    np.testing.assert_array_equal(found.max, wanted["max"])
    np.testing.assert_array_equal(found.count, np.nan_to_num(wanted["count"]))
    # Means are rounded to float32, of values that differ by orders of magnitude.
    size = np.fmax(np.abs(wanted["min"]), np.abs(wanted["max"]))
    error = np.abs(found.mean - wanted["mean"]) / size
    same = (found.mean == wanted["mean"]) | np.isnan(wanted["mean"])
    assert (np.isnan(found.mean) == np.isnan(wanted["mean"])).all()
    assert (same | (error < 1e-6)).all()


@pytest.mark.parametrize("table", BUCKETED)
@pytest.mark.parametrize("points", [2, 30, 10**9])
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:Mean of empty:RuntimeWarning")
def test_an_overview_is_what_all_rows_say(
    runs: dict[str, dict[str, Path]], table: str, points: int
) -> None:
    key = SORTED_BY.get(table, "layer")
    names = list(LAYERS[:2])
    metric = numbers_of(table)[-1]
    frame = frame_of(runs[table]["journal"], table)
    for run in runs[table].values():
        found = overviews(run / table, [metric], names, EVERYTHING, points)[metric]
        assert not found.problems
        assert found.names == names
        assert len(found.step) <= points
        assert found.width > 1 or points > len(found.step)
        with np.errstate(invalid="ignore"):
            wanted = expected(frame, key, metric, names, found.width)
            assert_same(found, wanted)


def test_all_curves_are_found(runs: dict[str, dict[str, Path]]) -> None:
    for run in runs["scalars"].values():
        found = overviews(run / "scalars", ["value"], points=10)["value"]
        assert sorted(found.names) == sorted(LAYERS)
        assert found.mean.shape == (len(found.step), len(LAYERS))


def test_a_window_is_covered(runs: dict[str, dict[str, Path]]) -> None:
    """Its buckets, whole, and no others."""
    metric = numbers_of("layers")[0]
    for run in runs["layers"].values():
        folder = run / "layers"
        window = Window(None, 500, 1000)
        part = overviews(folder, [metric], LAYERS, window, 10)[metric]
        frame = frame_of(run, "layers")
        inside = frame["step"].between(500, 999)
        places = frame["step"] // part.width
        assert len(part.step) == places[inside].nunique() <= 10
        assert set(part.step // part.width) == set(places[inside])


def test_levels_are_read_instead_of_rows(
    runs: dict[str, dict[str, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a long run is read from, and that it says the same."""
    run = runs["layers"]["segment"]
    metric = numbers_of("layers")[0]
    exact = overviews(run / "layers", [metric], LAYERS, EVERYTHING, 4)[metric]
    (path,) = (run / "levels").glob("layers-*")
    assert footer_of(path).levels[0] in (6, 9)
    monkeypatch.setattr(levels_module, "_reduced", None)  # nobody reduces rows
    again = overviews(run / "layers", [metric], LAYERS, EVERYTHING, 4)[metric]
    np.testing.assert_array_equal(again.mean, exact.mean)


def test_a_run_is_seen_in_the_order_of_its_model(tmp_path: Path) -> None:
    written = WrittenRun(tmp_path / "run")
    for _ in range(4):
        written.write(20)
        written.flush()
    written.end()
    run = open_run(written.path)
    found = run.overview("weight_norm")
    rows = run.layers("weight_norm")
    wide = rows.pivot(index="step", columns="layer", values="weight_norm")
    wide = wide[run.layer_names]
    assert found.names == run.layer_names
    assert found.width == 1
    np.testing.assert_array_equal(found.mean, wide.to_numpy())
    several = run.overviews(["grad_l1", "grad_l2"], points=5, steps=(0, 40))
    assert {name: len(each.step) for name, each in several.items()} == {
        "grad_l1": 5, "grad_l2": 5,
    }  # fmt: skip
    loss = run.overview("value", table="scalars")
    assert set(loss.names) == {"loss", "dynoscope/hook_seconds"}
    with pytest.raises(DynoscopeError, match="no column 'weight'"):
        run.overview("weight")
    with pytest.raises(DynoscopeError, match="leaves out steps"):
        run.overview("weight_norm", steps=range(0, 10, 2))


def test_nothing_recorded_is_nothing_seen(tmp_path: Path) -> None:
    written = WrittenRun(tmp_path / "run")
    found = open_run(written.path).overview("weight_norm")
    assert found.mean.shape == (0, 3)


def test_damage_is_named_and_the_rest_is_seen(
    runs: dict[str, dict[str, Path]], tmp_path: Path
) -> None:
    run = shutil.copytree(runs["neurons"]["mixed"], tmp_path / "run")
    (run / "neurons" / "part-00000009.parquet").write_bytes(b"PAR1 what is this PAR1")
    metric = numbers_of("neurons")[0]
    found = overviews(run / "neurons", [metric], LAYERS)[metric]
    assert len(found.problems) == 1
    assert "part-00000009.parquet" in found.problems[0]
    assert len(found.step) > 0
    with warnings.catch_warnings():
        warnings.simplefilter("error", DynoscopeWarning)
        overviews(runs["neurons"]["mixed"] / "neurons", [metric], LAYERS)


@settings(deadline=None, max_examples=50)
@given(
    values=st.lists(
        st.floats(width=32, allow_subnormal=False) | st.just(np.nan), min_size=1
    ),
    cuts=st.sets(st.integers(1, 99), max_size=9),
    more=st.sets(st.integers(0, 9)),
)
def test_merged_buckets_are_those_of_all_values(
    values: list[float], cuts: set[int], more: set[int]
) -> None:
    array = np.array(values)
    starts = np.array(sorted({0} | {cut for cut in cuts if cut < len(values)}))
    fewer = np.array(sorted({0} | {n for n in more if n < len(starts)}))
    merged = merge(bucket(array, starts), fewer)
    direct = bucket(array, starts[fewer])
    np.testing.assert_array_equal(merged.least, direct.least)
    np.testing.assert_array_equal(merged.most, direct.most)
    np.testing.assert_array_equal(merged.known, direct.known)
    size = np.nanmax(np.abs(array), initial=0)
    np.testing.assert_allclose(merged.mean, direct.mean, atol=1e-12 * min(size, 1e300))


def test_buckets_begin_at_multiples_of_their_width() -> None:
    curves = np.array([0, 0, 0, 1, 1])
    steps = np.array([6, 7, 8, 8, 15])
    places = places_of(curves, steps)
    assert starts_of(places, 3).tolist() == [0, 2, 3]
    assert starts_of(places, 0).tolist() == [0, 1, 2, 3, 4]
    assert starts_of(places[:0], 3).tolist() == []
