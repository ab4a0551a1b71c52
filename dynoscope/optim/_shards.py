"""Sums over tensors that are cut into shards, each on another process.

A `DTensor` (of ``fully_shard`` or of tensor parallelism) is updated through its local
shard, a plain tensor; elementwise work needs no more. A norm, a product or a mean
does: it is taken of the local shards first and then summed over the processes, in
three steps, all of them the same on every process.

1. `dynoscope.sharding.layout` says how a parameter lies on the processes, None if it
   is no DTensor; `local` there gives the shard itself. A shard may be empty.
2. Take the sums of the shards: a number for a tensor, a column for its rows.
3. `sum_over_shards` completes all of them in place, by one collective for every mesh
   dimension that cuts a block, however many sums there are. Collect the sums of the
   whole step, of all sorts, before calling it.

For the means of the rows of DTensors, for example:

    layouts = [layout(param) for param in params]
    sums = [local(param).sum(1, keepdim=True) for param in params]
    sum_over_shards(sums, layouts, ["row"] * len(sums))
    means = [s / param.shape[1] for s, param in zip(sums, params, strict=True)]
"""

from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dynoscope.optim._blocks import Per
from dynoscope.sharding import Layout

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["gather", "sum_over_shards", "whole_norms"]


def sum_over_shards(
    partials: Sequence[Tensor], layouts: Sequence[Layout | None], pers: Sequence[Per]
) -> None:
    """Complete sums of local shards, in place, by one collective a mesh dimension.

    Call it on every process with sums of the same parameters in the same order, those
    of empty shards too. They travel in the widest of their dtypes: make them float64
    if their digits matter.

    Args:
        partials: sums over the local shard, of any shapes: those of processes that
            hold parts of the same blocks are alike.
        layouts: the layout of the tensor each is a sum of; None completes nothing.
        pers: the blocks each is a sum of.
    """
    shared: dict[ProcessGroup, list[Tensor]] = {}
    for partial, its_layout, per in zip(partials, layouts, pers, strict=True):
        for group in (
            its_layout.cutting(rows=per == "row") if its_layout is not None else ()
        ):
            shared.setdefault(group, []).append(partial)
    for group, members in shared.items():
        dtype = reduce(torch.promote_types, (member.dtype for member in members))
        packed = torch.cat(
            [member.reshape(-1).to(members[0].device, dtype) for member in members]
        )
        torch.distributed.all_reduce(packed, group=group)
        pieces = packed.split([member.numel() for member in members])
        torch._foreach_copy_(
            members,
            [p.view_as(m) for p, m in zip(pieces, members, strict=True)],
        )


def whole_norms(
    norms: Sequence[Tensor], layouts: Sequence[Layout | None], per: Per
) -> list[Tensor]:
    """Norms of whole blocks from those of their shards, by `sum_over_shards`."""
    if all(its_layout is None for its_layout in layouts):
        return list(norms)
    squares = [norm.square() for norm in norms]
    sum_over_shards(squares, layouts, [per] * len(squares))
    return [square.sqrt() for square in squares]


def gather(shard: Tensor, its_layout: Layout) -> Tensor:
    """The whole tensor, on every process; a collective for every dimension that cuts.

    Args:
        shard: the local part of a tensor that lies as `its_layout` says.
        its_layout: how it lies.
    """
    from torch.distributed.tensor import DTensor

    mesh, placements = its_layout.mesh, its_layout.placements
    # strides alone, no memory
    like = torch.empty(its_layout.shape, device="meta")
    return DTensor.from_local(
        shard,
        mesh,
        placements,
        run_check=False,
        shape=like.shape,
        stride=like.stride(),
    ).full_tensor()
