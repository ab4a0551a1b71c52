"""Two runs side by side, a block of common steps at a time.

A run of 1e5 steps and 300 layers does not fit in memory whole; a block does.
"""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dynoscope.measurement import FloatArray
from dynoscope.reader import Run
from dynoscope.schema import TABLES

__all__ = ["Block", "Columns", "blocks", "measured_steps"]

BLOCK_ROWS: Final = 1 << 18
"""Rows of a block in each run: some 50 MB over all columns of `layers`."""

IntArray = npt.NDArray[np.int64]
Columns = dict[str, FloatArray]


class Block(NamedTuple):
    """Some common steps of a table.

    Attributes:
        steps: step numbers, shape (steps,), rising.
        a: run a's columns by name, each of shape (steps, layers); NaN where the
            run has no such row.
        b: the same of run b.
    """

    steps: IntArray
    a: Columns
    b: Columns


def measured_steps(run: Run, table: str = "layers") -> IntArray:
    """Steps for which the run holds rows of a table, rising."""
    steps = pc.unique(run.table(table, ["step"])["step"])
    return np.sort(steps.to_numpy(zero_copy_only=False).astype(np.int64))


def blocks(
    table: str,
    a: tuple[Run, Sequence[str]],
    b: tuple[Run, Sequence[str]],
    steps: IntArray,
) -> Iterator[Block]:
    """Both runs' rows of a table over some steps.

    Args:
        table: `layers` or `normalization`.
        a: a run, and its layers in the order wanted.
        b: the other run, and its layers.
        steps: the steps wanted, rising.
    """
    size = max(1, BLOCK_ROWS // max(len(a[1]), len(b[1]), 1))
    for start in range(0, len(steps), size):
        chosen = steps[start : start + size]
        yield Block(chosen, *(_read(table, *side, chosen) for side in (a, b)))


def _read(table: str, run: Run, layers: Sequence[str], steps: IntArray) -> Columns:
    """The table's numbers, pivoted to (steps, layers)."""
    step, layer = pc.field("step"), pc.field("layer")
    where = (step >= int(steps[0])) & (step <= int(steps[-1]))  # lets files be passed
    where &= step.isin(pa.array(steps)) & layer.isin(list(layers))
    numbers = [c.name for c in TABLES[table].columns if c.dtype != "string"]
    rows = run.table(table, [*numbers, "layer"], where)
    column = pc.index_in(rows["layer"], value_set=pa.array(layers, pa.string()))
    row = np.searchsorted(steps, rows["step"].to_numpy())
    at = row * len(layers) + column.to_numpy()
    pivoted = {}
    for name in numbers:
        flat = np.full(len(steps) * len(layers), np.nan)
        flat[at] = rows[name].to_numpy()
        pivoted[name] = flat.reshape(len(steps), len(layers))
    return pivoted
