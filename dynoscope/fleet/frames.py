"""What came of many runs, as one table."""

import functools
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, Final

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from dynoscope.errors import DynoscopeWarning
from dynoscope.fleet.members import Member
from dynoscope.fleet.work import Outcome, asked, rows_of
from dynoscope.reader.files import read_nothing
from dynoscope.schema import TABLES

__all__ = [
    "RUN",
    "UNREADABLE",
    "Rows",
    "finding_frame",
    "named",
    "summary_frame",
    "warn_of",
    "with_names",
]

RUN: Final = "run"
"""The column that tells runs apart."""

UNREADABLE: Final = "unreadable"
"""Status of a run that is broken."""

_TYPES: Final[dict[str, Any]] = {
    "status": "str", "exception": "str", "problems": "str",
    "model": "str", "optimizer": "str",
    "parameters": "Int64", "layers": "Int64", "step": "Int64", "measured": "Int64",
    "skipped": "Int64", "lost": "Int64", "channels": "Int64", "dead_channels": "Int64",
    "errors": "Int64", "warnings": "Int64", "notes": "Int64",
}  # fmt: skip
"""Columns that are not numbers with a point; whole numbers may be missing."""

_TIMES: Final = ("created", "updated")

_TAILS: Final = ("config.", "last.", "min.", "max.")
"""Columns that runs have of their own come last, in this order."""


def summary_frame(outcomes: Sequence[Outcome]) -> pd.DataFrame:
    """A row for each run, the broken ones included."""
    rows = [_summary_row(outcome) for outcome in outcomes]
    names = dict.fromkeys(name for row in rows for name in row if name != "name")
    ordered = sorted(names, key=_place)
    frame = pd.DataFrame(rows, columns=ordered)
    for name, kind in _TYPES.items():
        if name in frame:
            frame[name] = frame[name].astype(kind)
    for name in _TIMES:
        if name in frame:
            seconds = frame[name].astype(float)
            frame[name] = pd.to_datetime(seconds, unit="s", utc=True)
    return frame


def _summary_row(outcome: Outcome) -> dict[str, Any]:
    row = dict(outcome.answer or {"status": UNREADABLE, "exception": ""})
    told = row.get("problems", "")
    problems = "\n".join([*([told] if told else []), *outcome.problems])
    return {RUN: outcome.run, **row, "problems": problems}


def _place(column: str) -> int:
    heads = [column.startswith(head) for head in _TAILS]
    return heads.index(True) + 1 if True in heads else 0


def finding_frame(outcomes: Iterable[Outcome]) -> pd.DataFrame:
    """A row for each finding."""
    rows = [
        {RUN: outcome.run, **row}
        for outcome in outcomes
        for row in outcome.answer or ()
    ]
    return pd.DataFrame(rows, columns=[RUN, *TABLES["findings"].names()])


def with_names(
    outcomes: Iterable[Outcome], table: str, columns: Sequence[str] | None
) -> pa.Table:
    """Rows of all runs, their names in front."""
    nothing = named(read_nothing(table, columns), "")
    pieces = [named(o.answer, o.run) for o in outcomes if not o.is_broken]
    return pa.concat_tables([nothing, *pieces])


def named(rows: pa.Table, name: str) -> pa.Table:
    """Rows with the name of their run in front."""
    names = pa.repeat(pa.scalar(name), len(rows))
    return rows.add_column(0, pa.field(RUN, pa.string(), nullable=False), names)


class Rows:
    """Reads a partition of a Dask dataframe: rows of a bunch of runs.

    Args:
        table: name of the table.
        columns: columns to read, None for all.
        where: which rows to keep.
    """

    def __init__(
        self, table: str, columns: Sequence[str] | None, where: pc.Expression | None
    ) -> None:
        self._table, self._where = table, where
        self._columns = TABLES[table].names() if columns is None else list(columns)

    def __call__(
        self, members: Sequence[Member], columns: Sequence[str] | None = None
    ) -> pd.DataFrame:
        """The rows; Dask asks for the columns that it needs."""
        wanted = [RUN, *self._columns] if columns is None else list(columns)
        read = [name for name in wanted if name != RUN]
        function = functools.partial(
            rows_of, table=self._table, columns=read, where=self._where
        )
        outcomes = asked(members, function)
        warn_of(outcomes)
        rows = with_names(outcomes, self._table, read).select(wanted)
        frame: pd.DataFrame = rows.to_pandas()
        return frame


def warn_of(outcomes: Iterable[Outcome]) -> None:
    """Name what is broken or damaged.

    Warns:
        DynoscopeWarning: one for each problem.
    """
    for outcome in outcomes:
        for problem in outcome.problems:
            left = "left out: " if outcome.is_broken else ""
            warnings.warn(
                f"{outcome.run}: {left}{problem}", DynoscopeWarning, stacklevel=4
            )
