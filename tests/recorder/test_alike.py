"""Units of layers of one width, however the layers lie."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynoscope.recorder.alike import alike, places


@given(st.lists(st.integers(1, 4), max_size=8))
def test_units_are_those_of_the_layers(widths: list[int]) -> None:
    of_all = np.random.default_rng(0).random((2, 3, sum(widths)))
    apart = np.split(of_all, np.cumsum(widths)[:-1], axis=-1)
    layers = np.arange(len(widths))
    seen = []
    for group in alike(widths):
        units = group.units(of_all)
        for at, layer in enumerate(layers[group.members]):
            seen.append(layer)
            np.testing.assert_array_equal(units[..., at, :], apart[layer])
        assert units.shape[-1] == group.width
    assert sorted(seen) == layers.tolist()


def test_what_lies_together_is_not_copied() -> None:
    of_all = np.arange(12.0)
    (two, one) = alike([3, 3, 6])
    assert np.shares_memory(two.units(of_all), of_all)
    assert np.shares_memory(one.units(of_all), of_all)
    (apart, _) = alike([3, 6, 3])
    assert apart.units(of_all).tolist() == [[0, 1, 2], [9, 10, 11]]


@pytest.mark.parametrize("indices", [[], [3], [2, 3, 4], [2, 4], [4, 3], [0, 0]])
def test_places_stand_for_their_indices(indices: list[int]) -> None:
    found = places(indices)
    assert isinstance(found, slice) == (indices in ([3], [2, 3, 4]))
    assert np.arange(9)[found].tolist() == indices
