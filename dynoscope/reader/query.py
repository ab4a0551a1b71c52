"""SQL over the tables of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from dynoscope.errors import DynoscopeError
from dynoscope.reader.files import read_nothing
from dynoscope.reader.footers import EVERYTHING
from dynoscope.reader.sources import Source, retried, sources_in
from dynoscope.schema import TABLES

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["run_query"]


def run_query(run: Path, query: str) -> tuple[pd.DataFrame, list[str]]:
    """Answer a query by DuckDB, which reads the columns and row groups it needs.

    Args:
        run: the run's folder.
        query: SQL; the tables of `dynoscope.schema.TABLES` are there as views, what
            is in journals included. What an older dynoscope did not write is NULL.

    Returns:
        The answer; and what could not be read, by file.

    Raises:
        DynoscopeError: the query is wrong; the message says why.
    """
    problems: list[str] = []

    def look() -> pd.DataFrame:
        problems.clear()
        return _answer(run, query, problems)

    return retried(run / "layers", look), problems


def _answer(run: Path, query: str, problems: list[str]) -> pd.DataFrame:
    import duckdb  # when it is needed: it takes a while to load
    import pandas as pd

    sources = {table: sources_in(run / table, problems) for table in TABLES}
    try:
        with duckdb.connect() as connection:
            connection.execute("CREATE SCHEMA journals")
            for table, files in sources.items():
                connection.register("rows", _journals(table, files, problems))
                connection.execute(f"CREATE TABLE journals.{table} AS FROM rows")
                connection.unregister("rows")
                connection.execute(_view(table, files))
            answer = connection.sql(query)
            frame: pd.DataFrame = pd.DataFrame() if answer is None else answer.df()
            return frame
    except duckdb.Error as error:
        files = [each for some in sources.values() for each in some]
        if not all((each.folder / each.file.name).exists() for each in files):
            raise FileNotFoundError("files were merged while we were reading") from None
        raise DynoscopeError(f"{run}: {error}") from None


def _journals(table: str, sources: Sequence[Source], problems: list[str]) -> pa.Table:
    """The rows that are in no Parquet file yet; at least their columns."""
    nothing = read_nothing(table)
    rows = [
        source.read(nothing.column_names, EVERYTHING, problems)
        for source in sources
        if source.footer is None
    ]
    return pa.concat_tables([nothing, *rows])


def _view(table: str, sources: Sequence[Source]) -> str:
    """SQL that makes a view of all rows."""
    files: dict[int, list[str]] = {}
    for source in sources:
        if source.footer is not None:
            path = str(source.folder / source.file.name).replace("'", "''")
            files.setdefault(source.stop, []).append(f"'{path}'")
    parts = [f"SELECT * FROM journals.{table}"] + [
        f"SELECT * FROM read_parquet([{', '.join(paths)}], union_by_name = true) "
        f"WHERE step < {stop}"
        for stop, paths in files.items()
    ]
    columns = ", ".join(f'"{name}"' for name in TABLES[table].names())
    everything = " UNION ALL BY NAME ".join(parts)
    return f'CREATE VIEW "{table}" AS SELECT {columns} FROM ({everything})'
