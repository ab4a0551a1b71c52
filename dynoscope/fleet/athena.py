"""Runs in S3 as tables of Amazon Athena, which reads their Parquet files itself."""

from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

from dynoscope.errors import DynoscopeError
from dynoscope.fleet.members import Member
from dynoscope.schema import TABLES

__all__ = ["create_table"]

_TYPES: Final = {
    "int64": "bigint",
    "int32": "int",
    "float64": "double",
    "float32": "float",
    "bool": "boolean",
    "string": "string",
    "list<int64>": "array<bigint>",
    "list<float64>": "array<double>",
}


def create_table(table: str, members: Sequence[Member]) -> str:
    """Two statements: they make a table, and a partition of it for each run.

    A partition is the folder of the table in a run: neither levels, nor branches, nor
    other tables are below it. Columns go by their names, so a column that an older
    dynoscope did not write is NULL.

    Args:
        table: one of `dynoscope.schema.TABLES`.
        members: the runs; all have ended, or else their newest rows are missing, and
            those that are being merged may be read twice.

    Raises:
        DynoscopeError: one of the runs is not in S3.
    """
    columns = ",\n".join(
        f"  `{column.name}` {_TYPES[column.dtype]}"
        + (f" COMMENT {_quoted(column.unit)}" if column.unit else "")
        for column in TABLES[table].columns
    )
    partitions = "\n".join(
        f"  PARTITION (run = {_quoted(member.name)}) "
        f"LOCATION {_quoted(_location(member, table))}"
        for member in members
    )
    base = _location(members[0], table)
    return (
        f"CREATE EXTERNAL TABLE IF NOT EXISTS `{table}` (\n{columns}\n)\n"
        "PARTITIONED BY (`run` string)\n"
        f"STORED AS PARQUET\nLOCATION {_quoted(base)};\n\n"
        f"ALTER TABLE `{table}` ADD IF NOT EXISTS\n{partitions};\n"
    )


def _location(member: Member, table: str) -> str:
    parts = urlsplit(member.place)
    if parts.scheme != "s3":
        raise DynoscopeError(
            f"{member.name} is not in S3, where Athena looks; `dynoscope push` sends it"
        )
    bucket = parts.netloc.rpartition("@")[2]
    return f"s3://{bucket}{parts.path.rstrip('/')}/{table}/"


def _quoted(text: str) -> str:
    return "'{}'".format(text.replace("\\", "\\\\").replace("'", "\\'"))
