"""What `test_sharded` runs on each process of a group, and on a single one."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TypeAlias

import torch
import torch.distributed
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import (
    DTensor,
    Partial,
    Placement,
    Replicate,
    Shard,
    distribute_tensor,
)
from torch.distributed.tensor.debug import CommDebugMode
from torch.nn import Parameter
from torch.optim import Optimizer

from dynoscope.optim import Lion, LionK, NormGD, OrtSepNorm, SepNorm
from dynoscope.optim._shards import gather, sum_over_shards
from dynoscope.sharding import Layout, layout, local
from tests.optim import layers
from tests.spawning import join_group

Pairs: TypeAlias = Sequence[tuple[Tensor, Tensor]]

MAKERS: dict[str, Callable[..., Optimizer]] = {
    **layers.MAKERS,
    "Rotational-centered": functools.partial(layers.rotational_lion, center=True),
    "Rotational-tensor": functools.partial(layers.rotational_lion, per="tensor"),
}
STEPS = 5
EXTREMES = [(0.0, 0.0), (1e-45, 1e30), (1e-20, 1.0), (3e38, 1e-45), (3e38, 1e30)]
HYPER: dict[str, Any] = {"lr": 0.02, "weight_decay": 0.1}
# on two processes: uneven, with an empty shard, vectors, a number, rows of one weight
SHAPES = [(3, 5), (1, 7), (5,), (1,), (), (7, 2, 3), (4, 1), (0, 4), (2, 6)]
# how tensor parallelism cuts them: a last column for one process alone, too
COLUMNS = [1, 1, 0, 0, None, 2, 1, 1, None]
# one of them also along the dimension that fully_shard cuts, which refuses empty ones
COLUMNS_OF_SHARDS = [1, 1, 0, None, None, 0, 0, None, None]


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
                pull = deal(pull, weight.device_mesh, weight.placements).to_local()
                weight = weight.to_local()
            losses.append((weight * pull + weight.square() / 2).sum())
        return torch.stack(losses).sum()


def stays_whole(weight: Tensor) -> bool:
    """Whether `fully_shard` would refuse it."""
    return weight.ndim == 0 or weight.numel() == 0


def deal(tensor: Tensor, mesh: DeviceMesh, placements: Sequence[Placement]) -> DTensor:
    """Shards of a tensor that every process has."""
    return distribute_tensor(tensor, mesh, placements, src_data_rank=None)


def fully_sharded(model: Model, mesh: DeviceMesh) -> Model:
    whole = {weight for weight in model.weights if stays_whole(weight)}
    fully_shard(model, mesh=mesh, ignored_params=whole)
    return model


def tensor_parallel(
    model: Model, mesh: DeviceMesh, columns: Sequence[int | None] = COLUMNS
) -> Model:
    for index, dim in enumerate(columns):
        weight = model.weights[index]
        if not stays_whole(weight) or dim is not None:
            placement = Replicate() if dim is None else Shard(dim)
            model.weights[index] = Parameter(deal(weight.detach(), mesh, [placement]))
    return model


def both(model: Model, mesh: DeviceMesh) -> Model:
    tensor_parallel(model, mesh["inner"], COLUMNS_OF_SHARDS)
    return fully_sharded(model, mesh["outer"])


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


SETUPS = {
    "fsdp": Setup((2,), 2, fully_sharded),
    "tensor parallel": Setup((2,), 1, tensor_parallel),
    "hsdp": Setup((2, 2), 4, fully_sharded),
    "fsdp + tensor parallel": Setup((2, 2), 2, both),
}


@dataclasses.dataclass
class Outcome:
    """Whole weights and momenta after some steps, and what the last one was like."""

    weights: list[Tensor]
    momenta: list[Tensor]
    momenta_lie_as_weights: bool
    collectives: int


def train(
    optimizer: Optimizer, model: Model, parts: Iterable[int], steps: Iterable[int]
) -> Outcome:
    """Train on the mean loss of the parts."""
    parts = list(parts)
    for step in steps:
        optimizer.zero_grad()
        losses = [model(step, part) for part in parts]
        (torch.stack(losses).sum() / len(parts)).backward()
        # slow: for one step
        counting = CommDebugMode() if step == STEPS - 1 else nullcontext()
        with counting:
            optimizer.step()
    momenta = [optimizer.state[weight]["exp_avg"] for weight in model.weights]
    pairs = zip(momenta, model.weights, strict=True)
    return Outcome(
        [whole(weight) for weight in model.weights],
        [whole(momentum) for momentum in momenta],
        all(layout(momentum) == layout(weight) for momentum, weight in pairs),
        counting.get_total_counts() if isinstance(counting, CommDebugMode) else 0,
    )


def whole(tensor: Tensor) -> Tensor:
    tensor = tensor.detach()
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).clone()


def resume(name: str, folder: Path) -> Outcome:
    """The momentum of three steps, saved and loaded sharded, and the rest with it."""
    model, part = SETUPS["fsdp"].build()
    optimizer = MAKERS[name](model.parameters(), **HYPER)
    train(optimizer, model, [part], range(3))
    saved = get_optimizer_state_dict(model, optimizer)
    save(saved, checkpoint_id=folder / name)
    optimizer.zero_grad()  # a template is made by a step only where no gradient is
    resumed = MAKERS[name](model.parameters(), **{**HYPER, "lr": 1.0})
    loaded = get_optimizer_state_dict(model, resumed)
    load(loaded, checkpoint_id=folder / name)
    set_optimizer_state_dict(model, resumed, loaded)
    return train(resumed, model, [part], range(3, STEPS))


class Halved:
    """A K of one's own: ||x||^2 / 4, which sees how much of the model it is given."""

    def __init__(self) -> None:
        self.seen = 0

    def grad(self, x: Tensor) -> Tensor:
        self.seen += x.numel()
        return x / 2


class SeparableHalved(Halved):
    separable = True


def own_k(make: Callable[[], Halved]) -> tuple[Outcome, int]:
    k = make()
    model, part = SETUPS["fsdp"].build()
    optimizer = LionK(model.parameters(), k=k, **HYPER)
    return train(optimizer, model, [part], [STEPS - 1]), k.seen


def three_groups(
    make: Callable[..., Optimizer], params: list[Parameter], **hyper: Any
) -> Optimizer:
    """An optimizer of blocks of every kind, one tensor being without a gradient."""
    params[1].grad = None
    ways = [("group", params[:3]), ("row", params[3:4]), ("tensor", params[4:])]
    groups = [{"params": members, "per": per} for per, members in ways]
    return make(groups, **hyper)


def hand_cases() -> dict[str, tuple[Callable[..., Optimizer], Pairs]]:
    """Optimizers, and weights with gradients that no model would give."""
    noise = torch.Generator().manual_seed(1)

    def pairs(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Pairs:
        weights_and_grads = torch.randn(2, sum(map(math.prod, shapes)), generator=noise)
        split = weights_and_grads.to(dtype).split([math.prod(s) for s in shapes], 1)
        return [tuple(p.reshape(2, *s)) for p, s in zip(split, shapes, strict=True)]

    matrices = pairs((3, 5), (1, 7), (7, 2, 3))
    mixed = [
        *pairs((3, 5), (2, 2)),
        *pairs((4, 3), (1, 1), dtype=torch.float64),
        *pairs((5, 3), dtype=torch.bfloat16),
    ]
    complex_ = [
        (torch.complex(a, b), torch.complex(b, a)) for a, b in pairs((3, 2), (2, 5))
    ]
    along = [(weight, 3 * weight) for weight, _ in pairs((8, 300), (3, 7))]
    cases: dict[str, tuple[Callable[..., Optimizer], Pairs]] = {}
    for name, make in MAKERS.items():
        cases[f"matrices {name}"] = make, matrices
        cases[f"mixed dtypes {name}"] = make, mixed
        cases[f"complex {name}"] = make, complex_
        if name.startswith("OrtSepNorm"):
            cases[f"along {name}"] = make, along
        for size, weight_size in EXTREMES:
            cases[f"extreme {name} {size} {weight_size}"] = (
                make,
                [
                    (weight_size * weight, torch.full_like(grad, size))
                    for weight, grad in matrices
                ],
            )
    for make in (SepNorm, OrtSepNorm):
        cases[f"groups {make.__name__}"] = (
            functools.partial(three_groups, make),
            [*matrices, *pairs((3, 3), (5, 2))],
        )
    return cases


def step_by_hand(
    make: Callable[..., Optimizer], pairs: Pairs, dim: int | None
) -> tuple[list[Tensor], int]:
    """Weights after one step, cut along a dimension if there is one; collectives."""
    params = [Parameter(weight.clone()) for weight, _ in pairs]
    if dim is not None:
        mesh = init_device_mesh("cpu", (2,))
        params = [Parameter(deal(param, mesh, [Shard(dim)])) for param in params]
    for param, (_, grad) in zip(params, pairs, strict=True):
        param.grad = grad
        if isinstance(param, DTensor):
            param.grad = deal(grad, param.device_mesh, param.placements)
    optimizer = make(params, lr=0.1, weight_decay=0.5)
    with CommDebugMode() as communication:
        optimizer.step()
    return [whole(param) for param in params], communication.get_total_counts()


def partial_gradient() -> tuple[list[Tensor], list[Tensor]]:
    """A step with a gradient that its processes are yet to sum; and with the sum."""
    mesh, rank = init_device_mesh("cpu", (2,)), torch.distributed.get_rank()
    moved = []
    for grad, placement in ((rank + 1.0, Partial()), (3.0, Replicate())):
        param = Parameter(deal(torch.ones(2, 2), mesh, [Replicate()]))
        local = torch.tensor([[grad, -grad], [0.0, 2 * grad]])
        param.grad = DTensor.from_local(local, mesh, [placement])
        NormGD([param], lr=0.1).step()
        moved.append(whole(param))
    return moved[:1], moved[1:]


def plain_momentum() -> str:
    """What a step says to a momentum that was loaded whole."""
    mesh = init_device_mesh("cpu", (2,))
    param = Parameter(deal(torch.ones(2, 2), mesh, [Shard(0)]))
    optimizer = Lion([param])
    optimizer.state[param]["exp_avg"] = torch.zeros(2, 2)
    param.grad = deal(torch.ones(2, 2), mesh, [Shard(0)])
    try:
        optimizer.step()
    except RuntimeError as error:
        return str(error)
    return ""


def row_means() -> list[Tensor]:
    """Means of the rows of DTensors, in the manner of `_shards`."""
    rows = []
    for dim in (0, 1):
        mesh = init_device_mesh("cpu", (2,))
        params: list[Tensor] = [
            deal(torch.arange(15.0).reshape(3, 5), mesh, [Shard(dim)]),
            deal(torch.arange(7.0).reshape(1, 7), mesh, [Shard(dim)]),
        ]
        layouts = [layout(param) for param in params]
        sums = [local(param).sum(1, keepdim=True) for param in params]
        sum_over_shards(sums, layouts, ["row"] * 2)
        means = [s / param.shape[1] for s, param in zip(sums, params, strict=True)]
        # of whole rows every process has its own
        placement: Placement = Shard(0) if dim == 0 else Replicate()
        rows += [
            gather(mean, Layout(torch.Size((len(param), 1)), mesh, (placement,)))
            for mean, param in zip(means, params, strict=True)
        ]
    return rows


def run(rank: int, world: int, folder: Path) -> None:
    """Write what this process finds to a file of its own."""
    join_group(rank, world, folder)
    found: dict[str, Any] = {}
    for setup_name, setup in SETUPS.items():
        if math.prod(setup.mesh) != world:
            continue
        for name, make in MAKERS.items():
            for foreach in (None, True, False) if world == 2 else (None,):
                model, part = setup.build()
                optimizer = make(model.parameters(), foreach=foreach, **HYPER)
                found[f"{setup_name} {name} {foreach}"] = train(
                    optimizer, model, [part], range(STEPS)
                )
    if world == 2:
        for name in MAKERS:
            found[f"resume {name}"] = resume(name, folder)
        for name, (make, pairs) in hand_cases().items():
            for dim in (0, 1):
                found[f"{name} {dim}"] = step_by_hand(make, pairs, dim)
        for own in (Halved, SeparableHalved):
            found[own.__name__] = own_k(own)
        for check in (partial_gradient, plain_momentum, row_means):
            found[check.__name__] = check()
    torch.save(found, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()
