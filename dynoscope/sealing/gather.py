"""The rows of several files, a column at a time: memory is the training's."""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dynoscope.errors import DynoscopeError
from dynoscope.reader.files import UNREADABLE, completed, damage, read_file, starts_in
from dynoscope.schema.arrow import arrow_schema
from dynoscope.schema.folder import ROW, TableFile

__all__ = ["DamagedError", "Gathered"]

ROW_FIELD: Final = pa.field(ROW, pa.int64(), nullable=False)


class DamagedError(DynoscopeError):
    """A file cannot be read whole, so it is not to be replaced."""

    def __init__(self, problem: str, file: TableFile) -> None:
        super().__init__(problem)
        self.file = file


class Gathered:
    """Consecutive files of a table, as one; use it as a context.

    Args:
        folder: the table's folder.
        files: files that count, and that nobody writes any more.

    Attributes:
        schema: of the table, with each row's place.
        starts: for each number that they cover the place at which its rows begin,
            then how many places there are.

    Raises:
        DamagedError: one of them cannot be read whole.
        FileNotFoundError: one of them is gone.
    """

    def __init__(self, folder: Path, files: Sequence[TableFile]) -> None:
        self.schema = arrow_schema(folder.name).append(ROW_FIELD)
        self.starts: list[int] = []
        self._pieces: list[tuple[_Piece, int]] = []
        end = 0
        for file in files:
            gap = file.number - files[0].number - len(self.starts)
            self.starts += [end] * gap
            piece = _Piece(folder, file)
            self._pieces.append((piece, end))
            self.starts += [end + start for start in piece.starts[:-1]]
            end += piece.starts[-1]
        self.starts.append(end)

    def __enter__(self) -> "Gathered":
        """Begin to read."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the files."""
        for piece, _ in self._pieces:
            piece.close()

    def column(self, name: str) -> pa.Array:
        """A column of all rows, file after file; strings are coded by a dictionary.

        Raises:
            DamagedError: a file cannot be read whole.
        """
        field = self.schema.field(name)
        arrays = []
        for piece, end in self._pieces:
            array = piece.column(field)
            if name == ROW:
                array = pa.array(array.to_numpy() + end)
            elif pa.types.is_string(array.type):
                array = array.dictionary_encode()
            arrays.append(array)
        return pa.chunked_array(arrays).unify_dictionaries().combine_chunks()


class _Piece:
    """One of the files."""

    def __init__(self, folder: Path, file: TableFile) -> None:
        self._file, self._path = file, folder / file.name
        self._source: pq.ParquetFile | None = None
        try:
            if file.is_part:
                self._source = pq.ParquetFile(self._path)
                self._names = self._source.schema_arrow.names
                count = self._source.metadata.num_rows
            else:
                self._rows, problem = read_file(folder, file)
                if problem:
                    raise DamagedError(problem, file)
                self._names, count = self._rows.column_names, len(self._rows)
            self.starts = starts_in(self._path) if file.is_segment else [0, count]
        except FileNotFoundError:
            raise
        except UNREADABLE as error:
            raise DamagedError(damage(self._path, error), file) from None

    def column(self, field: pa.Field) -> pa.Array:
        """A column, of a type that the table has today."""
        if field.name == ROW and not self._file.is_segment:
            return pa.array(np.arange(self.starts[-1]))
        # What is not there is made of the steps, or as long as they are.
        wanted = field.name if field.name in self._names else "step"
        try:
            if self._source is None:
                rows = self._rows.select([wanted])
            else:
                # On this thread alone: its priority may be a low one.
                rows = self._source.read(columns=[wanted], use_threads=False)
            return completed(rows, pa.schema([field])).column(0).combine_chunks()
        except UNREADABLE as error:
            raise DamagedError(damage(self._path, error), self._file) from None

    def close(self) -> None:
        """Close the file."""
        if self._source is not None:
            self._source.close()
