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
        sized = [(each.stop - each.start, each.start) for each in slices]
        different = sorted(set(sized))
        self._places = np.array([different.index(each) for each in sized])
        # For modules of one size in a row: the first layer, the size, how many.
        self._runs: list[tuple[int, int, int]] = []
        for size, start in different:
            if self._runs:
                first, its_size, count = self._runs[-1]
                if size == its_size and start == first + size * count:
                    self._runs[-1] = first, size, count + 1
                    continue
            self._runs.append((start, size, 1))

    def blocks(self, *columns: Array) -> Iterator[list[Array]]:
        """Columns of shape (layers, ...) as views of shape (modules, layers, ...).

        Modules are as many as differ; `whole` puts what was made of them in order.
        """
        for start, size, count in self._runs:
            stop = start + size * count
            yield [x[start:stop].reshape(count, size, *x.shape[1:]) for x in columns]

    def whole(self, parts: Sequence[Array]) -> Array:
        """What was made of blocks, each of shape (modules, ...), for all modules."""
        found: Array = np.concatenate(parts)[self._places]
        return found

    def reduce(self, column: Array, add: np.ufunc = np.add) -> Array:
        """A column of shape (layers, ...) reduced to (modules, ...)."""
        return self.whole([add.reduce(x, axis=1) for (x,) in self.blocks(column)])
