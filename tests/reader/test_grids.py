"""Stretches of a table as arrays, against its rows put in their places one by one."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dynoscope.reader.grids import Grid, read_grid
from dynoscope.sealing import segment
from tests.diff.made import LAYERS, make_rows, rows_of, write_manifest, write_rows

COLUMNS = ("numel", "weight_norm", "grad_l2", "lr")


@st.composite
def plans(draw: st.DrawFn) -> dict[str, Any]:
    """What a run has, and what is asked for of it."""
    count = draw(st.integers(4, 20))
    first = draw(st.integers(0, count))
    return {
        "layers": draw(st.permutations(LAYERS))[: draw(st.integers(2, len(LAYERS)))],
        "count": count,
        "cuts": sorted(draw(st.sets(st.integers(1, 90), max_size=5))),
        "sealed": [range(n) for n in draw(st.sets(st.integers(1, 6), max_size=1))],
        "again": draw(st.booleans()),
        "seed": draw(st.integers(0, 1 << 30)),
        "wanted": sorted(draw(st.sets(st.sampled_from(LAYERS), min_size=1))),
        "steps": np.arange(first, count + 3, draw(st.integers(1, 3))),
        "group": draw(st.sampled_from([7, 12, 1000])),
    }


def make(run: Path, plan: dict[str, Any]) -> pd.DataFrame:
    random = np.random.default_rng(plan["seed"])
    rows = make_rows(plan["layers"], range(plan["count"]), random)
    if plan["again"]:  # the last one of two rows counts
        rows = pd.concat([rows, rows[-5:].assign(weight_norm=2.5)], ignore_index=True)
    run.mkdir()
    write_manifest(run, plan["layers"])
    cuts = [cut for cut in plan["cuts"] if cut < len(rows)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segment, "GROUP_ROWS", plan["group"])
        write_rows(run, rows, cuts, plan["sealed"])
    return rows_of(run)


def expected(
    rows: pd.DataFrame, name: str, layers: list[str], steps: np.ndarray
) -> np.ndarray:
    """The value of each layer at each step, looked up by itself."""
    known = {
        (layer, step): float(value)
        for layer, step, value in zip(
            rows["layer"], rows["step"], rows[name], strict=True
        )
    }
    return np.array(
        [[known.get((layer, int(s)), np.nan) for s in steps] for layer in layers]
    ).reshape(len(layers), len(steps))


@given(plans(), st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_grid_has_each_row_in_its_place(
    tmp_path_factory: pytest.TempPathFactory, plan: dict[str, Any], data: st.DataObject
) -> None:
    run = tmp_path_factory.mktemp("grids") / "run"
    rows = make(run, plan)
    layers, steps = plan["wanted"], plan["steps"]
    grid = read_grid(run / "layers", COLUMNS, layers, steps)
    assert (grid.layers, grid.problems) == (len(layers), [])
    check(grid, rows, layers, steps)
    start = data.draw(st.integers(0, len(steps) - 1))
    stop = data.draw(st.integers(start + 1, len(steps)))
    check(grid.part(start, stop), rows, layers, steps[start:stop])
    middle = (stop - start) // 2
    again = grid.part(start, stop).part(middle, stop - start)
    check(again, rows, layers, steps[start + middle : stop])


def check(grid: Grid, rows: pd.DataFrame, layers: list[str], steps: np.ndarray) -> None:
    assert grid.steps.tolist() == steps.tolist()
    found = grid.columns()
    assert list(found) == list(COLUMNS)
    for name, array in found.items():
        assert array.dtype in (np.float32, np.float64)
        np.testing.assert_array_equal(array, expected(rows, name, layers, steps))


def test_what_is_one_number_everywhere_takes_no_memory(tmp_path: Path) -> None:
    rows = make_rows(LAYERS, range(8), np.random.default_rng(3)).drop_duplicates()
    every = pd.MultiIndex.from_product([range(8), LAYERS], names=["step", "layer"])
    rows = rows.set_index(["step", "layer"]).reindex(every).reset_index()
    rows = rows.assign(numel=4, lr=0.5, weight_norm=np.arange(40.0), nonfinite=np.nan)
    run = tmp_path / "run"
    run.mkdir()
    write_rows(run, rows, [20], [])
    names = ("lr", "nonfinite", "weight_norm")
    grid = read_grid(run / "layers", names, sorted(LAYERS), np.arange(8))
    columns = grid.columns()
    assert columns["lr"].strides == columns["nonfinite"].strides == (0, 0)
    assert (columns["lr"] == 0.5).all()
    assert np.isnan(columns["nonfinite"]).all()
    assert 0 not in columns["weight_norm"].strides


def test_a_column_that_was_not_written_is_nan(tmp_path: Path) -> None:
    rows = make_rows(LAYERS, range(4), np.random.default_rng(0))
    run = tmp_path / "run"
    run.mkdir()
    write_rows(run, rows, [5, len(rows)], [])
    grid = read_grid(run / "layers", ["from_the_future"], LAYERS, np.arange(4))
    assert np.isnan(grid.columns()["from_the_future"]).all()
