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
        self._total = np.zeros(shape)
        self._weight = np.zeros(shape)

    def update(self, values: FloatArray) -> FloatArray:
        """Take the next steps; give the mean at each of them.

        Args:
            values: shape (steps, *shape), float64.

        Returns:
            The same shape; NaN where no value has been finite yet.
        """
        means = np.empty_like(values)
        for t, row in enumerate(values):
            known = np.isfinite(row)
            decay = np.where(known, AVERAGING, 1.0)
            fresh = (1 - decay) * np.where(known, row, 0.0)
            self._total = decay * self._total + fresh
            self._weight = decay * self._weight + (1 - decay)
            with np.errstate(invalid="ignore"):
                means[t] = self._total / self._weight
        return means
