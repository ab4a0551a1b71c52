"""Rotational equilibrium of SGD with momentum, the decay inside the momentum.

The step is ``m <- momentum m + (1 - dampening) (g + weight_decay w)``,
``w <- w - lr m``. The group is scale-invariant, so the gradient's size falls as
1/||w|| and g~ = ||w|| g, the gradient at unit norm, is what stays.

Symbols: lr is eta, weight_decay is lambda, momentum is alpha, effective_grad_sq
is E||g~||^2. Every argument is a float64 array of any shape in the ranges that
`dynoscope.theory.Hyperparameters` checks; arrays broadcast, NaN passes through.
Except for `effective_lr`, ``lr`` is the one that `effective_lr` returns.
"""

import math

import numpy as np
from numpy.typing import NDArray

from dynoscope.theory.decoupled import angle_of_versine
from dynoscope.theory.hyperparameters import Array

__all__ = [
    "angular_update",
    "effective_lr",
    "half_life",
    "update_rms",
    "weight_norm",
]


def effective_lr(lr: Array, momentum: Array, dampening: Array) -> Array:
    """Learning rate of the undampened SGD that takes the same steps.

    Dampening scales everything that enters the momentum buffer by 1 - dampening,
    and torch ignores it when there is no momentum.

    Args:
        lr: learning rate, per step.
        momentum: momentum, dimensionless.
        dampening: dampening, dimensionless.

    Returns:
        lr (1 - dampening), or lr where momentum is 0; float64, of the broadcast
        shape.

    Source: the recursion of torch.optim.SGD, exact after its first step.
    """
    return np.where(momentum > 0, lr * (1 - dampening), lr)


def weight_norm(
    effective_grad_sq: Array, lr: Array, weight_decay: Array, momentum: Array
) -> Array:
    """Equilibrium norm, ||w^||^4 = lr E||g~||^2 / (2 weight_decay (1 - momentum)).

    Nesterov's form has the same norm: a gradient's total push is the same.

    Args:
        effective_grad_sq: E||g~||^2.
        lr: learning rate, per step.
        weight_decay: weight decay, in the unit of loss / weight^2.
        momentum: momentum, dimensionless.

    Returns:
        The norm, in the weight's unit, float64, of the broadcast shape. Infinite
        without weight decay; NaN where lr is 0, because nothing moves.

    Source: Kosson et al. 2024, eq. 47; measured / predicted is 1.00 to 1.02.
    """
    decay = 2 * weight_decay * (1 - momentum)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        fourth_power = np.where(decay == 0, np.inf, lr * effective_grad_sq / decay)
    return np.where(lr == 0, np.nan, np.sqrt(np.sqrt(fourth_power)))


def angular_update(
    lr: Array, weight_decay: Array, momentum: Array, nesterov: NDArray[np.bool_]
) -> Array:
    """Equilibrium angle of a step, arccos(1 - lr weight_decay k / (1 + momentum)).

    k is 1, or 1 + 2a - 2a^3 for Nesterov's momentum a. Nesterov's k is our own
    derivation: an update is (1 + a) g_t + sum_{j>=1} a^(j+1) g_{t-j}, whose mean
    square is (1 + a)^2 + a^4 / (1 - a^2) times E||g||^2.

    Args:
        lr: learning rate, per step.
        weight_decay: weight decay, in the unit of loss / weight^2.
        momentum: momentum, dimensionless.
        nesterov: whether the momentum is Nesterov's.

    Returns:
        The angle, in radians, float64, of the broadcast shape; 0 where lr or
        weight_decay is 0.

    Source: Kosson et al. 2024, Table 1; measured / predicted is 1.00 to 1.02.
    """
    own = np.where(nesterov, 1 + 2 * momentum - 2 * momentum**3, 1)
    return angle_of_versine(lr * weight_decay * own / (1 + momentum))


def update_rms(
    effective_grad_sq: Array,
    lr: Array,
    weight_decay: Array,
    momentum: Array,
    nesterov: NDArray[np.bool_],
) -> Array:
    """Root mean square norm of the gradient part of a step, at equilibrium.

    It is lr sqrt(k E||g||^2), with E||g||^2 = E||g~||^2 / ||w^||^2 and k =
    1 / (1 - momentum^2), or Nesterov's k, our own, of `angular_update`.

    Args:
        effective_grad_sq: E||g~||^2.
        lr: learning rate, per step.
        weight_decay: weight decay, in the unit of loss / weight^2.
        momentum: momentum, dimensionless.
        nesterov: whether the momentum is Nesterov's.

    Returns:
        The norm, in the weight's unit, float64, of the broadcast shape; 0 without
        weight decay, where the gradient vanishes as the norm grows.

    Source: Kosson et al. 2024, eq. 51.
    """
    ordinary = 1 / (1 - momentum**2)
    gain = np.where(nesterov, (1 + momentum) ** 2 + momentum**4 * ordinary, ordinary)
    # lr^2 E||g~||^2 / ||w^||^2 without the division: no 0/0 at either end
    return np.sqrt(
        gain * lr * np.sqrt(2 * lr * weight_decay * (1 - momentum) * effective_grad_sq)
    )


def half_life(lr: Array, weight_decay: Array, momentum: Array) -> Array:
    """Steps in which the squared norm's distance to equilibrium halves.

    Twice as fast as a decoupled optimizer of the same decay per step: a smaller
    norm also meets larger gradients.

    Args:
        lr: learning rate, per step.
        weight_decay: weight decay, in the unit of loss / weight^2.
        momentum: momentum, dimensionless.

    Returns:
        ln 2 (1 - momentum) / (4 lr weight_decay), in steps, float64, of the
        broadcast shape; infinite where lr or weight_decay is 0.

    Source: Kosson et al. 2024, eq. 46, to first order about its fixed point.
    """
    with np.errstate(divide="ignore", over="ignore"):
        return math.log(2) * (1 - momentum) / (4 * lr * weight_decay)
