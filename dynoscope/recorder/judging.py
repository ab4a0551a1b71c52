"""The judge beside the recorder, who may fail without harm to the recording."""

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

import pyarrow as pa

from dynoscope.measurement import Subject
from dynoscope.recorder.disk import Trouble
from dynoscope.recorder.tables import finding_columns
from dynoscope.schema import TABLES
from dynoscope.schema.arrow import arrow_schema

__all__ = ["Judge", "Judging"]

PATIENCE: Final = 3.0
"""Seconds that rows may wait for the judge: many at once cost him little more than
few."""

MOST: Final = 1 << 14
"""Rows of `layers` that may wait for him: a few megabytes."""

_JUDGED: Final = ("layers", "normalization")
"""Tables that he looks at."""

_NONFINITE: Final = TABLES["layers"].names().index("nonfinite")


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


class Judging:
    """Asks a judge, if there is one, until an error of his.

    Args:
        judge: who is asked.
        trouble: is told what goes wrong.
    """

    def __init__(self, judge: Judge | None, trouble: Trouble) -> None:
        self._judge, self._trouble = judge, trouble
        self._kept: list[dict[str, list[pa.Array]]] = []
        self._rows, self._due = 0, 0.0

    def restart(self, subject: Subject) -> None:
        """Begin anew: what is watched has changed. No rows are to wait any more."""

        def begin(judge: Judge) -> Sequence[Found]:
            judge.restart(subject)
            return ()

        self._ask(begin)

    def keep(self, built: Mapping[str, list[pa.Array]]) -> None:
        """Keep new rows for the judge, until that is due, or `show` is called."""
        if self._judge is None:
            return
        if not self._kept:
            self._rows, self._due = 0, time.monotonic() + PATIENCE
        self._kept.append({name: built[name] for name in _JUDGED if name in built})
        nonfinite = built["layers"][_NONFINITE].to_numpy()
        self._rows += len(nonfinite)
        # What is not finite one wants to know of at once.
        if self._rows > MOST or (nonfinite > 0).any():
            self._due = 0.0

    @property
    def is_due(self) -> bool:
        """Whether rows have waited for long, are many, or cannot wait."""
        return bool(self._kept) and time.monotonic() >= self._due

    def show(self) -> dict[str, list[pa.Array]]:
        """Show the rows that wait; give the columns of what was found, if anything."""
        if not self._kept:
            return {}
        kept, self._kept = self._kept, []
        rows = {
            name: pa.Table.from_batches(
                pa.record_batch(built[name], schema=arrow_schema(name))
                for built in kept
                if name in built
            )
            for name in dict.fromkeys(itertools.chain.from_iterable(kept))
        }
        return self.feed(rows)

    def feed(self, tables: Mapping[str, pa.Table]) -> dict[str, list[pa.Array]]:
        """Show rows at once; give the columns of what was found, if anything."""
        return self._ask(lambda judge: judge.feed(tables))

    def finish(self) -> dict[str, list[pa.Array]]:
        """The columns of what is found now that there are no more rows, if anything."""
        return self._ask(lambda judge: judge.finish())

    def _ask(
        self, ask: Callable[[Judge], Sequence[Found]]
    ) -> dict[str, list[pa.Array]]:
        if self._judge is None:
            return {}
        try:
            found = ask(self._judge)
            for problem in self._judge.problems:
                self._trouble(problem)
            rows = [each.row() for each in found]
            return {"findings": finding_columns(rows)} if rows else {}
        except BaseException as error:  # rules may be the user's, and raise anything
            self._judge = None
            self._trouble("judging failed and is off from now on", error)
            return {}
