"""One curve of a run, thinned for the screen."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from dynoscope.measurement import FloatArray
from dynoscope.reader.footers import Window
from dynoscope.reader.levels import exponent_for, in_buckets, overviews
from dynoscope.reader.rollup import needed_for, roll_up_columns
from dynoscope.reader.sources import numbers, retried, sources_in
from dynoscope.reader.thin import thin
from dynoscope.reader.turns import as_of_last_turns
from dynoscope.schema.levels import numbers_of

__all__ = ["Columns", "Kind", "Series", "curve", "layer_columns", "rolled_curve"]

MOST_ROWS: Final = 1 << 23
"""Rows that are looked at for one curve; where it takes more, a level is read."""

EXTREMES: Final = 8
"""Buckets that are read for a point of the screen, if a level is read."""

ROLLED_ROWS: Final = 1 << 18
"""Rows that are rolled up: every one, or else means of buckets."""

AT_ONCE: Final = 8
"""Columns that are read at once for that, so that it needs little memory."""

FEW_ROWS: Final = 1 << 14
"""Rows of which all columns are read at once: they need little in any case."""

Kind: TypeAlias = Literal["all", "thinned", "extremes", "means"]

IntArray = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class Series:
    """A curve.

    Attributes:
        step: ascending, shape (points,).
        value: shape (points,), float64.
        kind: `all`: every row there is; `thinned`: those rows that keep the look of
            the curve; `extremes`: the same of the smallest and largest values of
            buckets, at the bucket's first step; `means`: a roll-up of the means of
            buckets, see `Run.series`.
        problems: what could not be read, by file.
    """

    step: IntArray
    value: FloatArray
    kind: Kind
    problems: list[str]


@dataclasses.dataclass(frozen=True)
class Columns:
    """Columns of `layers`, as a roll-up takes them.

    Attributes:
        step: ascending, shape (steps,).
        arrays: by name, shape (steps, layers), float64.
        width: 1 if these are all rows; else they are means over so many steps.
        problems: what could not be read, by file.
    """

    step: IntArray
    arrays: dict[str, FloatArray]
    width: int
    problems: list[str]


def curve(folder: Path, metric: str, name: Any, window: Window, points: int) -> Series:
    """A column of a table for one layer, name or group.

    Args:
        folder: the table's folder.
        metric: the column.
        name: the layer.
        window: which steps.
        points: about how many points at most.
    """
    window = window._replace(curves=[name])
    problems: list[str] = []

    def look() -> tuple[IntArray, FloatArray] | None:
        problems.clear()
        return _rows(folder, metric, window, problems)

    found = retried(folder, look)
    if found is None:
        return _extremes(folder, metric, name, window, points)
    steps, values = found
    kept = thin(steps, values, points)
    kind: Kind = "all" if len(kept) == len(steps) else "thinned"
    return Series(steps[kept], values[kept], kind, problems)


def rolled_curve(
    folder: Path,
    metric: str,
    members: Mapping[str, int],
    turns: IntArray,
    window: Window,
    points: int,
) -> Series:
    """A column of `layers` for a module, rolled up.

    Args:
        folder: the folder of `layers`.
        metric: the column.
        members: the module's layers, and how many elements each has.
        turns: the turn of each.
        window: which steps.
        points: about how many points at most.
    """
    columns = layer_columns(folder, members, window, points, needed_for([metric]))
    with np.errstate(all="ignore"):  # infinite norms are measured, too
        arrays = as_of_last_turns(turns, columns.arrays)
        values = roll_up_columns(arrays, [metric])[metric]
    is_there = ~np.isnan(arrays["nonfinite"]).all(axis=1)
    steps, values = columns.step[is_there], values[is_there]
    kept = thin(steps, values, points)
    kind: Kind = "thinned" if len(kept) < len(values) else "all"
    kind = kind if columns.width == 1 else "means"
    return Series(steps[kept], values[kept], kind, columns.problems)


def layer_columns(
    folder: Path,
    members: Mapping[str, int],
    window: Window,
    points: int,
    metrics: Sequence[str] | None = None,
) -> Columns:
    """Columns of `layers`: every row of some layers, or means of buckets.

    Args:
        folder: the folder of `layers`.
        members: the layers, and how many elements each has.
        window: which steps.
        points: about how many buckets, where there are too many rows.
        metrics: which columns; None for all.
    """
    near = window._replace(curves=list(members))
    sources = retried(folder, lambda: sources_in(folder, []))
    ends = [ends for source in sources if (ends := source.steps()) is not None]
    # What is recorded from now on would be in some of the columns only.
    last = max((last for _, last in ends), default=0)
    window = window._replace(stop=min(window.stop, last + 1))
    rows = sum(source.rows_near(near) for source in sources)
    exponent = (
        0 if rows <= ROLLED_ROWS else exponent_for(folder, near, points, ROLLED_ROWS)
    )
    arrays = dict[str, FloatArray]()
    names = numbers_of("layers") if metrics is None else metrics
    at_once = len(names) if rows <= FEW_ROWS else AT_ONCE
    for start in range(0, len(names), at_once):
        some = names[start : start + at_once]
        found = in_buckets(
            folder, some, list(members), window, exponent, only_means=True
        )
        arrays |= {name: coarse.mean for name, coarse in found.items()}
    coarse = found[some[0]]
    numel = np.array([*members.values()], float)
    arrays["numel"] = np.broadcast_to(numel, coarse.mean.shape)
    return Columns(coarse.step, arrays, coarse.width, coarse.problems)


def _rows(
    folder: Path, metric: str, window: Window, problems: list[str]
) -> tuple[IntArray, FloatArray] | None:
    """All rows of the curve; None if they are too many to look at."""
    sources = sources_in(folder, problems)
    if sum(source.rows_near(window) for source in sources) > MOST_ROWS:
        return None
    pieces = [source.read(["step", metric], window, problems) for source in sources]
    steps = [np.empty(0, np.int64), *(rows["step"].to_numpy() for rows in pieces)]
    values = [np.empty(0), *(numbers(rows, metric) for rows in pieces)]
    return _in_order(np.concatenate(steps), np.concatenate(values))


def _extremes(
    folder: Path, metric: str, name: Any, window: Window, points: int
) -> Series:
    coarse = overviews(folder, [metric], [name], window, EXTREMES * points)[metric]
    steps = np.repeat(coarse.step, 2)
    values = np.stack([coarse.min[:, 0], coarse.max[:, 0]], axis=1).reshape(-1)
    kept = thin(steps, values, points)
    return Series(steps[kept], values[kept], "extremes", coarse.problems)


def _in_order(steps: IntArray, values: FloatArray) -> tuple[IntArray, FloatArray]:
    """Rows by step; those of one step stay in their order."""
    if (np.diff(steps) >= 0).all():
        return steps, values
    order = np.argsort(steps, kind="stable")
    return steps[order], values[order]
