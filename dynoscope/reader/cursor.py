"""What is new in a table since the last look."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from dynoscope.reader.cuts import branches_of, pending_cut
from dynoscope.reader.files import list_files, read_part, read_tail, rows_of
from dynoscope.schema.arrow import arrow_schema

__all__ = ["Cursor"]


class Cursor:
    """Reads a table's rows once each, in the order they were written.

    A look at a table in which nothing is new lists a folder and reads no rows,
    however long the run is.

    Once a resumed training has superseded rows, which this cursor may have given out,
    it gives nothing more: make a new one.

    Args:
        run: the run's folder.
        table: name of the table.
        bring: called with the table's name before each look, to bring the folder up
            to date.

    Attributes:
        problems: what could not be read, by file.
    """

    def __init__(
        self, run: Path, table: str, bring: Callable[[str], None] = lambda table: None
    ) -> None:
        self._run, self._table, self._bring = run, table, bring
        self._number = 0  # file that is being read
        self._rows = 0  # rows of it that have been given out
        self._offset = 0  # where its next rows begin, while it is a journal
        bring(table)
        self._branches = branches_of(run)
        self.problems: dict[str, str] = {}

    def poll(self, limit: int | None = None) -> pa.Table:
        """Rows that are new since the last poll; an empty table if none is.

        Args:
            limit: start on no further file once there are this many rows; the
                next poll goes on from there.
        """
        self._bring(self._table)
        pieces: list[pa.Table] = []
        cut = pending_cut(self._run, self._branches)
        for file in list_files(self._run, self._table):
            if limit is not None and sum(map(len, pieces)) >= limit:
                break
            if file.number < self._number:
                continue
            if file.number > self._number:
                self._number, self._rows, self._offset = file.number, 0, 0
            path = self._run / self._table / file.name
            try:
                piece = self._rest_of(path, file.is_part)
            except FileNotFoundError:
                break  # a journal has just become a part: the next poll sees it
            counted = cut.narrow(self._table, file.number)
            pieces.append(piece if counted is None else piece.filter(counted))
        if branches_of(self._run) != self._branches:
            pieces.clear()
        pieces.append(arrow_schema(self._table).empty_table())
        return pa.concat_tables(pieces)

    def _rest_of(self, path: Path, is_part: bool) -> pa.Table:
        if is_part:
            # A part has its journal's rows in the same order.
            table, problem = read_part(path, self._table)
            fresh = table.slice(self._rows)
            self._number, self._rows, self._offset = self._number + 1, 0, 0
        else:
            if path.stat().st_size == self._offset:
                return arrow_schema(self._table).empty_table()
            tail = read_tail(path, self._offset)
            fresh = rows_of(tail, self._table)
            self._offset, problem = tail.offset, tail.problem
            self._rows += fresh.num_rows
        if problem:
            self.problems[path.name] = problem
        else:
            self.problems.pop(path.name, None)
        return fresh
