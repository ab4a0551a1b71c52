import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from dynoscope.theory import geometry

Array = NDArray[np.float64]

SEEDS, STEPS, LR, DECAY, BETA1, BETA2 = 10, 2000, 0.01, 0.1, 0.9, 0.99
MINIMUM, SMOOTHNESS, NOISE_SQ = 1.884293, 7.0, 2.0


def loss(w: Array) -> Array:
    x, y = w.T
    return np.asarray(x**2 + y**2 + 5 * np.cos(x) * np.cos(y))


def slope(w: Array) -> Array:
    x, y = w.T
    return np.stack(
        [2 * x - 5 * np.sin(x) * np.cos(y), 2 * y - 5 * np.cos(x) * np.sin(y)], axis=1
    )


def descend(start: Array, noise: np.random.Generator) -> tuple[Array, Array]:
    """Lion from all starts at once: gap and l1 norm of the true gradient, by step."""
    w, m = start.copy(), np.zeros_like(start)
    gaps, sizes = [], []
    for _ in range(STEPS):
        true = slope(w)
        l1 = np.abs(true).sum(axis=1)
        gaps.append(geometry.kkt_gap((w * true).sum(axis=1), l1, np.array(DECAY)))
        sizes.append(l1)
        grad = true + noise.standard_normal(w.shape)
        w = (1 - LR * DECAY) * w - LR * np.sign(BETA1 * m + (1 - BETA1) * grad)
        m = BETA2 * m + (1 - BETA2) * grad
        assert (DECAY * np.abs(w) <= 1).all()
    return np.array(gaps), np.array(sizes)


def bound(start: Array) -> Array:
    return geometry.rate_bound(
        np.array(STEPS),
        np.array(2),
        np.array(NOISE_SQ),
        np.array(SMOOTHNESS),
        loss(start) - MINIMUM,
    )


def test_the_bound_in_the_box_on_a_function_of_two_weights() -> None:
    noise = np.random.default_rng(0)
    start = np.stack([np.full(SEEDS, 10.0), noise.uniform(-10, 10, SEEDS)], axis=1)
    gaps, sizes = descend(start, noise)
    assert (gaps >= -1e-12 * sizes).all()
    mean = geometry.running_mean(gaps)[-1]
    assert mean.mean() == pytest.approx(7.4, abs=0.44)
    assert bound(start).mean() == pytest.approx(20.84, abs=0.33)
    assert (mean <= bound(start)).all()


def test_the_bound_without_constraint() -> None:
    noise = np.random.default_rng(0)
    start = noise.uniform(-10, 10, (SEEDS, 2))
    _, sizes = descend(start, noise)
    half = geometry.running_mean(sizes)[-1] / 2
    assert half.mean() == pytest.approx(1.48, abs=0.2)
    assert bound(start).mean() == pytest.approx(16.93, abs=1.07)
    assert (half <= bound(start)).all()


def test_the_constant_is_the_smallest_that_holds_at_every_step() -> None:
    series = np.random.default_rng(0).lognormal(size=(300, 4))
    numel = np.array([1, 10, 100, 1000])
    found = geometry.rate_constant(series, numel)
    slack = np.full(4, np.inf)
    for k in range(1, 301):
        allowed = found * np.sqrt(numel) * k**-0.25
        slack = np.minimum(slack, allowed / series[:k].mean(axis=0) - 1)
    np.testing.assert_allclose(slack, 0, atol=1e-12)


@given(arrays(np.float64, st.integers(1, 50), elements=st.floats(-1e3, 1e3)))
def test_density_lies_between_one_weight_and_all(grad: Array) -> None:
    l1, l2 = np.abs(grad).sum(), np.sqrt((grad**2).sum())
    found = float(geometry.density(l1, l2, np.asarray(grad.size)))
    if l2 == 0:
        assert np.isnan(found)
    else:
        assert grad.size**-0.5 * (1 - 1e-12) <= found <= 1 + 1e-12


def test_density_of_gaussian_gradients() -> None:
    grad = np.random.default_rng(0).standard_normal(100_000)
    found = geometry.density(
        np.abs(grad).sum(), np.asarray(np.linalg.norm(grad)), np.asarray(grad.size)
    )
    assert found == pytest.approx(np.sqrt(2 / np.pi), rel=0.005)


def test_running_mean_of_layers() -> None:
    series = np.arange(12.0).reshape(4, 3)
    expected = [series[: k + 1].mean(axis=0) for k in range(4)]
    np.testing.assert_allclose(geometry.running_mean(series), expected)
