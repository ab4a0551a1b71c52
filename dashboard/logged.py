"""What was logged, by name; dynoscope's own cost is logged, too."""

from collections.abc import Iterable
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from dynoscope.reader import Piece, Run

__all__ = ["OWN", "Logged"]

OWN: Final = "dynoscope/"
"""What names of numbers begin with that dynoscope logs itself, such as its cost."""


class Logged:
    """Which names were logged.

    Args:
        run: the run.

    Attributes:
        names: in no order.
    """

    names: set[str]

    def __init__(self, run: Run) -> None:
        *_, self._cursor = run.follow(self._begin, ["value"], points=1, table="scalars")
        self.poll()

    def _begin(self, pieces: Iterable[Piece], _: int) -> None:
        """Take in what was there before."""
        self.names = set()
        for piece in pieces:
            if isinstance(piece, pa.Table):
                self._add(piece)
            else:
                self.names.update(piece["value"].names)

    @property
    def problems(self) -> list[str]:
        """What could not be read."""
        return list(self._cursor.problems.values())

    def poll(self) -> bool:
        """Take in what is new; whether there was anything."""
        rows = self._cursor.poll()
        self._add(rows)
        return len(rows) > 0

    def _add(self, rows: pa.Table) -> None:
        self.names.update(pc.unique(rows["name"]).to_pylist())
