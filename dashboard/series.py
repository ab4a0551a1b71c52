"""A logged number against the step, in bounded memory."""

from typing import Final

import numpy as np

from dynoscope.reader import thin

__all__ = ["POINTS", "Series", "thin"]

POINTS: Final = 1000
"""Points of a curve on the screen: about one a pixel."""

MOST: Final = 1 << 17
"""Points that a series holds; above, it is thinned to half of that."""


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
