"""Layers that make modules, against a loop over the modules."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynoscope.metrics.members import Members

ADDS = (np.add, np.minimum, np.maximum, np.logical_and)


@st.composite
def modules(draw: st.DrawFn) -> list[range]:
    """Ranges of twelve layers, in any order, some of which follow each other."""
    found: list[range] = []
    for _ in range(draw(st.integers(1, 8))):
        start = draw(st.integers(0, 11))
        if found and found[-1].stop < 12 and draw(st.booleans()):
            start = found[-1].stop
        size = draw(st.integers(1, 12 - start))
        if found and start + len(found[-1]) <= 12 and draw(st.booleans()):
            size = len(found[-1])
        found.append(range(start, start + size))
    return found


@given(modules(), st.sampled_from(ADDS), st.sampled_from([(), (1,), (5,), (2, 3)]))
def test_modules_are_reduced_as_one_by_one(
    layers: list[range], add: np.ufunc, more: tuple[int, ...]
) -> None:
    # Whole numbers, of which sums are exact in any order.
    whole = np.random.default_rng(0).integers(-9, 9, (12, *more))
    column = whole.astype(bool if add is np.logical_and else np.float64)
    found = Members(layers).reduce(column, add)
    expected = [add.reduce(column[list(each)], axis=0) for each in layers]
    assert found.dtype == column.dtype
    np.testing.assert_array_equal(found, np.array(expected))


@given(modules())
def test_blocks_are_views_of_all_modules_once(layers: list[range]) -> None:
    column, other = np.arange(24.0).reshape(12, 2), np.arange(12)
    done: list[list[int]] = []
    for which, (block, its) in Members(layers).blocks(column, other):
        assert which == slice(len(done), len(done) + len(block))
        assert np.shares_memory(block, column)
        np.testing.assert_array_equal(block, column[its])
        done += its.tolist()
    assert done == [list(each) for each in layers]


def test_those_of_one_size_that_follow_each_other_are_one_block() -> None:
    blocks = [range(2, 4), range(4, 6), range(6, 8), range(8), range(8, 9)]
    column = np.zeros((9, 3))
    shapes = [block.shape for _, (block,) in Members(blocks).blocks(column)]
    assert shapes == [(3, 2, 3), (1, 8, 3), (1, 1, 3)]


@given(modules())
def test_single_ones_are_told(layers: list[range]) -> None:
    which, where = Members(layers).single
    single = {n: each.start for n, each in enumerate(layers) if len(each) == 1}
    assert dict(zip(which.tolist(), where.tolist(), strict=True)) == single


def test_what_is_broadcast_is_reduced_as_if_it_were_not() -> None:
    column = np.broadcast_to(np.float64(0.5), (6, 4))
    found = Members([range(3), range(3, 6), range(6)]).reduce(column)
    assert found.tolist() == [[1.5] * 4, [1.5] * 4, [3.0] * 4]


def test_no_module_is_nothing() -> None:
    assert Members([]).reduce(np.zeros((3, 4))).shape == (0, 4)
    assert [part.tolist() for part in Members([]).single] == [[], []]


def test_a_nan_makes_its_modules_nan_and_no_other() -> None:
    column = np.array([1.0, np.nan, 2.0])
    found = Members([range(2), range(2, 3), range(1, 3)]).reduce(column)
    assert found == pytest.approx([np.nan, 2.0, np.nan], nan_ok=True)
