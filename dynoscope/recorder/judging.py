"""The judge beside the recorder, who may fail without harm to the recording."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import pyarrow as pa

from dynoscope.measurement import Subject
from dynoscope.recorder.disk import Trouble
from dynoscope.recorder.tables import finding_columns
from dynoscope.schema.arrow import arrow_schema

__all__ = ["Judge", "Judging", "as_tables"]


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

    def restart(self, subject: Subject) -> None:
        """Begin anew: what is watched has changed."""

        def begin(judge: Judge) -> Sequence[Found]:
            judge.restart(subject)
            return ()

        self._ask(begin)

    def feed(self, tables: Mapping[str, pa.Table]) -> dict[str, list[pa.Array]]:
        """Show new rows; give the columns of what was found, if anything."""
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


def as_tables(built: Mapping[str, list[pa.Array]]) -> dict[str, pa.Table]:
    """Columns of several tables as tables."""
    return {
        name: pa.Table.from_arrays(columns, schema=arrow_schema(name))
        for name, columns in built.items()
    }
