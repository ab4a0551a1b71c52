"""Rows of a table as arrays of steps x layers."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["Block", "pivot"]

WIDE: Final = (pa.float64(), pa.int64())
"""What does not fit into float32."""

Block = Mapping[str, np.ndarray]
"""New rows: `step` of shape (steps,), each other column (steps, layers)."""


def pivot(rows: pa.Table, key: str, names: Sequence[Any]) -> Block:
    """Rows of a table to one array of steps x layers per column.

    Args:
        rows: new rows, in any order.
        key: the column that tells layers apart.
        names: its values, in the order that the arrays shall have.

    Returns:
        All columns but the key; what has no row is NaN.
    """
    even = _even(rows, key, names)
    if even is not None:
        return even
    values = pa.array(names, rows.schema.field(key).type)
    codes = pc.index_in(rows[key], value_set=values)
    known = codes.is_valid()
    rows, codes = rows.filter(known), codes.filter(known)
    at = codes.combine_chunks().to_numpy(zero_copy_only=False)
    steps, row = np.unique(rows["step"].to_numpy(), return_inverse=True)
    block = {"step": steps}
    for name, dtype in _numbers(rows, key):
        array = np.full((steps.size, len(names)), np.nan, dtype)
        array[row, at] = rows[name].to_numpy()
        block[name] = array
    return block


def _even(rows: pa.Table, key: str, names: Sequence[Any]) -> Block | None:
    """The same of rows that lie as they are wanted, step after step; else None.

    So they come from the recorder; their numbers are not even copied.
    """
    width = len(names)
    if not len(rows) or len(rows) % width:
        return None
    keys = rows[key]
    if keys[:width].to_pylist() != list(names) or keys[width:] != keys[:-width]:
        return None
    steps = rows["step"].to_numpy().reshape(-1, width)
    first = steps[:, 0]
    if (steps != first[:, np.newaxis]).any() or (np.diff(first) <= 0).any():
        return None
    block = {"step": first.copy()}
    for name, dtype in _numbers(rows, key):
        numbers = rows[name].to_numpy().reshape(steps.shape)
        block[name] = numbers.astype(dtype, copy=False)
    return block


def _numbers(rows: pa.Table, key: str) -> list[tuple[str, Any]]:
    """The columns that are numbers and no keys, and as what they are given."""
    return [
        (field.name, np.float64 if field.type in WIDE else np.float32)
        for field in rows.schema
        if field.name not in ("step", key) and not pa.types.is_string(field.type)
    ]
