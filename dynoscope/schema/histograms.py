"""The table of histograms."""

from typing import Final

from dynoscope.schema.column import LAYER, STEP, Table, key, measured

__all__ = ["HISTOGRAMS"]

HISTOGRAMS: Final = Table(
    "histograms",
    "One row per step of `watch(histograms=True)`, layer and quantity.",
    (
        STEP,
        LAYER,
        key(
            "quantity", "string", "quantity",
            "`weight` before the step, or `gradient` that the optimizer received.",
        ),
        measured(
            "counts", "", "counts",
            "Elements in each bin, from the first to the last that is not empty.",
            dtype="list<int64>",
        ),
        measured(
            "edges", "", "edges",
            "Edges of the bins, ascending: each power of two in four, both signs.",
            dtype="list<float64>",
        ),
    ),
)  # fmt: skip
