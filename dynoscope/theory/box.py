"""The box that Lion holds its weights in, |w| <= 1 / weight_decay, and the way there.

Lion minimises the loss under that constraint. As long as a weight is outside, weight
decay is stronger than any step, and the distance shrinks at least by the factor
``1 - lr * weight_decay`` in every step, whatever the gradients; once inside, it stays.
The same holds for the constraint of every Lion-K, with its own distance.

Symbols: lr is eta, weight_decay is lambda, excess is the distance of lambda w to the
box, dimensionless. Every argument is a float64 array; arrays broadcast.
"""

import numpy as np

from dynoscope.theory.hyperparameters import Array

__all__ = ["excess", "excess_bound", "steps_until"]


def excess(weight_max: Array, weight_decay: Array) -> Array:
    """How far the largest weight is outside, max(lambda ||w||_inf - 1, 0).

    Args:
        weight_max: ||w||_inf, in the weight's unit.
        weight_decay: weight decay, lambda.

    Returns:
        The distance of lambda w to the box in the largest norm, dimensionless,
        float64, of the broadcast shape: 1 for a weight twice as large as allowed.

    Source: Chen et al. 2024 (Lion-K), Table 2, line 1.
    """
    return np.maximum(weight_decay * weight_max - 1, 0)


def excess_bound(excess: Array, lr: Array, weight_decay: Array) -> Array:
    """Largest excess that is possible along a schedule, before each of its steps.

    Args:
        excess: excess before the first step, shape (...).
        lr: learning rate, per step, shape (steps, ...).
        weight_decay: weight decay, lambda, the same at all steps, shape (...).

    Returns:
        excess * prod(1 - lr * weight_decay) over the steps before, dimensionless,
        float64, shape (steps + 1, ...): the last row is what follows the last step.

    Source: Chen et al. 2024 (Lion-K), theorem 4.1, for the explicit step that
    optimizers take, with the exponent t - s, of which s - t is a misprint. Tight:
    gradients that always push outwards attain it.
    """
    kept = np.cumprod(1 - lr * weight_decay, axis=0)
    start = np.ones((1, *kept.shape[1:]))
    shrunk: Array = excess * np.concatenate([start, kept])
    return shrunk


def steps_until(bound: Array, excess: Array, lr: Array, weight_decay: Array) -> Array:
    """Steps at a constant lr until the excess is certainly no more than a bound.

    Args:
        bound: excess that counts as inside, positive: .01 is 1 % too large.
        excess: excess now.
        lr: learning rate, per step.
        weight_decay: weight decay, lambda.

    Returns:
        ln(bound / excess) / ln(1 - lr * weight_decay), rounded up, in steps,
        float64, of the broadcast shape; 0 inside, infinite where nothing decays.

    Source: `excess_bound`.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        steps = np.ceil(np.log(bound / excess) / np.log1p(-lr * weight_decay))
    return np.where(
        excess <= bound, 0.0, np.where(lr * weight_decay == 0, np.inf, steps)
    )
