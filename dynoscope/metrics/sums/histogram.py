"""Histograms of weights and gradients, counted on the device."""

import collections
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dynoscope.metrics.histograms import BINS, SIDE, SMALLEST, SPLIT_BITS
from dynoscope.metrics.sums.pack import start_copy
from dynoscope.metrics.sums.tensors import Tensors, flat

__all__ = ["Counted", "Histograms", "start_counts"]

PIECE: Final = 1 << 18
"""Elements that are sorted into bins at once."""

_MANTISSA: Final = 23 - SPLIT_BITS  # bits that do not matter
_LOWEST: Final = (127 + SMALLEST) << SPLIT_BITS  # leading bits of the first bin


class Counted(NamedTuple):
    """Histograms of some layers, on their device.

    Attributes:
        layers: which layers.
        counts: of their weights and gradients, shape (2, layers, BINS), int64.
    """

    layers: Sequence[int]
    counts: Tensor


class Histograms:
    """Counts what the weights and gradients of some layers are, in fixed bins.

    Args:
        parameters: the layers.
    """

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self._parameters = parameters
        self._at: dict[torch.device, list[int]] = collections.defaultdict(list)
        for index, parameter in enumerate(parameters):
            self._at[parameter.device].append(index)

    @torch.no_grad()
    def take(self, grads: Tensors) -> list[Counted]:
        """Count what there is now, device by device.

        Args:
            grads: gradients in the order of the layers; one that is None is not
                counted.
        """
        counted = []
        for device, at in self._at.items():
            counts = torch.zeros(2, len(at), BINS, dtype=torch.int64, device=device)
            for k, index in enumerate(at):
                _count(self._parameters[index], counts[0, k])
                if (grad := grads[index]) is not None:
                    _count(grad, counts[1, k])
            counted.append(Counted(at, counts))
        return counted


def start_counts(
    counted: Sequence[Counted], layers: int
) -> Callable[[], npt.NDArray[np.int64]]:
    """Start copies to the host; give a function that waits for them.

    Args:
        counted: the counts of some of the layers; those of others are 0.
        layers: number of all layers.

    Returns:
        A function that gives counts of shape (2, layers, BINS), of the weights and of
        the gradients.
    """
    waits = [
        (each.layers, start_copy(each.counts, collections.deque())) for each in counted
    ]

    def fetch() -> npt.NDArray[np.int64]:
        counts = np.zeros((2, layers, BINS), np.int64)
        for at, wait in waits:
            counts[:, at] = wait()
        return counts

    return fetch


def _count(x: Tensor, counts: Tensor) -> None:
    for piece in flat(x, x).split(PIECE):
        bins = _bins(piece.float())
        counts.scatter_add_(0, bins, torch.ones_like(bins))


def _bins(x: Tensor) -> Tensor:
    """Each element's bin; the sign mirrors it at the middle one."""
    bits = x.view(torch.int32)
    away = ((bits & 0x7FFFFFFF) >> _MANTISSA).sub_(_LOWEST - 1).clamp_(0, SIDE + 1)
    sign = (bits >> 31).bitwise_or_(1)
    return away.mul_(sign).add_(SIDE + 1).long()
