"""SQL over the tables of many runs."""

import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import pandas as pd
import pyarrow as pa

from dynoscope.errors import DynoscopeError
from dynoscope.fleet.frames import RUN, named
from dynoscope.fleet.members import Member
from dynoscope.fleet.work import Outcome, asked
from dynoscope.reader import Run
from dynoscope.reader.files import read_nothing
from dynoscope.reader.footers import EVERYTHING
from dynoscope.reader.sources import retried
from dynoscope.schema import TABLES

__all__ = ["run_query"]

RETRIES: Final = 5
"""How often it is asked again where files are merged meanwhile."""


_LISTED: Final = pa.schema(
    {"filename": pa.string(), RUN: pa.string(), "stop": pa.int64()}
)


class _Files(NamedTuple):
    """What a table has in one run: Parquet files, up to a step each; other rows."""

    paths: list[tuple[str, int]]
    journals: pa.Table


def run_query(
    members: Sequence[Member], query: str
) -> tuple[pd.DataFrame, list[Outcome]]:
    """Answer a query by DuckDB, which reads the columns and row groups it needs.

    Args:
        members: the runs.
        query: SQL. Those tables of `dynoscope.schema.TABLES` that it names are there
            as views, with a column `run`.

    Returns:
        The answer; and what became of each run, as far as it could be read.

    Raises:
        DynoscopeError: the query is wrong; the message says why.
    """
    tables = [t for t in TABLES if re.search(rf"\b{t}\b", query, re.IGNORECASE)]
    for _ in range(RETRIES):
        outcomes = asked(members, lambda run: _files(run, tables))
        try:
            return _answer(outcomes, tables, query), outcomes
        except FileNotFoundError:
            continue  # files were merged while we were reading
    raise DynoscopeError("the files of some runs keep vanishing: are they deleted?")


def _files(run: Run, tables: Sequence[str]) -> dict[str, _Files]:
    """The files of some tables, and the rows that are in no Parquet file yet."""
    found = {}
    for table in tables:
        problems: list[str] = []
        look = functools.partial(_look, run, table, problems)
        found[table] = retried(run.folder / table, look)
        run.warn_of(problems)
    return found


def _look(run: Run, table: str, problems: list[str]) -> _Files:
    problems.clear()
    nothing = read_nothing(table)
    paths, rows = [], [nothing]
    for source in run.sources(table, problems):
        if source.footer is not None:
            paths.append((str(source.folder / source.file.name), source.stop))
        else:
            rows.append(source.read(nothing.column_names, EVERYTHING, problems))
    return _Files(paths, pa.concat_tables(rows))


def _answer(
    outcomes: Sequence[Outcome], tables: Sequence[str], query: str
) -> pd.DataFrame:
    import duckdb  # when it is needed: it takes a while to load

    found = {o.run: o.answer for o in outcomes if not o.is_broken}
    try:
        with duckdb.connect() as connection:
            connection.execute("CREATE SCHEMA files; CREATE SCHEMA journals")
            for table in tables:
                _add_view(connection, table, {r: found[r][table] for r in found})
            answer = connection.sql(query)
            frame: pd.DataFrame = pd.DataFrame() if answer is None else answer.df()
            return frame
    except duckdb.Error as error:
        files = [each for run in found.values() for each in run.values()]
        if not all(Path(path).exists() for each in files for path, _ in each.paths):
            raise FileNotFoundError from None
        raise DynoscopeError(str(error)) from None


def _add_view(connection: Any, table: str, found: Mapping[str, _Files]) -> None:
    """Make a view of all rows of a table."""
    paths = [(path, run, stop) for run in found for path, stop in found[run].paths]
    nothing = named(read_nothing(table), "")
    rows = [named(files.journals, run) for run, files in found.items()]
    files = [dict(zip(("filename", RUN, "stop"), each, strict=True)) for each in paths]
    listed = pa.Table.from_pylist(files, _LISTED)
    for schema, content in (
        ("journals", pa.concat_tables([nothing, *rows])),
        ("files", listed),
    ):
        connection.register("content", content)
        connection.execute(f"CREATE TABLE {schema}.{table} AS FROM content")
        connection.unregister("content")
    everything = f"FROM journals.{table}"
    if paths:
        quoted = ", ".join("'{}'".format(p.replace("'", "''")) for p, _, _ in paths)
        everything += f""" UNION ALL BY NAME
            SELECT f.run, p.* EXCLUDE (filename)
            FROM read_parquet([{quoted}], union_by_name = true, filename = true) p
            JOIN files.{table} f USING (filename) WHERE p.step < f.stop"""
    names = ", ".join(f'"{name}"' for name in (RUN, *TABLES[table].names()))
    connection.execute(f'CREATE VIEW "{table}" AS SELECT {names} FROM ({everything})')
