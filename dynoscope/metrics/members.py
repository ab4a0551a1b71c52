"""Layers that are taken together: consecutive ones, for many modules at once."""

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["Members"]

Array: TypeAlias = npt.NDArray[Any]


class Members:
    """Which layers make each module.

    Modules of the same size that follow each other, as those of a network's blocks do,
    are reduced in one go.

    Args:
        slices: for each module its layers, at least one.
    """

    def __init__(self, slices: Sequence[slice]) -> None:
        self._count = len(slices)
        # For modules of one size in a row: the first layer, the size, and who they are.
        self._runs: list[tuple[int, int, list[int]]] = []
        order = sorted((s.stop - s.start, s.start, n) for n, s in enumerate(slices))
        for size, start, number in order:
            if self._runs:
                first, its_size, numbers = self._runs[-1]
                if size == its_size and start == first + size * len(numbers):
                    numbers.append(number)
                    continue
            self._runs.append((start, size, [number]))

    def blocks(self, *columns: Array) -> Iterator[tuple[Any, ...]]:
        """Columns of shape (layers, ...) as blocks of shape (modules, layers, ...).

        Yields:
            Which modules, and a view of each column.
        """
        for start, size, numbers in self._runs:
            stop, shape = start + size * len(numbers), (len(numbers), size)
            views = (x[start:stop].reshape(shape + x.shape[1:]) for x in columns)
            yield numbers, *views

    def reduce(self, column: Array, add: np.ufunc = np.add) -> Array:
        """A column of shape (layers, ...) reduced to (modules, ...)."""
        found = np.empty((self._count, *column.shape[1:]), column.dtype)
        for numbers, block in self.blocks(column):
            found[numbers] = add.reduce(block, axis=1)
        return found
