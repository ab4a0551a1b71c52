"""Running comparison of one metric of many layers, fed stretch by stretch."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from dynoscope.diff.difference import distance, kind_of, limit_of, relative
from dynoscope.diff.screen import Screen, screen
from dynoscope.measurement import FloatArray
from dynoscope.schema.registry import Metric

__all__ = ["COLUMNS", "Tally"]

COLUMNS = (
    "layer", "metric", "role", "kind", "a", "b", "relative", "distance",
    "largest", "largest_step", "first_step", "steps", "only_a", "only_b",
)  # fmt: skip
"""Columns of a comparison; `dynoscope.diff.Diff.layers` says what they hold."""

NEVER = -1  # a step that has not come
Array = npt.NDArray[Any]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]


class Tally:
    """Sums, extremes and first divergence of one metric, over steps.

    Args:
        metric: the metric's registry entry.
        layers: number of layers.
        threshold: see `limit_of`.
        earlier: what is known of steps that come before: it saves work to pass over
            what cannot change that. Merge this into it, or into what comes of it.
    """

    def __init__(
        self,
        metric: Metric,
        layers: int,
        threshold: float,
        earlier: "Tally | None" = None,
    ) -> None:
        self._metric, self._kind = metric, kind_of(metric)
        self._limit = limit_of(self._kind, threshold)
        # Rows: a and b, over steps where both have a number; then each alone.
        self._sums = np.zeros((4, layers))
        self._counts = np.zeros((4, layers), np.int64)
        self._largest = np.zeros(layers)
        self._largest_step: IntArray = np.full(layers, NEVER)
        self._first_step: IntArray = np.full(layers, NEVER)
        if earlier is None:
            self._farthest, self._is_apart = np.zeros(layers), np.zeros(layers, bool)
        else:
            self._farthest = earlier._farthest.copy()
            self._is_apart = earlier._is_apart.copy()

    def add(self, steps: IntArray, a: Array, b: Array) -> None:
        """Take in some steps, after all earlier ones.

        Args:
            steps: step numbers, shape (steps,), ascending.
            a: the metric in run a, float32 or float64, shape (layers, steps); NaN
                where it has none.
            b: the same in run b.
        """
        layers, repeats = np.arange(len(a)), 1
        if a.strides[1] == b.strides[1] == 0:  # one number for all steps
            steps, a, b, repeats = steps[:1], a[:, :1], b[:, :1], len(steps)
        with np.errstate(invalid="ignore", over="ignore"):
            sums = np.stack([x.sum(axis=1, dtype=np.float64) for x in (a, b)])
        whole = np.isfinite(sums).all(axis=0)  # no NaN, nothing infinite
        if not whole.all():
            self._add_broken(steps, a[~whole], b[~whole], layers[~whole], repeats)
            layers, a, b, sums = layers[whole], a[whole], b[whole], sums[:, whole]
        self._sums[:2, layers] += repeats * sums
        self._sums[2:, layers] += repeats * sums
        self._counts[:, layers] += repeats * len(steps)
        self._scan(steps, a, b, layers)

    def merge(self, later: "Tally") -> None:
        """Take in what has been found of later steps, given this or what it was."""
        self._sums += later._sums
        self._counts += later._counts
        farther = later._farthest > self._farthest
        for mine, its in (
            (self._farthest, later._farthest),
            (self._largest, later._largest),
            (self._largest_step, later._largest_step),
        ):
            mine[farther] = its[farther]
        newly = later._is_apart & ~self._is_apart
        self._first_step[newly] = later._first_step[newly]
        self._is_apart |= newly

    def _add_broken(
        self, steps: IntArray, a: Array, b: Array, layers: IntArray, repeats: int
    ) -> None:
        """Layers some of whose numbers are NaN or infinite."""
        has_a, has_b = np.isfinite(a), np.isfinite(b)
        if not (has_a.any() or has_b.any()):
            return
        both = has_a & has_b
        for row, (values, valid) in enumerate(
            ((a, both), (b, both), (a, has_a), (b, has_b))
        ):
            sums = values.sum(axis=1, dtype=np.float64, where=valid)
            self._sums[row, layers] += repeats * sums
            self._counts[row, layers] += repeats * valid.sum(axis=1)
        some = both.any(axis=1)
        a, b = (np.where(both[some], x[some], np.nan) for x in (a, b))
        self._compare(steps, a, b, layers[some])

    def _scan(self, steps: IntArray, a: Array, b: Array, layers: IntArray) -> None:
        """Find extremes and divergence, of layers all of whose numbers are finite."""
        if not a.size:
            return
        look = screen(self._kind, a, b)
        farther = look.most > self._farthest[layers]
        apart = (look.most > self._limit) & ~self._is_apart[layers]
        if not (farther.any() or apart.any()):
            return
        unknown = np.isinf(look.most)
        if unknown.any():
            rows = np.flatnonzero(unknown & (farther | apart))
            rows = rows[(a[rows] != b[rows]).any(axis=1)]
            self._compare(steps, a[rows], b[rows], layers[rows])
            farther, apart = farther & ~unknown, apart & ~unknown
        if apart.any():
            rows = self._find_first(steps, a, b, layers, look, apart)
            self._compare(steps, a[rows], b[rows], layers[rows])
        if farther.any():
            self._find_largest(steps, a, b, layers, look, farther)

    def _find_first(
        self,
        steps: IntArray,
        a: Array,
        b: Array,
        layers: IntArray,
        look: Screen,
        chosen: BoolArray,
    ) -> IntArray:
        """When layers are first beyond the limit; returns those not settled so."""
        rows = np.flatnonzero(chosen)
        at = look.beyond(np.full(len(rows), self._limit), rows).argmax(axis=1)
        beyond = self._distance(a[rows, at], b[rows, at]) > self._limit
        first = layers[rows[beyond]]
        self._first_step[first], self._is_apart[first] = steps[at[beyond]], True
        return rows[~beyond]

    def _find_largest(
        self,
        steps: IntArray,
        a: Array,
        b: Array,
        layers: IntArray,
        look: Screen,
        chosen: BoolArray,
    ) -> None:
        """Where layers differ most, of those in which they may more than before."""
        rows = np.flatnonzero(chosen)
        found = np.flatnonzero(look.beyond(look.most[rows], rows))
        which, at = np.divmod(found, a.shape[1])
        x, y = a[rows[which], at], b[rows[which], at]
        apart = self._distance(x, y)
        order = np.lexsort((at, -apart, which))
        which, best = np.unique(which[order], return_index=True)
        best = order[best]
        self._extend(
            layers[rows[which]], apart[best], x[best], y[best], steps[at[best]]
        )

    def _compare(self, steps: IntArray, a: Array, b: Array, layers: IntArray) -> None:
        """Find extremes and divergence, pair by pair."""
        if not a.size:
            return
        apart = self._distance(a, b)
        at, row = apart.argmax(axis=1), np.arange(len(layers))
        self._extend(layers, apart[row, at], a[row, at], b[row, at], steps[at])
        beyond = apart > self._limit
        newly = beyond.any(axis=1) & ~self._is_apart[layers]
        first = layers[newly]
        self._first_step[first] = steps[beyond.argmax(axis=1)[newly]]
        self._is_apart[first] = True

    def _distance(self, a: Array, b: Array) -> FloatArray:
        """Distances; 0 where there is none."""
        apart = distance(self._kind, a.astype(np.float64), b.astype(np.float64))
        return np.nan_to_num(apart, nan=0.0, posinf=np.inf)

    def _extend(
        self, layers: IntArray, apart: FloatArray, a: Array, b: Array, steps: IntArray
    ) -> None:
        """Note the largest distances of layers, where they are larger than before."""
        farther = apart > self._farthest[layers]
        changes = relative(self._kind, a.astype(np.float64), b.astype(np.float64))
        for mine, found in (
            (self._farthest, apart),
            (self._largest, changes),
            (self._largest_step, steps),
        ):
            mine[layers[farther]] = found[farther]

    def frame(self, names: list[str]) -> pd.DataFrame:
        """One row per layer, with `COLUMNS`.

        Args:
            names: the layers' names, in the order in which they were added.
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
