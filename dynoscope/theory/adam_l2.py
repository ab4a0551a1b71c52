"""Rotational equilibrium of Adam with L2 regularisation.

Here weight_decay * w is added to the gradient and so is divided by sqrt(v), the
root of the second moment, like the gradient: the equilibrium depends on the
gradient's size, and layers of different gradients rotate at different speeds.

Everything follows from one number, y = ||w^||^2 / (C lr^2 / 4): the squared norm
in units of the one at which Adam would hold the weight if its gradient were the
decay alone. The larger y is, the less the decay shows in v, and the slower the
rotation.

The formulas suppose that v is the same for all weights of the group and follows
the norm without lag. In a random walk with such a v, measured / predicted norm
and angle are .998 and 1.003; with an uneven v they are .92 and 1.08.

Symbols: lr is eta, weight_decay is lambda, numel is C, effective_grad_sq is
E||g~||^2 with g~ = ||w|| g, norm_ratio is y. Every argument is a float64
array of any shape in the ranges that `dynoscope.theory.Hyperparameters` checks; arrays
broadcast, NaN passes through.
"""

import math

import numpy as np

from dynoscope.theory.decoupled import average_sq
from dynoscope.theory.hyperparameters import Array

__all__ = ["angular_update", "half_life", "norm_ratio", "update_rms", "weight_norm"]


def norm_ratio(
    numel: Array, effective_grad_sq: Array, lr: Array, weight_decay: Array
) -> Array:
    """Squared equilibrium norm y, in units of C lr^2 / 4.

    The squared norm x is the positive root of 4 lambda^2 x^3 - C (eta lambda)^2
    x^2 - C eta^2 E||g~||^2 = 0, which in y is y^3 - y^2 = c; Cardano's formula
    with hyperbolic functions gives the root without cancellation.

    Args:
        numel: number of weights, C.
        effective_grad_sq: E||g~||^2.
        lr: learning rate, per step.
        weight_decay: L2 coefficient, in the unit of loss / weight^2.

    Returns:
        y >= 1, dimensionless, float64, of the broadcast shape. Infinite where lr
        or weight_decay is 0.

    Source: Kosson et al. 2024, eq. 84.
    """
    decay = numel * lr**2 * weight_decay / 4
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        c = np.where(decay == 0, np.inf, (np.sqrt(effective_grad_sq) / decay) ** 2)
        return (1 + 2 * np.cosh(np.arccosh(1 + 13.5 * c) / 3)) / 3


def weight_norm(numel: Array, lr: Array, norm_ratio: Array) -> Array:
    """Equilibrium norm, lr sqrt(C y) / 2.

    Args:
        numel: number of weights, C.
        lr: learning rate, per step.
        norm_ratio: y, of `norm_ratio`.

    Returns:
        The norm, in the weight's unit, float64, of the broadcast shape. Infinite
        without weight decay; NaN where lr is 0, because nothing moves.

    Source: Kosson et al. 2024, eq. 84.
    """
    with np.errstate(invalid="ignore"):
        return lr * np.sqrt(numel * norm_ratio) / 2


def update_rms(numel: Array, lr: Array, beta1: Array, norm_ratio: Array) -> Array:
    """Root mean square norm of the gradient part of a step, at equilibrium.

    The gradient's share of v, E||g~||^2 / (E||g~||^2 + lambda^2 ||w^||^4), is
    1 - 1/y.

    Args:
        numel: number of weights, C.
        lr: learning rate, per step.
        beta1: coefficient of the first moment, dimensionless.
        norm_ratio: y, of `norm_ratio`.

    Returns:
        The norm, in the weight's unit, float64, of the broadcast shape.

    Source: Kosson et al. 2024, eq. 87.
    """
    return lr * np.sqrt(average_sq(numel, beta1) * (1 - 1 / norm_ratio))


def angular_update(beta1: Array, norm_ratio: Array) -> Array:
    """Equilibrium angle of a step, `update_rms` over `weight_norm`.

    Args:
        beta1: coefficient of the first moment, dimensionless.
        norm_ratio: y, of `norm_ratio`.

    Returns:
        The angle, in radians, float64, of the broadcast shape; 0 where lr or
        weight_decay is 0.

    Source: Kosson et al. 2024, eqs. 84 and 87, for small angles.
    """
    inverse = 1 / norm_ratio
    return 2 * np.sqrt(average_sq(np.ones(()), beta1) * (1 - inverse) * inverse)


def half_life(norm_ratio: Array) -> Array:
    """Steps in which the squared norm's distance to equilibrium halves.

    Our own derivation: eq. 83 of Kosson et al. 2024 to first order about its fixed
    point gives the rate (6 - 4/y) / y per step. lr and weight_decay enter through
    y only, since the decay that reaches the weight is weight_decay / sqrt(v).

    Args:
        norm_ratio: y, of `norm_ratio`.

    Returns:
        ln 2 / rate, in steps, float64, of the same shape; infinite where lr or
        weight_decay is 0.
    """
    return math.log(2) * norm_ratio / (6 - 4 / norm_ratio)
