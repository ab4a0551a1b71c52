"""What is new in a table since the last look."""

import collections
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa

from dynoscope.reader.cuts import branches_of, pending_cut
from dynoscope.reader.files import (
    list_files,
    read_nothing,
    read_rest,
    read_since,
    read_tail,
    rows_of,
)
from dynoscope.schema.folder import TableFile

__all__ = ["Cursor"]


class Cursor:
    """Reads a table's rows once each, in the order they were written.

    A look at a table in which nothing is new lists a folder and reads no rows,
    however long the run is. What it stands in the middle of may be sealed meanwhile.

    Once a resumed training has superseded rows, which this cursor may have given out,
    it gives nothing more: make a new one.

    Args:
        run: the run's folder.
        table: name of the table.
        bring: called with the table's name before each look, to bring the folder up
            to date.
        columns: columns to read, `step` among them; None for all.
        start: number of the first file to read; what is in those before is passed over.

    Attributes:
        problems: what could not be read, by file.
    """

    def __init__(
        self,
        run: Path,
        table: str,
        bring: Callable[[str], None] = lambda table: None,
        columns: Sequence[str] | None = None,
        start: int = 0,
    ) -> None:
        self._run, self._table, self._columns = run, table, columns
        self._bring = bring
        self._number = start  # file that is being read
        self._rows = 0  # rows of it that have been read
        self._offset = 0  # where its next rows begin, while it is a journal
        bring(table)
        self._branches = branches_of(run)
        self._held: collections.deque[pa.Table] = collections.deque()  # read ahead
        self.problems: dict[str, str] = {}

    def skip(self) -> None:
        """Pass over all that is there by now; the next poll gives what comes then."""
        self._bring(self._table)
        self._held.clear()
        files = list_files(self._run, self._table)
        while files:
            newest = files[-1]
            try:
                if newest.is_part:
                    self._go_to(newest.last + 1)
                else:
                    self._go_to(newest.number)
                    self._read_journal(self._run / self._table / newest.name)
                return
            except FileNotFoundError:  # a journal has just become a part
                files = list_files(self._run, self._table)

    def poll(self, limit: int | None = None) -> pa.Table:
        """Rows that are new since the last poll; an empty table if none is.

        Args:
            limit: start on no further file once there are this many rows; the
                next poll goes on from there. A segment counts as the files that it
                was made of.
        """
        self._bring(self._table)
        cut = pending_cut(self._run, self._branches)
        pieces = [read_nothing(self._table, self._columns)]
        self._give(pieces, limit)
        for file in list_files(self._run, self._table):
            if self._is_full(pieces, limit):
                break
            if file.last < self._number:
                continue
            if file.number > self._number:
                self._go_to(file.number)
            path = self._run / self._table / file.name
            try:
                if file.is_part:
                    fresh = self._read_parquet(path, file)
                else:
                    fresh = self._read_journal(path)
            except FileNotFoundError:
                break  # it has just been replaced: the next poll sees by what
            counted = cut.narrow(self._table, file.number)
            self._held += (
                fresh if counted is None else [f.filter(counted) for f in fresh]
            )
            self._give(pieces, limit)
        if branches_of(self._run) != self._branches:
            self._held.clear()
            del pieces[1:]
        return pa.concat_tables(pieces)

    def _give(self, pieces: list[pa.Table], limit: int | None) -> None:
        while self._held and not self._is_full(pieces, limit):
            pieces.append(self._held.popleft())

    @staticmethod
    def _is_full(pieces: list[pa.Table], limit: int | None) -> bool:
        return limit is not None and sum(map(len, pieces)) >= limit

    def _go_to(self, number: int) -> None:
        self._number, self._rows, self._offset = number, 0, 0

    def _read_parquet(self, path: Path, file: TableFile) -> list[pa.Table]:
        """What is new in a part, or in a segment that has taken its place."""
        if file.is_segment:
            seen = (self._number - file.number, self._rows)
            fresh, problem = read_since(path, self._table, self._columns, *seen)
        else:
            # A part has its journal's rows in the same order.
            rows, problem = read_rest(path, self._table, self._columns, self._rows)
            fresh = [rows]
        self._go_to(file.last + 1)
        self._note(path, problem)
        return fresh

    def _read_journal(self, path: Path) -> list[pa.Table]:
        """What is new in a journal."""
        if path.stat().st_size == self._offset:
            return []
        tail = read_tail(path, self._offset)
        rows = rows_of(tail, self._table)
        self._offset = tail.offset
        self._rows += rows.num_rows
        self._note(path, tail.problem)
        return [rows.select(self._columns or rows.column_names)]

    def _note(self, path: Path, problem: str) -> None:
        if problem:
            self.problems[path.name] = problem
        else:
            self.problems.pop(path.name, None)
