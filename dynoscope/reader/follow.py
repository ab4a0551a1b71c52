"""Some curves of a table as they are by now, and a cursor for what comes after that."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Generic, NamedTuple, TypeAlias, TypeVar

import pyarrow as pa

from dynoscope.reader.files import completed, read_nothing
from dynoscope.reader.footers import EVERYTHING, Window
from dynoscope.reader.levels import FINE_ROWS, Overview, exponent_of, level_of, reduced
from dynoscope.reader.sources import Source, retried, sources_in

__all__ = ["Piece", "Settled", "Take", "rows_in", "settled"]

MEANS_ROWS: Final = 1 << 18
"""Rows of levels that are read of which only means are wanted: as a rule, those of many
curves, for one."""

Piece: TypeAlias = pa.Table | dict[str, Overview]
"""What is in a file: its rows, in any order, or each metric in buckets."""

_T = TypeVar("_T")

Take: TypeAlias = Callable[[Iterator[Piece], int], _T]
"""Is given the pieces, one file after the other, and the exponent k of their buckets
of 2**k steps, if any; anew, from the first, if files are replaced meanwhile."""


class Settled(NamedTuple, Generic[_T]):
    """What the files of a table hold to which nothing is added any more.

    Attributes:
        taken: what has been made of it.
        problems: what could not be read.
        number: of the first file after them: where a cursor is to start.
    """

    taken: _T
    problems: list[str]
    number: int


def settled(
    folder: Path,
    take: Take[_T],
    metrics: Sequence[str],
    names: Sequence[Any] | None,
    window: Window,
    points: int,
    among: int = 1,
    exact: int | None = None,
    *,
    only_means: bool = False,
) -> Settled[_T]:
    """Metrics of all files but a journal that may be growing.

    Levels are read where there are more measured steps than can be shown, of files
    that have some.

    Args:
        folder: the table's folder.
        take: what to do with them; so they need not be in memory all at once.
        metrics: its columns, numbers.
        names: curves in the order wanted; None for all there are.
        window: which steps.
        points: how many buckets there may be.
        among: how many curves the table has, as far as it is known.
        exact: measured steps up to which rows are read as they are, `points` if None.
        only_means: whether minimum and maximum may be the mean instead.
    """
    asked = window._replace(curves=names)
    is_loose = names is None or len(names) == among
    most = points if exact is None else exact

    def look() -> Settled[_T]:
        problems: list[str] = []
        sources = sources_in(folder, problems)
        number = sources[-1].file.last + 1 if sources else 0
        if sources and not sources[-1].file.is_part:
            number = sources.pop().file.number
        near = sum(source.rows_near(asked) for source in sources)
        measured = min(near, _rows_near(sources, window) // among)
        is_short = measured <= most and near <= FINE_ROWS
        limit = MEANS_ROWS if only_means else FINE_ROWS
        exponent = 0 if is_short else exponent_of(sources, asked, points, limit)
        loose = asked._replace(is_loose=is_loose)

        def piece(source: Source) -> Piece:
            if level_of(source, exponent) is None:
                wanted = ["step", source.key, *metrics]
                rows = source.read(wanted, loose, problems)
                return _completed(rows, folder.name, wanted)
            asked_for = metrics, names, loose, exponent, problems
            return reduced([source], *asked_for, only_means=only_means)

        return Settled(take(map(piece, sources), exponent), problems, number)

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

    def look() -> pa.Table:
        pieces = [read_nothing(folder.name, columns)]
        for source in sources_in(folder, []):
            if source.footer is None or source.rows_near(asked):
                rows = source.read(columns, asked, [])
                pieces.append(_completed(rows, folder.name, columns))
        return pa.concat_tables(pieces)

    return retried(folder, look)


def _completed(rows: pa.Table, table: str, columns: Sequence[str]) -> pa.Table:
    return completed(rows, read_nothing(table, columns).schema)


def _rows_near(sources: Sequence[Source], window: Window) -> int:
    """Rows of all curves inside a window, about."""
    if window == EVERYTHING:
        return sum(source.footer.rows for source in sources if source.footer)
    return sum(source.rows_near(window) for source in sources)
