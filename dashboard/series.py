"""A logged number against the step, in bounded memory; and thinning for a screen."""

from typing import Any, Final

import numpy as np
from tsdownsample import NaNMinMaxLTTBDownsampler

__all__ = ["POINTS", "Series", "thin"]

POINTS: Final = 1000
"""Points of a curve on the screen: about one a pixel."""

MOST: Final = 1 << 17
"""Points that a series holds; above, it is thinned to half of that."""


def thin(steps: np.ndarray, values: np.ndarray, points: int = POINTS) -> np.ndarray:
    """Indices of the points that keep a curve's look: extremes stay, NaN too.

    Args:
        steps: ascending, shape (n,).
        values: shape (n,).
        points: about how many to keep.
    """
    if len(steps) <= points:
        return np.arange(len(steps))
    downsampler: Any = NaNMinMaxLTTBDownsampler  # its constructor has no types
    chosen = downsampler().downsample(
        np.ascontiguousarray(steps, np.int64),
        np.ascontiguousarray(values, np.float64),
        n_out=points,
    )
    return np.unique(chosen.astype(np.intp))


class Series:
    """Steps and values of one name, ascending by step.

    Attributes:
        steps: shape (n,), int64.
        values: shape (n,), float64.
    """

    def __init__(self) -> None:
        self.steps = np.empty(0, np.int64)
        self.values = np.empty(0)

    def add(self, steps: np.ndarray, values: np.ndarray) -> None:
        """Append points; thin them if they are too many."""
        self.steps = np.concatenate([self.steps, steps])
        self.values = np.concatenate([self.values, values])
        if (np.diff(self.steps[-len(steps) - 1 :]) < 0).any():
            order = np.argsort(self.steps, kind="stable")
            self.steps, self.values = self.steps[order], self.values[order]
        if len(self.steps) > MOST:
            kept = thin(self.steps, self.values, MOST // 2)
            self.steps, self.values = self.steps[kept], self.values[kept]
