"""Room for the weights of before a step; layers that take turns share it."""

import collections
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from dynoscope.metrics.sums.spec import Spec
from dynoscope.metrics.sums.tensors import real
from dynoscope.sharding import local

__all__ = ["Room"]

ALIGNMENT: Final = 64
"""Bytes; what is kept of each layer begins at a multiple."""


class Room:
    """One buffer on each device, as large as the largest turn needs it.

    Args:
        specs: the layers; of those that take the same turn, each has its own place.
    """

    def __init__(self, specs: Sequence[Spec]) -> None:
        taken: collections.Counter[tuple[torch.device, int]] = collections.Counter()
        self._starts: dict[int, int] = {}
        for spec in specs:
            key = spec.parameter.device, spec.turn
            self._starts[id(spec.parameter)] = taken[key]
            taken[key] += -(-_like(spec).nbytes // ALIGNMENT) * ALIGNMENT
        most: collections.Counter[torch.device] = collections.Counter()
        for (device, _), size in taken.items():
            most[device] = max(most[device], size)
        self._buffers = {
            device: torch.empty(size, dtype=torch.uint8, device=device)
            for device, size in most.items()
        }

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers."""
        return sum(buffer.nbytes for buffer in self._buffers.values())

    def of(self, spec: Spec) -> Tensor:
        """A layer's place: as many elements as are here of it, in one dimension."""
        start, like = self._starts[id(spec.parameter)], _like(spec)
        place = self._buffers[spec.parameter.device][start : start + like.nbytes]
        return place.view(like.dtype)


def _like(spec: Spec) -> Tensor:
    """The local shard, in real numbers."""
    return real(local(spec.parameter)).detach()
