"""Rows of the `histograms` table: what is in its bins, without the empty ends."""

from collections.abc import Sequence
from typing import Any, Final

import pyarrow as pa

from dynoscope.measurement import Measurement
from dynoscope.metrics.histograms import trimmed

__all__ = ["QUANTITIES", "histogram_columns"]

QUANTITIES: Final = ("weight", "gradient")
"""What is counted, in the order in which it is measured."""


def histogram_columns(
    layers: Sequence[str], batch: Sequence[Measurement]
) -> dict[str, Any]:
    """Columns of the table for those steps of a batch that counted.

    Args:
        layers: names of the layers.
        batch: consecutive measurements.
    """
    columns: dict[str, list[Any]] = {
        name: [] for name in ("step", "layer", "quantity", "counts", "edges")
    }
    for measurement in batch:
        if measurement.histograms is None:
            continue
        of_quantity = measurement.histograms()
        for at, layer in enumerate(layers):
            if not of_quantity[0, at].any():
                continue  # its optimizer did not step
            for quantity, counts in zip(QUANTITIES, of_quantity[:, at], strict=True):
                if quantity == "gradient" and not measurement.has_grad[at]:
                    continue
                row = (measurement.step, layer, quantity, *trimmed(counts))
                for column, value in zip(columns.values(), row, strict=True):
                    column.append(value)
    return {
        **columns,
        "counts": pa.array(columns["counts"], pa.list_(pa.int64())),
        "edges": pa.array(columns["edges"], pa.list_(pa.float64())),
    }
