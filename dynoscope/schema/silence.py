"""The table of silent channels, from which a resumed run goes on counting."""

from typing import Final

from dynoscope.schema.column import LAYER, STEP, Table, measured

__all__ = ["SILENCE"]

SILENCE: Final = Table(
    "silence",
    "One row per normalization layer after 1, 2, 4, ... 128, then every 128 measured "
    "steps, and at the end.",
    (
        STEP,
        LAYER,
        measured(
            "silent", "steps", "silent for",
            "Steps of its optimizer since when each channel's gradient has been "
            "exactly 0, this one included; -1 if it never had another.",
            "SepNorm, section 3 and figure 2", dtype="list<int64>",
        ),
    ),
)  # fmt: skip
