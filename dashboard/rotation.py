"""Mean rotation of every layer in buckets of steps, however long the run."""

from typing import Final

import numpy as np

from dynoscope.reader import Block

__all__ = ["COLUMNS", "Rotation"]

COLUMNS: Final = 300
"""Most buckets: a map has no more columns than a screen can show."""


class Rotation:
    """Measured and predicted `angular_update`, averaged over buckets of steps.

    Bucket b holds the measured steps number b * width to (b + 1) * width - 1. When
    there would be too many, neighbours are merged and the width doubles, so each
    mean is over every measured step of its bucket.

    Args:
        layers: number of layers.
        columns: most buckets.

    Attributes:
        width: measured steps per bucket.
    """

    def __init__(self, layers: int, columns: int = COLUMNS) -> None:
        self.width, self._most, self._seen = 1, columns, 0
        self._first = np.zeros(0, np.int64)
        self._last = np.zeros(0, np.int64)
        # Sums over a bucket: steps with an angle, their angles, the angles that
        # have a prediction beside them, and these predictions.
        self._sums = np.zeros((4, 0, layers))

    def add(self, block: Block) -> None:
        """Take in new rows, the newest last."""
        steps = block["step"]
        if not len(steps):
            return
        numbers = np.arange(self._seen, self._seen + len(steps))
        self._seen += len(steps)
        while numbers[-1] // self.width >= self._most:
            self._merge()
        buckets = numbers // self.width
        start = np.flatnonzero(np.diff(buckets, prepend=-1))
        new = np.add.reduceat(_terms(block), start, axis=1)
        first, last = steps[start], steps[np.append(start[1:], len(steps)) - 1]
        if buckets[0] < len(self._first):  # its first rows came earlier
            self._sums[:, -1] += new[:, 0]
            self._last[-1] = last[0]
            new, first, last = new[:, 1:], first[1:], last[1:]
        self._sums = np.concatenate([self._sums, new], axis=1)
        self._first = np.concatenate([self._first, first])
        self._last = np.concatenate([self._last, last])

    def _merge(self) -> None:
        self.width *= 2
        count = len(self._first)
        if not count:
            return
        start = np.arange(0, count, 2)
        self._sums = np.add.reduceat(self._sums, start, axis=1)
        self._first = self._first[start]
        self._last = self._last[np.minimum(start + 1, count - 1)]

    @property
    def steps(self) -> tuple[np.ndarray, np.ndarray]:
        """First and last step of each bucket, each of shape (buckets,)."""
        return self._first, self._last

    def measured(self) -> np.ndarray:
        """Mean measured angle in rad, shape (buckets, layers); NaN where none."""
        return _quotient(self._sums[1], self._sums[0])

    def ratio(self) -> np.ndarray:
        """Mean measured over mean predicted angle, shape (buckets, layers).

        Both over the steps that have a prediction; NaN where none has.
        """
        return _quotient(self._sums[2], self._sums[3])


def _terms(block: Block) -> np.ndarray:
    angle = np.asarray(block["angular_update"], float)
    predicted = np.asarray(block["pred_angular_update"], float)
    known = np.isfinite(angle)
    both = known & np.isfinite(predicted)
    terms = [known, np.where(known, angle, 0.0), np.where(both, angle, 0.0)]
    return np.stack([*terms, np.where(both, predicted, 0.0)])


def _quotient(sums: np.ndarray, over: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(over > 0, sums / over, np.nan)
