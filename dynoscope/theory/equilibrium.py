"""Front door: hyperparameters of an optimizer to its rotational equilibrium."""

from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from dynoscope.errors import TheoryError
from dynoscope.theory import adam_l2, autocorrelation, decoupled, sgdm
from dynoscope.theory.hyperparameters import Array, Hyperparameters

__all__ = ["DECOUPLED", "OPTIMIZERS", "Equilibrium", "equilibrium"]

DECOUPLED: Final = frozenset({"adamw", "lion", "normgd", "ortsepnorm", "sepnorm"})
"""Optimizers whose weight decay goes past the momentum, straight to the weight."""


class Equilibrium(NamedTuple):
    """Where weight decay and random gradients balance; float64 arrays, one shape.

    Attributes:
        weight_norm: norm ||w^|| that the weight settles at, in the weight's unit;
            infinite without weight decay, NaN where lr is 0.
        angular_update: angle between the weight before and after a step, eta_r,
            in radians.
        update_rms: root expected square of the norm of the gradient part of a
            step, eta_g, in the weight's unit.
        half_life: steps in which the squared norm's distance to equilibrium
            halves; infinite where lr or weight_decay is 0.
    """

    weight_norm: Array
    angular_update: Array
    update_rms: Array
    half_life: Array


def equilibrium(
    optimizer: str,
    *,
    numel: ArrayLike,
    lr: ArrayLike,
    weight_decay: ArrayLike,
    betas: tuple[ArrayLike, ArrayLike] | None = None,
    momentum: ArrayLike | None = None,
    dampening: ArrayLike = 0.0,
    nesterov: ArrayLike = False,
    effective_grad_sq: ArrayLike | None = None,
) -> Equilibrium:
    """Predict the equilibrium of groups of scale-invariant weights.

    A group is what a normalization rescales together: a row before BatchNorm, the
    whole matrix before LayerNorm. Arguments are scalars or arrays, one value a
    group, and broadcast; those that the optimizer does not have are ignored.

    Rows of one numel may be taken together as a layer: their squared norms add and
    they turn alike. So it matters not whether "sepnorm" and "ortsepnorm" normalize
    rows or the whole layer. "normgd" normalizes the whole model, and that is what
    its norm and its update are of; the angle is that of every part of it, and
    `normgd.update_share` says what part of the norm is whose.

    >>> prediction = equilibrium(
    ...     "adamw", numel=[64, 256], lr=1e-2, weight_decay=0.5, betas=(0.9, 0.99)
    ... )
    >>> prediction.weight_norm.round(3)
    array([0.783, 1.565])
    >>> prediction.angular_update.round(4)
    array([0.023, 0.023])

    Args:
        optimizer: "adamw", "adam_l2" (torch.optim.Adam with weight_decay),
            "sgdm" (with or without momentum), "lion", "sepnorm", "ortsepnorm" or
            "normgd".
        numel: number of weights in the group, C; any for "normgd".
        lr: learning rate, eta, per step.
        weight_decay: weight decay, lambda: dimensionless where it is decoupled, in
            the unit of loss / weight^2 for "sgdm" and "adam_l2".
        betas: beta1 and beta2; needed by all but "sgdm" and
            "ortsepnorm".
        momentum: SGD's momentum, 0 if not given.
        dampening: SGD's dampening.
        nesterov: whether SGD's momentum is Nesterov's.
        effective_grad_sq: E||g~||^2, a running mean of ||g||^2 ||w||^2; needed by
            "sgdm" and "adam_l2". Where it is NaN, what depends on it is NaN.

    Returns:
        The prediction, every field of the shape that the arguments broadcast to.

    Raises:
        TheoryError: an unknown optimizer, an argument that it needs missing, a
            value out of range (lr * weight_decay >= 1 included), or shapes that
            do not broadcast.

    Source: Kosson et al. 2024, Table 1, with the sums of
    `dynoscope.theory.autocorrelation` in place of limits. Checked for lr *
    weight_decay from 1e-4 to 1e-2: within 2 % for "adamw" and "sgdm", 5 % for
    "lion"; "adam_l2" within 1 % where the second moment is even, else 8 %. For
    "sepnorm" and "normgd" theorems 4.2 and 4.3 of the SepNorm paper with the sum
    that momentum brings, within .1 % without momentum and 6 % with; for
    "ortsepnorm" theorem 4.4, within .1 %, scale-invariant or not.
    """
    if optimizer not in OPTIMIZERS:
        known = ", ".join(f"'{name}'" for name in OPTIMIZERS)
        raise TheoryError(f"no theory for optimizer {optimizer!r}; known are {known}")
    hyperparameters = Hyperparameters.checked(
        numel=numel,
        lr=lr,
        weight_decay=weight_decay,
        betas=betas,
        momentum=momentum,
        dampening=dampening,
        nesterov=nesterov,
        effective_grad_sq=effective_grad_sq,
    )
    shape = hyperparameters.shape
    fields = OPTIMIZERS[optimizer](hyperparameters)
    return Equilibrium(*(np.broadcast_to(field, shape).copy() for field in fields))


def _adamw(hyper: Hyperparameters) -> Equilibrium:
    beta1, _ = hyper.require_betas("adamw")
    q = 1 - hyper.lr * hyper.weight_decay
    return _decoupled(
        hyper,
        decoupled.average_sq(hyper.numel, beta1),
        autocorrelation.averaged_sum(beta1, q),
    )


def _lion(hyper: Hyperparameters) -> Equilibrium:
    q = 1 - hyper.lr * hyper.weight_decay
    betas = hyper.require_betas("lion")
    return _decoupled(hyper, hyper.numel, autocorrelation.sign_sum(*betas, q))


def _normgd(hyper: Hyperparameters) -> Equilibrium:
    return _decoupled(hyper, np.ones(()), _interpolated_sum(hyper, "normgd"))


def _sepnorm(hyper: Hyperparameters) -> Equilibrium:
    return _decoupled(hyper, hyper.numel, _interpolated_sum(hyper, "sepnorm"))


def _ortsepnorm(hyper: Hyperparameters) -> Equilibrium:
    # a step at right angles to all that came before leaves no sum to be taken
    return _decoupled(hyper, hyper.numel, np.ones(()))


def _interpolated_sum(hyper: Hyperparameters, optimizer: str) -> Array:
    q = 1 - hyper.lr * hyper.weight_decay
    return autocorrelation.interpolated_sum(*hyper.require_betas(optimizer), q)


def _decoupled(
    hyper: Hyperparameters, update_sq: Array, autocorrelation_sum: Array
) -> Equilibrium:
    lr, weight_decay = hyper.lr, hyper.weight_decay
    return Equilibrium(
        decoupled.weight_norm(update_sq, autocorrelation_sum, lr, weight_decay),
        decoupled.angular_update(autocorrelation_sum, lr, weight_decay),
        decoupled.update_rms(update_sq, lr),
        decoupled.half_life(lr, weight_decay),
    )


def _sgdm(hyper: Hyperparameters) -> Equilibrium:
    grad_sq = hyper.require_effective_grad_sq("sgdm")
    momentum, decay, nesterov = hyper.momentum, hyper.weight_decay, hyper.nesterov
    lr = sgdm.effective_lr(hyper.lr, momentum, hyper.dampening)
    return Equilibrium(
        sgdm.weight_norm(grad_sq, lr, decay, momentum),
        sgdm.angular_update(lr, decay, momentum, nesterov),
        sgdm.update_rms(grad_sq, lr, decay, momentum, nesterov),
        sgdm.half_life(lr, decay, momentum),
    )


def _adam_l2(hyper: Hyperparameters) -> Equilibrium:
    beta1, _ = hyper.require_betas("adam_l2")
    grad_sq = hyper.require_effective_grad_sq("adam_l2")
    ratio = adam_l2.norm_ratio(hyper.numel, grad_sq, hyper.lr, hyper.weight_decay)
    return Equilibrium(
        adam_l2.weight_norm(hyper.numel, hyper.lr, ratio),
        adam_l2.angular_update(beta1, ratio),
        adam_l2.update_rms(hyper.numel, hyper.lr, beta1, ratio),
        adam_l2.half_life(ratio),
    )


OPTIMIZERS: dict[str, Callable[[Hyperparameters], Equilibrium]] = {
    "adam_l2": _adam_l2,
    "adamw": _adamw,
    "lion": _lion,
    "normgd": _normgd,
    "ortsepnorm": _ortsepnorm,
    "sepnorm": _sepnorm,
    "sgdm": _sgdm,
}
