"""Read a table's files; name and skip what cannot be read."""

import io
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dynoscope.reader.cuts import branches_of, pending_cut
from dynoscope.schema.arrow import arrow_schema
from dynoscope.schema.folder import ROW, STARTS, TableFile, current_files

__all__ = [
    "UNREADABLE",
    "Tail",
    "completed",
    "damage",
    "list_files",
    "read_file",
    "read_nothing",
    "read_part",
    "read_rest",
    "read_since",
    "read_table",
    "read_tail",
    "rows_of",
    "starts_in",
]

RETRIES: Final = 5
UNREADABLE: Final = (pa.ArrowException, OSError, ValueError, KeyError)
"""What is raised by a damaged Parquet file."""


class Tail(NamedTuple):
    """Complete record batches of a journal from some offset on.

    Attributes:
        batches: what was complete.
        offset: where the next one will begin.
        problem: why reading stopped short of the end of the file, "" if it
            did not. While the journal is being written that is no damage.
    """

    batches: list[pa.RecordBatch]
    offset: int
    problem: str


def list_files(run: Path, table: str) -> list[TableFile]:
    """The files of a table that count, in the order of their rows."""
    folder = run / table
    if not folder.is_dir():
        return []
    return current_files(path.name for path in folder.iterdir())


def read_table(
    run: Path,
    table: str,
    columns: Sequence[str] | None = None,
    where: pc.Expression | None = None,
    *,
    in_order: bool = True,
) -> tuple[pa.Table, list[str]]:
    """All rows of a table that can be read, and what could not, by name.

    Args:
        run: the run's folder.
        table: name of the table.
        columns: columns to read, None for all.
        where: which rows to keep.
        in_order: whether they must be in the order in which they were written.
    """
    for _ in range(RETRIES):
        pieces: list[pa.Table] = []
        problems: list[str] = []
        branches = branches_of(run)
        cut = pending_cut(run, branches)
        try:
            for file in list_files(run, table):
                counted = cut.narrow(table, file.number, where)
                piece, problem = read_file(
                    run / table, file, columns, counted, in_order=in_order
                )
                pieces.append(piece)
                if problem:
                    problems.append(problem)
        except FileNotFoundError:
            continue  # a journal became a part while we were reading
        if branches_of(run) != branches:
            continue  # rows of some files may have moved, of others not yet
        return pa.concat_tables(pieces or [read_nothing(table, columns)]), problems
    raise FileNotFoundError(f"the files of {run / table} keep vanishing")


def read_file(
    folder: Path,
    file: TableFile,
    columns: Sequence[str] | None = None,
    where: pc.Expression | None = None,
    *,
    in_order: bool = True,
) -> tuple[pa.Table, str]:
    """Rows of one file of a table that can be read, and why not all could, or ""."""
    table, path = folder.name, folder / file.name
    if file.is_part:
        return read_part(path, table, columns, where, in_order=in_order)
    tail = read_tail(path)
    rows = rows_of(tail, table)
    if where is not None:
        rows = rows.filter(where)
    return rows.select(columns or rows.column_names), tail.problem


def read_part(
    path: Path,
    table: str,
    columns: Sequence[str] | None = None,
    where: pc.Expression | None = None,
    *,
    in_order: bool = True,
) -> tuple[pa.Table, str]:
    """Rows of a Parquet file; none, and the reason, if it is damaged."""
    wanted = read_nothing(table, columns).schema
    try:
        there = pq.read_schema(path).names
        in_order = in_order and ROW in there
        extra = ["step", ROW] if in_order else ["step"]
        needed = dict.fromkeys([*wanted.names, *extra])
        chosen = [name for name in needed if name in there]
        rows = pq.read_table(path, columns=chosen, filters=where, partitioning=None)
        if in_order:
            rows = _as_written(rows)
        return completed(rows, wanted), ""
    except FileNotFoundError:
        raise
    except UNREADABLE as error:
        return read_nothing(table, columns), damage(path, error)


def read_rest(
    path: Path, table: str, columns: Sequence[str] | None, row: int
) -> tuple[pa.Table, str]:
    """Rows of a part from one on, as they were written; see `read_part`."""
    wanted = read_nothing(table, columns).schema
    try:
        with pq.ParquetFile(path) as file:
            sizes = [
                file.metadata.row_group(n).num_rows
                for n in range(file.metadata.num_row_groups)
            ]
            ends = np.cumsum([0, *sizes])
            first = max(int(np.searchsorted(ends, row, side="right")) - 1, 0)
            needed = dict.fromkeys([*wanted.names, "step"])
            there = [name for name in needed if name in file.schema_arrow.names]
            rows = file.read_row_groups([*range(first, len(sizes))], columns=there)
        return completed(rows.slice(row - int(ends[first])), wanted), ""
    except FileNotFoundError:
        raise
    except UNREADABLE as error:
        return read_nothing(table, columns), damage(path, error)


def read_since(
    path: Path, table: str, columns: Sequence[str] | None, file: int, row: int
) -> tuple[list[pa.Table], str]:
    """New rows of a segment, as the files had them that it was made of.

    Args:
        path: the segment.
        table: name of its table.
        columns: columns to read, None for all.
        file: which of these files is the first one that has new rows.
        row: the first row of it that is new.

    Returns:
        The rows of each of these files; and why there are none, or "".
    """
    wanted = read_nothing(table, columns).schema
    try:
        starts = starts_in(path)
        first = starts[file] + row
        there = pq.read_schema(path).names
        needed = dict.fromkeys([*wanted.names, "step", ROW])
        chosen = [name for name in needed if name in there]
        new = pc.field(ROW) >= first
        rows = pq.read_table(path, columns=chosen, filters=new, partitioning=None)
        rows = _as_written(rows)
        cuts = np.searchsorted(rows[ROW].to_numpy(), [first, *starts[file + 1 :]])
        rows = completed(rows, wanted)
    except FileNotFoundError:
        raise
    except UNREADABLE as error:
        return [], damage(path, error)
    return [rows[start:stop] for start, stop in itertools.pairwise(cuts.tolist())], ""


def starts_in(path: Path) -> list[int]:
    """For each file that a segment covers, the place at which its rows begin.

    After them comes how many places there are.
    """
    starts: list[int] = json.loads(pq.read_schema(path).metadata[STARTS])
    return starts


def _as_written(rows: pa.Table) -> pa.Table:
    places = rows[ROW].to_numpy()
    if (np.diff(places) > 0).all():
        return rows
    return rows.take(pa.array(np.argsort(places)))


def read_tail(path: Path, offset: int = 0) -> Tail:
    """Complete record batches of a journal from `offset` (of a message) on."""
    with path.open("rb") as file:
        schema = _read_schema(file)
        if schema is None:
            return Tail([], 0, f"{_name(path)}: no readable header")
        start = max(offset, file.tell())
        file.seek(start)
        source = pa.BufferReader(file.read())
    batches: list[pa.RecordBatch] = []
    end = 0
    try:
        while end < source.size():
            message = pa.ipc.read_message(source)
            batches.append(pa.ipc.read_record_batch(message, schema))
            end = source.tell()
    except EOFError:
        pass  # the mark that the writer closed the stream
    except (pa.ArrowException, OSError, ValueError) as error:
        return Tail(batches, start + end, damage(path, error))
    return Tail(batches, start + end, "")


def rows_of(tail: Tail, table: str) -> pa.Table:
    """The rows of a journal's tail, with the columns that its table has today."""
    schema = arrow_schema(table)
    if not tail.batches:
        return schema.empty_table()
    return completed(pa.Table.from_batches(tail.batches), schema)


def completed(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Rows in a schema; a column that an older dynoscope did not write is NaN."""
    if "own_step" in schema.names and "own_step" not in rows.column_names:
        rows = rows.append_column("own_step", rows["step"])  # of one optimizer
    for field in schema:
        if field.name not in rows.column_names and pa.types.is_floating(field.type):
            missing = pa.array(np.full(len(rows), np.nan), field.type)
            rows = rows.append_column(field, missing)
    return rows.select(schema.names).cast(schema)


def _read_schema(file: io.BufferedReader) -> pa.Schema | None:
    try:
        source = pa.PythonFile(file, mode="r")
        return pa.ipc.read_schema(pa.ipc.read_message(source))
    except (EOFError, pa.ArrowException, OSError, ValueError):
        return None


def read_nothing(table: str, columns: Sequence[str] | None = None) -> pa.Table:
    """No rows of a table."""
    empty = arrow_schema(table).empty_table()
    return empty.select(columns) if columns is not None else empty


def damage(path: Path, error: Exception) -> str:
    """What to say of a file that cannot be read to its end."""
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return f"{_name(path)}: damaged from some point on, the rest skipped ({reason})"


def _name(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"
