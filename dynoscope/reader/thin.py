"""Thin a curve for the screen."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt
from tsdownsample import MinMaxLTTBDownsampler

__all__ = ["thin"]

GAPS: Final = 1 / 4
"""Share of the points that may be NaN, the longest gaps first."""

LEAST: Final = 4
"""Points that a curve has at least: its ends and its extremes."""

IntArray = npt.NDArray[np.intp]


def thin(steps: np.ndarray, values: np.ndarray, points: int = 1000) -> IntArray:
    """Indices of the points that keep a curve's look: ends, extremes and gaps stay.

    Args:
        steps: ascending, shape (n,).
        values: shape (n,).
        points: how many to keep.
    """
    if len(steps) <= points:
        return np.arange(len(steps))
    points = max(points, 2 * LEAST)
    gaps = _gaps(np.isnan(values), int(GAPS * points))
    known = np.flatnonzero(~np.isnan(values))
    if not len(known):
        return gaps
    downsampler: Any = MinMaxLTTBDownsampler  # its constructor has no types
    chosen = downsampler().downsample(
        np.ascontiguousarray(steps[known], np.int64),
        np.ascontiguousarray(values[known], np.float64),
        n_out=points - len(gaps) - 2,
    )
    extremes = [values[known].argmin(), values[known].argmax()]
    kept = np.concatenate([known[chosen.astype(np.intp)], known[extremes], gaps])
    return np.unique(kept)


def _gaps(is_nan: npt.NDArray[np.bool_], most: int) -> IntArray:
    """Where gaps begin, of the longest ones."""
    edges = np.diff(is_nan.astype(np.int8), prepend=0, append=0)
    starts, stops = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    longest = np.argsort(starts - stops, kind="stable")[:most]
    return np.sort(starts[longest])
