r"""Autocorrelation of an optimizer's updates, and its discounted sum S(q).

Momentum makes successive updates alike, and alike updates add up: the
equilibrium of a decoupled optimizer depends on its updates ``u`` through
``U = E||u||^2`` and

    S(q) = 1 + 2 sum_{k>=1} r_k q^k,    r_k = E<u_t, u_{t+k}> / U,

with ``q = 1 - lr * weight_decay``. All three sums below suppose that successive
gradients are independent with zero mean (a random walk).

Symbols: beta1, beta2 are the coefficients of the moments, r_k and S(q) are pure
numbers. Every argument is a float64 array of any shape; arrays broadcast.
"""

import math
from functools import cache

import numpy as np

from dynoscope.theory.hyperparameters import Array

__all__ = ["averaged_sum", "interpolated_sum", "interpolation_correlation", "sign_sum"]

_SERIES_LIMIT = 0.5  # up to here 24 terms of arcsin's series are exact to 1e-17
_SERIES_TERMS = 24
_MAX_LAGS = 4096


def averaged_sum(beta1: Array, q: Array) -> Array:
    """S(q) of an exponential average of gradients, the update of AdamW.

    Its r_k is beta1^k, so the sum is (1 + beta1 q) / (1 - beta1 q).

    Args:
        beta1: coefficient of the first moment, in [0, 1), dimensionless.
        q: share of the weight that a step keeps, in (0, 1], dimensionless.

    Returns:
        S(q) >= 1, dimensionless, float64, of the broadcast shape.

    Source: the momentum of Kosson et al. 2024, eq. 29; checked for lr *
    weight_decay from 1e-4 to 1e-2.
    """
    return (1 + beta1 * q) / (1 - beta1 * q)


def interpolation_correlation(beta1: Array, beta2: Array) -> Array:
    """Correlation rho_1 of Lion's interpolated momentum one step apart.

    The interpolation is n_t = beta1 m_{t-1} + (1 - beta1) g_t, with m an average
    of coefficient beta2. Further apart it is rho_k = rho_1 beta2^(k-1).

    Args:
        beta1: coefficient of the interpolation, in [0, 1), dimensionless.
        beta2: coefficient of the momentum, in [0, 1), dimensionless.

    Returns:
        rho_1 in [0, 1), dimensionless, float64, of the broadcast shape.

    Source: from Kosson et al. 2024, eqs. 54 to 57.
    """
    fresh = (1 - beta1) ** 2
    # beta1^2 (1 - beta2)^2 / (1 - beta2^2), without the cancellation near beta2 = 1
    remembered = beta1**2 * (1 - beta2) / (1 + beta2)
    echo = (1 - beta1) * beta1 * (1 - beta2)
    return (remembered * beta2 + echo) / (fresh + remembered)


def interpolated_sum(beta1: Array, beta2: Array, q: Array) -> Array:
    """S(q) of an update along the interpolated momentum, without a sign.

    Args:
        beta1: coefficient of the interpolation, in [0, 1), dimensionless.
        beta2: coefficient of the momentum, in [0, 1), dimensionless.
        q: share of the weight that a step keeps, in (0, 1], dimensionless.

    Returns:
        S(q) >= 1, dimensionless, float64, of the broadcast shape.

    Source: r_k = rho_k, summed; see `interpolation_correlation`.
    """
    return 1 + 2 * interpolation_correlation(beta1, beta2) * q / (1 - beta2 * q)


def sign_sum(beta1: Array, beta2: Array, q: Array) -> Array:
    """S(q) of Lion, whose update is the sign of the interpolated momentum.

    Two jointly Gaussian numbers of correlation rho have signs of correlation
    (2/pi) arcsin(rho), hence r_k = (2/pi) arcsin(rho_k).

    The first lags are summed one by one until rho_k is at most .5, the rest in
    closed form, term by term of arcsin's power series. The relative error is
    below 1e-12 for beta2 up to .9999. Beyond, only 4096 lags come before the
    series: 3e-4 at beta2 = .99999, and then only if beta1 is as near to 1.

    Args:
        beta1: coefficient of the interpolation, in [0, 1), dimensionless.
        beta2: coefficient of the momentum, in [0, 1), dimensionless.
        q: share of the weight that a step keeps, in (0, 1], dimensionless.

    Returns:
        S(q) >= 1, dimensionless, float64, of the broadcast shape.

    Source: the arcsine law (Van Vleck and Middleton 1966) on
    `interpolation_correlation`; measured norm / predicted norm is 1.02 to 1.03
    for lr * weight_decay from 1e-4 to 1e-2, where Kosson et al. 2024, eq. 70, is
    off by a quarter at 1e-2.
    """
    rho = interpolation_correlation(beta1, beta2)
    lags = _lags_above_series_limit(rho, beta2)
    tail = _arcsin_series_sum(rho * beta2**lags, beta2, q)
    # f(rho) = sum_k arcsin(rho beta2^(k-1)) q^k obeys f(rho) = q (arcsin(rho) +
    # f(rho beta2)): unrolled from the last lag inwards, as in Horner's scheme.
    for lag in range(lags - 1, -1, -1):
        tail = q * (np.arcsin(rho * beta2**lag) + tail)
    return 1 + 4 / math.pi * tail


def _lags_above_series_limit(rho: Array, beta2: Array) -> int:
    """How many lags must pass until every correlation is at most the limit."""
    slow = rho > _SERIES_LIMIT
    if not np.any(slow):
        return 0
    slow_rho, slow_beta2 = np.broadcast_arrays(rho, beta2)
    decay = np.log(np.maximum(slow_beta2[slow], np.finfo(np.float64).tiny))
    needed = np.log(_SERIES_LIMIT / slow_rho[slow]) / decay
    return min(math.ceil(float(needed.max())), _MAX_LAGS)


def _arcsin_series_sum(rho: Array, beta2: Array, q: Array) -> Array:
    """Sum over k >= 1 of arcsin(rho beta2^(k-1)) q^k, term by term of the series.

    The term c x^(2n+1) of arcsin(x) sums to c rho^(2n+1) q / (1 - beta2^(2n+1) q).
    """
    return sum(
        (
            coefficient * rho**power * q / (1 - beta2**power * q)
            for power, coefficient in _arcsin_coefficients()
        ),
        start=np.zeros(()),
    )


@cache
def _arcsin_coefficients() -> tuple[tuple[int, float], ...]:
    """Powers and coefficients of arcsin's Taylor series at 0."""
    return tuple(
        (2 * n + 1, math.comb(2 * n, n) / (4**n * (2 * n + 1)))
        for n in range(_SERIES_TERMS)
    )
