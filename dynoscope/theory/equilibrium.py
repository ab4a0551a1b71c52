"""Front door: hyperparameters of an optimizer to its rotational equilibrium."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from dynoscope.errors import TheoryError
from dynoscope.theory import adam_l2, autocorrelation, decoupled, sgdm
from dynoscope.theory.hyperparameters import Array, Hyperparameters

__all__ = ["OPTIMIZERS", "Equilibrium", "equilibrium"]


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

    >>> prediction = equilibrium(
    ...     "adamw", numel=[64, 256], lr=1e-2, weight_decay=0.5, betas=(0.9, 0.99)
    ... )
    >>> prediction.weight_norm.round(3)
    array([0.783, 1.565])
    >>> prediction.angular_update.round(4)
    array([0.023, 0.023])

    Args:
        optimizer: "adamw", "adam_l2" (torch.optim.Adam with weight_decay),
            "sgdm" (with or without momentum) or "lion".
        numel: number of weights in the group, C.
        lr: learning rate, eta, per step.
        weight_decay: weight decay, lambda: dimensionless where it is decoupled, in
            the unit of loss / weight^2 for "sgdm" and "adam_l2".
        betas: beta1 and beta2; needed by all but "sgdm".
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
    "lion"; "adam_l2" within 1 % where the second moment is even, else 8 %.
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
    "sgdm": _sgdm,
}
