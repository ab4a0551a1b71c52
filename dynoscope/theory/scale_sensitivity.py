"""Scale-sensitive weights: what a loss that knows the weights' scale does to them.

Without a normalization behind them, weights have gradients that are not at right
angles to them. The part along the weight shrinks or grows it just as weight decay
does, and is added to it:

    lambda_u = E<w, u> / E||w||^2,    lambda_e = lambda + lambda_u,

with u the update that the *current* gradient alone would give: g for "sgdm" and
"adam_l2", g / (sqrt(v) + eps) for "adamw". With the momentum in its place, which is
made of updates that the weight already holds, lambda_u comes out several times too
large, even for pure noise. And means are to be taken over every step, not a sample:
<w, u> differs much from step to step, and each step's has moved the weight.

Symbols: weight_decay is lambda; every argument is a float64 array of any shape, a mean
over steps, or a running mean, where so said; arrays broadcast, NaN passes through.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from dynoscope.errors import TheoryError
from dynoscope.theory.equilibrium import Equilibrium, equilibrium
from dynoscope.theory.hyperparameters import Array

__all__ = [
    "effective_equilibrium",
    "effective_weight_decay",
    "update_error",
    "weight_decay_error",
]


def effective_weight_decay(
    weight_decay: Array, weight_update: Array, weight_sq: Array
) -> Array:
    """Weight decay as it acts on the weight, lambda_e = lambda + lambda_u.

    Args:
        weight_decay: weight decay, lambda.
        weight_update: E<w, u>, mean over steps, in the unit of the weight squared.
        weight_sq: E||w||^2, mean over the same steps.

    Returns:
        lambda_e, in the unit of weight_decay, float64, of the broadcast shape. At
        most 0 where the loss lets the weight grow faster than it decays.

    Source: Kosson et al. 2024, eq. 94, with the current gradient.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return weight_decay + np.where(
            weight_sq == 0, np.nan, weight_update / weight_sq
        )


def weight_decay_error(effective: Array, weight_decay: Array) -> Array:
    """Factor by which weight decay is effectively off, lambda_e / lambda.

    Args:
        effective: lambda_e, of `effective_weight_decay`.
        weight_decay: weight decay, lambda.

    Returns:
        The factor, dimensionless, float64, of the broadcast shape; 1 for
        scale-invariant weights, NaN without weight decay.

    Source: Kosson et al. 2024, eq. 89.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(weight_decay == 0, np.nan, effective / weight_decay)


def update_error(scaled_grad_sq: Array, numel: Array) -> Array:
    """Factor by which AdamW's squared update is off, E||g / (sqrt(v) + eps)||^2 / C.

    Below 1 where eps counts, where gradients are sparse or heavy-tailed, or where
    they shrink faster than v forgets.

    Args:
        scaled_grad_sq: C_eff = E||g / (sqrt(v) + eps)||^2, mean over steps, with the
            bias-corrected v after the step.
        numel: number of weights, C.

    Returns:
        The factor, dimensionless, float64, of the broadcast shape.

    Source: Kosson et al. 2024, eq. 91.
    """
    return scaled_grad_sq / numel


def effective_equilibrium(
    optimizer: str,
    *,
    numel: ArrayLike,
    lr: ArrayLike,
    weight_decay: ArrayLike,
    weight_update: ArrayLike,
    weight_sq: ArrayLike,
    scaled_grad_sq: ArrayLike | None = None,
    **hyperparameters: Any,
) -> Equilibrium:
    """Predict the equilibrium of weights whose scale matters.

    Args:
        optimizer: "adamw", "sgdm", "adam_l2" or another of `equilibrium`.
        numel: number of weights, C.
        lr: learning rate, eta, per step.
        weight_decay: weight decay, lambda.
        weight_update: E<w, u>, mean over steps.
        weight_sq: E||w||^2, mean over the same steps.
        scaled_grad_sq: "adamw" only: C_eff of `update_error`, which replaces C.
        hyperparameters: the rest of `equilibrium`'s arguments.

    Returns:
        The prediction of `equilibrium` at lambda_e; NaN where lambda_e is not
        positive, or so large that a step would erase the weight.

    Raises:
        TheoryError: what `equilibrium` refuses, or scaled_grad_sq for an optimizer
            that does not scale its gradients.

    Source: Kosson et al. 2024, appendix K. On a ReLU network without normalization
    (AdamW, betas (.9, .99), noisy labels), where lambda alone is off by 20 to 65 %,
    measured / predicted norm is .97 to 1.00 and angle .98 to 1.00. Where labels are so
    clean, or weights so few, that the loss resists the random walk, the norm is .91 to
    1.00 with momentum, 1.00 without.
    """
    if scaled_grad_sq is not None and optimizer != "adamw":
        raise TheoryError(
            f"scaled_grad_sq is for 'adamw', which divides by sqrt(v); '{optimizer}' "
            "has no such error: leave it out"
        )
    rate, decay, update, squares, count = (
        np.asarray(value, dtype=np.float64)
        for value in (lr, weight_decay, weight_update, weight_sq, numel)
    )
    effective = effective_weight_decay(decay, update, squares)
    exists = (effective > 0) & (rate * effective < 1)
    found = equilibrium(
        optimizer,
        numel=count,
        lr=rate,
        weight_decay=np.where(exists, effective, 0.0),
        **hyperparameters,
    )
    scale = np.ones(())
    if scaled_grad_sq is not None:
        # U is proportional to C, and the norm and the update to its root
        error = update_error(np.asarray(scaled_grad_sq, dtype=np.float64), count)
        scale = np.sqrt(error)
    size = np.where(exists, scale, np.nan)
    there = np.where(exists, 1.0, np.nan)
    return Equilibrium(
        found.weight_norm * size,
        found.angular_update * there,
        found.update_rms * size,
        found.half_life * there,
    )
