"""Sums over tensors that are cut into shards, each on another process.

A `DTensor` (of ``fully_shard`` or of tensor parallelism) is updated through its local
shard, a plain tensor; elementwise work needs no more. A norm, a product or a mean
does: it is taken of the local shards first and then summed over the processes, in
three steps, all of them the same on every process.

1. `layout` says how a parameter lies on the processes, None if it is no DTensor;
   `local` gives the shard itself. A shard may be empty.
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

from collections.abc import Iterator, Sequence
from functools import reduce
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import Parameter

from dynoscope.optim._blocks import Per

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.tensor import DTensor, Placement

__all__ = [
    "Layout",
    "aligned",
    "cut",
    "gather",
    "layout",
    "local",
    "sum_over_shards",
    "whole_norms",
]


class Layout(NamedTuple):
    """How a tensor lies on the processes: its whole shape, and what cuts it."""

    shape: torch.Size
    mesh: "DeviceMesh"
    placements: tuple["Placement", ...]

    def as_real(self) -> "Layout":
        """The layout of a complex tensor's `torch.view_as_real`."""
        return self._replace(shape=torch.Size((*self.shape, 2)))

    def cutting(self, per: Per) -> Iterator["ProcessGroup"]:
        """The processes that hold parts of one block, for each mesh dimension.

        A dimension that replicates cuts nothing, so that replicas count once; one
        that deals out whole rows cuts no row.
        """
        rows = per == "row" and len(self.shape) > 1
        for dim, placement in enumerate(self.placements):
            whole = placement.is_replicate() or (
                rows and getattr(placement, "dim", None) == 0
            )
            if not whole and self.mesh.size(dim) > 1:
                yield self.mesh.get_group(dim)


def layout(tensor: Tensor) -> Layout | None:
    """How a DTensor lies on the processes; None for any other tensor."""
    sharded = _as_dtensor(tensor)
    if sharded is None:
        return None
    return Layout(sharded.shape, sharded.device_mesh, tuple(sharded.placements))


def local(tensor: Tensor) -> Tensor:
    """The local shard, which shares its memory with the DTensor, or the tensor."""
    sharded = _as_dtensor(tensor)
    if sharded is None:
        return tensor
    with torch.no_grad():
        return sharded.to_local()


def aligned(tensor: Tensor, its_layout: Layout) -> Tensor:
    """The DTensor laid out as `its_layout`; itself if it already is.

    Raises:
        RuntimeError: the tensor is no DTensor.
    """
    sharded = _as_dtensor(tensor)
    if sharded is None:
        raise RuntimeError(
            f"a parameter of shape {tuple(its_layout.shape)} is sharded, but its "
            "gradient or momentum is a plain tensor; load a state that was saved whole "
            "by torch.distributed.checkpoint.state_dict.set_optimizer_state_dict"
        )
    _, mesh, placements = its_layout
    if (sharded.device_mesh, tuple(sharded.placements)) == (mesh, placements):
        return sharded
    return sharded.redistribute(mesh, placements)


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
        for group in its_layout.cutting(per) if its_layout is not None else ():
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


def cut(whole: Tensor, its_layout: Layout) -> Tensor:
    """The local shard of a tensor that every process has whole; no collective."""
    from torch.distributed.tensor import DTensor, Replicate

    mesh = its_layout.mesh
    replicated = DTensor.from_local(
        whole, mesh, [Replicate()] * mesh.ndim, run_check=False
    )
    return local(replicated.redistribute(placements=its_layout.placements))


def _as_dtensor(tensor: Tensor) -> "DTensor | None":
    if type(tensor) in (Tensor, Parameter) or not torch.distributed.is_available():
        return None
    # half a second, which a model without shards need not pay
    from torch.distributed.tensor import DTensor

    return tensor if isinstance(tensor, DTensor) else None
