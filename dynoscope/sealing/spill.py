"""Columns that are sorted one after the other, and written together a piece at a time.

In between they wait in a file, so that a merge of any size takes the memory of one
column: the rest is the training's.
"""

import tempfile
from pathlib import Path
from types import TracebackType
from typing import Final

import numpy as np
import pyarrow as pa

__all__ = ["Spilled"]

SMALL: Final = 8 << 20
"""Bytes that are kept in memory, before there is a file."""


class Spilled:
    """Columns of one length, as a table that can be sliced; use it as a context.

    Args:
        folder: where the file lies, which has no name: whatever happens, it is gone.
    """

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=SMALL, dir=str(folder))
        self._fields: list[pa.Field] = []
        self._starts: dict[str, int] = {}
        self._kept: dict[str, pa.Array] = {}
        self._dictionaries: dict[str, pa.Array] = {}
        self._rows = 0

    def __enter__(self) -> "Spilled":
        """Begin to fill it."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Remove the file."""
        self._file.close()

    def __len__(self) -> int:
        """Number of rows."""
        return self._rows

    @property
    def schema(self) -> pa.Schema:
        """Of the columns so far."""
        return pa.schema(self._fields)

    def add(self, field: pa.Field, column: pa.Array) -> None:
        """Add a column: numbers without nulls, codes of a dictionary, or others.

        Raises:
            OSError: the disk is full, or fails in another way.
        """
        self._rows = len(column)
        self._fields.append(field.with_type(column.type))
        numbers = column
        if pa.types.is_dictionary(column.type):
            self._dictionaries[field.name] = column.dictionary
            numbers = column.indices
        if not (
            pa.types.is_integer(numbers.type) or pa.types.is_floating(numbers.type)
        ):
            self._kept[field.name] = column
            return
        self._starts[field.name] = self._file.tell()
        self._file.write(memoryview(numbers.to_numpy()).cast("B"))

    def __getitem__(self, name: str) -> pa.ChunkedArray:
        """A column."""
        field = self.schema.field(name)
        return pa.chunked_array([self._read(field, 0, self._rows)], field.type)

    def slice(self, start: int, length: int) -> pa.Table:
        """Some rows of all columns."""
        columns = [self._read(field, start, length) for field in self._fields]
        return pa.Table.from_arrays(columns, schema=self.schema)

    def _read(self, field: pa.Field, start: int, length: int) -> pa.Array:
        if field.name in self._kept:
            return self._kept[field.name].slice(start, length)
        dictionary = self._dictionaries.get(field.name)
        dtype = field.type if dictionary is None else field.type.index_type
        width = np.dtype(dtype.to_pandas_dtype()).itemsize
        self._file.seek(self._starts[field.name] + start * width)
        data = pa.py_buffer(self._file.read(length * width))
        numbers = pa.Array.from_buffers(dtype, length, [None, data])
        if dictionary is None:
            return numbers
        return pa.DictionaryArray.from_arrays(numbers, dictionary)
