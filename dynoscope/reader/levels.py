"""A metric of all layers over a whole run, in as many buckets as a screen has room for.

Files that have levels are read in coarse; what is not sealed yet is reduced here.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dynoscope.measurement import FloatArray
from dynoscope.metrics.buckets import Buckets, bucket, merge, places_of, starts_of
from dynoscope.reader.footers import EVERYTHING, Footer, Window
from dynoscope.reader.sources import Source, numbers, retried, sources_in
from dynoscope.schema.levels import bucket_columns

__all__ = [
    "FINE_ROWS",
    "Overview",
    "exponent_for",
    "exponent_of",
    "in_buckets",
    "level_of",
    "overviews",
    "reduced",
]

FINE_ROWS: Final = 1 << 21
"""Rows that are read rather than those of a level that is too coarse."""

_ALL: Final = (0, 1, 2, 3)
_KEPT: Final = (1, 1, 1, 3)
"""Of `bucket_columns`, those that stand for minimum, mean, maximum and count, where
all are wanted and where only means are."""

IntArray = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class Overview:
    """A metric in coarse, buckets x curves.

    Attributes:
        step: first measured step of each bucket, ascending, shape (buckets,).
        width: steps of a bucket; 1 if these are all rows as they were recorded.
        names: the curves: layers; of scalars names, of groups numbers.
        min: smallest value that is not NaN, shape (buckets, curves), float64; NaN
            where there is none.
        mean: their mean.
        max: the largest.
        count: how many they are, int64.
        problems: what could not be read, by file.
    """

    step: IntArray
    width: int
    names: list[Any]
    min: FloatArray
    mean: FloatArray
    max: FloatArray
    count: IntArray
    problems: list[str]


class _Piece(NamedTuple):
    """Buckets from one file: names and first steps of shape (buckets,)."""

    curves: pa.Array
    steps: IntArray
    metrics: dict[str, Buckets]


def overviews(
    folder: Path,
    metrics: Sequence[str],
    names: Sequence[Any] | None = None,
    window: Window = EVERYTHING,
    points: int = 1000,
) -> dict[str, Overview]:
    """Metrics of a table in at most about `points` buckets, all of one width.

    Args:
        folder: the table's folder.
        metrics: its columns, numbers.
        names: curves in the order wanted; None for all there are.
        window: which steps.
        points: how many buckets.
    """
    exponent = exponent_for(folder, window, points)
    return in_buckets(folder, metrics, names, window, exponent)


def in_buckets(
    folder: Path,
    metrics: Sequence[str],
    names: Sequence[Any] | None,
    window: Window,
    exponent: int,
    *,
    only_means: bool = False,
) -> dict[str, Overview]:
    """Metrics of a table in buckets of 2**exponent steps; see `reduced`."""
    if names is not None:
        window = window._replace(curves=names, is_loose=True)

    def look() -> dict[str, Overview]:
        problems: list[str] = []
        sources = sources_in(folder, problems)
        return reduced(sources, metrics, names, window, exponent, problems, only_means)

    return retried(folder, look)


def reduced(
    sources: Sequence[Source],
    metrics: Sequence[str],
    names: Sequence[Any] | None,
    window: Window,
    exponent: int,
    problems: list[str],
    only_means: bool = False,
) -> dict[str, Overview]:
    """Metrics of some files of a table in buckets of 2**exponent steps.

    Minimum, mean, maximum and count are those of all rows in the bucket, whatever
    they are computed from; of float32 columns, means are rounded to that. Buckets
    at the ends of the window may reach beyond it.

    Args:
        sources: the files.
        metrics: columns, numbers.
        names: curves in the order wanted; None for all there are.
        window: what is asked for, `names` among it.
        exponent: how wide buckets are.
        problems: is told what cannot be read.
        only_means: whether minimum and maximum may be the mean instead.

    Raises:
        FileNotFoundError: a file has been replaced.
    """
    pieces = [
        _piece(source, metrics, window, exponent, problems, only_means)
        for source in sources
    ]
    there = [piece for piece in pieces if len(piece.steps)]
    return _pivoted(there, metrics, names, exponent, problems, only_means)


def exponent_for(
    folder: Path, window: Window, points: int, most: int = FINE_ROWS
) -> int:
    """How wide buckets must be, as a power of two.

    Args:
        folder: the table's folder.
        window: what is asked for.
        points: how many buckets there may be.
        most: rows, of the tables or of their levels, that may be read for that.
    """
    return retried(
        folder, lambda: exponent_of(sources_in(folder, []), window, points, most)
    )


def exponent_of(
    sources: Sequence[Source], window: Window, points: int, most: int = FINE_ROWS
) -> int:
    """The same of some files; see `exponent_for`."""
    ends = [ends for source in sources if (ends := source.steps()) is not None]
    if not ends:
        return 0
    first = max(min(first for first, _ in ends), window.start)
    last = min(max(last for _, last in ends), window.stop - 1)
    exponent = 0
    while (last >> exponent) - (first >> exponent) >= points:
        exponent += 1
    known = {k for s in sources if s.levels is not None for k in s.levels.levels}
    choices = [exponent, *sorted(level for level in known if level > exponent)]
    costs = [sum(_cost(s, choice, window) for s in sources) for choice in choices]
    enough = next((n for n, cost in enumerate(costs) if cost <= most), None)
    return choices[costs.index(min(costs)) if enough is None else enough]


def level_of(source: Source, exponent: int) -> int | None:
    """The level to read for buckets of 2**exponent steps; None: all rows."""
    known = source.levels.levels if source.levels is not None else []
    return max((level for level in known if level <= exponent), default=None)


def _cost(source: Source, exponent: int, window: Window) -> int:
    """Rows that are looked at for buckets of 2**exponent steps."""
    level = level_of(source, exponent)
    if level is not None and source.levels is not None:
        return source.levels.rows_near(window, level)
    return source.rows_near(window)


def _piece(
    source: Source,
    metrics: Sequence[str],
    window: Window,
    exponent: int,
    problems: list[str],
    only_means: bool,
) -> _Piece:
    level = level_of(source, exponent)
    if level is not None and source.levels is not None:
        kept = _KEPT if only_means else _ALL
        return _read_level(source.levels, level, source.key, metrics, window, kept)
    rows = source.read([source.key, "step", *metrics], window, problems)
    piece = _reduced(rows, source.key, metrics, exponent)
    if only_means:  # the others are let go
        means = {
            name: Buckets(found.mean, found.mean, found.mean, found.known)
            for name, found in piece.metrics.items()
        }
        return piece._replace(metrics=means)
    return piece


def _read_level(
    levels: Footer,
    level: int,
    key: str,
    metrics: Sequence[str],
    window: Window,
    kept: Sequence[int],
) -> _Piece:
    # A bucket counts if it overlaps the window, not only if it begins in it.
    start = (window.start >> level) << level
    columns = {
        name: [bucket_columns(name)[which] for which in kept] for name in metrics
    }
    wanted = dict.fromkeys(
        [key, "step", *(c for each in columns.values() for c in each)]
    )
    rows = levels.read([*wanted], window._replace(start=start), level)
    found = {
        name: Buckets(*(numbers(rows, column) for column in columns[name]))
        for name in metrics
    }
    return _Piece(rows[key].combine_chunks(), rows["step"].to_numpy(), found)


def _reduced(rows: pa.Table, key: str, metrics: Sequence[str], exponent: int) -> _Piece:
    """Buckets of rows in any order."""
    curves = rows[key].combine_chunks()
    codes = curves.dictionary_encode().indices.to_numpy().astype(np.int64)
    steps = rows["step"].to_numpy()
    places, order = places_of(codes, steps), None
    if (places[1:] < places[:-1]).any():
        order = np.argsort(places, kind="stable")
        places = places[order]
    starts = starts_of(places, exponent)
    found = {}
    for name in metrics:
        values = numbers(rows, name)
        found[name] = bucket(values if order is None else values[order], starts)
    first = starts if order is None else order[starts]
    return _Piece(curves.take(pa.array(first)), steps[first], found)


def _pivoted(
    pieces: Sequence[_Piece],
    metrics: Sequence[str],
    names: Sequence[Any] | None,
    exponent: int,
    problems: list[str],
    only_means: bool,
) -> dict[str, Overview]:
    """Pieces put together, as arrays of buckets x curves."""
    curves = pa.chunked_array([piece.curves for piece in pieces], _type_of(pieces))
    listed = curves.unique().to_pylist() if names is None else list(names)
    index = pc.index_in(curves, pa.array(listed, curves.type))
    at = index.fill_null(len(listed)).to_numpy().astype(np.int64)
    steps = np.concatenate([np.empty(0, np.int64), *(p.steps for p in pieces)])
    buckets, row = np.unique(steps >> exponent, return_inverse=True)
    first = np.full(len(buckets), np.iinfo(np.int64).max)
    np.minimum.at(first, row, steps)
    order = np.argsort(places_of(at, row), kind="stable")
    starts = starts_of(places_of(at, row)[order], 0)
    target = row[order][starts], at[order][starts]
    shape = len(buckets), len(listed) + 1  # the last one: curves not asked for
    found = {}
    for name in metrics:
        nothing = Buckets(*np.empty((4, 0)))
        joined = zip(nothing, *(piece.metrics[name] for piece in pieces), strict=True)
        parts = Buckets(*(np.concatenate(each)[order] for each in joined))
        merged = merge(parts, starts)
        mean, known = (
            _scattered(values, target, shape)[:, :-1]
            for values in (merged.mean, merged.known)
        )
        least, most = mean, mean
        if not only_means:
            least = _scattered(merged.least, target, shape)[:, :-1]
            most = _scattered(merged.most, target, shape)[:, :-1]
        count = np.nan_to_num(known).astype(np.int64)
        found[name] = Overview(
            first, 1 << exponent, listed, least, mean, most, count, problems
        )
    return found


def _type_of(pieces: Sequence[_Piece]) -> pa.DataType:
    return pieces[0].curves.type if pieces else pa.string()


def _scattered(
    values: npt.NDArray[Any],
    target: tuple[IntArray, IntArray],
    shape: tuple[int, int],
) -> FloatArray:
    array = np.full(shape, np.nan)
    array[target] = values
    return array
