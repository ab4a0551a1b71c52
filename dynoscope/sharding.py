"""DTensors: how they lie on the processes, and the part that is here."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import Parameter

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.tensor import DTensor, Placement

__all__ = ["Layout", "aligned", "cut", "layout", "local"]


class Layout(NamedTuple):
    """How a tensor lies on the processes: its whole shape, and what cuts it."""

    shape: torch.Size
    mesh: "DeviceMesh"
    placements: tuple["Placement", ...]

    def as_real(self) -> "Layout":
        """The layout of a complex tensor's `torch.view_as_real`."""
        return self._replace(shape=torch.Size((*self.shape, 2)))

    def cutting(self, *, rows: bool) -> Iterator["ProcessGroup"]:
        """The processes that hold parts of one block, for each mesh dimension.

        A dimension that replicates cuts nothing, so that replicas count once; one
        that deals out whole rows cuts no row.

        Args:
            rows: whether the blocks are rows, where there are any; else all is one.
        """
        for dim, placement in enumerate(self.placements):
            whole = placement.is_replicate() or (
                rows and len(self.shape) > 1 and getattr(placement, "dim", None) == 0
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
