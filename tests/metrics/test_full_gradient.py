"""The KKT gap and its relatives, for any weights and gradients."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dynoscope.metrics.full_gradient import GradientSums, full_gradient_metrics

# In steps of a power of two: the square of none of them is lost to underflow.
NUMBERS = arrays(
    np.float64, (3, 7), elements=st.integers(-(2**20), 2**20).map(lambda n: n / 1024)
)


def sums_of(weights: np.ndarray, gradients: np.ndarray, decay: float) -> GradientSums:
    return GradientSums(
        numel=np.full(len(weights), weights.shape[1], float),
        grad_sq=(gradients**2).sum(1),
        grad_abs=np.abs(gradients).sum(1),
        noise=np.ones(len(weights)),
        weight_max=np.abs(weights).max(1),
        decay_grad=decay * (weights * gradients).sum(1),
        box=decay * np.abs(weights).max(1),
    )


@given(weights=NUMBERS, gradients=NUMBERS, decay=st.floats(0, 2))
def test_the_gap_is_not_negative_where_feasible(
    weights: np.ndarray, gradients: np.ndarray, decay: float
) -> None:
    found = full_gradient_metrics(sums_of(weights, gradients, decay).with_whole())
    assert found["kkt_gap"].shape == (4,)
    rounding = 1e-6 * found["grad_l1"]
    assert (found["kkt_gap"] >= -rounding)[found["feasible"]].all()
    assert found["feasible"][3] == found["feasible"][:3].all()


@given(weights=NUMBERS, gradients=NUMBERS, decay=st.floats(0, 2))
def test_the_whole_is_its_layers_in_a_row(
    weights: np.ndarray, gradients: np.ndarray, decay: float
) -> None:
    found = full_gradient_metrics(sums_of(weights, gradients, decay).with_whole())
    flat = sums_of(weights.reshape(1, -1), gradients.reshape(1, -1), decay)
    whole = full_gradient_metrics(flat)
    size = np.abs(gradients).sum() * (1 + decay * np.abs(weights).max())
    for name in ("grad_l1", "grad_l2", "kkt_gap", "weight_max"):
        assert np.isclose(found[name][3], whole[name][0], rtol=1e-12, atol=1e-14 * size)
    np.testing.assert_allclose(found["grad_density"][3], whole["grad_density"][0])
    np.testing.assert_allclose(found["noise_scale"][3], 3 * whole["noise_scale"][0])


def test_the_gap_closes_at_the_corner_that_the_gradient_points_from() -> None:
    gradients = np.array([[2.0, -3.0, 0.5]])
    corner = -np.sign(gradients) / 0.1
    found = full_gradient_metrics(sums_of(corner, gradients, 0.1))
    assert found["kkt_gap"][0] == 0
    assert found["feasible"][0]
    assert full_gradient_metrics(sums_of(corner, -gradients, 0.1))["kkt_gap"][0] == 11
    assert not full_gradient_metrics(sums_of(corner, gradients, 0.2))["feasible"][0]


def test_a_gradient_that_all_but_vanishes_has_any_noise() -> None:
    tiny = np.full((1, 3), 1e-158)
    assert np.isinf(full_gradient_metrics(sums_of(tiny, tiny, 0.1))["noise_scale"][0])


def test_what_does_not_exist_is_nan() -> None:
    zero = np.zeros((1, 3))
    found = full_gradient_metrics(sums_of(zero, zero, 0.1))
    assert np.isnan([found[name][0] for name in ("grad_ratio", "noise_scale")]).all()
    assert found["kkt_gap"][0] == 0
