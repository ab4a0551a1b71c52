"""Running comparison of one metric of many layers, fed block by block."""

import numpy as np
import numpy.typing as npt
import pandas as pd

from dynoscope.diff.difference import distance, kind_of, limit_of, relative
from dynoscope.measurement import FloatArray
from dynoscope.schema.registry import Metric

__all__ = ["COLUMNS", "Tally"]

COLUMNS = (
    "layer", "metric", "role", "kind", "a", "b", "relative", "distance",
    "largest", "largest_step", "first_step", "steps", "only_a", "only_b",
)  # fmt: skip
"""Columns of a comparison; `dynoscope.diff.Diff.layers` says what they hold."""

NEVER = -1  # a step that has not come
IntArray = npt.NDArray[np.int64]


class Tally:
    """Sums, extremes and first divergence of one metric, over steps.

    Args:
        metric: the metric's registry entry.
        layers: number of layers.
        threshold: see `limit_of`.
    """

    def __init__(self, metric: Metric, layers: int, threshold: float) -> None:
        self._metric, self._kind = metric, kind_of(metric)
        self._limit = limit_of(self._kind, threshold)
        # Rows: a and b, over steps where both have a number; then each alone.
        self._sums = np.zeros((4, layers))
        self._counts = np.zeros((4, layers), np.int64)
        self._farthest = np.zeros(layers)
        self._largest = np.zeros(layers)
        self._largest_step: IntArray = np.full(layers, NEVER)
        self._first_step: IntArray = np.full(layers, NEVER)

    def add(self, steps: IntArray, a: FloatArray, b: FloatArray) -> None:
        """Take in a block of steps, which come after all earlier ones.

        Args:
            steps: step numbers, shape (steps,), rising.
            a: the metric in run a, shape (steps, layers); NaN where it has none.
            b: the same in run b.
        """
        has_a, has_b = np.isfinite(a), np.isfinite(b)
        both = has_a & has_b
        for row, (values, valid) in enumerate(
            ((a, both), (b, both), (a, has_a), (b, has_b))
        ):
            self._sums[row] += np.where(valid, values, 0.0).sum(axis=0)
            self._counts[row] += valid.sum(axis=0)
        a, b = np.where(both, a, np.nan), np.where(both, b, np.nan)
        apart = np.nan_to_num(distance(self._kind, a, b), nan=0.0, posinf=np.inf)
        self._extend_largest(steps, a, b, apart)
        beyond = apart > self._limit
        newly = beyond.any(axis=0) & (self._first_step == NEVER)
        self._first_step[newly] = steps[beyond.argmax(axis=0)][newly]

    def _extend_largest(
        self, steps: IntArray, a: FloatArray, b: FloatArray, apart: FloatArray
    ) -> None:
        if not len(steps):
            return
        at = apart.argmax(axis=0)
        layer = np.arange(apart.shape[1])
        farther = apart[at, layer] > self._farthest
        change = relative(self._kind, a[at, layer], b[at, layer])
        self._farthest[farther] = apart[at, layer][farther]
        self._largest[farther] = change[farther]
        self._largest_step[farther] = steps[at][farther]

    def frame(self, names: list[str]) -> pd.DataFrame:
        """One row per layer, with `COLUMNS`.

        Args:
            names: the layers' names, in the order of the blocks' columns.
        """
        with np.errstate(invalid="ignore"):
            means = self._sums / self._counts
        shared = self._counts[0] > 0
        a = np.where(shared, means[0], means[2])
        b = np.where(shared, means[1], means[3])
        columns = {
            "layer": names,
            "metric": self._metric.name,
            "role": self._metric.role,
            "kind": self._kind,
            "a": a,
            "b": b,
            "relative": np.where(shared, relative(self._kind, a, b), np.nan),
            "distance": np.where(shared, distance(self._kind, a, b), np.nan),
            "largest": np.where(shared, self._largest, np.nan),
            "largest_step": _nullable(self._largest_step),
            "first_step": _nullable(self._first_step),
            "steps": self._counts[0],
            "only_a": self._counts[2] - self._counts[0],
            "only_b": self._counts[3] - self._counts[0],
        }
        return pd.DataFrame(columns)[list(COLUMNS)]


def _nullable(steps: IntArray) -> pd.arrays.IntegerArray:
    return pd.arrays.IntegerArray(steps.copy(), steps == NEVER)
