import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from dynoscope.theory import autocorrelation

coefficients = st.floats(0, 0.99)
kept_shares = st.floats(0.01, 1)
LAGS = 4000  # .99 ** 4000 is 3e-18


def correlations(beta1: float, beta2: float, lags: int = LAGS) -> NDArray[np.float64]:
    """rho_k for k = 1 to `lags`, from the weights that n_t gives to past gradients."""
    weights = beta1 * (1 - beta2) * beta2 ** np.arange(2 * lags)
    weights = np.concatenate([[1 - beta1], weights])
    products = [weights[k:] @ weights[: len(weights) - k] for k in range(lags + 1)]
    return np.array(products[1:]) / products[0]


def discounted(correlation: NDArray[np.floating], q: float) -> float:
    powers = q ** np.arange(1, len(correlation) + 1)
    return float(1 + 2 * correlation @ powers)


@given(coefficients, kept_shares)
def test_averaged_sum_is_its_series(beta1: float, q: float) -> None:
    expected = discounted(beta1 ** np.arange(1, LAGS + 1), q)
    assert autocorrelation.averaged_sum(np.asarray(beta1), np.asarray(q)) == (
        pytest.approx(expected, rel=1e-12)
    )


@pytest.mark.parametrize("beta1", [0.0, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("beta2", [0.0, 0.5, 0.95, 0.98])
@pytest.mark.parametrize("q", [1.0, 0.995, 0.5])
def test_sums_of_the_interpolated_momentum_are_their_series(
    beta1: float, beta2: float, q: float
) -> None:
    rho = correlations(beta1, beta2, lags=2000)
    arguments = np.asarray(beta1), np.asarray(beta2), np.asarray(q)
    assert autocorrelation.interpolated_sum(*arguments) == (
        pytest.approx(discounted(rho, q), rel=1e-12)
    )
    arcsine = 2 / np.pi * np.arcsin(np.minimum(rho, 1))
    assert autocorrelation.sign_sum(*arguments) == (
        pytest.approx(discounted(arcsine, q), rel=1e-12)
    )


@pytest.mark.parametrize(
    ("beta1", "beta2", "bound"),
    [(0.999, 0.9999, 1e-12), (0.99999, 0.9999, 1e-12), (0.9999999, 0.99999, 3e-4)],
)
@pytest.mark.parametrize("q", [1.0, 0.9999, 0.999])
def test_sign_sum_keeps_its_error_bound_with_slow_momentum(
    beta1: float, beta2: float, bound: float, q: float
) -> None:
    rho = float(
        autocorrelation.interpolation_correlation(np.asarray(beta1), np.asarray(beta2))
    )
    lags = np.arange(3_000_000)
    expected = discounted(2 / np.pi * np.arcsin(rho * beta2**lags), q)
    found = autocorrelation.sign_sum(
        np.asarray(beta1), np.asarray(beta2), np.asarray(q)
    )
    assert found == pytest.approx(expected, rel=bound)


def test_sign_correlation_is_that_of_simulated_signs() -> None:
    beta1, beta2, steps = 0.9, 0.95, 400
    noise = np.random.default_rng(0).standard_normal((steps, 20_000))
    momentum, signs = np.zeros(20_000), []
    for grad in noise:
        signs.append(np.sign(beta1 * momentum + (1 - beta1) * grad))
        momentum = beta2 * momentum + (1 - beta2) * grad
    last = np.array(signs[steps // 2 :])
    measured = np.array([(last[:-k] * last[k:]).mean() for k in range(1, 100)])
    expected = discounted(measured, 0.95)
    found = autocorrelation.sign_sum(*map(np.asarray, (beta1, beta2, 0.95)))
    assert found == pytest.approx(expected, rel=5e-3)


@given(coefficients, coefficients, kept_shares)
def test_every_sum_is_at_least_one_and_at_most_that_of_a_constant_update(
    beta1: float, beta2: float, q: float
) -> None:
    arguments = np.asarray(beta1), np.asarray(beta2), np.asarray(q)
    constant = np.inf if q == 1 else (1 + q) / (1 - q)
    for found in (
        autocorrelation.averaged_sum(arguments[0], arguments[2]),
        autocorrelation.interpolated_sum(*arguments),
        autocorrelation.sign_sum(*arguments),
    ):
        assert 1 <= found <= constant * (1 + 1e-12)


def test_arrays_broadcast_to_what_scalars_give() -> None:
    beta1, beta2 = np.array([0.9, 0.95, 0.0]), np.array([0.99, 0.98, 0.5])
    q = np.array([[0.999], [0.9]])
    found = autocorrelation.sign_sum(beta1, beta2, q)
    expected = [
        [
            autocorrelation.sign_sum(b1, b2, share)
            for b1, b2 in zip(beta1, beta2, strict=True)
        ]
        for (share,) in q
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-14)
