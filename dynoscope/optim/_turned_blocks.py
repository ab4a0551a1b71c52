"""The blocks of one parameter that turn: its rows, or the whole tensor.

What is known of a block is a column, which broadcasts to the tensor: one entry a
row, or a single one; in float64 where the device has it. A DTensor is its local
shard, and a column that of the shard's rows.
"""

from collections.abc import Callable, Sequence
from typing import Final, Literal, NamedTuple, Self, TypeAlias

import torch
from torch import Tensor

from dynoscope.optim._blocks import norm_over
from dynoscope.optim._shards import sum_over_shards
from dynoscope.sharding import Layout, cut, layout, local

__all__ = [
    "PER",
    "Blocks",
    "Per",
    "center_",
    "check_options",
    "complete",
    "factor_column",
    "is_zero",
    "wide_dtype",
]

Per: TypeAlias = Literal["row", "tensor"]
PER: Final[tuple[Per, ...]] = ("row", "tensor")


class Blocks(NamedTuple):
    """How the blocks of a parameter lie in it.

    Attributes:
        per: what a block is.
        numel: number of real elements of a block.
        dims: the dimensions of a block; those of a vector are all, one single row.
        rows: shape of a column of the whole tensor.
        layout: how the tensor lies on the processes, None if it is no DTensor.
    """

    per: Per
    numel: int
    dims: tuple[int, ...]
    rows: torch.Size
    layout: Layout | None

    @classmethod
    def of(cls, param: Tensor, per: Per) -> Self:
        """The blocks of a parameter, a complex one being twice as many reals."""
        shape = torch.Size((*param.shape, 2)) if param.is_complex() else param.shape
        first = 1 if per == "row" and param.ndim > 1 else 0
        return cls(
            per,
            shape[first:].numel(),
            tuple(range(first, len(shape))),
            torch.Size((*shape[:first], *[1] * (len(shape) - first))),
            layout(param),
        )

    @property
    def can_turn(self) -> bool:
        """Whether blocks have a direction: two elements at least, and some block."""
        return self.numel > 1 and self.rows.numel() > 0

    @property
    def can_center(self) -> bool:
        """Whether a centred block has a circle to turn on: three elements at least."""
        return self.numel > 2

    def shard(self, tensor: Tensor) -> Tensor:
        """The real numbers of the tensor that this process holds; shares memory."""
        here = local(tensor)
        return torch.view_as_real(here) if here.is_complex() else here

    def sum(self, shard: Tensor) -> Tensor:
        """Sum over what a shard holds of every block."""
        return shard.sum(self.dims, keepdim=True).to(wide_dtype(shard))

    def sum_of_squares(self, shard: Tensor) -> Tensor:
        """Sum of squares over what a shard holds of every block."""
        return norm_over(shard, self.dims).square()

    def shard_of_column(self, column: Tensor) -> Tensor:
        """What belongs to this process of a column of the whole tensor."""
        column = column.reshape(self.rows)
        lies = self._layout_of_column()
        return column if lies is None else cut(column, lies)

    def whole_column(self, column: Tensor) -> Tensor:
        """A column of this process as one of the whole tensor: a DTensor of rows."""
        lies = self._layout_of_column()
        if lies is None:
            return column
        from torch.distributed.tensor import DTensor

        strides = torch.empty(lies.shape, device="meta").stride()
        return DTensor.from_local(
            column,
            lies.mesh,
            lies.placements,
            run_check=False,
            shape=lies.shape,
            stride=strides,
        )

    def _layout_of_column(self) -> Layout | None:
        """How a column lies: as the rows do; None if every process has all of it."""
        if self.layout is None or 0 in self.dims:
            return None
        from torch.distributed.tensor import Replicate

        placements = tuple(
            placement if getattr(placement, "dim", None) == 0 else Replicate()
            for placement in self.layout.placements
        )
        return Layout(self.rows, self.layout.mesh, placements)


def complete(sums: Sequence[Tensor], blocks: Sequence[Blocks]) -> None:
    """Complete sums over shards in place; one collective a mesh dimension for all."""
    sum_over_shards(
        sums, [each.layout for each in blocks], [each.per for each in blocks]
    )


def center_(param: Tensor, per: Per) -> None:
    """Subtract every block's mean in place and keep its norm.

    Blocks of two are left alone: centred, they could not turn. A block that this
    would leave without a direction, because all its entries are alike, stays too.
    """
    blocks = Blocks.of(param, per)
    if not blocks.can_center:
        return
    weight = blocks.shard(param)
    wide = weight.to(wide_dtype(weight))
    sums = torch.stack([blocks.sum(wide), blocks.sum_of_squares(wide)])
    complete([sums], [blocks])
    centered = wide - sums[0] / blocks.numel
    rest_sq = blocks.sum_of_squares(centered)
    complete([rest_sq], [blocks])
    norm, rest = sums[1].sqrt(), rest_sq.sqrt()
    # what rounding leaves of a constant block is no direction
    pointless = rest <= norm * (16 * torch.finfo(weight.dtype).eps)
    centered = centered * (norm / rest.masked_fill(pointless, 1.0))
    weight.copy_(torch.where(pointless, wide, centered))


def is_zero(param: Tensor) -> bool:
    """Whether all elements are 0, of a DTensor on all processes; waits for it."""
    blocks = Blocks.of(param, "tensor")
    total = blocks.sum_of_squares(blocks.shard(param.detach()))
    complete([total], [blocks])
    return not total.any()


def check_options(per: str, beta: float) -> None:
    """Refuse options that make no sense; NaN fails every test.

    Raises:
        ValueError: an option is out of range.
    """
    if per not in PER:
        known = ", ".join(f"'{each}'" for each in PER)
        raise ValueError(f"per must be one of {known}, got {per!r}")
    if not 0 <= beta < 1:
        raise ValueError(
            f"beta must be in [0, 1), got {beta}; at 1 no update would enter the "
            "running mean, 0 is no mean"
        )


def factor_column(
    make: Callable[[Tensor], float | Tensor] | None, param: Tensor, blocks: Blocks
) -> float | Tensor:
    """A parameter's factor of its angle: one number, or a column of this process.

    Raises:
        ValueError: there are neither as many numbers as rows nor one.
    """
    factor = 1.0 if make is None else make(param)
    if not isinstance(factor, Tensor) or factor.ndim == 0:
        return factor
    if blocks.per != "row" or factor.numel() != blocks.rows.numel():
        raise ValueError(
            f"factor gave {factor.numel()} numbers for a parameter of shape "
            f"{tuple(param.shape)}, which turns per {blocks.per}; give a number, or "
            "one a row"
        )
    return blocks.shard_of_column(factor.detach())


def wide_dtype(tensor: Tensor) -> torch.dtype:
    """The dtype that sums of a tensor are made in."""
    return torch.float32 if tensor.device.type == "mps" else torch.float64
