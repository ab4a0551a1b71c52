"""Some curves of a table as they are by now, and a cursor for what comes after that."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from dynoscope.reader.files import read_nothing
from dynoscope.reader.footers import EVERYTHING, Window
from dynoscope.reader.levels import FINE_ROWS, Overview, exponent_of, reduced
from dynoscope.reader.sources import Source, retried, sources_in

__all__ = ["Settled", "rows_in", "settled"]


class Settled(NamedTuple):
    """What the files of a table hold to which nothing is added any more.

    Attributes:
        overviews: each metric in buckets, all of one width.
        number: of the first file after them: where a cursor is to start.
    """

    overviews: dict[str, Overview]
    number: int


def settled(
    folder: Path,
    metrics: Sequence[str],
    names: Sequence[Any] | None,
    window: Window,
    points: int,
    among: int = 1,
    exact: int | None = None,
    *,
    only_means: bool = False,
) -> Settled:
    """Metrics of all files but a journal that may be growing.

    They are rows as they were recorded if that is few enough of them, else minimum,
    mean and maximum of buckets.

    Args:
        folder: the table's folder.
        metrics: its columns, numbers.
        names: curves in the order wanted; None for all there are.
        window: which steps.
        points: how many buckets there may be.
        among: how many curves the table has, as far as it is known.
        exact: measured steps up to which rows are read as they are, `points` if None.
        only_means: whether minimum and maximum may be the mean instead.
    """
    asked = window._replace(curves=names)
    is_loose = names is not None and len(names) == among
    most = points if exact is None else exact

    def look() -> Settled:
        problems: list[str] = []
        sources = sources_in(folder, problems)
        number = sources[-1].file.last + 1 if sources else 0
        if sources and not sources[-1].file.is_part:
            number = sources.pop().file.number
        near = sum(source.rows_near(asked) for source in sources)
        measured = min(near, _rows_near(sources, window) // among)
        if measured <= most and near <= FINE_ROWS:
            exponent = 0
        else:
            exponent = exponent_of(sources, asked, points)
        loose = asked._replace(is_loose=is_loose)
        found = reduced(sources, metrics, names, loose, exponent, problems, only_means)
        return Settled(found, number)

    return retried(folder, look)


def rows_in(
    folder: Path, columns: Sequence[str], names: Sequence[Any] | None, window: Window
) -> pa.Table:
    """Rows of some curves inside a window, in any order.

    Args:
        folder: the table's folder.
        columns: columns to read.
        names: the curves, None for all.
        window: which steps.
    """
    asked = window._replace(curves=names)
    schema = read_nothing(folder.name, columns).schema

    def look() -> pa.Table:
        pieces = [schema.empty_table()]
        for source in sources_in(folder, []):
            if source.footer is None or source.rows_near(asked):
                rows = source.read(columns, asked, [])
                pieces.append(
                    rows.select([n for n in columns if n in rows.column_names])
                )
        return pa.concat_tables(pieces, promote_options="permissive")

    return retried(folder, look)


def _rows_near(sources: Sequence[Source], window: Window) -> int:
    """Rows of all curves inside a window, about."""
    if window == EVERYTHING:
        return sum(source.footer.rows for source in sources if source.footer)
    return sum(source.rows_near(window) for source in sources)
