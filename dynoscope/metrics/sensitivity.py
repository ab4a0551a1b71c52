"""Scale-sensitive weights: the part of a gradient that acts like weight decay.

Where the loss does not change with a weight's scale, the gradient is at right
angles to the weight. Elsewhere it has a part along the weight, which shrinks it
(or lets it grow, if negative) just as weight decay does:

    lambda_u = E<w, u> / E||w||^2, and lambda_e = lambda + lambda_u

where u stands for what one new gradient adds to the update, lr aside. It is the
current gradient and not the momentum, which is made of updates that the weight
holds already, and which would give a lambda_u far from zero even for pure noise.

Source: Kosson et al. 2024, appendices K and L (eq. 94), there for SGD and AdamW.
"""

import math
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from dynoscope.measurement import FloatArray
from dynoscope.metrics.derive import LayerSums

__all__ = ["RADIAL_PARTS", "radial_part"]


def radial_part(
    kind: str | None, s: LayerSums, beta1: FloatArray, beta2: FloatArray
) -> FloatArray:
    """<w, u>, whose mean over that of ||w||^2 is lambda_u, in the unit of ||w||^2.

    - "sgdm", "adam_l2": u is g. Exact for SGD, whose momentum scales decay and
      gradient alike; for Adam it takes the second moment to be even.
    - "adamw": u is g / (sqrt(v) + eps).
    - "lion": a sign turns a mean small beside its noise into sqrt(2/pi) of their
      ratio. The noise of the interpolated momentum is sqrt(A) ||g|| / sqrt(numel)
      where gradients are noise of one size, with A = (1-beta1)^2 +
      beta1^2 (1-beta2)/(1+beta2), so u is sqrt(2/pi) sqrt(numel/A) g / ||g||.
    - "sepnorm": likewise without sqrt(2/pi), and whatever the gradients' sizes. Taken
      of the whole tensor, also where rows are normalized.
    - "ortsepnorm": 0, for no update has a part along the weight.

    Within 2 % for "sgdm" and "adamw" on a quadratic loss with noise, for lambda_e
    from .6 to 4 times lambda. For "lion" within 5 % where lr * lambda_e is below a
    tenth of 1 - beta2 (its momentum delays the answer), with gradients of one size,
    12 % where sizes differ by factors of 2. For "sepnorm" within 5 % at any sizes.

    Args:
        kind: the optimizer, as `dynoscope.theory.equilibrium` names it.
        s: sums of layers.
        beta1: moment coefficients of each layer's group, broadcast against the sums.
        beta2: likewise.

    Returns:
        The shape of the sums; NaN where this is not known for the optimizer.
    """
    part = RADIAL_PARTS.get(kind or "")
    if part is None:
        return np.full_like(s.weight_sq, np.nan)
    return part(s, beta1, beta2)


def _plain(s: LayerSums, beta1: FloatArray, beta2: FloatArray) -> FloatArray:
    return s.weight_grad


def _scaled(s: LayerSums, beta1: FloatArray, beta2: FloatArray) -> FloatArray:
    return s.weight_scaled_grad


def _normalized(s: LayerSums, beta1: FloatArray, beta2: FloatArray) -> FloatArray:
    noise_sq = (1 - beta1) ** 2 + beta1**2 * (1 - beta2) / (1 + beta2)
    with np.errstate(divide="ignore", invalid="ignore"):
        per_gradient = np.sqrt(s.numel / (noise_sq * s.grad_sq))
        return np.where(s.grad_sq == 0, 0.0, per_gradient * s.weight_grad)


def _sign(s: LayerSums, beta1: FloatArray, beta2: FloatArray) -> FloatArray:
    return math.sqrt(2 / math.pi) * _normalized(s, beta1, beta2)


def _none(s: LayerSums, beta1: FloatArray, beta2: FloatArray) -> FloatArray:
    return 0.0 * s.weight_grad


RADIAL_PARTS: Final[
    Mapping[str, Callable[[LayerSums, FloatArray, FloatArray], FloatArray]]
] = {
    "adam_l2": _plain,
    "adamw": _scaled,
    "lion": _sign,
    "ortsepnorm": _none,
    "sepnorm": _normalized,
    "sgdm": _plain,
}
"""Optimizers for which it is known."""
