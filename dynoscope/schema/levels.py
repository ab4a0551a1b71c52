"""The tables in coarse: buckets of many steps, so that a long run is seen at once."""

import functools
from typing import Final

import pyarrow as pa

from dynoscope.schema.arrow import arrow_schema
from dynoscope.schema.folder import SCHEMA_VERSION, SORTED_BY
from dynoscope.schema.registry import TABLES

__all__ = [
    "BUCKETED",
    "EXPONENTS",
    "STATISTICS",
    "bucket_columns",
    "levels_schema",
    "numbers_of",
]

BUCKETED: Final = ("layers", "neurons", "normalization", "scalars")
"""Tables that have levels."""

EXPONENTS: Final = (6, 9, 12, 15, 18, 21, 24, 27, 30)
"""Levels that a segment may have: in level k a bucket has the steps from n * 2**k to
(n + 1) * 2**k, whether they were measured or not, so that buckets of all layers and
segments agree."""

STATISTICS: Final = ("min", "mean", "max", "known")
"""What is kept of a number in a bucket; `known` counts the values that are not NaN."""


def numbers_of(table: str) -> list[str]:
    """The columns of a table that are numbers and no keys."""
    return [
        column.name
        for column in TABLES[table].columns
        if column.role != "key" and column.dtype in ("float32", "float64", "int32")
    ]


def bucket_columns(name: str) -> list[str]:
    """The columns that a number has in levels."""
    return [f"{name}_{statistic}" for statistic in STATISTICS]


@functools.cache
def levels_schema(table: str) -> pa.Schema:
    """Arrow schema of a table's levels, sorted by level, layer and step.

    `level` is the exponent, `step` the first measured step of the bucket, `count`
    the number of its rows.
    """
    full = arrow_schema(table)
    key = full.field(SORTED_BY.get(table, "layer"))
    fields = [
        pa.field("level", pa.int32(), nullable=False),
        key,
        full.field("step"),
        pa.field("count", pa.int32(), nullable=False),
    ]
    for name in numbers_of(table):
        dtype = full.field(name).type
        dtype = dtype if pa.types.is_floating(dtype) else pa.float64()
        for column in bucket_columns(name):
            kind = pa.int32() if column.endswith("_known") else dtype
            fields.append(pa.field(column, kind, nullable=False))
    return pa.schema(fields, metadata={"schema_version": str(SCHEMA_VERSION)})
