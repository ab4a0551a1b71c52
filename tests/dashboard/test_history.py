from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike

from dynoscope.dashboard.history import History
from dynoscope.reader import Block, pivot
from dynoscope.schema import TABLES

COLUMNS = {
    c.name: float if c.dtype in ("float64", "int64") else np.float32
    for c in TABLES["groups"].columns
    if c.role != "key"
}


def block(steps: Sequence[int], value: ArrayLike) -> Block:
    """Rows of `groups` for one group whose columns all have that value."""
    value = np.broadcast_to(np.asarray(value, float), (len(steps),))[:, None]
    columns = {name: value.astype(kind) for name, kind in COLUMNS.items()}
    return {"step": np.asarray(steps), **columns}


def small(rows: int) -> History:
    """A history of one group that has room for that many steps."""
    width = sum(array.itemsize for array in block([0], 0.0).values()) - 8
    return History("groups", "group", [0], ["lr"], budget=rows * width)


def test_pivot_places_rows_by_step_and_layer() -> None:
    rows = pa.table({
        "step": [4, 3, 3, 4],
        "layer": ["b", "b", "other", "a"],
        "x": pa.array([4.2, 3.2, 9.0, 4.1], pa.float32()),
    })  # fmt: skip
    found = pivot(rows, "layer", ["a", "b"])
    assert found["step"].tolist() == [3, 4]
    np.testing.assert_array_equal(
        found["x"], np.array([[np.nan, 3.2], [4.1, 4.2]], np.float32)
    )


def test_memory_is_bounded_and_the_ends_stay() -> None:
    history = small(100)
    for start in range(0, 10_000, 50):
        history.add(block(range(start, start + 50), 1.0))
        assert len(history) <= 100
        assert history.steps[-1] == start + 49
    assert len(history) > 25
    gaps = np.diff(history.steps)
    assert (gaps > 0).all()
    assert gaps.max() <= 2 * history.stride  # evenly spread, from the first step on
    assert history.steps[0] < history.stride


def test_a_spike_survives_thinning() -> None:
    values = np.ones(10_000)
    values[4321] = 50.0
    history = small(100)
    for start in range(0, 10_000, 50):
        history.add(block(range(start, start + 50), values[start : start + 50]))
    assert 4321 in history.steps
    kept = values[history.steps]
    np.testing.assert_array_equal(history.column("lr")[:, 0], kept)


def test_views_outlive_what_comes_later() -> None:
    history = small(64)
    history.add(block(range(40), 1.0))
    view = history.column("lr")
    for start in range(40, 400, 10):
        history.add(block(range(start, start + 10), 2.0))
    assert history.thinned
    np.testing.assert_array_equal(view, np.ones((40, 1)))
