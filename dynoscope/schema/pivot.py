"""Rows of a table as arrays of steps x layers."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["Block", "pivot"]

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
    values = pa.array(names, rows.schema.field(key).type)
    codes = pc.index_in(rows[key], value_set=values)
    known = codes.is_valid()
    rows, codes = rows.filter(known), codes.filter(known)
    at = codes.combine_chunks().to_numpy(zero_copy_only=False)
    steps, row = np.unique(rows["step"].to_numpy(), return_inverse=True)
    block = {"step": steps}
    for name in rows.column_names:
        if name in ("step", key) or pa.types.is_string(rows.schema.field(name).type):
            continue
        kind = rows.schema.field(name).type
        wide = pa.types.is_float64(kind) or pa.types.is_int64(kind)
        array = np.full((steps.size, len(names)), np.nan, float if wide else np.float32)
        array[row, at] = rows[name].to_numpy()
        block[name] = array
    return block
