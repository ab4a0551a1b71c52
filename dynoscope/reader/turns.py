"""Layers that take turns: at each measured step, every layer as of its last turn."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dynoscope.measurement import FloatArray

__all__ = ["as_of_last_turns", "reach_of", "turns_of"]

IntArray = npt.NDArray[np.int64]


def turns_of(manifest: Mapping[str, Any], layers: Sequence[str]) -> IntArray:
    """The turn at which each of some layers is measured, shape (layers,)."""
    # Runs of before there were turns say nothing of them.
    turns = {entry["name"]: entry.get("turn", 0) for entry in manifest["layers"]}
    return np.array([turns[name] for name in layers], np.int64)


def reach_of(turns: IntArray) -> int:
    """Measured steps after which a layer's last turn is too long ago to count.

    It is two rounds of turns, since a measurement may have been skipped.
    """
    count = len(np.unique(turns))
    return 0 if count == 1 else 2 * count


def as_of_last_turns(
    turns: IntArray, arrays: Mapping[str, FloatArray]
) -> dict[str, FloatArray]:
    """Columns of `layers` of which modules can be made, of layers that take turns.

    Layers of one turn are left as they are: within a turn, one whose optimizer did not
    step has no row.

    Args:
        turns: turn of each layer, shape (layers,).
        arrays: columns of shape (steps, layers), `nonfinite` among them, which is NaN
            where a layer has no row.

    Returns:
        The same, each layer as of its last turn; nothing but NaN at steps before which
        not all of them had one, `reach_of` steps back at most.

    >>> column = np.array([[1, np.nan], [np.nan, 2], [3, np.nan]])
    >>> as_of_last_turns(np.array([0, 1]), {"nonfinite": column})["nonfinite"]
    array([[nan, nan],
           [ 1.,  2.],
           [ 3.,  2.]])
    """
    labels, label = np.unique(turns, return_inverse=True)
    if len(labels) == 1:
        return dict(arrays)
    is_there = ~np.isnan(arrays["nonfinite"])
    seen = np.stack(
        [is_there[:, label == k].any(axis=1) for k in range(len(labels))], axis=1
    )
    rows = np.arange(len(is_there))[:, None]
    last = np.maximum.accumulate(np.where(seen, rows, -1), axis=0)
    is_recent = last > np.maximum(rows - reach_of(turns), -1)
    # Nothing new of these layers is no new row of their module.
    is_known = np.logical_and(is_recent.all(axis=1), seen.any(axis=1))
    at, layers = last[:, label], np.arange(len(turns))
    return {
        name: np.where(is_known[:, None], column[at, layers], np.nan)
        for name, column in arrays.items()
    }
