"""Which pairs of many can matter: a quick look, before distances are taken exactly.

A quotient or a difference of float32 is off by 6e-8 of itself. That is enough to say
which few pairs may be the farthest apart, or the first beyond a limit.
"""

import dataclasses
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dynoscope.diff.difference import Kind
from dynoscope.measurement import FloatArray

__all__ = ["Screen", "screen"]

SLACK: Final = {4: 1e-6, 8: 1e-11}
"""How far a quick distance may be off, more than amply, by bytes of a number: of
itself, and where it is a logarithm also as it is."""

ORDINARY: Final = 1e30
"""Quotients between this and its inverse are taken for what they are."""

BoolArray = npt.NDArray[np.bool_]


@dataclasses.dataclass(frozen=True)
class Screen:
    """Pairs of finite numbers of layers x steps, looked at quickly.

    Attributes:
        most: a distance that no pair of a layer is beyond, shape (layers,); inf where
            a quick look does not say.
    """

    most: FloatArray
    _kind: Kind
    _quick: npt.NDArray[Any]
    _slack: float

    def beyond(self, limit: FloatArray, layers: npt.NDArray[np.intp]) -> BoolArray:
        """Which pairs may be farther apart than a limit, or just as far.

        Args:
            limit: a distance for each of the layers, shape (n,).
            layers: which layers, shape (n,).
        """
        quick = self._quick if len(layers) == len(self._quick) else self._quick[layers]
        limit = limit[:, None] / (1 + 2 * self._slack)
        if self._kind == "difference":
            ends = -limit, limit
        else:
            limit -= 2 * self._slack
            ends = np.exp(-limit), np.exp(limit)
        least, most = (end.astype(quick.dtype) for end in ends)
        found: BoolArray = (quick <= least) | (quick >= most)
        return found


def screen(kind: Kind, a: npt.NDArray[Any], b: npt.NDArray[Any]) -> Screen:
    """Look at pairs of numbers.

    Args:
        kind: how they are compared.
        a: float32 or float64, all finite, shape (layers, steps).
        b: the same of the other run.
    """
    with np.errstate(all="ignore"):
        quick = b - a if kind == "difference" else b / a
        slack = SLACK[quick.itemsize]
        least, most = (end(axis=1).astype(np.float64) for end in (quick.min, quick.max))
        if kind == "difference":
            farthest = np.maximum(most, -least) * (1 + slack)
            return Screen(_known(farthest, farthest < np.inf), kind, quick, slack)
        farthest = np.maximum(np.log(most), -np.log(least)) * (1 + slack)
        farthest[farthest > 0] += slack
        # A quotient of 1 is of equal numbers; two negative ones are not comparable.
        is_plain = (a.min(axis=1) > 0) & (least > 1 / ORDINARY) & (most < ORDINARY)
        return Screen(_known(farthest, is_plain), kind, quick, slack)


def _known(farthest: FloatArray, is_known: BoolArray) -> FloatArray:
    return np.where(is_known, farthest, np.inf)
