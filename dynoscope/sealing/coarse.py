"""The levels beside a segment: its rows in buckets of many steps."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dynoscope.metrics.buckets import Buckets, bucket, merge, places_of, starts_of
from dynoscope.schema.folder import SORTED_BY
from dynoscope.schema.levels import (
    EXPONENTS,
    bucket_columns,
    levels_schema,
    numbers_of,
)
from dynoscope.sealing.spill import Spilled

__all__ = ["coarse_rows"]

WORTH: Final = 16
"""Rows that a bucket must have in the mean, for levels to be worth their place."""

LEAST: Final = 1 << 15
"""Rows that a segment must have: fewer are read as they are at once."""

IntArray = npt.NDArray[np.int64]


def coarse_rows(table: str, rows: pa.Table | Spilled) -> pa.Table | None:
    """Levels of a segment; None if it has so few rows that it is read as it is.

    Args:
        table: name of the table.
        rows: its rows, sorted by curve and step.
    """
    curves = _curves(rows[SORTED_BY.get(table, "layer")])
    ladder = _ladder(places_of(curves, rows["step"].to_numpy()))
    if len(rows) < LEAST or not ladder:
        return None
    columns: dict[str, list[Any]] = {name: [] for name in levels_schema(table).names}
    for exponent, starts, counts in _in_rows(ladder, len(rows)):
        first = pa.array(starts)
        columns["level"].append(np.full(len(starts), exponent))
        columns["count"].append(counts)
        for name in (SORTED_BY.get(table, "layer"), "step"):
            column = rows[name].take(first).combine_chunks()
            columns[name].append(column.cast(levels_schema(table).field(name).type))
    for name in numbers_of(table):
        for found in _climb(rows[name].to_numpy(), ladder):
            for column, array in zip(bucket_columns(name), found, strict=True):
                columns[column].append(array)
    schema = levels_schema(table)
    arrays = [_joined(columns[field.name], field.type) for field in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


def _ladder(places: IntArray) -> list[tuple[int, IntArray]]:
    """For each level, its exponent and where its buckets begin in those below."""
    ladder: list[tuple[int, IntArray]] = []
    rows = len(places)
    for exponent in EXPONENTS:
        starts = starts_of(places, exponent)
        if len(starts) * WORTH > rows:
            continue
        if ladder and len(starts) == len(places):
            break  # one bucket a curve, or as good as that
        ladder.append((exponent, starts))
        places = places[starts]
    return ladder


def _in_rows(
    ladder: list[tuple[int, IntArray]], rows: int
) -> list[tuple[int, IntArray, IntArray]]:
    """For each level, where its buckets begin in the rows, and how many they have."""
    found, first = [], np.arange(rows)
    for exponent, starts in ladder:
        first = first[starts]
        found.append((exponent, first, np.diff(first, append=rows)))
    return found


def _climb(values: Any, ladder: list[tuple[int, IntArray]]) -> list[Buckets]:
    """A column's buckets, level by level, each from the one below."""
    found = [bucket(values, ladder[0][1])]
    for _, starts in ladder[1:]:
        found.append(merge(found[-1], starts))
    return found


def _curves(names: pa.ChunkedArray) -> IntArray:
    """The number of each row's curve."""
    codes = names.combine_chunks().dictionary_encode().indices
    numbers: IntArray = codes.to_numpy().astype(np.int64)
    return numbers


def _joined(pieces: list[Any], dtype: pa.DataType) -> pa.Array:
    if isinstance(pieces[0], pa.Array):
        return pa.concat_arrays(pieces).cast(dtype)
    with np.errstate(over="ignore"):
        return pa.array(np.concatenate(pieces).astype(dtype.to_pandas_dtype()))
