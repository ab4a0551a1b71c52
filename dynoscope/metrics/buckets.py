"""Smallest value, mean and largest value over runs of rows: a curve in coarse."""

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from dynoscope.measurement import FloatArray

__all__ = ["Buckets", "bucket", "merge", "places_of", "starts_of"]

_STEP_BITS: Final = 42

IntArray = npt.NDArray[np.int64]


class Buckets(NamedTuple):
    """What is known of a number in each bucket; arrays have shape (buckets, ...).

    Attributes:
        least: smallest value that is not NaN; NaN if there is none.
        mean: their mean, float64.
        most: the largest.
        known: how many they are.
    """

    least: FloatArray
    mean: FloatArray
    most: FloatArray
    known: IntArray

    def at(self, index: Any) -> "Buckets":
        """Some of them, as arrays are indexed."""
        least, mean, most, known = (array[index] for array in self)
        return Buckets(
            np.asarray(least), np.asarray(mean), np.asarray(most), np.asarray(known)
        )

    def then(self, later: "Buckets") -> "Buckets":
        """These, and others after them."""
        return Buckets(
            np.concatenate([self.least, later.least]),
            np.concatenate([self.mean, later.mean]),
            np.concatenate([self.most, later.most]),
            np.concatenate([self.known, later.known]),
        )


def places_of(curves: IntArray, steps: IntArray) -> IntArray:
    """One number for curve and step, by which rows are sorted by both.

    Args:
        curves: number of each row's curve, shape (rows,), below 2**21.
        steps: its step, from 0 to 2**42.
    """
    return (curves << _STEP_BITS) + steps


def starts_of(places: IntArray, exponent: int) -> IntArray:
    """Where buckets begin, in rows sorted by their places.

    A bucket has the rows of a curve from step n * 2**exponent to (n + 1) * 2**exponent.
    """
    if not len(places):
        return np.empty(0, np.int64)
    bucket_places = places >> exponent
    differs = bucket_places[1:] != bucket_places[:-1]
    return np.concatenate([[0], np.flatnonzero(differs) + 1])


def bucket(values: npt.NDArray[np.floating], starts: IntArray) -> Buckets:
    """Buckets of values, shape (rows,), that begin where `starts` says."""
    known = ~np.isnan(values)
    counted = np.where(known, values, 0.0)
    return _buckets(values, counted, values, known, starts)


def merge(fine: Buckets, starts: IntArray) -> Buckets:
    """Larger buckets from smaller ones: the same as from all values, up to rounding."""
    with np.errstate(invalid="ignore"):  # the mean of infinities
        total = np.where(fine.known > 0, fine.mean * fine.known, 0.0)
    return _buckets(fine.least, total, fine.most, fine.known, starts)


def _buckets(
    least: npt.NDArray[np.floating],
    total: npt.NDArray[np.floating],
    most: npt.NDArray[np.floating],
    known: npt.NDArray[np.bool_] | IntArray,
    starts: IntArray,
) -> Buckets:
    if not len(starts):
        nothing = np.empty((0, *least.shape[1:]))
        return Buckets(nothing, nothing, nothing, nothing.astype(np.int64))
    count = np.add.reduceat(known, starts, dtype=np.int64)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        mean = np.add.reduceat(total, starts, dtype=np.float64) / count
        smallest, largest = (
            np.fmin.reduceat(least, starts),
            np.fmax.reduceat(most, starts),
        )
    return Buckets(smallest, mean, largest, count)
