"""Layers that are as wide as each other, taken together: calls cost, not numbers."""

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from dynoscope.measurement import FloatArray

__all__ = ["Alike", "Places", "alike", "places"]

Places: TypeAlias = "slice | npt.NDArray[np.intp]"


class Alike(NamedTuple):
    """Layers of one width.

    Attributes:
        members: which layers they are.
        columns: where their units lie among those of all layers.
        width: how many units each has.
    """

    members: Places
    columns: Places
    width: int

    def units(self, of_all: FloatArray) -> FloatArray:
        """Their units, shape (..., members, width), of those of all, shape (..., all).

        They are not copied where they follow each other.
        """
        if not isinstance(self.columns, slice):
            return np.take(of_all, self.columns, axis=-1)
        found = of_all[..., self.columns]
        return found.reshape(*found.shape[:-1], -1, self.width)


def alike(widths: Sequence[int]) -> list[Alike]:
    """Layers by their width, where each has that many units and they follow on."""
    ends = np.cumsum(widths, dtype=np.intp)
    groups: dict[int, list[int]] = {}
    for layer, width in enumerate(widths):
        groups.setdefault(width, []).append(layer)
    return [
        Alike(
            places(members),
            places(np.stack([np.arange(ends[k] - width, ends[k]) for k in members])),
            width,
        )
        for width, members in groups.items()
    ]


def places(indices: npt.ArrayLike) -> Places:
    """Indices, as a slice if they follow each other: it takes a view, not a copy."""
    found = np.asarray(indices, np.intp)
    flat = found.reshape(-1)
    if flat.size and np.array_equal(flat, flat[0] + np.arange(flat.size)):
        return slice(int(flat[0]), int(flat[-1]) + 1)
    return found
