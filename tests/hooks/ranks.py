"""A small network, and the ways to deal it out to processes."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)
from torch.nn import functional

from dynoscope.optim import Lion

STEPS = 4
OPTIMIZERS: dict[str, Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]] = {
    "adamw": lambda p: torch.optim.AdamW(p, lr=3e-3, weight_decay=0.1),
    "lion": lambda p: Lion(p, lr=1e-2, weight_decay=2.0),  # some weights leave its box
    "sgdm": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=1e-3),
}

OPTIONS: dict[str, dict[str, Any]] = {
    "adamw": {},
    "lion": {"histograms": True},
    "sgdm": {"turns": 3},
}
"""How each of them is watched."""


class Net(nn.Module):
    """Tied weights, normalizations, layers that few rows make hard to deal out."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.embedding = nn.Embedding(7, 6)
        self.up = nn.Linear(6, 9)
        self.norm = nn.LayerNorm(9)
        self.wide = nn.Linear(9, 8000)  # a large layer, wherever it is
        self.down = nn.Linear(8000, 6)
        self.gate = nn.Linear(6, 1)  # one row: most processes have none
        self.scale = nn.RMSNorm(6)
        self.head = nn.Linear(6, 7, bias=False)
        self.head.weight = self.embedding.weight
        self.temperature = nn.Parameter(torch.ones(()))
        self.to(dtype)

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = self.norm(self.up(self.embedding(tokens)))
        hidden = self.down(torch.relu(self.wide(hidden)))
        weight = torch.sigmoid(self.gate(hidden)) * self.temperature
        scores: Tensor = self.head(self.scale(hidden)) * weight
        return scores


def loss_of(model: nn.Module, step: int, part: int) -> Tensor:
    """Loss on one part of a step's batch."""
    noise = torch.Generator().manual_seed(100 * step + part)
    tokens = torch.randint(7, (3, 5), generator=noise)
    scores = model(tokens[:, :-1])
    return functional.cross_entropy(scores.flatten(0, 1), tokens[:, 1:].flatten())


def train(
    model: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    parts: Sequence[int],
    steps: Iterable[int] = range(STEPS),
) -> None:
    """Train on the mean loss of parts, of all processes together."""
    for step in steps:
        losses = [loss_of(model, step, part) for part in parts]
        (torch.stack(losses).sum() / len(parts)).backward()
        _average(model)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()


def _average(model: nn.Module) -> None:
    """Average the gradients that nothing else averages."""
    temperature = getattr(model, "temperature", None)
    if isinstance(temperature, nn.Parameter) and torch.distributed.is_initialized():
        assert temperature.grad is not None
        torch.distributed.all_reduce(temperature.grad)
        temperature.grad /= torch.distributed.get_world_size()


def fully_sharded(model: Net, mesh: DeviceMesh) -> nn.Module:
    stays = {model.temperature}
    for layer in (model.wide, model.gate):
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh, ignored_params=stays)
    return model


def tensor_parallel(model: Net, mesh: DeviceMesh) -> nn.Module:
    plan = {
        "up": ColwiseParallel(output_layouts=Shard(1)),
        "norm": SequenceParallel(),  # its gradients are left to be summed
        "wide": ColwiseParallel(input_layouts=Shard(1)),
        "down": RowwiseParallel(output_layouts=Replicate()),
    }
    return parallelize_module(model, mesh, plan)


def two_copies(model: Net, mesh: DeviceMesh) -> nn.Module:
    return tensor_parallel(model, mesh["inner"])


def both(model: Net, mesh: DeviceMesh) -> nn.Module:
    tensor_parallel(model, mesh["inner"])
    return fully_sharded(model, mesh["outer"])


@dataclasses.dataclass(frozen=True)
class Setup:
    """A way to deal the network out to a mesh of processes of this shape."""

    mesh: tuple[int, ...]
    parts: int
    deal: Callable[[Net, DeviceMesh], nn.Module]

    def build(self, dtype: torch.dtype = torch.float64) -> tuple[nn.Module, list[int]]:
        """The model, and the part of the batch of this process."""
        names = ("outer", "inner")[-len(self.mesh) :]
        mesh = init_device_mesh("cpu", self.mesh, mesh_dim_names=names)
        rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
        return self.deal(Net(dtype), mesh), [rank * self.parts // world]


SETUPS = {
    "fsdp": Setup((2,), 2, fully_sharded),
    "tensor parallel": Setup((2,), 1, tensor_parallel),
    "hsdp": Setup((2, 2), 4, fully_sharded),
    "tensor parallel twice": Setup((2, 2), 1, two_copies),
    "fsdp + tensor parallel": Setup((2, 2), 2, both),
}
