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

__all__ = ["Layout", "aligned", "counts_once", "cut", "layout", "local", "rows_here"]


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


def rows_here(tensor: Tensor) -> Tensor:
    """Which entries of the first dimension the local shard has something of, int64."""
    entries, its_layout = torch.arange(tensor.shape[0]), layout(tensor)
    if its_layout is None:
        return entries
    from torch.distributed.tensor import Replicate

    _, mesh, placements = its_layout
    of_rows = tuple(
        placement if getattr(placement, "dim", None) == 0 else Replicate()
        for placement in placements
    )
    return cut(entries, Layout(entries.shape, mesh, of_rows))


def counts_once(tensor: Tensor, group: "ProcessGroup") -> bool:
    """Whether the local shard counts: of those that are alike, that of one process.

    A mesh is one of several with the same weights where it is a slice of a larger one,
    and a plain tensor is on every process: what the group's first process has part in
    counts. It counts once where a dimension of the mesh replicates it.
    """
    first = torch.distributed.get_global_rank(group, 0)
    its_layout = layout(tensor)
    if its_layout is None:
        return torch.distributed.get_rank() == first
    _, mesh, placements = its_layout
    coordinate = mesh.get_coordinate()
    if coordinate is None or first not in mesh.mesh:
        return False
    return all(
        at == 0 or not placement.is_replicate()
        for at, placement in zip(coordinate, placements, strict=True)
    )


def _as_dtensor(tensor: Tensor) -> "DTensor | None":
    if type(tensor) in (Tensor, Parameter) or not torch.distributed.is_available():
        return None
    # half a second, which a model without shards need not pay
    from torch.distributed.tensor import DTensor

    return tensor if isinstance(tensor, DTensor) else None
