"""Columns of a table as arrays of steps x layers, in bounded memory."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from dynoscope.reader import Block
from dynoscope.schema import TABLES

__all__ = ["BUDGET", "History"]

BUDGET: Final = 96 << 20
"""Bytes that one table of one run may hold."""

SHRUNK: Final = 0.75
"""Share of the rows that must be gone after thinning, for it to be worth it."""


class History:
    """Columns of a table, all measured steps until memory is full.

    Then, of each group of `stride` consecutive measured steps, only the most
    unusual one is kept: what is kept is a row of the run as it was measured, all
    layers of it, and a spike of a single step is not lost. The newest steps are
    always there.

    Args:
        table: name of the table; its keys are not kept as columns.
        key: the column that tells layers apart.
        names: the layers.
        salient: columns by which a step is judged to be unusual.
        budget: bytes that may be held.

    Attributes:
        names: the layers.
        stride: measured steps for which one is kept, beyond the newest.
        thinned: how often rows were dropped; arrays taken before are stale.
    """

    def __init__(
        self,
        table: str,
        key: str,
        names: Sequence[Any],
        salient: Sequence[str],
        budget: int = BUDGET,
    ) -> None:
        self.names, self.stride, self.thinned = list(names), 1, 0
        self._key, self._salient = key, list(salient)
        self._columns = {
            column.name: np.empty((0, len(names)), _kind(column.dtype))
            for column in TABLES[table].columns
            if column.role != "key"
        }
        width = sum(array.itemsize for array in self._columns.values()) * len(names)
        self._most = max(budget // max(width, 1), 64)
        self._steps = np.empty(0, np.int64)
        self._index = np.empty(0, np.int64)  # number of the measured step
        self._rows = self._seen = 0

    def __len__(self) -> int:
        """Steps that are held."""
        return self._rows

    @property
    def steps(self) -> np.ndarray:
        """Steps that are held, ascending, shape (steps,)."""
        return self._steps[: self._rows]

    def column(self, name: str) -> np.ndarray:
        """A column, shape (steps, layers); a view that later rows leave alone."""
        return self._columns[name][: self._rows]

    @property
    def columns(self) -> list[str]:
        """Names of the columns that are held."""
        return list(self._columns)

    def add(self, block: Block) -> None:
        """Append rows, the newest last."""
        count = len(block["step"])
        self._reserve(self._rows + count)
        new = slice(self._rows, self._rows + count)
        self._steps[new] = block["step"]
        self._index[new] = np.arange(self._seen, self._seen + count)
        for name, array in self._columns.items():
            array[new] = block[name]
        self._rows += count
        self._seen += count
        while self._rows > self._most:
            self._thin()

    def _reserve(self, rows: int) -> None:
        capacity = len(self._steps)
        if rows <= capacity:
            return
        capacity = max(rows, 2 * capacity, 256)
        self._steps = _grown(self._steps, capacity)
        self._index = _grown(self._index, capacity)
        for name, array in self._columns.items():
            self._columns[name] = _grown(array, capacity)

    def _thin(self) -> None:
        """Keep the most unusual step of each group; widen the groups if need be."""
        groups = self._index[: self._rows] // self.stride
        while np.unique(groups).size > SHRUNK * self._most:
            self.stride *= 2
            groups = self._index[: self._rows] // self.stride
        order = np.lexsort((self._unusual(), groups))
        last = np.append(np.diff(groups[order]) > 0, True)
        kept = np.sort(order[last])
        # Fresh arrays: views that were given out keep what they show.
        self._steps, self._index = self._steps[kept], self._index[kept]
        self._columns = {name: array[kept] for name, array in self._columns.items()}
        self._rows, self.thinned = kept.size, self.thinned + 1

    def _unusual(self) -> np.ndarray:
        """How far each step is from the mean of its neighbours, shape (steps,)."""
        score = np.zeros(self._rows)
        for name in self._salient:
            values = np.nan_to_num(self.column(name).astype(float), nan=np.inf)
            scale = np.median(np.abs(values), axis=0)
            usable = np.isfinite(scale) & (scale > 0)
            # Linear near zero and logarithmic far out, so that dips count too.
            curve = np.arcsinh(values / np.where(usable, scale, 1.0))
            curve = np.nan_to_num(curve, posinf=1e3, neginf=-1e3)
            bend = np.abs(curve[1:-1] - (curve[:-2] + curve[2:]) / 2)
            score[1:-1] = np.maximum(score[1:-1], bend.max(axis=1, initial=0.0))
        return score


def _kind(dtype: str) -> type[np.floating[Any]]:
    return np.float64 if dtype in ("float64", "int64") else np.float32


def _grown(array: np.ndarray, capacity: int) -> np.ndarray:
    grown = np.empty((capacity, *array.shape[1:]), array.dtype)
    grown[: len(array)] = array
    return grown
