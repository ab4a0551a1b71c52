"""Momentum tracing: dead, ghost-stepped and revived channels of normalization.

A channel of a normalization layer whose activation is cut off by a ReLU gets a
gradient of exactly 0. An optimizer with sign updates goes on moving it along
its decaying momentum (ghost steps), so that when a gradient comes back
(revival) the weight may be far from where it died. Counting exact zeros of the
gradient needs no threshold on the momentum's size.

Source: the SepNorm paper, section 3 and figure 2, made robust to thresholds
(with |m| < constant, the counts would scale with the constant).
"""

import math
from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from dynoscope.measurement import FloatArray

__all__ = ["HORIZONS", "NORMALIZATION_METRICS", "MomentumTracer", "silence"]

HORIZONS: Final[Mapping[str, float]] = {
    "revived": 2.5,
    "revived_k1": 1.0,
    "revived_k5": 5.0,
}
"""Revival columns and their k: silent for k time constants of the momentum."""

NORMALIZATION_METRICS: Final = ("dead", "ghost", *HORIZONS)
"""Every measured column of the `normalization` table, `channels` aside."""


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

    def update(
        self,
        step: int,
        gradient: FloatArray,
        weight: FloatArray,
        update: FloatArray,
        *,
        lr: FloatArray,
        decay: FloatArray,
        beta: FloatArray,
    ) -> dict[str, npt.NDArray[np.bool_]]:
        """Take one measured step; say which channels are in which state.

        A channel is *dead* while its gradient is exactly 0, once it had one; it
        takes a *ghost* step when it is dead and yet moved by more than lr/2
        beyond weight decay; it is *revived* when a gradient arrives after Z
        steps of silence (`silence`). Between two measured steps the gradient is
        taken to have stayed as it was.

        Args:
            step: optimizer step, increasing.
            gradient: bias gradients, shape (channels,), float64.
            weight: biases before the step.
            update: their change by the step.
            lr: learning rate of each channel's group.
            decay: lr * weight_decay where weight decay is decoupled, else 0.
            beta: averaging coefficient of each channel's group.

        Returns:
            For each of NORMALIZATION_METRICS, a mask of shape (channels,).
        """
        if not np.array_equal(beta, self._beta, equal_nan=True):
            self._beta = beta
            self._horizons = {name: _silences(k, beta) for name, k in HORIZONS.items()}
        zero = gradient == 0
        revived = {
            name: ~zero & (self._silent >= horizon)
            for name, horizon in self._horizons.items()
        }
        elapsed = step - self._last_step
        self._silent = np.where(zero & self._alive, self._silent + elapsed, 0)
        self._alive |= ~zero
        self._last_step = step
        dead = self._silent > 0
        moved = np.abs(update + decay * weight) > 0.5 * lr
        return {"dead": dead, "ghost": dead & moved, **revived}


def _silences(k: float, beta: FloatArray) -> npt.NDArray[np.int64]:
    values, where = np.unique(beta, return_inverse=True)
    return np.array([silence(k, b) for b in values], np.int64)[where]
