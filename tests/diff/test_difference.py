import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynoscope.diff.difference import Kind, distance, kind_of, limit_of, relative
from dynoscope.schema import TABLES

POSITIVE = st.floats(1e-30, 1e30)


def at(function: Callable[..., Any], kind: Kind, a: float, b: float) -> float:
    return float(function(kind, np.float64(a), np.float64(b)))


@given(POSITIVE, POSITIVE)
def test_ratio_is_the_same_both_ways(a: float, b: float) -> None:
    assert at(distance, "ratio", a, b) == at(distance, "ratio", b, a)
    expected = abs(math.log(b) - math.log(a))
    assert at(distance, "ratio", a, b) == pytest.approx(expected, abs=1e-12)
    assert at(relative, "ratio", a, b) == pytest.approx(b / a - 1, rel=1e-9, abs=1e-12)


@given(st.floats(-1, 1), st.floats(-1, 1))
def test_difference_crosses_zero(a: float, b: float) -> None:
    assert at(relative, "difference", a, b) == b - a
    assert at(distance, "difference", a, b) == abs(b - a)


@pytest.mark.parametrize(
    ("a", "b", "change", "apart"),
    [
        (0, 0, 0, 0),
        (0, 1, math.inf, math.inf),
        (1, 0, -1, math.inf),
        (-1, 1, math.nan, math.nan),
        (-1, -1, math.nan, math.nan),
        (math.nan, 1, math.nan, math.nan),
        (1, math.nan, math.nan, math.nan),
    ],
)
def test_ratio_at_its_limits(a: float, b: float, change: float, apart: float) -> None:
    np.testing.assert_equal(at(relative, "ratio", a, b), change)
    np.testing.assert_equal(at(distance, "ratio", a, b), apart)


def test_threshold_is_a_share_of_the_smaller() -> None:
    assert at(distance, "ratio", 1.0, 1.0999) < limit_of("ratio", 0.1)
    assert at(distance, "ratio", 1.1001, 1.0) > limit_of("ratio", 0.1)
    assert limit_of("difference", 0.1) == 0.1


def test_what_can_be_negative_or_zero_is_compared_by_difference() -> None:
    by_difference = {
        column.name
        for column in TABLES["layers"].columns
        if column.role != "key" and kind_of(column) == "difference"
    }
    cosines = {name for name in TABLES["layers"].names() if name.endswith("_cos")}
    assert by_difference == cosines | {
        *(
            "unmoved_share",
            "nonfinite",
            "grad_density",
            "effective_weight_decay",
            "kkt_gap",
            "outside_share",
            "box_share",
        )
    }
    columns = TABLES["normalization"].columns
    counts = [c for c in columns if c.unit == "channels" and c.role == "measured"]
    assert {kind_of(column) for column in counts} == {"difference"}
