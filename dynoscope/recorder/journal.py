"""One table of a run: a journal that loses nothing, then a Parquet part."""

import contextlib
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from dynoscope.recorder.grouping import in_groups
from dynoscope.recorder.stream import Stream
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

GROUP_ROWS: Final = 1 << 14
"""Rows of a part that are in memory at once while it is written."""

PART_BYTES: Final = 64 << 20
"""Size at which it does."""

PART_SECONDS: Final = 60.0
"""Age at which it does, however little there is, while the run is young."""

PART_SHARE: Final = 1 / 8
"""That age as a share of the run's: a slow run has few files, however long it is."""


class TableWriter:
    """Appends rows to a table's folder; what `append` was given is safe.

    Rows reach the operating system before `append` returns, so they outlive
    the process however it ends. See `dynoscope.schema.folder` for the files.
    After an error in any method the next call goes on where that is possible.

    Args:
        run: the run's folder.
        table: name of the table.
    """

    def __init__(self, run: Path, table: str) -> None:
        self._folder = run / table
        self._schema = arrow_schema(table)
        self._journal: Stream | None = None
        self._rows, self._opened, self._began = 0, 0.0, time.monotonic()
        self._folder.mkdir(exist_ok=True)
        files = current_files(path.name for path in self._folder.iterdir())
        self._number = files[-1].last + 1 if files else 0

    def append(self, columns: list[pa.Array]) -> None:
        """Add rows: one array per column, in the schema's order."""
        batch = pa.record_batch(columns, schema=self._schema)
        if self.is_full():
            self.flush()
        if batch.num_rows:
            self.write(batch.serialize(), batch.num_rows)

    def write(self, message: pa.Buffer, rows: int) -> None:
        """Add rows as `RecordBatch.serialize` gives them, in the table's schema."""
        if self._journal is None:
            self._folder.mkdir(exist_ok=True)
            path = self._folder / journal_name(self._number)
            self._journal = Stream(path, self._schema)
            self._rows, self._opened = 0, time.monotonic()
        self._journal.append(message)
        self._rows += rows

    def is_full(self) -> bool:
        """Whether it is time for `flush`."""
        if self._journal is None:
            return False
        age = time.monotonic() - self._opened
        longest = max(PART_SECONDS, PART_SHARE * (self._opened - self._began))
        is_large = self._rows >= PART_ROWS or self._journal.size >= PART_BYTES
        return is_large or age > longest

    def flush(self) -> None:
        """Turn the journal into a part; if that fails it stays, and is read."""
        if self._journal is None:
            return
        number, journal, self._journal = self._number, self._journal, None
        self._number += 1
        journal.close()
        groups = (
            pa.Table.from_batches(group, self._schema)
            for group in in_groups(journal.read(), len, GROUP_ROWS)
        )
        _write_part(self._folder, number, self._schema, groups)
        journal.path.unlink(missing_ok=True)

    def is_deleted(self) -> bool:
        """Whether someone has removed what was written here."""
        if self._journal is not None:
            return self._journal.is_deleted()
        return not self._folder.is_dir()

    def abandon(self) -> None:
        """Let go of the files; the journal stays and is read."""
        if self._journal is not None:
            self._journal.close()
        self._journal = None


def write_part(folder: Path, number: int, rows: pa.Table) -> None:
    """Write a part of a table; one that bears the number is replaced in one go."""
    _write_part(folder, number, rows.schema, [rows])


def _write_part(
    folder: Path, number: int, schema: pa.Schema, pieces: Iterable[pa.Table]
) -> None:
    part = folder / part_name(number)
    temporary = part.with_name(part.name + TEMPORARY)
    try:
        with pq.ParquetWriter(
            temporary,
            schema,
            compression="zstd",
            use_dictionary=[f.name for f in schema if pa.types.is_string(f.type)],
            use_byte_stream_split=[
                f.name for f in schema if pa.types.is_floating(f.type)
            ],
        ) as writer:
            for rows in pieces:
                writer.write_table(rows)
        temporary.replace(part)
    except BaseException:
        with contextlib.suppress(OSError):  # the first error is the one to tell
            temporary.unlink()
        raise
