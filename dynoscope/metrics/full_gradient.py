"""From the sums of a full gradient to its metrics."""

import dataclasses

import numpy as np

from dynoscope.measurement import FloatArray

__all__ = ["FULL_GRADIENT_METRICS", "GradientSums", "full_gradient_metrics"]

FULL_GRADIENT_METRICS = (
    "grad_l1",
    "grad_l2",
    "grad_ratio",
    "grad_density",
    "noise_scale",
    "kkt_gap",
    "weight_max",
    "feasible",
)
"""Columns of the `full_gradients` table that are derived here."""

ROUNDING = 1e-6
"""Relative excess over 1 / weight_decay that single precision explains."""


@dataclasses.dataclass(frozen=True)
class GradientSums:
    """Sums over the elements of layers, of the gradient G over a data set.

    All float64, shape (layers,). Layers combine exactly, by sums and maxima.

    Attributes:
        numel: number of elements.
        grad_sq: sum of G**2.
        grad_abs: sum of |G|.
        noise: trace of the covariance of single samples' gradients, NaN unknown.
        weight_max: max of |w|.
        decay_grad: weight_decay * sum of w * G.
        box: weight_decay * max of |w|.
    """

    numel: FloatArray
    grad_sq: FloatArray
    grad_abs: FloatArray
    noise: FloatArray
    weight_max: FloatArray
    decay_grad: FloatArray
    box: FloatArray

    def with_whole(self) -> "GradientSums":
        """The same with one layer more, that is all of them together."""
        extended = {}
        for field in dataclasses.fields(self):
            column = getattr(self, field.name)
            total = np.max if field.name in ("weight_max", "box") else np.sum
            extended[field.name] = np.append(column, total(column))
        return GradientSums(**extended)


def full_gradient_metrics(s: GradientSums) -> dict[str, FloatArray]:
    """The metrics by name, shape (layers,); NaN where one does not exist.

    `kkt_gap` is lambda <w, G> + ||G||_1, which Hoelder's inequality keeps at 0
    or more as long as lambda max|w| <= 1 (`feasible`). Together with
    feasibility, 0 makes w a KKT point of the problem that Lion solves.

    Source: LION-rate, lemma 1 and theorem 2 (gap, feasibility), section 4
        (ratio); McCandlish et al. 2018, eq. 2.9 (noise scale).
    """
    grad_l2 = np.sqrt(s.grad_sq)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ratio = np.where(grad_l2 == 0, np.nan, s.grad_abs / grad_l2)
        noise_scale = np.where(grad_l2 == 0, np.nan, s.noise / s.grad_sq)
    return {
        "grad_l1": s.grad_abs,
        "grad_l2": grad_l2,
        "grad_ratio": ratio,
        "grad_density": ratio / np.sqrt(s.numel),
        "noise_scale": noise_scale,
        "kkt_gap": s.decay_grad + s.grad_abs,
        "weight_max": s.weight_max,
        "feasible": s.box <= 1 + ROUNDING,
    }
