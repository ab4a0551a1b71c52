"""The recorded steps of a run, for what follows them from the first one on."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dynoscope.reader import Cursor
from dynoscope.schema.arrow import arrow_schema

__all__ = ["recorded_rows"]

ROWS: Final = 1 << 14
"""Rows of `layers` given at a time, or those of one step."""

OTHERS: Final = ("groups", "normalization", "silence")
"""Tables whose rows of the same steps go with them."""


def recorded_rows(run: Path, since: int) -> Iterator[Mapping[str, pa.Table]]:
    """Rows of `layers` and of `OTHERS`, consecutive steps at a time.

    A file or two of each table is in memory, however long the run is.

    Args:
        run: the run's folder; no rows are added until all have been given.
        since: the first step wanted.
    """
    layers = _Ahead(run, "layers")
    others = {name: _Ahead(run, name) for name in OTHERS}
    while len(rows := layers.next_file()):
        rows = rows.filter(pc.greater_equal(rows["step"], since))
        for piece in _whole_steps(rows):
            first, last = (piece["step"][at].as_py() for at in (0, -1))
            tables = {
                name: other.between(first, last) for name, other in others.items()
            }
            yield {"layers": piece, **tables}


class _Ahead:
    """A table, read file by file."""

    def __init__(self, run: Path, table: str) -> None:
        self._cursor = Cursor(run, table)
        self._waiting = arrow_schema(table).empty_table()

    def next_file(self) -> pa.Table:
        """The rows of the next file that has any; none at the end."""
        rows = self._cursor.poll(1)
        # Optimizers that are watched together are written one after the other.
        order = np.argsort(rows["step"].to_numpy(), kind="stable")
        return rows.take(order)

    def between(self, first: int, last: int) -> pa.Table:
        """The rows of some steps, which come after those given before."""
        while not len(self._waiting) or self._waiting["step"][-1].as_py() <= last:
            more = self.next_file()
            if not len(more):
                break
            self._waiting = pa.concat_tables([self._waiting, more])
        steps = self._waiting["step"].to_numpy()
        start, stop = np.searchsorted(steps, (first, last + 1))
        given, self._waiting = self._waiting[start:stop], self._waiting[stop:]
        return given


def _whole_steps(rows: pa.Table) -> Iterator[pa.Table]:
    """Cut rows between steps."""
    steps = rows["step"].to_numpy()
    start = 0
    while start < len(steps):
        middle = steps[min(start + ROWS, len(steps)) - 1]
        stop = int(np.searchsorted(steps, middle, side="right"))
        yield rows[start:stop]
        start = stop
