"""Lion's convergence rate: what its geometry, largest norm and l1 norm, bounds.

Lion keeps its weights inside the box ||w||_inf <= 1 / lambda. There the gap

    lambda <w, grad f> + ||grad f||_1 >= 0

is 0 exactly at the points that no step inside the box improves on (Karush, Kuhn,
Tucker), and its mean over the steps falls like K^(-1/4). An l1 norm is up to sqrt(d)
times an l2 norm, so rates compare only together with `density`.

Symbols: weight_decay is lambda, numel is d, L is the smoothness of the loss, sigma^2
the variance of the stochastic gradient (all coordinates together), K the number of
steps. Every argument is a float64 array; arrays broadcast, NaN passes through.
"""

import numpy as np

from dynoscope.theory.hyperparameters import Array

__all__ = ["density", "kkt_gap", "rate_bound", "rate_constant", "running_mean"]


def density(grad_l1: Array, grad_l2: Array, numel: Array) -> Array:
    """How evenly a gradient is spread, ||g||_1 / (sqrt(d) ||g||_2).

    Args:
        grad_l1: l1 norm of the gradient.
        grad_l2: its l2 norm.
        numel: number of weights, d.

    Returns:
        A share in [1 / sqrt(d), 1], dimensionless, float64, of the broadcast shape;
        sqrt(2/pi) = .798 for Gaussian coordinates, NaN without a gradient.

    Source: Dong et al. 2024 (LION-rate), section 4.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(grad_l2 == 0, np.nan, grad_l1 / (np.sqrt(numel) * grad_l2))


def kkt_gap(weight_grad: Array, grad_l1: Array, weight_decay: Array) -> Array:
    """Gap lambda <w, grad f> + ||grad f||_1, 0 at a constrained stationary point.

    Args:
        weight_grad: <w, grad f>, with the full gradient.
        grad_l1: ||grad f||_1.
        weight_decay: weight decay, lambda.

    Returns:
        The gap, in the unit of grad_l1, float64, of the broadcast shape. At least
        -1e-12 grad_l1 (rounding) inside the box; negative values are possible
        outside only.

    Source: LION-rate, lemma 1.
    """
    return weight_decay * weight_grad + grad_l1


def running_mean(series: Array) -> Array:
    """Mean over all steps up to each, along the first axis.

    Args:
        series: one value a step, such as the gap or ||grad f||_1, shape (steps, ...).

    Returns:
        Float64, of the same shape.
    """
    series = np.asarray(series, dtype=np.float64)
    counts = np.arange(1, len(series) + 1).reshape(-1, *(1,) * (series.ndim - 1))
    return np.cumsum(series, axis=0) / counts


def rate_bound(
    steps: Array, numel: Array, noise_sq: Array, smoothness: Array, start_gap: Array
) -> Array:
    """Bound on the running mean of `kkt_gap`, or on half that of ||grad f||_1.

    The gap is for weights that the box constrains; half the l1 norm for lambda <= 1 /
    (2 ||w||_inf), where it does not.

    Args:
        steps: K, at least 1; shape (steps,) for the bound at every step.
        numel: number of weights, d.
        noise_sq: sigma^2.
        smoothness: L.
        start_gap: f(w_1) - f*, how far the loss can fall.

    Returns:
        15 sqrt(d) K^(-1/4) (sigma^2 L (f(w_1) - f*))^(1/4), in the unit of the l1
        norm, float64, of the broadcast shape. It holds at K for the lr and betas
        that the theorem chooses for this K; with others it may be crossed.

    Source: LION-rate, corollaries 3 and 5. On f = x^2 + y^2 + 5 cos x cos y with
    noise (lr .01, lambda .1, 2000 steps) the gap's mean is 7.4 of 20.8, half the l1
    norm's 1.5 of 16.9.
    """
    scale = np.sqrt(np.sqrt(noise_sq * smoothness * start_gap))
    return 15 * np.sqrt(numel) * steps**-0.25 * scale


def rate_constant(series: Array, numel: Array) -> Array:
    """Smallest c for which the running mean stays below c sqrt(d) K^(-1/4).

    Args:
        series: one value a step, shape (steps, ...): ||grad f||_1 for Lion; for SGD
            ||grad f||_2, with numel = 1.
        numel: number of weights, d, shape (...).

    Returns:
        c = max over K of the mean times K^(1/4) / sqrt(d), in the unit of the
        series, float64, shape (...).

    Source: LION-rate, journal version, appendix A.1.2, which finds .70 for Lion and
    1.37 for SGD, training a ResNet18.
    """
    means = running_mean(series)
    roots = np.arange(1, len(means) + 1).reshape(-1, *(1,) * (means.ndim - 1)) ** 0.25
    largest: Array = (means * roots).max(axis=0)
    return largest / np.sqrt(numel)
