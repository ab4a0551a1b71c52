"""The inverse of equilibrium: the lr and weight decay that give a wanted rotation.

An angular update together with a weight norm, or with a size of the update, determines
lr and weight decay of every optimizer. So a rotation that is known to be good can be
kept when the optimizer changes, or the batch.
"""

from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from dynoscope.errors import TheoryError
from dynoscope.theory.equilibrium import Equilibrium, equilibrium
from dynoscope.theory.hyperparameters import Array

__all__ = ["Plan", "convert", "plan"]

_SMALLEST: Final = 1e-30
"""Least decay of a step that is searched for, as a share of the largest."""

_HALVINGS: Final = 64  # of 69 e-folds: down to rounding


class Plan(NamedTuple):
    """What to tell an optimizer; float64 arrays, one shape.

    Attributes:
        lr: learning rate, per step.
        weight_decay: weight decay, in the unit in which the optimizer takes it.
    """

    lr: Array
    weight_decay: Array


def plan(
    optimizer: str,
    *,
    angular_update: ArrayLike,
    weight_norm: ArrayLike | None = None,
    update_rms: ArrayLike | None = None,
    numel: ArrayLike,
    **hyperparameters: Any,
) -> Plan:
    """Find the lr and weight decay whose equilibrium is the one that is wanted.

    >>> found = plan(
    ...     "ortsepnorm", angular_update=0.01, weight_norm=2.0, numel=4096
    ... )
    >>> print(f"lr {found.lr:.3g}, weight decay {found.weight_decay:.3g}")
    lr 0.000312, weight decay 0.16

    Args:
        optimizer: as `dynoscope.theory.equilibrium` takes it.
        angular_update: angle per step, in radians, positive.
        weight_norm: the norm that goes with it, in the weight's unit; or
        update_rms: the size of a step's gradient part, in the same unit.
        numel: number of weights, C.
        hyperparameters: betas and whatever else `equilibrium` needs, but lr and
            weight_decay.

    Returns:
        The plan; every field of the shape that the arguments broadcast to.

    Raises:
        TheoryError: not exactly one of weight_norm and update_rms, a wanted value
            that is not positive, a rotation faster than the optimizer can have, or
            what `equilibrium` refuses.

    Source: `equilibrium` turned round by bisection; the two agree to 1e-9.
    """
    if (weight_norm is None) == (update_rms is None):
        raise TheoryError("give either weight_norm or update_rms, and not both")
    angle = _positive("angular_update", angular_update)
    name = "weight_norm" if update_rms is None else "update_rms"
    size = _positive(name, weight_norm if update_rms is None else update_rms)
    given = {"numel": numel, **hyperparameters}
    decay = _decay(optimizer, angle, given)
    # At the same rotation every size is a power of lr.
    trial = _trial(optimizer, decay)
    ratio = size / getattr(equilibrium(optimizer, **trial._asdict(), **given), name)
    lr = trial.lr * (ratio**2 if optimizer == "sgdm" else ratio)
    weight_decay = decay / lr ** _power_of_lr(optimizer)
    product = lr * weight_decay
    if (product >= 1).any():
        raise TheoryError(
            f"that takes lr * weight_decay = {product.max():.3g}, not below 1; aim at "
            "a larger size or a slower rotation"
        )
    shape = np.broadcast_shapes(lr.shape, weight_decay.shape)
    return Plan(*(np.broadcast_to(field, shape).copy() for field in (lr, weight_decay)))


def convert(
    now: Equilibrium,
    optimizer: str,
    *,
    numel: ArrayLike,
    keep: Literal["update_rms", "weight_norm"] = "weight_norm",
    batch_factor: float = 1.0,
    effective_grad_sq: ArrayLike | None = None,
    **hyperparameters: Any,
) -> Plan:
    """Keep a rotation with another optimizer, or with another batch, or both.

    A walk of independent steps turns by their root mean square times the root of
    their number. A batch k times as large takes k times fewer steps for as many
    samples, so each is to turn by sqrt(k) times as much.

    >>> now = equilibrium(
    ...     "adamw", numel=4096, lr=3e-3, weight_decay=0.1, betas=(0.9, 0.99)
    ... )
    >>> found = convert(now, "lion", numel=4096, betas=(0.9, 0.99))
    >>> print(f"lr {found.lr:.2g}, weight decay {found.weight_decay:.2g}")
    lr 0.00069, weight decay 1
    >>> found = convert(now, "adamw", numel=4096, betas=(0.9, 0.99), batch_factor=4)
    >>> print(f"lr {found.lr:.2g}, weight decay {found.weight_decay:.2g}")
    lr 0.006, weight decay 0.2

    Args:
        now: the equilibrium to keep.
        optimizer: the one to find the plan for, as `equilibrium` takes it.
        numel: number of weights, C.
        keep: besides the rotation, "weight_norm" or "update_rms".
        batch_factor: k, how many times larger the batch gets.
        effective_grad_sq: E||g~||^2 at the batch of now, where the optimizer needs
            it; it is taken to be noise, which falls by the factor k.
        hyperparameters: betas and whatever else `equilibrium` needs.

    Returns:
        The plan, as `plan` has it.

    Raises:
        TheoryError: what `plan` refuses, such as an equilibrium without rotation.

    Source: our own, from Kosson et al. 2024, Table 1. In a random walk Lion, SepNorm
    and SGDM turn as AdamW did within 3 %, with norms within 4 %.
    """
    if keep not in ("update_rms", "weight_norm"):
        raise TheoryError(f"keep is {keep!r}; it can be 'update_rms' or 'weight_norm'")
    if not 0 < batch_factor < np.inf:
        raise TheoryError(f"batch_factor must be positive, got {batch_factor:g}")
    if effective_grad_sq is not None:
        noise = np.asarray(effective_grad_sq, dtype=np.float64) / batch_factor
        hyperparameters["effective_grad_sq"] = noise
    return plan(
        optimizer,
        angular_update=now.angular_update * np.sqrt(batch_factor),
        numel=numel,
        **{keep: getattr(now, keep)},
        **hyperparameters,
    )


def _decay(optimizer: str, angle: Array, given: dict[str, Any]) -> Array:
    """What turns by `angle`, in terms of `_power_of_lr`; by bisection of its log."""
    most = _largest_decay(optimizer, given)

    def turned(decay: Array) -> Array:
        trial = _trial(optimizer, decay)._asdict()
        return equilibrium(optimizer, **trial, **given).angular_update

    fastest = turned(most)
    if (angle > fastest).any():
        raise TheoryError(
            f"an angular update of {angle.max():.3g} rad is faster than "
            f"'{optimizer}' can settle at: {fastest.min():.3g} rad at most"
        )
    shape = np.broadcast_shapes(angle.shape, fastest.shape)
    high = np.broadcast_to(np.log(most), shape)
    low = high + np.log(_SMALLEST)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        slower = turned(np.exp(middle)) < angle
        low, high = np.where(slower, middle, low), np.where(slower, high, middle)
    return np.asarray(np.exp(high))


def _largest_decay(optimizer: str, given: dict[str, Any]) -> Array:
    """The decay up to which more of it makes for a faster rotation."""
    grad_sq = given.get("effective_grad_sq")
    if optimizer != "adam_l2" or grad_sq is None:
        return np.asarray(0.5)  # a step that halves the weight
    # The norm ratio y is 2 there, of y^3 - y^2 = (4 ||g~|| / (C decay))^2.
    return np.asarray(2 * np.sqrt(grad_sq) / np.asarray(given["numel"]))


def _trial(optimizer: str, decay: Array) -> Plan:
    """Some lr and weight decay of that rotation; for "adam_l2" of a decay below 1."""
    lr = 1 + 2 * decay if optimizer == "adam_l2" else np.ones(())
    return Plan(lr, decay / lr ** _power_of_lr(optimizer))


def _power_of_lr(optimizer: str) -> int:
    """The rotation depends on lr to this power times weight decay, and on no more."""
    return 2 if optimizer == "adam_l2" else 1


def _positive(name: str, value: ArrayLike | None) -> Array:
    array = np.asarray(value, dtype=np.float64)
    bad = ~((array > 0) & np.isfinite(array))
    if bad.any():
        raise TheoryError(
            f"{name} is {array[bad].flat[0]:g} but must be positive and finite; "
            "without lr and weight decay there is no equilibrium to aim at"
        )
    return array
