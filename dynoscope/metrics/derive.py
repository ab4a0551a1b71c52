"""From a layer's sums to its metrics, and back.

One function per metric, named like its column. All take a `LayerSums`, whose
arrays are float64 of any common shape (..., layers), and return that shape. A
metric that does not exist (the cosine of a zero vector) is NaN.

The metrics keep enough to give the sums back (`sums_of`), so that modules and
whole models are rolled up exactly from what a run holds of its layers.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from dynoscope.measurement import FloatArray, Sum
from dynoscope.metrics.turning import Turning, angle

__all__ = [
    "LAYER_METRICS",
    "LayerSums",
    "angular_update",
    "box_share",
    "derive",
    "grad_density",
    "grad_l1",
    "grad_l2",
    "grad_ratio",
    "momentum_grad_cos",
    "momentum_norm",
    "nonfinite",
    "outside_share",
    "scaled_grad_norm",
    "sums_of",
    "unmoved_share",
    "update_grad_cos",
    "update_norm",
    "update_ratio",
    "weight_grad_cos",
    "weight_max",
    "weight_norm",
    "weight_scaled_grad_cos",
    "weight_update_cos",
]


class _Once:
    """A property that is computed when first asked for.

    Unlike `functools.cached_property`, which in Python 3.11 holds a lock meanwhile, it
    does not make one thread wait for another one's instance.
    """

    def __init__(self, compute: Callable[["LayerSums"], FloatArray]) -> None:
        self._compute, self.__doc__ = compute, compute.__doc__

    def __get__(self, sums: "LayerSums", owner: type) -> FloatArray:
        found = self._compute(sums)
        vars(sums)[self._compute.__name__] = found  # is found before this from now on
        return found


@dataclasses.dataclass(frozen=True)
class LayerSums:
    """Sums over the elements of layers; see `dynoscope.measurement.Sum`."""

    numel: FloatArray
    weight_sq: FloatArray
    grad_sq: FloatArray
    grad_abs: FloatArray
    weight_grad: FloatArray
    momentum_sq: FloatArray
    momentum_grad: FloatArray
    weight_update: FloatArray
    turn_sq: FloatArray
    grad_update: FloatArray
    moved: FloatArray
    nonfinite: FloatArray
    weight_max: FloatArray
    scaled_grad_sq: FloatArray
    weight_scaled_grad: FloatArray
    outside: FloatArray
    at_edge: FloatArray
    boxed: FloatArray

    @property
    def turning(self) -> Turning:
        """The sums that describe how the weight turns."""
        return Turning(self.weight_sq, self.weight_update, self.turn_sq)

    @_Once
    def update_sq(self) -> FloatArray:
        """Sum of d**2."""
        return self.turning.update_sq

    @_Once
    def weight_norm(self) -> FloatArray:
        """Square root of `weight_sq`; the same for the others."""
        return np.sqrt(self.weight_sq)

    @_Once
    def grad_norm(self) -> FloatArray:  # noqa: D102
        return np.sqrt(self.grad_sq)

    @_Once
    def momentum_norm(self) -> FloatArray:  # noqa: D102
        return np.sqrt(self.momentum_sq)

    @_Once
    def update_norm(self) -> FloatArray:  # noqa: D102
        return np.sqrt(self.update_sq)

    @_Once
    def scaled_grad_norm(self) -> FloatArray:  # noqa: D102
        return np.sqrt(self.scaled_grad_sq)

    @classmethod
    def of(
        cls, numel: FloatArray, sums: FloatArray, boxed: npt.ArrayLike = 0.0
    ) -> "LayerSums":
        """Name the rows of packed sums.

        Args:
            numel: elements of each layer, shape (layers,).
            sums: shape (..., len(Sum), layers), float64.
            boxed: elements that a box is there for: all of a layer, or none (as
                by default).
        """
        named = {s.name.lower(): sums[..., s, :] for s in Sum}
        numel, boxed = np.broadcast_arrays(numel, boxed, named["weight_sq"])[:2]
        return cls(numel, boxed=boxed, **named)

    def of_layers(self, layers: slice | npt.NDArray[np.intp]) -> "LayerSums":
        """The same sums of some layers only, by index."""
        fields = (field.name for field in dataclasses.fields(self))
        return LayerSums(**{name: getattr(self, name)[..., layers] for name in fields})


def weight_norm(s: LayerSums) -> FloatArray:
    """l2 norm of the weight before the step."""
    return s.weight_norm


def weight_max(s: LayerSums) -> FloatArray:
    """Largest absolute weight before the step."""
    return s.weight_max


def grad_l1(s: LayerSums) -> FloatArray:
    """l1 norm of the gradient that the optimizer received."""
    return s.grad_abs


def grad_l2(s: LayerSums) -> FloatArray:
    """l2 norm of the gradient that the optimizer received."""
    return s.grad_norm


def grad_ratio(s: LayerSums) -> FloatArray:
    """l1 over l2 norm of the gradient, in [1, sqrt(numel)]."""
    return _divide(s.grad_abs, s.grad_norm)


def grad_density(s: LayerSums) -> FloatArray:
    """`grad_ratio` over sqrt(numel), in (0, 1]; sqrt(2/pi) = .798 if Gaussian."""
    return _divide(s.grad_abs, np.sqrt(s.grad_sq * s.numel))


def momentum_norm(s: LayerSums) -> FloatArray:
    """l2 norm of the optimizer's momentum before the step."""
    return s.momentum_norm


def update_norm(s: LayerSums) -> FloatArray:
    """l2 norm of the step's change of the weight, weight decay included."""
    return s.update_norm


def update_ratio(s: LayerSums) -> FloatArray:
    """Update norm over weight norm."""
    return _divide(s.update_norm, s.weight_norm)


def angular_update(s: LayerSums) -> FloatArray:
    """Angle between the weight before and after the step, in radians."""
    return angle(s.turning, s.numel)


def weight_grad_cos(s: LayerSums) -> FloatArray:
    """Cosine between weight and gradient; 0 for a scale-invariant layer."""
    return _cosine(s.weight_grad, s.weight_norm, s.grad_norm)


def weight_update_cos(s: LayerSums) -> FloatArray:
    """Cosine between weight and update; negative where the weight shrinks."""
    return _cosine(s.weight_update, s.weight_norm, s.update_norm)


def momentum_grad_cos(s: LayerSums) -> FloatArray:
    """Cosine between momentum and gradient."""
    return _cosine(s.momentum_grad, s.momentum_norm, s.grad_norm)


def update_grad_cos(s: LayerSums) -> FloatArray:
    """Cosine between update and gradient; -1 for plain gradient descent."""
    return _cosine(s.grad_update, s.update_norm, s.grad_norm)


def scaled_grad_norm(s: LayerSums) -> FloatArray:
    """l2 norm of u = g / (sqrt(v) + eps); sqrt(numel) where v is steady noise's."""
    return s.scaled_grad_norm


def weight_scaled_grad_cos(s: LayerSums) -> FloatArray:
    """Cosine between weight and u = g / (sqrt(v) + eps)."""
    return _cosine(s.weight_scaled_grad, s.weight_norm, s.scaled_grad_norm)


def outside_share(s: LayerSums) -> FloatArray:
    """Share of weights outside of Lion's box, |w| > 1/weight_decay."""
    return _divide(s.outside, s.boxed)


def box_share(s: LayerSums) -> FloatArray:
    """Share of weights at the edge of Lion's box, or outside; 1 % counts as there."""
    return _divide(s.at_edge, s.boxed)


def unmoved_share(s: LayerSums) -> FloatArray:
    """Share of weights that are bit for bit the same after the step."""
    return 1.0 - s.moved / s.numel


def nonfinite(s: LayerSums) -> FloatArray:
    """NaN and infinite entries of gradient, momentum and weight after the step."""
    return s.nonfinite


LAYER_METRICS: Final[Mapping[str, Callable[[LayerSums], FloatArray]]] = {
    f.__name__: f
    for f in (
        weight_norm,
        weight_max,
        grad_l1,
        grad_l2,
        grad_ratio,
        grad_density,
        momentum_norm,
        update_norm,
        update_ratio,
        angular_update,
        weight_grad_cos,
        weight_update_cos,
        momentum_grad_cos,
        update_grad_cos,
        scaled_grad_norm,
        weight_scaled_grad_cos,
        outside_share,
        box_share,
        unmoved_share,
        nonfinite,
    )
}
"""Every measured column of the `layers` table."""


def derive(s: LayerSums) -> dict[str, FloatArray]:
    """All layer metrics by name."""
    return {name: metric(s) for name, metric in LAYER_METRICS.items()}


def sums_of(metrics: Mapping[str, FloatArray], numel: FloatArray) -> LayerSums:
    """The sums that metrics came from: the inverse of `derive`.

    Args:
        metrics: columns of the `layers` table, any common shape.
        numel: elements of each layer, same shape.
    """
    m = {name: np.asarray(column, np.float64) for name, column in metrics.items()}
    weight, grad = m["weight_norm"], m["grad_l2"]
    update, momentum = m["update_norm"], m["momentum_norm"]
    scaled = m["scaled_grad_norm"]
    weight_update = _product(m["weight_update_cos"], weight, update)
    weight_sq, update_sq = weight**2, update**2
    after_sq = weight_sq + 2 * weight_update + update_sq
    turn_sq = after_sq * np.sin(m["angular_update"]) ** 2
    return LayerSums(
        numel=np.asarray(numel, np.float64),
        weight_sq=weight_sq,
        grad_sq=grad**2,
        grad_abs=m["grad_l1"],
        weight_grad=_product(m["weight_grad_cos"], weight, grad),
        momentum_sq=momentum**2,
        momentum_grad=_product(m["momentum_grad_cos"], momentum, grad),
        weight_update=weight_update,
        turn_sq=np.where(weight == 0, update_sq, turn_sq),
        grad_update=_product(m["update_grad_cos"], update, grad),
        moved=np.rint((1.0 - m["unmoved_share"]) * numel),
        nonfinite=m["nonfinite"],
        weight_max=m["weight_max"],
        scaled_grad_sq=scaled**2,
        weight_scaled_grad=_product(m["weight_scaled_grad_cos"], weight, scaled),
        outside=np.rint(_or_none(m["outside_share"]) * numel),
        at_edge=np.rint(_or_none(m["box_share"]) * numel),
        boxed=np.where(np.isnan(m["box_share"]), 0.0, numel),
    )


def _divide(a: FloatArray, b: FloatArray) -> FloatArray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(b == 0, np.nan, a / b)


def _or_none(share: FloatArray) -> FloatArray:
    return np.where(np.isnan(share), 0.0, share)


def _cosine(dot: FloatArray, a: FloatArray, b: FloatArray) -> FloatArray:
    # Rounding may carry a cosine past 1; clip keeps NaN.
    return np.clip(_divide(dot, a * b), -1.0, 1.0)


def _product(cosine: FloatArray, a: FloatArray, b: FloatArray) -> FloatArray:
    product = cosine * a * b
    product[(a == 0) | (b == 0)] = 0.0
    return product
