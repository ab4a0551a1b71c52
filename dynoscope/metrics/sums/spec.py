"""What is taken from a parameter, and in which pieces."""

import dataclasses
import math
from collections.abc import Hashable
from typing import Final, Literal, TypeAlias

import torch
from torch import Tensor

from dynoscope.metrics.packing import Columns
from dynoscope.metrics.sums.tensors import real
from dynoscope.sharding import local

__all__ = ["Means", "Spec"]

Means: TypeAlias = Literal["torch", "c", "triton"]
"""What sums are taken by: torch's operations, or a kernel that is compiled."""

PIECE: Final = 1 << 18
"""Elements of a piece on the CPU: small enough for the cache, large enough to split."""

SMALL: Final = 1 << 15
"""Layers of up to this many elements are stacked with others of their shape."""

VECTOR: Final = 1 << 11
"""Biases and the like of up to this many elements are stacked whatever their size."""


@dataclasses.dataclass(frozen=True)
class Spec:
    """What to take from one parameter, or from the local shard of a DTensor.

    Attributes:
        parameter: the tensor to watch.
        rows: whether its output rows are measured one by one.
        channels: whether its elements are kept one by one (a normalization).
        part: index of the optimizer that moves it.
        turn: at which turn it is measured.
        means: what takes its sums.
    """

    parameter: Tensor
    rows: bool = False
    channels: bool = False
    part: int = 0
    turn: int = 0
    means: Means = "torch"

    @property
    def shape(self) -> torch.Size:
        """Shape of what is here of the parameter, in real numbers."""
        return real(local(self.parameter)).shape

    @property
    def numel(self) -> int:
        """How many real numbers are here; an empty shard has none."""
        return self.shape.numel()

    @property
    def is_small(self) -> bool:
        """Whether it is stacked with others, not cut into pieces."""
        return self.channels or self.numel <= SMALL

    @property
    def likeness(self) -> tuple[Hashable, ...]:
        """Small layers alike in this are stacked: vectors, and matrices of a shape."""
        size = 0 if not self.rows and self.numel <= VECTOR else self.numel
        return (self.part, self.turn, self.parameter.device, self.row_length, size)

    @property
    def row_length(self) -> int:
        """Elements of an output row, 0 where rows are not measured."""
        return math.prod(self.shape[1:]) if self.rows else 0

    @property
    def cuts(self) -> list[int]:
        """Sizes of its pieces, each of whole rows."""
        numel = self.numel
        if (
            self.is_small
            or self.means != "torch"
            or self.parameter.device.type != "cpu"
        ):
            return [numel]
        row = self.row_length or 1
        size = min(max(PIECE // row, 1) * row, numel)
        return [size] * (numel // size) + [numel % size] * (numel % size > 0)

    def columns(self, layer: int) -> Columns:
        """What it owns of the packed tensor."""
        return Columns(
            layer,
            pieces=len(self.cuts),
            rows=self.shape[0] if self.rows else 0,
            channels=self.numel if self.channels else 0,
        )

    def columns_of_whole(self, layer: int) -> Columns:
        """What it owns where the sums of all shards are completed."""
        return Columns(
            layer,
            pieces=1,
            rows=self.parameter.shape[0] if self.rows else 0,
            channels=self.parameter.numel() if self.channels else 0,
        )
