"""The tables as Arrow schemas, with units and descriptions in their metadata."""

import functools
from typing import Final

import pyarrow as pa

from dynoscope.schema.folder import SCHEMA_VERSION
from dynoscope.schema.registry import TABLES

__all__ = ["arrow_schema"]

_TYPES: Final = {
    "int64": pa.int64(),
    "int32": pa.int32(),
    "float64": pa.float64(),
    "float32": pa.float32(),
    "bool": pa.bool_(),
    "string": pa.string(),
    "list<int64>": pa.list_(pa.int64()),
    "list<float64>": pa.list_(pa.float64()),
}


@functools.cache
def arrow_schema(table: str) -> pa.Schema:
    """Arrow schema of a table; columns carry `unit`, `description`, `source`."""
    fields = [
        pa.field(
            column.name,
            _TYPES[column.dtype],
            nullable=False,
            metadata={
                "unit": column.unit,
                "description": column.description,
                "source": column.source,
            },
        )
        for column in TABLES[table].columns
    ]
    return pa.schema(fields, metadata={"schema_version": str(SCHEMA_VERSION)})
