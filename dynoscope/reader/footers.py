"""What is where in a Parquet file, by its footer; only what is asked for is read."""

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pyarrow import fs

__all__ = ["EVERYTHING", "Footer", "Window", "footer_of"]

REMEMBERED: Final = 512
"""Footers that are kept in memory, of files that do not change."""


class Window(NamedTuple):
    """What is asked for of a table.

    Attributes:
        curves: names of layers (of scalars, numbers of groups), None for all.
        start: first step.
        stop: first step that is not asked for.
        is_loose: whether rows of other curves may come along.
    """

    curves: Sequence[Any] | None = None
    start: int = -(1 << 42)
    stop: int = 1 << 42
    is_loose: bool = False

    def where(self, key: str) -> pc.Expression:
        """The rows inside, where `key` is the column that tells curves apart."""
        inside = (pc.field("step") >= self.start) & (pc.field("step") < self.stop)
        if self.curves is None or self.is_loose:
            return inside
        return inside & pc.field(key).isin(list(self.curves))


EVERYTHING: Final = Window()


class _Group(NamedTuple):
    """A row group: how many rows it has, and between what they lie."""

    rows: int
    curves: tuple[Any, Any] | None
    steps: tuple[int, int] | None
    level: int | None

    def meets(self, window: Window) -> bool:
        if self.steps and (
            self.steps[1] < window.start or self.steps[0] >= window.stop
        ):
            return False
        if self.curves is None or window.curves is None:
            return True
        least, most = self.curves
        return any(least <= curve <= most for curve in window.curves)


class Footer:
    """A Parquet file of a table.

    Args:
        path: the file.
        key: the column that tells curves apart.

    Attributes:
        rows: how many it has.
        steps: first and last step; None if there are no rows, or nobody knows.
        levels: which levels it has, none if it is no file of levels.
        columns: names of its columns.

    Raises:
        OSError: it cannot be read, or is no Parquet file.
        pyarrow.ArrowException: it is damaged.
    """

    def __init__(self, path: Path, key: str) -> None:
        self._path, self._metadata = path, pq.read_metadata(path)
        self._key = key
        self.columns = self._metadata.schema.to_arrow_schema().names
        self._groups = [self._group(n) for n in range(self._metadata.num_row_groups)]
        self.rows = sum(group.rows for group in self._groups)
        known = [group.steps for group in self._groups if group.steps is not None]
        self.steps = (
            (min(first for first, _ in known), max(last for _, last in known))
            if known
            else None
        )
        self.levels = sorted({g.level for g in self._groups if g.level is not None})

    def rows_near(self, window: Window, level: int | None = None) -> int:
        """Rows that must be looked at for what is asked for, of a level if given."""
        groups = (group for group in self._groups if group.level == level)
        return sum(group.rows for group in groups if group.meets(window))

    def read(
        self, columns: Sequence[str], window: Window, level: int | None = None
    ) -> pa.Table:
        """Rows inside a window, in the order of the file.

        Args:
            columns: columns to read, of those that there are.
            window: what is asked for; of levels, all buckets that begin in it.
            level: of a file of levels, the one to read.
        """
        wanted = [
            n
            for n, group in enumerate(self._groups)
            if group.level == level and group.meets(window)
        ]
        there = [name for name in columns if name in self.columns]
        needed = list(dict.fromkeys([*there, "step", self._key]))
        file = pq.ParquetFile(self._path, metadata=self._metadata)
        with file:
            rows = file.read_row_groups(wanted, columns=needed)
        return rows.filter(window.where(self._key)).select(there)

    def groups(self, columns: Sequence[str], window: Window) -> Iterator[pa.Table]:
        """Row groups that rows inside a window may be in, one at a time and whole.

        Args:
            columns: columns to read, of those that there are; names of curves come
                as a dictionary.
            window: what is asked for.
        """
        there = [name for name in columns if name in self.columns]
        wanted = [n for n, group in enumerate(self._groups) if group.meets(window)]
        read = ds.ParquetReadOptions(dictionary_columns=[self._key])
        files = ds.ParquetFileFormat(read_options=read)
        whole = files.make_fragment(str(self._path), fs.LocalFileSystem())
        batches = whole.subset(row_group_ids=wanted).to_batches(
            columns=there,
            batch_size=max((group.rows for group in self._groups), default=1),
            batch_readahead=1,
            use_threads=False,
            # Arrow's own pool gives memory back at once, and the system clears it anew.
            memory_pool=pa.system_memory_pool(),
        )
        for batch in batches:
            yield pa.Table.from_batches([batch])

    def nothing(self, columns: Sequence[str]) -> pa.Table:
        """No rows."""
        schema = self._metadata.schema.to_arrow_schema()
        there = [schema.field(name) for name in columns if name in self.columns]
        return pa.schema(there).empty_table()

    def _group(self, number: int) -> _Group:
        group = self._metadata.row_group(number)
        found: dict[str, Any] = {}
        for n, name in enumerate(self.columns):
            if name in ("step", "level", self._key):
                statistics = group.column(n).statistics
                if statistics is not None and statistics.has_min_max:
                    found[name] = (statistics.min, statistics.max)
        level = found.get("level")
        return _Group(
            group.num_rows, found.get(self._key), found.get("step"), level and level[0]
        )


def footer_of(path: Path, key: str = "layer") -> Footer:
    """The footer of a file, read once as long as the file is the same.

    Raises:
        FileNotFoundError: there is no such file (any more).
        OSError: it cannot be read, or is no Parquet file.
        pyarrow.ArrowException: it is damaged.
    """
    status = path.stat()
    stamp = status.st_mtime_ns, status.st_size, status.st_ino
    return _remembered(path, key, *stamp)


@functools.lru_cache(REMEMBERED)
def _remembered(path: Path, key: str, *stamp: int) -> Footer:
    return Footer(path, key)
