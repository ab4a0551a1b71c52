"""Read a table's files; name and skip what cannot be read."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dynoscope.reader.cuts import branches_of, pending_cut
from dynoscope.schema.arrow import arrow_schema
from dynoscope.schema.folder import TableFile, current_files

__all__ = ["Tail", "list_files", "read_part", "read_table", "read_tail", "rows_of"]

RETRIES = 5


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
) -> tuple[pa.Table, list[str]]:
    """All rows of a table that can be read, and what could not, by name.

    Args:
        run: the run's folder.
        table: name of the table.
        columns: columns to read, None for all.
        where: which rows to keep.
    """
    for _ in range(RETRIES):
        pieces: list[pa.Table] = []
        problems: list[str] = []
        branches = branches_of(run)
        cut = pending_cut(run, branches)
        try:
            for file in list_files(run, table):
                counted = cut.narrow(table, file.number, where)
                piece, problem = _read_file(run, table, file, columns, counted)
                pieces.append(piece)
                if problem:
                    problems.append(problem)
        except FileNotFoundError:
            continue  # a journal became a part while we were reading
        if branches_of(run) != branches:
            continue  # rows of some files may have moved, of others not yet
        return pa.concat_tables(pieces or [_empty(table, columns)]), problems
    raise FileNotFoundError(f"the files of {run / table} keep vanishing")


def _read_file(
    run: Path,
    table: str,
    file: TableFile,
    columns: Sequence[str] | None,
    where: pc.Expression | None,
) -> tuple[pa.Table, str]:
    path = run / table / file.name
    if file.is_part:
        return read_part(path, table, columns, where)
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
) -> tuple[pa.Table, str]:
    """Rows of a Parquet part; none, and the reason, if it is damaged."""
    try:
        there = pq.read_schema(path).names
        chosen = None
        if columns is not None:
            wanted = dict.fromkeys([*columns, "step"])
            chosen = [name for name in wanted if name in there]
        rows = pq.read_table(path, columns=chosen, filters=where, partitioning=None)
        return _completed(rows, _empty(table, columns).schema), ""
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        return _empty(table, columns), _damage(path, error)


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
        return Tail(batches, start + end, _damage(path, error))
    return Tail(batches, start + end, "")


def rows_of(tail: Tail, table: str) -> pa.Table:
    """The rows of a journal's tail, with the columns that its table has today."""
    schema = arrow_schema(table)
    if not tail.batches:
        return schema.empty_table()
    return _completed(pa.Table.from_batches(tail.batches), schema)


def _completed(rows: pa.Table, schema: pa.Schema) -> pa.Table:
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


def _empty(table: str, columns: Sequence[str] | None) -> pa.Table:
    empty = arrow_schema(table).empty_table()
    return empty.select(columns) if columns is not None else empty


def _damage(path: Path, error: Exception) -> str:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return f"{_name(path)}: damaged from some point on, the rest skipped ({reason})"


def _name(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"
