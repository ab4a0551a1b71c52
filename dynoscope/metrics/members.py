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
        layers: of each module, at least one.

    Attributes:
        single: modules of one layer, and the layer of each.
    """

    def __init__(self, layers: Sequence[range]) -> None:
        self._count = len(layers)
        single = [(n, s.start) for n, s in enumerate(layers) if len(s) == 1]
        self.single = tuple(np.array(single, np.intp).reshape(-1, 2).T)
        # Modules in a row: the first layer, how many make a module, how many modules.
        self._runs: list[tuple[int, int, int]] = []
        for each in layers:
            size = len(each)
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
            add.reduce(block, axis=1, out=found[modules])
        return found
