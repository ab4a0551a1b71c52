"""Thin a curve for the screen."""

from typing import Any

import numpy as np
from tsdownsample import NaNMinMaxLTTBDownsampler

__all__ = ["thin"]


def thin(steps: np.ndarray, values: np.ndarray, points: int = 1000) -> np.ndarray:
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
