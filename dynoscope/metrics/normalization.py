"""Momentum tracing: dead, ghost-stepped and revived channels of normalization.

A channel is an element of a normalization layer's bias, or of its weight where it
has no bias. One whose activation is cut off by a ReLU gets a gradient of exactly 0.
An optimizer with sign updates goes on moving it along its decaying momentum (ghost
steps), so that when a gradient comes back (revival) the weight may be far from where
it died. Counting exact zeros of the gradient needs no threshold on the momentum's
size.

Two companions show where that ends: the 95 % quantile of |w|, which nears the edge
1/weight_decay of Lion's box, and the cosine between the largest weights and the way
they are moved, which nears 1.

Source: the SepNorm paper, section 3 and figure 2, made robust to thresholds
(with |m| < constant, the counts would scale with the constant).
"""

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from dynoscope.measurement import FloatArray

__all__ = [
    "COMPANIONS",
    "COUNTS",
    "HORIZONS",
    "NORMALIZATION_METRICS",
    "MomentumTracer",
    "Traced",
    "silence",
    "top5_cos",
    "weight_q95",
]

HORIZONS: Final[Mapping[str, float]] = {
    "revived": 2.5,
    "revived_k1": 1.0,
    "revived_k5": 5.0,
}
"""Revival columns and their k: silent for k time constants of the momentum."""

COUNTS: Final = ("dead", "ghost", *HORIZONS)
"""Columns that count channels."""

NEVER: Final = -(1 << 62)
"""The step of what has not happened yet."""

TOP: Final = 0.05
"""Share of the weights that are the largest."""


def silence(k: float, beta: float) -> int:
    """Steps Z = ceil(k / (1 - beta)) without gradient that make a revival.

    Args:
        k: horizon in time constants of the averaging, dimensionless.
        beta: averaging coefficient: the second of `betas`, or SGD's momentum;
            NaN or 0 for an optimizer that averages nothing.

    >>> silence(2.5, 0.99)
    250
    """
    # 1/(1 - .99) is 100.00000000000009 in floating point: round before ceil.
    return math.ceil(round(k / (1.0 - float(np.nan_to_num(beta))), 6))


class Traced(NamedTuple):
    """Channels along some steps.

    Attributes:
        masks: for each of COUNTS, which channels are so, shape (steps, channels).
        silent: what `MomentumTracer.silent` is after each step, the same shape.
    """

    masks: dict[str, npt.NDArray[np.bool_]]
    silent: npt.NDArray[np.int64]


class MomentumTracer:
    """Follows the channels of one or more normalization layers through time.

    Args:
        channels: number of channels.
    """

    def __init__(self, channels: int) -> None:
        self._silent = np.zeros(channels, np.int64)
        self._alive = np.zeros(channels, np.bool_)
        self._last_step = -1
        self._beta: FloatArray = np.empty(0)
        self._horizons: dict[str, npt.NDArray[np.int64]] = {}

    @property
    def silent(self) -> npt.NDArray[np.int64]:
        """Per channel, steps since when its gradient is 0; -1 if it never was not."""
        return np.where(self._alive, self._silent, -1)

    def restore(self, step: int, silent: npt.NDArray[np.int64]) -> None:
        """Go on after a step, from what `silent` was then."""
        self._last_step, self._alive = step, silent >= 0
        self._silent = np.maximum(silent, 0)

    def update(
        self,
        steps: npt.NDArray[np.int64],
        gradient: FloatArray,
        weight: FloatArray,
        update: FloatArray,
        *,
        lr: FloatArray,
        decay: FloatArray,
        beta: FloatArray,
    ) -> Traced:
        """Take the next measured steps; say which channels are in which state.

        A channel is *dead* while its gradient is exactly 0, once it had one; it
        takes a *ghost* step when it is dead and yet moved by more than lr/2
        beyond weight decay; it is *revived* when a gradient arrives after Z
        steps of silence (`silence`). Between two measured steps the gradient is
        taken to have stayed as it was.

        Args:
            steps: optimizer steps, increasing, shape (steps,).
            gradient: bias gradients, shape (steps, channels), float64.
            weight: biases before each step.
            update: their change by it.
            lr: learning rate of each channel's group, broadcast to that shape.
            decay: lr * weight_decay where weight decay is decoupled, else 0; likewise.
            beta: averaging coefficient of each channel's group; likewise.
        """
        zero = gradient == 0
        # When each channel had a gradient last, before each step and after it.
        at = np.where(zero, NEVER, steps[:, np.newaxis])
        start = np.where(self._alive, self._last_step - self._silent, NEVER)
        last = np.concatenate([start[np.newaxis], at])
        # row by row: np.maximum.accumulate goes down each column by itself, slowly
        for before, row in itertools.pairwise(last):
            np.maximum(before, row, out=row)
        alive = last != NEVER
        until = np.concatenate([[self._last_step], steps])[:, np.newaxis]
        silent = np.where(alive, until - last, 0)
        horizons = self._silences(beta)
        masks = {name: ~zero & (silent[:-1] >= z) for name, z in horizons.items()}
        dead = silent[1:] > 0
        moved = np.abs(update + decay * weight) > 0.5 * lr
        self._silent, self._alive = silent[-1].copy(), alive[-1].copy()
        self._last_step = int(steps[-1])
        return Traced(
            {"dead": dead, "ghost": dead & moved, **masks},
            np.where(alive, silent, -1)[1:],
        )

    def _silences(self, beta: FloatArray) -> Mapping[str, npt.NDArray[np.int64]]:
        """Steps of silence that make a revival, for each of HORIZONS."""
        if np.array_equal(beta[1:], beta[:-1], equal_nan=True):
            beta = beta[:1]
        if not np.array_equal(beta, self._beta, equal_nan=True):
            self._beta = beta
            self._horizons = {name: _silences(k, beta) for name, k in HORIZONS.items()}
        return self._horizons


def weight_q95(weight: FloatArray, moved: FloatArray) -> FloatArray:
    """95 % quantile of |w|, between order statistics linearly.

    Args:
        weight: before the step, shape (..., channels).
        moved: not used; the companions are called alike.
    """
    ordered = np.sort(np.abs(weight), axis=-1)
    position = (1 - TOP) * (ordered.shape[-1] - 1)
    low = int(position)
    below, above = ordered[..., low], ordered[..., min(low + 1, ordered.shape[-1] - 1)]
    share, gap = position - low, above - below
    # From the nearer end, as np.quantile does it, whose calls cost ten times as much.
    quantile = above - gap * (1 - share) if share >= 0.5 else below + gap * share
    return np.where(np.isnan(ordered[..., -1]), np.nan, quantile)


def top5_cos(weight: FloatArray, moved: FloatArray) -> FloatArray:
    """Cosine between the 5 % largest |w|, one at least, and how they are moved.

    Args:
        weight: before the step, shape (..., channels).
        moved: the step's update beyond decoupled weight decay, the same shape.

    Returns:
        Shape (...); NaN where they are zero, or stay where they are.
    """
    count = math.ceil(TOP * weight.shape[-1])
    top = np.argpartition(np.abs(weight), -count, axis=-1)[..., -count:]
    w, d = (np.take_along_axis(x, top, axis=-1) for x in (weight, moved))
    norms = np.linalg.norm(w, axis=-1) * np.linalg.norm(d, axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(norms == 0, np.nan, (w * d).sum(axis=-1) / norms)


COMPANIONS: Final[Mapping[str, Callable[[FloatArray, FloatArray], FloatArray]]] = {
    "weight_q95": weight_q95,
    "top5_cos": top5_cos,
}
"""Columns that are no counts."""

NORMALIZATION_METRICS: Final = (*COUNTS, *COMPANIONS)
"""Every measured column of the `normalization` table, `channels` aside."""


def _silences(k: float, beta: FloatArray) -> npt.NDArray[np.int64]:
    values, where = np.unique(beta, return_inverse=True)
    return np.array([silence(k, b) for b in values], np.int64)[where]
