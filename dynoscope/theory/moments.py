"""How a step changes the second moments of weight and momentum, in expectation.

The gradients are a random walk: independent, of zero mean, at right angles to the
weight, and of the square ``E||g||^2 = E||g~||^2 / ||w||^2`` of a scale-invariant
group. Then three numbers tell the next norm and the next angle: ``W = E||w||^2``,
``M = E||m||^2`` and ``Z = E<w, m>``, and for Adam the mean V of the squared
gradient. Momentum from zero, the lag of V behind a changing norm, and a changing
learning rate are all in them. Their fixed points are the rotational equilibria of
`dynoscope.theory.equilibrium`, except that decay enters to first order in none.

The recursions follow from multiplying out each optimizer's own step; that of a sign
replaces sign(n) by its regression on n, scaled to have the sum of the arcsine law.

Symbols: lr is eta, l2 is lambda where it is added to the gradient, beta1 and beta2
are the coefficients of the moments. Every array is float64 and of shape (layers,) or
broadcasts to it; NaN passes through.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np

from dynoscope.theory.hyperparameters import Array

__all__ = [
    "Law",
    "Moments",
    "Setting",
    "Settled",
    "adam",
    "adam_settled",
    "adamw",
    "interpolated",
    "interpolated_settled",
    "normgd",
    "normgd_settled",
    "orthogonal",
    "sgdm",
    "sgdm_settled",
]


class Moments(NamedTuple):
    """What is expected of weight and momentum, per layer.

    Attributes:
        weight_sq: W = E||w||^2, in the weight's unit squared.
        momentum_sq: M = E||m||^2, in the gradient's unit squared.
        weight_momentum: Z = E<w, m>.
        grad_sq: Adam's running mean V of the squared gradient, summed over the
            layer, before its bias is corrected.
        steps: steps since the momentum was zero; infinite once that is forgotten.
    """

    weight_sq: Array
    momentum_sq: Array
    weight_momentum: Array
    grad_sq: Array
    steps: Array


class Setting(NamedTuple):
    """What an optimizer was told for one step, as its recursion needs it.

    Attributes:
        numel: number of weights, C.
        lr: learning rate, eta.
        decay: lr * weight_decay where that is decoupled, else 0.
        l2: weight_decay where it is added to the gradient, else 0.
        beta1: first coefficient; SGD's momentum.
        beta2: second coefficient; 0 for SGD.
        dampening: SGD's dampening.
        nesterov: 1 where SGD's momentum is Nesterov's, else 0.
        gain: S(1) - 1 of the update over that of the interpolated momentum.
    """

    numel: Array
    lr: Array
    decay: Array
    l2: Array
    beta1: Array
    beta2: Array
    dampening: Array
    nesterov: Array
    gain: Array


Law: TypeAlias = Callable[[Moments, Setting, Array], tuple[Moments, Array]]
"""From moments, setting and E||g~||^2 to the moments and the angle of a step."""

Settled: TypeAlias = Callable[[Array, Setting, Array], Moments]
"""From W, setting and E||g~||^2 to the moments of an optimizer long at work."""


def adam(
    before: Moments, of: Setting, effective_grad_sq: Array
) -> tuple[Moments, Array]:
    """One step of Adam with L2 or decoupled decay, or with both.

    Both coefficients correct their bias; v is taken to be even over the layer's
    weights, and eps to be 0.

    Source: torch.optim.AdamW; Kosson et al. 2024, eqs. 29 and 36, with momentum's
    memory and v's lag. Against a random walk under a schedule: `trajectory`.
    """
    weight_sq, fresh = before.weight_sq, 1 - of.beta1
    grad_sq = effective_grad_sq / weight_sq + of.l2**2 * weight_sq
    remembered = 2 * of.beta1 * fresh * of.l2 * before.weight_momentum
    momentum_sq = _adam_momentum_sq(before, of, grad_sq) + remembered
    along = of.beta1 * before.weight_momentum + fresh * of.l2 * weight_sq
    return _adam(before, of, grad_sq, momentum_sq, along)


def adamw(
    before: Moments, of: Setting, effective_grad_sq: Array
) -> tuple[Moments, Array]:
    """The same step where l2 is 0, which is most of what a writer has to carry along.

    Source: see `adam`.
    """
    grad_sq = effective_grad_sq / before.weight_sq
    momentum_sq = _adam_momentum_sq(before, of, grad_sq)
    return _adam(before, of, grad_sq, momentum_sq, of.beta1 * before.weight_momentum)


def adam_settled(weight_sq: Array, of: Setting, effective_grad_sq: Array) -> Moments:
    """Moments of an Adam that has run for long at this norm and setting."""
    decay_sq = of.l2**2 * weight_sq  # of one sign, so no average makes it smaller
    grad_sq = effective_grad_sq / weight_sq + decay_sq
    shrink = (1 - of.beta1) / (1 + of.beta1)
    momentum_sq = shrink * effective_grad_sq / weight_sq + decay_sq
    keep, rate = 1 - of.decay, of.lr * _root_quotient(of.numel, grad_sq)
    pulled = keep * (1 - of.beta1) * of.l2 * weight_sq - rate * momentum_sq
    cross = pulled / (1 - keep * of.beta1)
    return Moments(weight_sq, momentum_sq, cross, grad_sq, np.full((), np.inf))


def sgdm(
    before: Moments, of: Setting, effective_grad_sq: Array
) -> tuple[Moments, Array]:
    """One step of SGD with the decay inside the momentum, Nesterov's or not.

    Source: torch.optim.SGD, whose first step is not dampened; Kosson et al. 2024,
    eq. 46, with momentum's memory.
    """
    weight_sq, steps = before.weight_sq, before.steps + 1
    grad_sq = effective_grad_sq / weight_sq
    input_sq = grad_sq + of.l2**2 * weight_sq
    fresh = np.where(before.steps == 0, 1.0, _undampened(of))
    momentum_sq = (
        of.beta1**2 * before.momentum_sq
        + fresh**2 * input_sq
        + 2 * of.beta1 * fresh * of.l2 * before.weight_momentum
    )
    along = of.beta1 * before.weight_momentum + fresh * of.l2 * weight_sq
    mixed = fresh * grad_sq + of.l2 * along  # E<g + l2 w, m>, for Nesterov
    update_sq = input_sq + of.beta1**2 * momentum_sq + 2 * of.beta1 * mixed
    nesterov = of.nesterov > 0
    push = of.lr**2 * np.where(nesterov, update_sq, momentum_sq)
    pull = np.where(nesterov, of.l2 * weight_sq + of.beta1 * along, along)
    shared = np.where(nesterov, mixed + of.beta1 * momentum_sq, momentum_sq)
    after_sq, angle = _turn(before, of, -of.lr * pull, push)
    cross = along - of.lr * shared
    return Moments(after_sq, momentum_sq, cross, before.grad_sq, steps), angle


def sgdm_settled(weight_sq: Array, of: Setting, effective_grad_sq: Array) -> Moments:
    """Moments of an SGD that has run for long at this norm and setting."""
    grad_sq, fresh = effective_grad_sq / weight_sq, _undampened(of)
    decay_sq = of.l2**2 * weight_sq / (1 - of.beta1) ** 2
    momentum_sq = fresh**2 * (grad_sq / (1 - of.beta1**2) + decay_sq)
    nesterov = fresh * grad_sq + of.beta1 * momentum_sq
    pushed = of.lr * np.where(of.nesterov > 0, nesterov, momentum_sq)
    cross = (fresh * of.l2 * weight_sq - pushed) / (1 - of.beta1)
    none = np.zeros(())
    return Moments(weight_sq, momentum_sq, cross, none, np.full((), np.inf))


def interpolated(
    before: Moments, of: Setting, effective_grad_sq: Array
) -> tuple[Moments, Array]:
    """One step of Lion or SepNorm, whose update has a mean square of 1 per weight.

    Source: Chen et al. 2023, algorithm 2; definition A.3 of the SepNorm paper.
    """
    mixed_sq = _mixed_sq(before, of, effective_grad_sq)
    push = np.where(mixed_sq > 0, of.lr**2 * of.numel, 0.0)
    return _interpolated(before, of, effective_grad_sq, mixed_sq, push)


def normgd(
    before: Moments, of: Setting, effective_grad_sq: Array
) -> tuple[Moments, Array]:
    """One step of NormGD over the layers that make up a model, along the last axis.

    A layer that is NaN is no part of the model.

    Source: definition A.2 of the SepNorm paper.
    """
    mixed_sq = _mixed_sq(before, of, effective_grad_sq)
    push = _share(of, mixed_sq)
    return _interpolated(before, of, effective_grad_sq, mixed_sq, push)


def interpolated_settled(
    weight_sq: Array, of: Setting, effective_grad_sq: Array
) -> Moments:
    """Moments of a Lion or SepNorm that has run for long at this norm and setting."""
    start = _settled(weight_sq, of, effective_grad_sq)
    mixed_sq = _mixed_sq(start, of, effective_grad_sq)
    push = of.lr**2 * of.numel
    return _crossed(start, of, effective_grad_sq, mixed_sq, push)


def normgd_settled(weight_sq: Array, of: Setting, effective_grad_sq: Array) -> Moments:
    """Moments of a NormGD that has run for long at these norms and this setting."""
    start = _settled(weight_sq, of, effective_grad_sq)
    mixed_sq = _mixed_sq(start, of, effective_grad_sq)
    push = _share(of, mixed_sq)
    return _crossed(start, of, effective_grad_sq, mixed_sq, push)


def orthogonal(
    before: Moments, of: Setting, effective_grad_sq: Array
) -> tuple[Moments, Array]:
    """One step of OrtSepNorm: W <- q^2 W + eta^2 C, exact for any weight.

    Source: definition A.4 and theorem 4.4 of the SepNorm paper.
    """
    none = np.zeros(())
    after_sq, angle = _turn(before, of, none, of.lr**2 * of.numel)
    return before._replace(weight_sq=after_sq, steps=before.steps + 1), angle


def _adam_momentum_sq(before: Moments, of: Setting, grad_sq: Array) -> Array:
    """E||m||^2 after the step, of gradients at right angles to the momentum."""
    momentum_sq: Array = (
        of.beta1**2 * before.momentum_sq + (1 - of.beta1) ** 2 * grad_sq
    )
    return momentum_sq


def _adam(
    before: Moments, of: Setting, grad_sq: Array, momentum_sq: Array, along: Array
) -> tuple[Moments, Array]:
    """The step along a momentum with these E||m||^2 and E<w, m>."""
    steps = before.steps + 1
    squares = of.beta2 * before.grad_sq + (1 - of.beta2) * grad_sq
    corrected = squares / (1 - of.beta2**steps) * (1 - of.beta1**steps) ** 2
    rate = of.lr * _root_quotient(of.numel, corrected)
    after_sq, angle = _turn(before, of, -rate * along, rate**2 * momentum_sq)
    cross = (1 - of.decay) * along - rate * momentum_sq
    return Moments(after_sq, momentum_sq, cross, squares, steps), angle


def _interpolated(
    before: Moments, of: Setting, effective_grad_sq: Array, mixed_sq: Array, push: Array
) -> tuple[Moments, Array]:
    """The step of length sqrt(push) along beta1 m + (1 - beta1) g."""
    grad_sq = effective_grad_sq / before.weight_sq
    rate = _root_quotient(of.gain * push, mixed_sq)
    along = -rate * of.beta1 * before.weight_momentum
    after_sq, angle = _turn(before, of, along, push)
    remembered = (1 - of.decay) * of.beta2 * before.weight_momentum
    cross = remembered - rate * _shared(before, of, grad_sq)
    momentum_sq = of.beta2**2 * before.momentum_sq + (1 - of.beta2) ** 2 * grad_sq
    steps = before.steps + 1
    return Moments(after_sq, momentum_sq, cross, before.grad_sq, steps), angle


def _mixed_sq(before: Moments, of: Setting, effective_grad_sq: Array) -> Array:
    """E||n||^2 of the interpolated momentum n = beta1 m + (1 - beta1) g."""
    grad_sq = effective_grad_sq / before.weight_sq
    return of.beta1**2 * before.momentum_sq + (1 - of.beta1) ** 2 * grad_sq


def _shared(before: Moments, of: Setting, grad_sq: Array) -> Array:
    """E<n, m'> of the interpolated momentum and the next momentum."""
    remembered = of.beta1 * of.beta2 * before.momentum_sq
    return remembered + (1 - of.beta1) * (1 - of.beta2) * grad_sq


def _share(of: Setting, mixed_sq: Array) -> Array:
    """E||d||^2 of each layer's part of a step of length lr."""
    whole = np.nansum(mixed_sq, axis=-1, keepdims=True)
    return of.lr**2 * _root_quotient(mixed_sq, whole) ** 2


def _settled(weight_sq: Array, of: Setting, effective_grad_sq: Array) -> Moments:
    momentum_sq = (1 - of.beta2) / (1 + of.beta2) * effective_grad_sq / weight_sq
    none = np.zeros(())
    return Moments(weight_sq, momentum_sq, none, none, np.full((), np.inf))


def _crossed(
    start: Moments, of: Setting, effective_grad_sq: Array, mixed_sq: Array, push: Array
) -> Moments:
    """The moments with the Z that steps along the momentum leave as it is."""
    pushed = _root_quotient(of.gain * push, mixed_sq) * _shared(
        start, of, effective_grad_sq / start.weight_sq
    )
    cross = -pushed / (1 - (1 - of.decay) * of.beta2)
    return start._replace(weight_momentum=cross)


def _undampened(of: Setting) -> Array:
    return np.where(of.beta1 > 0, 1 - of.dampening, 1.0)


def _turn(
    before: Moments, of: Setting, along: Array, push: Array
) -> tuple[Array, Array]:
    """Square of the norm after the step w' = q w + d, and the step's angle.

    Args:
        before: moments before it.
        of: its setting, of which q = 1 - decay.
        along: E<w, d>.
        push: E||d||^2.
    """
    keep, weight_sq = 1 - of.decay, before.weight_sq
    after_sq = keep**2 * weight_sq + 2 * keep * along + push
    across = np.sqrt(np.maximum(push - along**2 / weight_sq, 0))
    angle = np.arctan2(across, (keep * weight_sq + along) / np.sqrt(weight_sq))
    return after_sq, angle


def _root_quotient(over: Array, under: Array) -> Array:
    """The root of a quotient, 0 where there is nothing to divide by."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(under == 0, 0.0, np.sqrt(over / under))
