"""Who judges the rows that are written, as the recorder knows it."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import pyarrow as pa

from dynoscope.measurement import Subject

__all__ = ["Found", "Judge"]


class Found(Protocol):
    """Something that is to be written to the `findings` table."""

    def row(self) -> Mapping[str, Any]:
        """Its row, evidence as a mapping."""


class Judge(Protocol):
    """Finds what is odd in the rows that are written."""

    @property
    def problems(self) -> Sequence[str]:
        """What went wrong in it."""

    def restart(self, subject: Subject) -> None:
        """Begin anew: what is watched has changed."""

    def feed(self, tables: Mapping[str, pa.Table]) -> Sequence[Found]:
        """Take in new rows of each table; give what was found."""

    def finish(self) -> Sequence[Found]:
        """Give what is found now that there are no more."""
