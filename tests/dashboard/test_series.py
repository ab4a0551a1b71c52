import numpy as np
import pytest

from dynoscope.dashboard import series as series_module
from dynoscope.dashboard.series import Series, thin


def test_few_points_are_all_kept() -> None:
    assert thin(np.arange(10), np.ones(10), 10).tolist() == list(range(10))


def test_thinning_keeps_extremes_ends_and_nan() -> None:
    values = np.sin(np.arange(50_000) / 100)
    values[1234], values[4321], values[30_000] = 9.0, -9.0, np.nan
    kept = thin(np.arange(50_000), values, 1000)
    assert len(kept) <= 1000
    assert {0, 1234, 4321, 30_000, 49_999} <= set(kept.tolist())


def test_series_is_bounded_and_sorted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(series_module, "MOST", 200)
    series = Series()
    for start in range(0, 3000, 30):
        steps = np.arange(start, start + 30)[::-1]
        series.add(steps, steps * 2.0)
        assert len(series.steps) <= 200
        assert (np.diff(series.steps) >= 0).all()
    np.testing.assert_array_equal(series.values, series.steps * 2.0)
    assert series.steps[-1] == 2999
