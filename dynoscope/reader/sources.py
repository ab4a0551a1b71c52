"""The files of a table that count, and what is asked for of each."""

import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dynoscope.reader.cuts import branches_of, pending_cut
from dynoscope.reader.files import UNREADABLE, damage, read_file
from dynoscope.reader.footers import EVERYTHING, Footer, Window, footer_of
from dynoscope.schema import TABLES
from dynoscope.schema.folder import (
    LEVELS,
    SORTED_BY,
    TableFile,
    current_files,
)

__all__ = ["Source", "damage_in", "numbers", "retried", "sources_in"]

_T = TypeVar("_T")

RETRIES: Final = 5
"""How often a look is repeated at files that are replaced meanwhile."""


class Source(NamedTuple):
    """A file of a table.

    Attributes:
        folder: the table's folder.
        file: the file; it counts.
        footer: its footer, None of a journal.
        levels: the footer of the levels beside it, None if there are none.
        stop: rows from this step on do not count: a resumed training supersedes
            them, and they are about to go.
    """

    folder: Path
    file: TableFile
    footer: Footer | None
    levels: Footer | None
    stop: int

    @property
    def key(self) -> str:
        """The column that tells curves apart."""
        return SORTED_BY.get(self.folder.name, "layer")

    def steps(self) -> tuple[int, int] | None:
        """First and last step, None if there is no row."""
        if self.footer is not None and self.stop == EVERYTHING.stop:
            return self.footer.steps
        steps = self.read(["step"], EVERYTHING, [])["step"]
        ends = pc.min_max(steps).as_py()
        return (ends["min"], ends["max"]) if len(steps) else None

    def rows_near(self, window: Window) -> int:
        """Rows that are looked at for what is asked for."""
        return 0 if self.footer is None else self.footer.rows_near(window)

    def read(
        self, columns: Sequence[str], window: Window, problems: list[str]
    ) -> pa.Table:
        """Rows inside a window, in any order; a column that is not there is left out.

        Args:
            columns: columns to read.
            window: what is asked for.
            problems: is told why not all of them can be read.

        Raises:
            FileNotFoundError: the file has been replaced.
        """
        window = window._replace(stop=min(window.stop, self.stop))
        if self.footer is None:
            rows, problem = read_file(
                self.folder, self.file, columns, window.where(self.key)
            )
            problems += [problem] if problem else []
            return rows
        try:
            return self.footer.read(columns, window)
        except FileNotFoundError:
            raise
        except UNREADABLE as error:
            problems.append(damage(self.folder / self.file.name, error))
            return self.footer.nothing(columns)

    def pieces(
        self, columns: Sequence[str], window: Window, problems: list[str]
    ) -> Iterator[pa.Table]:
        """Rows as the file has them in pieces, those inside a window among others.

        Arguments and errors are those of `read`; names of curves may come as a
        dictionary. Who gets any of a damaged file is told after the last of them.
        """
        if self.footer is None or window.stop > self.stop:
            yield self.read(columns, window, problems)
            return
        try:
            yield from self.footer.groups(columns, window)
        except FileNotFoundError:
            raise
        except UNREADABLE as error:
            problems.append(damage(self.folder / self.file.name, error))


def sources_in(folder: Path, problems: list[str]) -> list[Source]:
    """The files of a table that count and can be read, in the order of their rows.

    Args:
        folder: the table's folder.
        problems: is told which ones cannot be read.

    Raises:
        FileNotFoundError: one has just been replaced.
    """
    listed = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    beside = folder.parent / LEVELS
    levels = {path.name for path in beside.glob(f"{folder.name}-*")}
    key, found = SORTED_BY.get(folder.name, "layer"), []
    cut = pending_cut(folder.parent, branches_of(folder.parent))
    for file in current_files(listed):
        is_cut = file.number < cut.ends.get(folder.name, 0)
        coarse = file.levels(folder.name)
        has_levels = file.is_segment and coarse in levels and not is_cut
        stop = cut.step if is_cut else EVERYTHING.stop
        try:
            footer = footer_of(folder / file.name, key) if file.is_part else None
            of_levels = footer_of(beside / coarse, key) if has_levels else None
            found.append(Source(folder, file, footer, of_levels, stop))
        except FileNotFoundError:
            raise
        except UNREADABLE as error:
            problems.append(damage(folder / file.name, error))
    return found


def retried(folder: Path, look: Callable[[], _T]) -> _T:
    """Look at a table again if files are replaced while we read.

    Raises:
        FileNotFoundError: that happens all the time.
    """
    for _ in range(RETRIES):
        branches = branches_of(folder.parent)
        try:
            found = look()
        except FileNotFoundError:
            continue
        if branches_of(folder.parent) == branches:
            return found  # else, rows of some files may have moved, of others not yet
    raise FileNotFoundError(f"the files of {folder} keep vanishing")


def numbers(rows: pa.Table, name: str) -> npt.NDArray[Any]:
    """A column; NaN if an older dynoscope did not write it."""
    # To ask `column_names` would list all of them, which takes ten times as long.
    at = rows.schema.get_field_index(name)
    if at < 0:
        return np.full(len(rows), np.nan)
    values: npt.NDArray[Any] = rows.column(at).to_numpy()
    return values


def damage_in(run: Path) -> list[str]:
    """What cannot be read of a run that is over, as far as its files tell at once."""
    problems: list[str] = []

    def look(folder: Path) -> None:
        for source in sources_in(folder, problems):
            if source.footer is None:
                source.read(["step"], EVERYTHING, problems)

    for name in TABLES:
        retried(run / name, functools.partial(look, run / name))
    return list(dict.fromkeys(problems))
