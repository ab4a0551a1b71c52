"""What a screen shows of a run: thinned curves, overviews, answers to a query."""

from __future__ import annotations

import abc
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa

from dynoscope.errors import DynoscopeError, DynoscopeWarning
from dynoscope.reader.cursor import Cursor
from dynoscope.reader.follow import Take, rows_in, settled
from dynoscope.reader.levels import Overview, overviews
from dynoscope.reader.query import run_query
from dynoscope.reader.rollup import is_roll_up, members_of, roll_ups_of
from dynoscope.reader.selection import Range, window_of
from dynoscope.reader.series import Series, curve, rolled_curve
from dynoscope.reader.sources import Source, sources_in
from dynoscope.reader.turns import turns_of
from dynoscope.schema import TABLES
from dynoscope.schema import metric as metric_of
from dynoscope.schema.folder import SORTED_BY

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Views"]

_T = TypeVar("_T")


class Views(abc.ABC):
    """Reads as little of a run as it can, however long the run is.

    Attributes:
        path: the run's folder, or its URI.
        folder: the folder that is read.
        heard: what is damaged is put here, if it is a list; else it is a warning.
    """

    path: Path | str
    folder: Path
    heard: list[str] | None = None  # warnings are of a process, not of a thread

    @property
    @abc.abstractmethod
    def manifest(self) -> dict[str, Any]:
        """All of `run.json`, as it is now."""

    @property
    @abc.abstractmethod
    def status(self) -> str:
        """How the run stands."""

    @property
    @abc.abstractmethod
    def layer_names(self) -> list[str]:
        """Names of the watched parameters, in the model's order."""

    @abc.abstractmethod
    def _bring(self, table: str) -> None:
        """Bring the folder up to date, as far as a table is concerned."""

    @property
    def roll_ups(self) -> list[str]:
        """Names under which modules and the whole model can be asked for."""
        return roll_ups_of(self.layer_names)

    def series(
        self,
        metric: str,
        layer: str | int,
        steps: Range = None,
        points: int = 1000,
        *,
        table: str = "layers",
    ) -> Series:
        """A curve for the screen: all of its rows, or those that keep its look.

        A module is rolled up exactly from its layers where these are few rows. In a
        long run it is rolled up from the means of buckets of steps instead: right
        where its layers change little within a bucket, else between their extremes.

        Args:
            metric: a column of the table.
            layer: a layer; of `layers` also a module or `*`; of `scalars` a name, of
                `groups` a number.
            steps: `(start, stop)`, a slice or a range; stop is excluded.
            points: about how many points at most.
            table: its table.

        Raises:
            DynoscopeError: no such metric; the message lists the choices.
        """
        metric, window = metric_of(metric, table).name, window_of(steps)
        self._bring(table)
        if table == "layers" and isinstance(layer, str):
            members = members_of(layer, self.layer_names) if is_roll_up(layer) else []
            self.check_layers(members or [layer])
            if members:
                numels = {la["name"]: la["numel"] for la in self.manifest["layers"]}
                rolled = {name: numels[name] for name in members}
                folder = self.folder / table
                turns = turns_of(self.manifest, members)
                return rolled_curve(folder, metric, rolled, turns, window, points)
        return curve(self.folder / table, metric, layer, window, points)

    def overview(
        self,
        metric: str,
        points: int = 1000,
        steps: Range = None,
        *,
        table: str = "layers",
    ) -> Overview:
        """A metric of all layers over the run, in at most about `points` buckets.

        Minimum, mean and maximum are exact (of float32 columns rounded to that).
        Buckets at the ends of `steps` may reach beyond them.

        Args:
            metric: a number of the table.
            points: how many buckets.
            steps: `(start, stop)`, a slice or a range; stop is excluded.
            table: its table: layers come in the model's order.
        """
        return self.overviews([metric], points, steps, table=table)[metric]

    def overviews(
        self,
        metrics: Sequence[str],
        points: int = 1000,
        steps: Range = None,
        *,
        table: str = "layers",
    ) -> dict[str, Overview]:
        """Several metrics at once; see `overview`."""
        self._bring(table)
        names = self.layer_names if table == "layers" else None
        columns = [metric_of(metric, table).name for metric in metrics]
        folder = self.folder / table
        return overviews(folder, columns, names, window_of(steps), points)

    def follow(
        self,
        take: Take[_T],
        metrics: Sequence[str],
        names: Sequence[Any] | None = None,
        steps: Range = None,
        points: int = 1000,
        *,
        table: str = "layers",
        among: int = 1,
        exact: int | None = None,
        only_means: bool = False,
    ) -> tuple[_T, list[str], Cursor]:
        """Some curves up to now, and a cursor for what comes after that.

        No row is in both, and none is missing, while the run is written and sealed.

        Args:
            take: what to do with what there is: it is given rows, in any order, or
                overviews by metric, of one file after the other, and the exponent k of
                their 2**k steps a bucket; anew if files are replaced meanwhile.
            metrics: numbers of the table.
            names: the curves in the order wanted; None for all there are.
            steps: `(start, stop)`, a slice or a range; stop is excluded. The cursor
                knows no end.
            points: how many buckets, if there are more measured steps than `exact`.
            table: its table.
            among: how many curves the table has, if that is known.
            exact: measured steps up to which all are given, `points` if None.
            only_means: whether minimum and maximum may be the mean instead.

        Returns:
            What `take` made of it, what could not be read, and the cursor.
        """
        self._bring(table)
        columns = [metric_of(metric, table).name for metric in metrics]
        folder, window = self.folder / table, window_of(steps)
        found = settled(
            *(folder, take, columns, names, window, points, among, exact),
            only_means=only_means,
        )
        wanted = ["step", SORTED_BY.get(table, "layer"), *columns]
        cursor = Cursor(self.folder, table, self._bring, wanted, found.number)
        return found.taken, found.problems, cursor

    def rows(
        self,
        table: str,
        columns: Sequence[str],
        names: Sequence[Any] | None = None,
        steps: Range = None,
    ) -> pa.Table:
        """Some rows of a table, in any order; reads no more files than it must.

        Args:
            table: the table.
            columns: columns to read.
            names: curves, None for all.
            steps: `(start, stop)`, a slice or a range; stop is excluded.
        """
        self._bring(table)
        return rows_in(self.folder / table, columns, names, window_of(steps))

    def sql(self, query: str) -> pd.DataFrame:
        """Answer a query in SQL (DuckDB), over views named like the tables.

        >>> run.sql("SELECT layer, max(angular_update) FROM layers GROUP BY layer")
        ... # doctest: +SKIP

        Raises:
            DynoscopeError: the query is wrong; the message says why.

        Warns:
            DynoscopeWarning: names each file that is damaged and was skipped.
        """
        for table in TABLES:
            self._bring(table)
        frame, problems = run_query(self.folder, query)
        self.warn_of(problems)
        return frame

    def sources(self, table: str, problems: list[str]) -> list[Source]:
        """The files of a table that count, brought up to date; see `sources_in`."""
        self._bring(table)
        return sources_in(self.folder / table, problems)

    def check_layers(
        self, names: Sequence[str], known: Sequence[str] | None = None
    ) -> None:
        """Raise a DynoscopeError with the choices if there is no such layer."""
        for name in names:
            if name not in (self.layer_names if known is None else known):
                raise DynoscopeError(
                    f"{self.path} has no layer {name!r}; it has: "
                    f"{', '.join([*self.layer_names, *self.roll_ups])}"
                )

    def warn_of(self, problems: Sequence[str]) -> None:
        """Name what is damaged; while a run is written that is no news."""
        if not problems or self.status == "running":
            return
        if self.heard is not None:
            self.heard += [each for each in problems if each not in self.heard]
            return
        for problem in problems:
            warnings.warn(f"{self.path}: {problem}", DynoscopeWarning, stacklevel=4)
