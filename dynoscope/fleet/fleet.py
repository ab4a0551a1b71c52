"""Many runs, asked together: here, or on the workers of a Dask cluster."""

import functools
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from dynoscope.errors import DynoscopeError, RunNotFoundError
from dynoscope.findings import RULES, Rule, Thresholds
from dynoscope.fleet.athena import create_table
from dynoscope.fleet.cluster import Cluster, Workers, dask_frames
from dynoscope.fleet.frames import (
    Rows,
    finding_frame,
    summary_frame,
    warn_of,
    with_names,
)
from dynoscope.fleet.members import Member, Places, bunches, listed, members_at
from dynoscope.fleet.query import run_query
from dynoscope.fleet.work import Outcome, asked, findings_of, rows_of, summary_of
from dynoscope.reader import Run, open_run
from dynoscope.schema import TABLES

if TYPE_CHECKING:
    import dask.dataframe

__all__ = ["Fleet", "open_fleet"]

_Answer = TypeVar("_Answer")

MOST: Final = 64
"""Runs of a partition, however small they are."""


class Fleet:
    """Runs at some places; every call looks for them, and reads them, afresh.

    Get one from `dynoscope.open_fleet`. It is a context manager, which ends the
    processes, or the connection, that it has made.

    What is true of one run is found by the functions that `dynoscope.open_run` offers,
    each run's as a whole by one worker, so where the work is done changes no digit.
    A run that cannot be read is named, and costs no other run anything.
    """

    def __init__(self, places: Sequence[str], cluster: Cluster) -> None:
        self._places, self._cluster = list(places), cluster

    def __repr__(self) -> str:
        """How many runs there are."""
        return f"<dynoscope fleet of {len(self)} runs>"

    def __len__(self) -> int:
        """How many runs there are by now."""
        return len(self.members())

    def __enter__(self) -> Self:
        """Nothing is opened that was not."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """See `close`."""
        self.close()

    def close(self) -> None:
        """End the processes or the connection that were made for it."""
        self._cluster.close()

    def members(self) -> list[Member]:
        """The runs: name, place and size of each."""
        return members_at(self._places)

    @property
    def names(self) -> list[str]:
        """Their names: paths below the place where each was found."""
        return [member.name for member in self.members()]

    def open(self, name: str) -> Run:
        """One of them.

        Raises:
            RunNotFoundError: there is no run of that name.
        """
        for member in self.members():
            if member.name == name:
                return open_run(member.place)
        raise RunNotFoundError(f"no run {name!r} in {', '.join(self._places)}")

    def summaries(self) -> pd.DataFrame:
        """A row for each run: what it was, how it ended, and what it came to.

        Returns:
            Column `run`, then those of `dynoscope.reader.Summary.row`, times as such,
            whole numbers as Int64. A run that cannot be read has the status
            `unreadable`; `problems` says why, and what else is damaged.
        """
        return summary_frame(self._ask(summary_of))

    def findings(
        self,
        *,
        again: bool = False,
        thresholds: Thresholds | None = None,
        rules: Mapping[str, Rule] | None = None,
    ) -> pd.DataFrame:
        """What rules found, in all runs.

        Args:
            again: ask the rules now, as `dynoscope findings` does, in place of what
                they said while the runs were recorded.
            thresholds: from where on rules speak up, if they are asked.
            rules: which ones to ask; None for all that are registered here.

        Returns:
            Column `run`, then those of `Run.findings`.

        Warns:
            DynoscopeWarning: names each run that is broken, and was left out, and
                each file that is damaged.
        """
        if again:
            rules = dict(RULES if rules is None else rules)
        elif thresholds is not None or rules is not None:
            raise DynoscopeError("thresholds and rules are for findings(again=True)")
        function = functools.partial(
            findings_of, again=again, thresholds=thresholds, rules=rules
        )
        outcomes = self._ask(function)
        warn_of(outcomes)
        return finding_frame(outcomes)

    def map(self, function: Callable[[Run], _Answer]) -> dict[str, _Answer]:
        """Ask each run anything: `fleet.map(dynoscope.analysis.balance)`.

        Args:
            function: from a run to an answer that can be sent between processes.

        Returns:
            Answers by the names of the runs.

        Warns:
            DynoscopeWarning: names each run that cannot be read, or cannot answer
                (the function raised a DynoscopeError), and was left out.
        """
        outcomes = self._ask(function, tolerant=False)
        warn_of(outcomes)
        return {o.run: o.answer for o in outcomes if not o.is_broken}

    def table(
        self,
        name: str,
        columns: Sequence[str] | None = None,
        where: pc.Expression | None = None,
    ) -> pa.Table:
        """A table of all runs, in this process's memory; see `Run.table`.

        Args:
            name: one of `dynoscope.schema.TABLES`.
            columns: columns to read, None for all; `run` comes first in any case.
            where: which rows to keep, such as `pyarrow.compute.field("step") < 100`.

        Warns:
            DynoscopeWarning: names each run that is broken, and was left out, and
                each file that is damaged.
        """
        _check(name, columns)
        function = functools.partial(rows_of, table=name, columns=columns, where=where)
        outcomes = self._ask(function)
        warn_of(outcomes)
        return with_names(outcomes, name, columns)

    def dataframe(
        self,
        name: str,
        columns: Sequence[str] | None = None,
        where: pc.Expression | None = None,
    ) -> "dask.dataframe.DataFrame":
        """The same as a Dask dataframe, which reads what is computed from it.

        A partition is a run, or several small ones: its columns must fit into the
        memory of a worker. The runs are those that there are by now.

        Args:
            name: one of `dynoscope.schema.TABLES`.
            columns: columns to read, None for all; of these, only those are read that
                the computation needs.
            where: which rows to keep.

        Raises:
            DynoscopeError: Dask is not installed.

        Warns:
            DynoscopeWarning: on the worker, as `table` does.
        """
        _check(name, columns)
        frames, rows = dask_frames(), Rows(name, columns, where)
        partitions = bunches(self.members(), MOST)
        frame: dask.dataframe.DataFrame = frames.from_map(
            rows, partitions, meta=rows([]), label=name
        )
        return frame

    def sql(self, query: str) -> pd.DataFrame:
        """Answer a query in SQL (DuckDB) over the tables of all runs, on this machine.

        Tables have a column `run` in front. Of runs in a store, the tables that the
        query names are fetched.

        >>> fleet.sql("SELECT run, max(weight_norm) FROM layers GROUP BY run")
        ... # doctest: +SKIP

        Raises:
            DynoscopeError: the query is wrong; the message says why.

        Warns:
            DynoscopeWarning: names each run that is broken, and was left out, and
                each file that is damaged.
        """
        frame, outcomes = run_query(self.members(), query)
        warn_of(outcomes)
        return frame

    def athena(self, table: str) -> str:
        """Statements by which Amazon Athena reads a table of runs that are in S3.

        Raises:
            DynoscopeError: some of the runs are not in S3.
        """
        _check(table, None)
        return create_table(table, self.members())

    def _ask(
        self, function: Callable[[Run], Any], *, tolerant: bool = True
    ) -> list[Outcome]:
        members = self.members()
        most = self._cluster.share(len(members))
        work = functools.partial(asked, function=function, tolerant=tolerant)
        return self._cluster.map(work, bunches(members, most))


def open_fleet(places: Places, client: Workers = None) -> Fleet:
    """Open many runs as one table.

    Args:
        places: a folder of runs, a URI such as `s3://bucket/runs`, a run, or a list of
            these; `*` stands for anything (`runs/2026-*`, `runs/**`).
        client: who does the work. None: this process. A number: so many processes on
            this machine. Otherwise a `distributed.Client`, or the address of a
            scheduler, `tcp://host:8786`; its workers must see the same folders, or
            the store, of which each fetches what it reads.

    Raises:
        RunNotFoundError: there is no run.
        StoreError: what is at a URI cannot be read; the message says why.
        DynoscopeError: Dask is not installed, or there is no such cluster.

    >>> fleet = dynoscope.open_fleet("runs")  # doctest: +SKIP
    >>> fleet.summaries().sort_values("last.loss")  # doctest: +SKIP
    """
    names = listed(places)
    if not members_at(names):
        raise RunNotFoundError(
            f"no run in {', '.join(names) or 'nothing'}: pass folders or URIs that "
            "dynoscope.watch(run=...) wrote to, or what is around them"
        )
    return Fleet(names, Cluster(client))


def _check(table: str, columns: Sequence[str] | None) -> None:
    if table not in TABLES:
        raise DynoscopeError(f"no table {table!r}; there are: {', '.join(TABLES)}")
    for column in columns or ():
        TABLES[table][column]  # an error lists the choices
