"""Histograms counted on the device against NumPy's, bin by bin."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dynoscope.metrics.histograms import BINS, EDGES, placed, trimmed
from dynoscope.metrics.sums import Histograms, start_counts

FLOATS = st.floats(width=32, allow_nan=False)


def counted(values: torch.Tensor) -> np.ndarray:
    """Histogram of a weight and of its negative as gradient."""
    return start_counts(Histograms([values]).take([-values]), 1)()[:, 0]


def brute_force(values: np.ndarray) -> np.ndarray:
    """Bins hold their edge nearer to zero, the middle one neither."""
    counts, middle = np.zeros(BINS, np.int64), BINS // 2
    for value in values:
        if abs(value) < EDGES[middle + 1]:
            counts[middle] += 1
        elif value > 0:
            counts[np.flatnonzero(EDGES[:-1] <= value)[-1]] += 1
        else:
            counts[np.flatnonzero(value <= EDGES[1:])[0]] += 1
    return counts


@given(st.lists(FLOATS | st.floats(-4, 4, width=32), min_size=1, max_size=30))
def test_every_value_is_in_its_bin(values: list[float]) -> None:
    weight, gradient = counted(torch.tensor(values, dtype=torch.float32))
    expected = brute_force(np.array(values, np.float32).astype(np.float64))
    np.testing.assert_array_equal(weight, expected)
    np.testing.assert_array_equal(gradient, expected[::-1])


def test_edges_are_in_the_bin_away_from_zero() -> None:
    finite = EDGES[1:-1]
    weight, _ = counted(torch.tensor(finite, dtype=torch.float32))
    assert weight[BINS // 2] == 0
    assert weight.sum() == len(finite) == BINS - 1
    assert weight.max() == 1


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_large_layers_of_any_dtype(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    values = (torch.randn(700, 900) ** 3).to(dtype)
    weight, _ = counted(values.t())
    expected = np.histogram(values.float().numpy(), EDGES)[0]
    # NumPy puts a negative edge into the other bin: bfloat16 has many on edges.
    on_edge = np.isin(values.float().numpy(), EDGES[EDGES < 0]).sum()
    assert np.abs(weight - expected).sum() <= 2 * on_edge
    assert weight.sum() == values.numel()


def test_what_is_not_finite_is_outermost() -> None:
    values = torch.tensor([torch.nan, torch.inf, -torch.inf, 1e30, 1023.9])
    weight, _ = counted(values)
    assert weight[0] + weight[-1] == 4
    assert weight[-2] == 1


def test_an_absent_gradient_counts_nothing() -> None:
    layers = [torch.ones(3), torch.ones(2, 2)]
    weight, gradient = start_counts(
        Histograms(layers).take([None, torch.ones(2, 2)]), 2
    )()
    assert weight.sum(axis=1).tolist() == [3, 4]
    assert gradient.sum(axis=1).tolist() == [0, 4]


def test_trimming_keeps_every_count() -> None:
    counts = np.zeros(BINS, np.int64)
    assert [len(part) for part in trimmed(counts)] == [0, 1]
    counts[[7, 9]] = 3, 4
    kept, edges = trimmed(counts)
    assert kept.tolist() == [3, 0, 4]
    assert edges.tolist() == EDGES[7:11].tolist()


@given(st.dictionaries(st.integers(0, BINS - 1), st.integers(1, 2**40), max_size=9))
def test_what_was_trimmed_is_put_back_in_place(filled: dict[int, int]) -> None:
    counts = np.zeros(BINS, np.int64)
    counts[list(filled)] = list(filled.values())
    np.testing.assert_array_equal(placed(*trimmed(counts)), counts)
