"""Curves of a run that is being written: few buckets, however long it is."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dynoscope.measurement import FloatArray
from dynoscope.metrics.buckets import Buckets, merge, starts_of
from dynoscope.reader import Overview, Piece, Run, pivot
from dynoscope.schema.folder import SORTED_BY

__all__ = ["POINTS", "ROWS", "Made", "Steps", "Track"]

POINTS: Final = 4096
"""Buckets of a track, most: a run of so many measured steps is held step by step."""

BYTES: Final = 64 << 20
"""Memory of a track, most: one of very many curves has fewer buckets."""

LEAST: Final = 256
"""Buckets that there may be even so."""

ROWS: Final = 1 << 17
"""New rows from which on it is cheaper to read levels than to take them in."""

Steps = tuple[int, int]
"""First step, and the first one that is not asked for."""

Made = Callable[[Mapping[str, FloatArray]], Mapping[str, FloatArray]]
"""Makes the columns of a track of those of its table, all of shape (steps, curves)."""


class Track:
    """Columns of some curves of a table, in buckets of 2**exponent steps.

    Buckets have their smallest value, mean and largest value. While there are few
    measured steps, each is a bucket of its own; when they become too many, neighbours
    are merged. What is new is read by a cursor, what was there before from levels.

    Args:
        run: the run.
        table: the table.
        columns: columns to read.
        names: the curves to read.
        among: how many curves the table has, as far as it is known.
        points: most buckets.
        window: which steps; None for all.
        made: makes other columns of them; what is read in coarse is made of means.
        exact: measured steps up to which all are read, `points` if None.
        reach: how many measured steps before a row count for what is made of it.

    Attributes:
        steps: first step of each bucket, shape (buckets,), int64.
        exponent: how wide buckets are, as a power of two.
        last_step: the newest step, -1 if there is none; of levels, an upper bound.
    """

    def __init__(
        self,
        run: Run,
        table: str,
        columns: Sequence[str],
        names: Sequence[Any],
        *,
        among: int = 1,
        points: int = POINTS,
        window: Steps | None = None,
        made: Made | None = None,
        exact: int | None = None,
        reach: int = 0,
    ) -> None:
        self._run, self._table, self._read = run, table, list(columns)
        self._names, self._among, self._made = list(names), among, made
        self._window, self._exact, self._reach = window, exact, reach
        self._key = SORTED_BY.get(table, "layer")
        room = BYTES // max(4 * 8 * len(names) * len(columns), 1)
        self._points = points if made is not None else min(points, max(room, LEAST))
        self.steps, self.last_step = np.empty(0, np.int64), -1
        self._last: FloatArray | None = None
        self._load()

    def __len__(self) -> int:
        """How many buckets there are."""
        return len(self.steps)

    @property
    def nbytes(self) -> int:
        """Memory that the buckets need."""
        return self.steps.nbytes + sum(array.nbytes for array in self._buckets)

    @property
    def is_exact(self) -> bool:
        """Whether no bucket has more than one measured step."""
        return bool((self._buckets.known <= 1).all())

    @property
    def problems(self) -> list[str]:
        """What could not be read."""
        return [*self._problems, *self._cursor.problems.values()]

    @property
    def columns(self) -> list[str]:
        """Names of the columns that are held."""
        return self._columns

    def buckets(self, column: str) -> Buckets:
        """A column; arrays have shape (buckets, curves) and are never changed."""
        at = self._columns.index(column)
        return self._buckets.at((slice(None), at))

    def last(self, column: str) -> FloatArray:
        """The newest number of each curve, as it was measured; NaN if there is none."""
        if self._last is None:
            self._last = self._newest()
        values: FloatArray = self._last[self._columns.index(column)]
        return values

    def poll(self) -> bool:
        """Take in what is new; whether there was anything."""
        if self._is_over:
            return False
        rows = self._cursor.poll(ROWS)
        if len(rows) >= ROWS:
            self._load()  # nobody has looked for long
            return True
        return self._take_in(rows)

    def _load(self) -> None:
        _, self._problems, self._cursor = self._run.follow(
            self._begin,
            self._read,
            self._names,
            self._window and slice(*self._window),
            self._points,
            table=self._table,
            among=self._among,
            exact=self._exact,
            only_means=self._made is not None,
        )
        if self._last is None and len(self):
            self.last_step = min(self.last_step, self._run.last_step or 0)
        self._take_in(self._cursor.poll())

    def _begin(self, pieces: Iterable[Piece], exponent: int) -> None:
        """Take in what was there before, file by file."""
        self.exponent, self._is_over = exponent, False
        self.steps, self.last_step, self._last = np.empty(0, np.int64), -1, None
        self._recent: pa.Table | None = None
        empty = np.empty((0, len(self._names)))
        nothing = self._arranged(dict.fromkeys(self._read, empty))
        self._buckets = Buckets(nothing, nothing, nothing, nothing.astype(np.int64))
        for piece in pieces:
            if isinstance(piece, pa.Table):
                self._take_in(piece)
            else:
                self._join_levels(piece)

    def _join_levels(self, found: Mapping[str, Overview]) -> None:
        """Buckets of one file."""
        coarse = found[self._read[0]]
        if not len(coarse.step):
            return
        if self._made is None:
            parts = [found[name] for name in self._read]
            buckets = Buckets(
                np.stack([part.min for part in parts], axis=1),
                np.stack([part.mean for part in parts], axis=1),
                np.stack([part.max for part in parts], axis=1),
                np.stack([part.count for part in parts], axis=1),
            )
        else:
            values = self._arranged({name: part.mean for name, part in found.items()})
            counts = coarse.count
            if values.shape[2] != counts.shape[1]:
                counts = counts.max(axis=1, keepdims=True)
            known = np.where(np.isnan(values), 0, counts[:, None])
            buckets = Buckets(values, values, values, known)
        self._join(coarse.step, buckets)
        end = int(coarse.step[-1]) | (coarse.width - 1)
        self.last_step, self._last = max(self.last_step, end), None

    def _arranged(self, arrays: Mapping[str, FloatArray]) -> FloatArray:
        """Columns as they are held, in one array of steps x columns x curves."""
        made = arrays if self._made is None else self._made(arrays)
        self._columns = list(made)
        return np.stack([*made.values()], axis=1)

    def _take_in(self, rows: pa.Table) -> bool:
        if self._window is not None and len(rows):
            start, stop = self._window
            steps = rows["step"].to_numpy()
            self._is_over = bool(steps.max() >= stop)
            rows = rows.filter(pa.array((steps >= start) & (steps < stop)))
        steps, values = self._values(rows) if not self._reach else self._reached(rows)
        if not len(steps):
            return False
        known = (~np.isnan(values)).astype(np.int64)
        self._join(steps, Buckets(values, values, values, known))
        self.last_step = max(self.last_step, int(steps.max()))
        if self._last is not None or len(self) <= len(steps):
            self._last = _newer(values, self._last)
        return True

    def _reached(self, rows: pa.Table) -> tuple[np.ndarray, FloatArray]:
        """The same of rows for which some of those that came before them count, too."""
        if not len(rows):
            return np.empty(0, np.int64), np.empty(0)
        first, given = pc.min(rows["step"]).as_py(), rows
        if self._recent is not None and pc.max(self._recent["step"]).as_py() < first:
            given = pa.concat_tables([self._recent, rows])
        steps, values = self._values(given)
        if len(steps):
            oldest = int(steps[-self._reach :][0])
            self._recent = given.filter(pc.greater_equal(given["step"], oldest))
        is_new = steps >= first
        return steps[is_new], values[is_new]

    def _values(self, rows: pa.Table) -> tuple[np.ndarray, FloatArray]:
        """Steps of some rows of the table, and what is held of them."""
        if len(self._names) == 1:
            rows = rows.filter(pc.equal(rows[self._key], self._names[0]))
            steps = rows["step"].to_numpy()
            arrays = {c: rows[c].to_numpy()[:, None].astype(float) for c in self._read}
        else:
            block = pivot(rows, self._key, self._names)
            steps, is_there = block["step"], np.zeros(len(block["step"]), bool)
            arrays = {name: block[name].astype(float) for name in self._read}
            for array in arrays.values():
                is_there |= ~np.isnan(array).all(axis=1)
            steps = steps[is_there]
            arrays = {name: array[is_there] for name, array in arrays.items()}
        return steps, self._arranged(arrays)

    def _join(self, steps: np.ndarray, fresh: Buckets) -> None:
        """Add rows, as a rule the newest."""
        is_later = (np.diff(np.concatenate([self.steps[-1:], steps])) >= 0).all()
        head = max(len(self.steps) - 1, 0) if is_later else 0
        steps = np.concatenate([self.steps[head:], steps])
        parts = self._buckets.at(slice(head, None)).then(fresh)
        if not is_later:
            order = np.argsort(steps, kind="stable")
            steps, parts = steps[order], parts.at(order)
        starts = starts_of(steps, self.exponent)
        self.steps = np.concatenate([self.steps[:head], steps[starts]])
        self._buckets = self._buckets.at(slice(head)).then(merge(parts, starts))
        self._fit()

    def _fit(self) -> None:
        """Merge neighbours until there are few enough."""
        while len(self.steps) > self._points:
            self.exponent += 1
            starts = starts_of(self.steps, self.exponent)
            if len(starts) < len(self.steps):
                self.steps = self.steps[starts]
                self._buckets = merge(self._buckets, starts)

    def _newest(self) -> FloatArray:
        mean = self._buckets.mean
        if not len(self) or self.is_exact:
            return _newer(mean, None)
        oldest = int(self.steps[-1 - self._reach :][0])
        newest = slice(oldest, self._window and self._window[1])
        wanted = ["step", self._key, *self._read]
        rows = self._run.rows(self._table, wanted, self._names, newest)
        steps, values = self._values(rows)
        return _newer(values[np.argsort(steps, kind="stable")], _newer(mean, None))


def _newer(values: FloatArray, before: FloatArray | None) -> FloatArray:
    """The last row of each curve that has one, shape (columns, curves)."""
    newest = np.full(values.shape[1:], np.nan) if before is None else before.copy()
    if not len(values):
        return newest
    is_there: npt.NDArray[np.bool_] = np.asarray(~np.isnan(values).all(axis=1))
    if values.shape[2] == 1:
        is_there[:] = True  # it has all of these rows: a NaN was measured
    curves = np.flatnonzero(is_there.any(axis=0))
    rows = len(values) - 1 - is_there[::-1, curves].argmax(axis=0)
    newest[:, curves] = values[rows, :, curves].T
    return newest
