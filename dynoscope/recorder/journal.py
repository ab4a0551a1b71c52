"""One table of a run: a journal that loses nothing, then a Parquet part."""

import time
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from dynoscope.schema.arrow import arrow_schema
from dynoscope.schema.folder import (
    TEMPORARY,
    current_files,
    journal_name,
    part_name,
)

__all__ = ["TableWriter", "write_part"]

PART_ROWS: Final = 1 << 17
"""Rows after which a journal becomes a part."""

PART_SECONDS: Final = 60.0
"""Age at which it does, however few they are."""


class TableWriter:
    """Appends rows to a table's folder; what `append` was given is safe.

    Rows reach the operating system before `append` returns, so they outlive
    the process however it ends. See `dynoscope.schema.folder` for the files.

    Args:
        run: the run's folder.
        table: name of the table.
    """

    def __init__(self, run: Path, table: str) -> None:
        self._folder = run / table
        self._schema = arrow_schema(table)
        self._batches: list[pa.RecordBatch] = []
        self._rows, self._opened = 0, 0.0
        self._sink: pa.NativeFile | None = None
        self._stream: pa.RecordBatchStreamWriter | None = None
        self._folder.mkdir(exist_ok=True)
        files = current_files(path.name for path in self._folder.iterdir())
        self._number = files[-1].number + 1 if files else 0

    def append(self, columns: list[pa.Array]) -> None:
        """Add rows: one array per column, in the schema's order."""
        batch = pa.record_batch(columns, schema=self._schema)
        if not batch.num_rows:
            return
        if self._stream is None:
            journal = self._folder / journal_name(self._number)
            self._sink = pa.OSFile(str(journal), "wb")
            self._stream = pa.ipc.new_stream(self._sink, self._schema)
            self._opened = time.monotonic()
        self._stream.write_batch(batch)
        self._batches.append(batch)
        self._rows += batch.num_rows
        if self._rows >= PART_ROWS or time.monotonic() - self._opened > PART_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Turn the journal into a part."""
        if self._stream is None:
            return
        rows = pa.Table.from_batches(self._batches, self._schema)
        write_part(self._folder, self._number, rows)
        self._close_journal()
        (self._folder / journal_name(self._number)).unlink()
        self._number += 1
        self._batches, self._rows = [], 0

    def abandon(self) -> None:
        """Close the file after an error; the journal stays and is read."""
        self._batches.clear()
        self._close_journal()

    def _close_journal(self) -> None:
        if self._stream is not None and self._sink is not None:
            self._stream.close()
            self._sink.close()
        self._stream = self._sink = None


def write_part(folder: Path, number: int, rows: pa.Table) -> None:
    """Write a part of a table; one that bears the number is replaced in one go."""
    part = folder / part_name(number)
    temporary = part.with_name(part.name + TEMPORARY)
    floats = [f.name for f in rows.schema if pa.types.is_floating(f.type)]
    strings = [f.name for f in rows.schema if pa.types.is_string(f.type)]
    pq.write_table(
        rows,
        temporary,
        compression="zstd",
        use_dictionary=strings,
        use_byte_stream_split=floats,
    )
    temporary.replace(part)
