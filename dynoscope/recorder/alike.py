"""Layers that are as wide as each other, taken together: calls cost, not numbers."""

import itertools
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
        starts: where the units of each begin among those of all layers.
        width: how many units each has.
    """

    members: Places
    starts: tuple[int, ...]
    width: int

    def units(self, of_all: FloatArray) -> FloatArray:
        """Their units, shape (..., members, width), of those of all, shape (..., all).

        They are not copied where they follow each other.
        """
        first, last = self.starts[0], self.starts[-1]
        if last - first == (len(self.starts) - 1) * self.width:
            found = of_all[..., first : last + self.width]
            return found.reshape(*found.shape[:-1], -1, self.width)
        apart = [of_all[..., start : start + self.width] for start in self.starts]
        return np.stack(apart, axis=-2)


def alike(widths: Sequence[int]) -> list[Alike]:
    """Layers by their width, where each has that many units and they follow on."""
    starts = [0, *itertools.accumulate(widths)]
    groups: dict[int, list[int]] = {}
    for layer, width in enumerate(widths):
        groups.setdefault(width, []).append(layer)
    return [
        Alike(places(members), tuple(starts[k] for k in members), width)
        for width, members in groups.items()
    ]


def places(indices: npt.ArrayLike) -> Places:
    """Indices, as a slice if they follow each other: it takes a view, not a copy."""
    found = np.asarray(indices, np.intp)
    if found.size and np.array_equal(found, found[0] + np.arange(found.size)):
        return slice(int(found[0]), int(found[-1]) + 1)
    return found
