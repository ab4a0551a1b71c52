"""Mean rotation of every layer in buckets of steps, however long the run."""

from collections.abc import Mapping
from typing import Final

import numpy as np

from dynoscope.dashboard.track import Steps, Track
from dynoscope.measurement import FloatArray
from dynoscope.reader import Run

__all__ = ["COLUMNS", "Rotation"]

COLUMNS: Final = 300
"""Most buckets: a map has no more columns than a screen can show."""

EXACT_ROWS: Final = 1 << 19
"""Rows up to which those without a prediction are told from the others."""


class Rotation:
    """Measured and predicted `angular_update`, averaged over buckets of steps.

    When there would be too many, neighbours are merged, so each mean is over every
    measured step of its bucket.

    Args:
        run: the run.
        columns: most buckets.
        window: which steps; None for all.

    Attributes:
        track: means of the angles, of those that have a prediction beside them, and
            of these predictions.
    """

    def __init__(
        self, run: Run, columns: int = COLUMNS, window: Steps | None = None
    ) -> None:
        names = run.layer_names
        self.track = Track(
            run,
            "layers",
            ["angular_update", "pred_angular_update"],
            names,
            among=len(names),
            points=columns,
            window=window,
            made=_paired,
            exact=EXACT_ROWS // max(len(names), 1),
        )

    @property
    def width(self) -> int:
        """Steps of a bucket."""
        return 1 << self.track.exponent

    @property
    def steps(self) -> tuple[np.ndarray, np.ndarray]:
        """First and last step of each bucket, each of shape (buckets,)."""
        first = self.track.steps
        ends = ((first >> self.track.exponent) + 1 << self.track.exponent) - 1
        return first, np.minimum(ends, self.track.last_step)

    def measured(self) -> FloatArray:
        """Mean measured angle in rad, shape (buckets, layers); NaN where none."""
        return self.track.buckets("angle").mean

    def ratio(self) -> FloatArray:
        """Mean measured over mean predicted angle, shape (buckets, layers).

        Both over the steps that have a prediction; NaN where none has.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            quotient: FloatArray = (
                self.track.buckets("paired").mean / self.track.buckets("predicted").mean
            )
        return np.where(np.isfinite(quotient), quotient, np.nan)


def _paired(arrays: Mapping[str, FloatArray]) -> Mapping[str, FloatArray]:
    angle, predicted = arrays["angular_update"], arrays["pred_angular_update"]
    angle = np.where(np.isfinite(angle), angle, np.nan)
    is_paired = np.isfinite(angle) & np.isfinite(predicted)
    return {
        "angle": angle,
        "paired": np.where(is_paired, angle, np.nan),
        "predicted": np.where(is_paired, predicted, np.nan),
    }
