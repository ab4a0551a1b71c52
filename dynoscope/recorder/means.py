"""Exponential means along the measured steps."""

from typing import Final

import numpy as np

from dynoscope.measurement import FloatArray

__all__ = ["AVERAGING", "RunningMean"]

AVERAGING: Final = 0.99
"""Weight of the past in a running mean, per measured step."""


class RunningMean:
    """An exponential mean, unbiased from the first value on; it skips NaN.

    Args:
        shape: shape of one step's values.
    """

    def __init__(self, *shape: int) -> None:
        self._state = np.zeros((2, *shape))  # total, and weight

    def update(self, values: FloatArray) -> FloatArray:
        """Take the next steps; give the mean at each of them.

        Args:
            values: shape (steps, *shape), float64.

        Returns:
            The same shape; NaN where no value has been finite yet.
        """
        known = np.isfinite(values)
        decay = np.where(known, AVERAGING, 1.0)
        fresh = np.stack([(1 - decay) * np.where(known, values, 0.0), 1 - decay], 1)
        before = self._state
        for keep, state in zip(decay, fresh, strict=True):
            state += keep * before
            before = state
        self._state = before.copy()
        with np.errstate(invalid="ignore"):
            means: FloatArray = fresh[:, 0] / fresh[:, 1]
        return means
