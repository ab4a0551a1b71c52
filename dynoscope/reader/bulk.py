"""Whole tables, a stretch of steps at a time: for who looks at every row."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dynoscope.reader.footers import EVERYTHING
from dynoscope.reader.grids import Grid, read_grid
from dynoscope.reader.sources import retried, sources_in
from dynoscope.reader.views import Views

__all__ = ["Bulk", "Extent"]

IntArray = npt.NDArray[np.int64]


class Extent(NamedTuple):
    """Which steps a file of a table has.

    Attributes:
        steps: step numbers, ascending, at least one.
        rows: how many rows there are.
    """

    steps: IntArray
    rows: int


class Bulk(Views):
    """Reads all of a run, in bounded memory if asked for it bit by bit."""

    def extents(self, table: str = "layers") -> list[Extent]:
        """Which steps the files of a table have, in the order of their rows.

        Brings a remote run up to date, which `grid` does not.

        Args:
            table: name of the table, one with a column `layer`.

        Warns:
            DynoscopeWarning: names each file that is damaged and was skipped.
        """
        self._bring(table)
        problems: list[str] = []

        def look() -> list[Extent]:
            problems.clear()
            found = []
            for source in sources_in(self.folder / table, problems):
                known, steps, rows = len(problems), [], 0
                for piece in source.pieces(["step"], EVERYTHING, problems):
                    steps.append(_distinct(piece["step"]))
                    rows += len(piece)
                if rows and len(problems) == known:
                    found.append(Extent(np.unique(np.concatenate(steps)), rows))
            return found

        extents = retried(self.folder / table, look)
        self.warn_of(problems)
        return extents

    def grid(
        self, table: str, columns: Sequence[str], layers: Sequence[str], steps: IntArray
    ) -> Grid:
        """Some steps of a table, as arrays of layers x steps.

        Args:
            table: name of the table, one with a column `layer`.
            columns: its columns to read, numbers.
            layers: names of the layers wanted; in alphabetic order it is fastest.
            steps: the steps wanted, ascending, at least one.
        """
        return read_grid(self.folder / table, columns, layers, steps)


def _distinct(column: pa.ChunkedArray) -> IntArray:
    """The steps there are; quickly if each layer has the same."""
    steps: IntArray = column.to_numpy()
    ends = np.flatnonzero(steps[1:] <= steps[:-1])
    width = int(ends[0]) + 1 if len(ends) else len(steps)
    if width and len(steps) % width == 0:
        by_layer = steps.reshape(-1, width)
        if (by_layer == by_layer[0]).all():
            return np.array(by_layer[0])
    return np.unique(pc.unique(column).to_numpy())
