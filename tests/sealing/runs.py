"""Runs of a few tables, written as the recorder writes them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from dynoscope.recorder.journal import TableWriter
from dynoscope.recorder.tables import arrays
from dynoscope.schema import TABLES

LAYERS = ("b.weight", "a.weight", "b.bias")


def table_rows(table: str, steps: Sequence[int], seed: int = 0) -> list[pa.Array]:
    """Rows of random numbers, NaN and infinities among them, layers in odd order."""
    random = np.random.default_rng([seed, *steps])
    names = list(LAYERS)
    random.shuffle(names)
    count = len(steps) * len(names)
    columns: dict[str, Any] = {}
    for column in TABLES[table].columns:
        if column.name == "step":
            columns["step"] = np.repeat(steps, len(names))
        elif column.dtype == "string":
            columns[column.name] = names * len(steps)
        elif column.dtype.startswith("list"):
            columns[column.name] = [[1, 2, 3][: n % 4] for n in range(count)]
        elif column.dtype.startswith("int"):
            columns[column.name] = random.integers(0, 9, count)
        else:
            values = random.normal(size=count) * 10.0 ** random.integers(-9, 9, count)
            values[random.random(count) < 0.1] = np.nan
            values[random.random(count) < 0.02] = np.inf
            columns[column.name] = values
    return arrays(table, columns)


def write(
    run: Path, table: str, parts: Sequence[Sequence[int]], *, open_: bool
) -> None:
    """Write a part for each list of steps; the last one stays a journal if open."""
    writer = TableWriter(run, table)
    for n, steps in enumerate(parts):
        writer.append(table_rows(table, steps))
        if n < len(parts) - 1 or not open_:
            writer.flush()
    writer.abandon()
