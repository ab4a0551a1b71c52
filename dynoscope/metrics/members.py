"""Layers that are taken together: consecutive ones, for many modules at once."""

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["Members"]

Array: TypeAlias = npt.NDArray[Any]


class Members:
    """Which layers make each module.

    Modules of one size that follow each other, as those of a network's blocks do, are
    reduced in one go: it is fastest to have them sorted by size.

    Args:
        slices: for each module its layers, at least one.
    """

    def __init__(self, slices: Sequence[slice]) -> None:
        self._count = len(slices)
        # Modules in a row: the first layer, how many make a module, how many modules.
        self._runs: list[tuple[int, int, int]] = []
        for each in slices:
            size = each.stop - each.start
            if self._runs:
                first, its_size, count = self._runs[-1]
                if size == its_size and each.start == first + size * count:
                    self._runs[-1] = first, size, count + 1
                    continue
            self._runs.append((each.start, size, 1))

    def blocks(self, *columns: Array) -> Iterator[tuple[slice, list[Array]]]:
        """Columns of shape (layers, ...) as views of shape (modules, layers, ...).

        Yields:
            Which modules, and the views.
        """
        done = 0
        for start, size, count in self._runs:
            stop = start + size * count
            views = [x[start:stop].reshape(count, size, *x.shape[1:]) for x in columns]
            yield slice(done, done + count), views
            done += count

    def reduce(self, column: Array, add: np.ufunc = np.add) -> Array:
        """A column of shape (layers, ...) reduced to (modules, ...)."""
        found = np.empty((self._count, *column.shape[1:]), column.dtype)
        for modules, (block,) in self.blocks(column):
            if block.shape[1] == 1:
                found[modules] = block[:, 0]
            else:
                add.reduce(block, axis=1, out=found[modules])
        return found
