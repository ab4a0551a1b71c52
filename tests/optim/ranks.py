"""What `test_sharded` runs on each process of a group, and on a single one."""

import dataclasses
from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed
import torch.distributed.checkpoint
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import (
    DTensor,
    Placement,
    Replicate,
    Shard,
    distribute_tensor,
)
from torch.distributed.tensor.debug import CommDebugMode
from torch.nn import Parameter
from torch.optim import Optimizer

from tests.optim.layers import MAKERS

STEPS = 5
HYPER: dict[str, Any] = {"lr": 0.02, "weight_decay": 0.1}
# on two processes: uneven, with an empty shard, vectors, a number, rows of one weight
SHAPES = [(3, 5), (1, 7), (5,), (1,), (), (7, 2, 3), (4, 1), (0, 4), (2, 6)]
TENSOR_PARALLEL: list[Placement] = [
    Shard(1),
    Shard(1),
    Shard(0),
    Shard(0),
    Replicate(),
    Shard(2),
    Shard(1),
    Shard(1),
    Replicate(),
]


class Model(nn.Module):
    """Weights in a noisy bowl."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        noise = torch.Generator().manual_seed(0)
        self.weights = nn.ParameterList(
            Parameter(torch.randn(shape, generator=noise).to(dtype)) for shape in SHAPES
        )

    def forward(self, step: int, part: int) -> Tensor:
        """Loss of a part of the step's batch; all parts agree on what stays whole."""
        losses = []
        for index, weight in enumerate(self.weights):
            seed = 1000 * step + 10 * index + part * (not stays_whole(weight))
            noise = torch.Generator().manual_seed(seed)
            pull = torch.randn(weight.shape, generator=noise).to(weight.dtype)
            if isinstance(weight, DTensor):
                pull = distribute_tensor(pull, weight.device_mesh, weight.placements)
            loss = (weight * pull + weight.square() / 2).sum()
            losses.append(loss.full_tensor() if isinstance(loss, DTensor) else loss)
        return torch.stack(losses).sum()


def stays_whole(weight: Tensor) -> bool:
    """Whether `fully_shard` would refuse it."""
    return weight.ndim == 0 or weight.numel() == 0


def fully_sharded(model: Model, mesh: DeviceMesh) -> Model:
    whole = {weight for weight in model.weights if stays_whole(weight)}
    return fully_shard(model, mesh=mesh, ignored_params=whole)


def tensor_parallel(model: Model, mesh: DeviceMesh) -> Model:
    for index, placement in enumerate(TENSOR_PARALLEL):
        if model.weights[index].ndim:
            model.weights[index] = Parameter(
                distribute_tensor(model.weights[index].detach(), mesh, [placement])
            )
    return model


@dataclasses.dataclass(frozen=True)
class Setup:
    """A way to deal a model out to a mesh of processes of this shape."""

    mesh: tuple[int, ...]
    parts: int
    deal: Callable[[Model, DeviceMesh], Model]

    def build(self, dtype: torch.dtype = torch.float32) -> tuple[Model, int]:
        """The model, and the part of the batch of this process."""
        names = ("outer", "inner")[-len(self.mesh) :]
        mesh = init_device_mesh("cpu", self.mesh, mesh_dim_names=names)
        rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
        return self.deal(Model(dtype), mesh), rank * self.parts // world


def both(model: Model, mesh: DeviceMesh) -> Model:
    return fully_sharded(tensor_parallel(model, mesh["inner"]), mesh["outer"])


SETUPS = {
    "fsdp": Setup((2,), 2, fully_sharded),
    "tensor parallel": Setup((2,), 1, tensor_parallel),
    "hsdp": Setup((2, 2), 4, fully_sharded),
    "fsdp + tensor parallel": Setup((2, 2), 2, both),
}


@dataclasses.dataclass
class Outcome:
    """Whole weights and momenta after some steps, and the collectives of each step."""

    weights: list[Tensor]
    momenta: list[Tensor]
    collectives: list[int]


def train(
    optimizer: Optimizer, model: Model, parts: Iterable[int], steps: Iterable[int]
) -> Outcome:
    """Train on the mean loss of the parts."""
    collectives, parts = [], list(parts)
    for step in steps:
        optimizer.zero_grad()
        losses = [model(step, part) for part in parts]
        (torch.stack(losses).sum() / len(parts)).backward()
        with CommDebugMode() as communication:
            optimizer.step()
        collectives.append(communication.get_total_counts())
    return Outcome(
        [whole(weight) for weight in model.weights],
        [whole(optimizer.state[weight]["exp_avg"]) for weight in model.weights],
        collectives,
    )


def whole(tensor: Tensor) -> Tensor:
    tensor = tensor.detach()
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).clone()
