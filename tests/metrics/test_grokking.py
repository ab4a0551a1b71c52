import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynoscope.metrics.grokking import first_reached, grokking_gap


@given(st.lists(st.floats(0, 1), max_size=20), st.floats(0, 1), st.booleans())
def test_first_reached(values: list[float], threshold: float, falling: bool) -> None:
    steps = np.arange(len(values)) * 5
    expected = math.nan
    for step, value in zip(steps, values, strict=True):
        if (value <= threshold) if falling else (value >= threshold):
            expected = float(step)
            break
    found = first_reached(steps, np.array(values), threshold, falling=falling)
    assert found == pytest.approx(expected, nan_ok=True)


def test_nan_reaches_nothing() -> None:
    assert first_reached(np.arange(2), np.array([np.nan, 1.0]), 0.5) == 1


def test_series_of_different_steps() -> None:
    train = np.array([0, 1, 2]), np.array([0.2, 1.0, 1.0])
    validation = np.array([0, 500, 1000]), np.array([0.1, 0.5, 1.0])
    assert grokking_gap(train, validation, 1.0) == (1, 1000, 999)


def test_validation_that_never_gets_there() -> None:
    steps = np.arange(3)
    found = grokking_gap((steps, np.ones(3)), (steps, np.zeros(3)), 1.0)
    assert found.train == 0
    assert math.isnan(found.validation)
    assert math.isnan(found.gap)
