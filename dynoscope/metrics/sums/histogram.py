"""Histograms of weights and gradients, counted on the device."""

import collections
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dynoscope.metrics.histograms import BINS, SIDE, SMALLEST, SPLIT_BITS
from dynoscope.metrics.sums.pack import start_copy
from dynoscope.metrics.sums.tensors import Tensors, flat

__all__ = ["Histograms"]

PIECE: Final = 1 << 18
"""Elements that are sorted into bins at once."""

_MANTISSA: Final = 23 - SPLIT_BITS  # bits that do not matter
_LOWEST: Final = (127 + SMALLEST) << SPLIT_BITS  # leading bits of the first bin


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

    @property
    def nbytes(self) -> int:
        """Host bytes that the counts of one step hold until they are fetched."""
        return 2 * 8 * BINS * len(self._parameters)

    @torch.no_grad()
    def take(self, grads: Tensors) -> Callable[[], npt.NDArray[np.int64]]:
        """Count now; give a function that waits for the counts.

        Args:
            grads: gradients in the order of the layers; one that is None is not
                counted.

        Returns:
            A function that gives counts of shape (2, layers, BINS): of the weights,
            and of the gradients.
        """
        waits = {}
        for device, at in self._at.items():
            counts = torch.zeros(2, len(at), BINS, dtype=torch.int64, device=device)
            for k, index in enumerate(at):
                _count(self._parameters[index], counts[0, k])
                if (grad := grads[index]) is not None:
                    _count(grad, counts[1, k])
            waits[device] = start_copy(counts, collections.deque())

        def fetch() -> npt.NDArray[np.int64]:
            counts = np.empty((2, len(self._parameters), BINS), np.int64)
            for device, wait in waits.items():
                counts[:, self._at[device]] = wait()
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
