"""What each process of a group does in `test_sharded`, and finds."""

import io
import math
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.debug import CommDebugMode
from torch.nn.parallel import DistributedDataParallel

import dynoscope
from dynoscope.metrics.sums import Kernel
from dynoscope.metrics.sums.native import SWITCH
from dynoscope.metrics.sums.shards import Reduction
from dynoscope.schedule import FIRST
from tests.hooks.ranks import OPTIMIZERS, OPTIONS, SETUPS, STEPS, Net, loss_of, train
from tests.spawning import join_group

Watch = Any


def rank() -> int:
    return torch.distributed.get_rank()


def watch(model: Any, optimizer: Any, run: Path, **options: Any) -> Watch:
    options = {"strict": True, "quiet": True, **options}
    return dynoscope.watch(model, optimizer, run=run, **options)


def state_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> bytes:
    """All that training changes on this process, to the last bit."""

    def plain(value: Any) -> Any:
        return value.to_local() if isinstance(value, DTensor) else value

    weights = [plain(weight.detach()).clone() for weight in model.parameters()]
    states = [
        {key: plain(value) for key, value in state.items()}
        for state in optimizer.state.values()
    ]
    buffer = io.BytesIO()
    torch.save((weights, states, torch.get_rng_state()), buffer)
    return buffer.getvalue()


def as_single(folder: Path) -> dict[str, bool]:
    """Runs of every setup and optimizer; whether they train as if unwatched."""
    same = {}
    for name, setup in SETUPS.items():
        if math.prod(setup.mesh) != torch.distributed.get_world_size():
            continue
        for kind, make in OPTIMIZERS.items():
            # one of them by torch's own operations
            os.environ[SWITCH] = str(int(kind != "adamw"))
            states = []
            for watched in (True, False):
                model, parts = setup.build()
                optimizer = make(model.parameters())
                if watched:
                    run = folder / f"{name} {kind}"
                    with watch(model, optimizer, run, **OPTIONS[kind]):
                        train(model, [optimizer], parts)
                else:
                    train(model, [optimizer], parts)
                states.append(state_of(model, optimizer))
            same[f"{name} {kind}"] = states[0] == states[1]
    return same


def replicas(folder: Path) -> dict[str, Any]:
    """DDP; the process that does not write is asked for nothing."""
    model = DistributedDataParallel(Net())
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    counts = []
    with watch(model, optimizer, folder / f"ddp {rank()}") as scope:
        train(model, [optimizer], [rank()], range(2))
        for step in range(2, STEPS):
            loss_of(model, step, rank()).backward()
            with CommDebugMode() as counting:
                optimizer.step()
            counts.append(counting.get_total_counts())
            optimizer.zero_grad()
            scope.log(loss=step)
        batches = [(2, rank())]
        found = scope.measure_full_gradient(
            batches, lambda module, batch: loss_of(module, *batch), samples=lambda _: 12
        )
    return {
        "collectives": counts,
        "step": scope.step,
        "writes": scope.writes,
        "layers": found["layer"].tolist(),
    }


def zero_redundancy(folder: Path) -> None:
    # not on top: it warns that TorchScript, which it needs, is deprecated
    from torch.distributed.optim import ZeroRedundancyOptimizer

    model = Net()
    optimizer = ZeroRedundancyOptimizer(
        model.parameters(), torch.optim.AdamW, lr=3e-3, weight_decay=0.1
    )
    with watch(model, optimizer, folder / "zero"):
        # the parameters stay the same objects: it may be wrapped now
        train(DistributedDataParallel(model), [optimizer], [rank()])


def each_by_itself(folder: Path) -> None:
    """Processes that train models of their own."""
    groups = [torch.distributed.new_group([r]) for r in range(2)]
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    run = folder / f"own {rank()}"
    with watch(model, optimizer, run, process_group=groups[rank()]):
        model(torch.ones(1, 3)).sum().backward()
        optimizer.step()


def collectives(folder: Path) -> list[int]:
    """Of optimizer steps, every second of which is measured."""
    return collectives_of(STEPS, folder / "collectives", every=2)


def paced(folder: Path) -> list[int]:
    """The same where a budget decides; measuring takes one process longer."""
    original = Kernel.before

    def slow(*args: Any, **kwargs: Any) -> None:
        time.sleep(0.01 * rank())
        original(*args, **kwargs)

    Kernel.before = slow  # type: ignore[method-assign]
    try:
        return collectives_of(FIRST + 100, folder / "paced", budget=0.5)
    finally:
        Kernel.before = original  # type: ignore[method-assign]


def collectives_of(steps: int, run: Path, **options: Any) -> list[int]:
    model, parts = SETUPS["fsdp"].build()
    optimizer = OPTIMIZERS["sgdm"](model.parameters())
    counts = []
    with watch(model, optimizer, run, **options):
        for step in range(steps):
            loss_of(model, step, parts[0]).backward()
            with CommDebugMode() as counting:
                optimizer.step()
            counts.append(counting.get_total_counts())
    return counts


def two_optimizers(folder: Path) -> int:
    """One of two optimizers has stepped when the block ends."""
    model, parts = SETUPS["fsdp"].build()
    params = list(model.parameters())
    pair = [OPTIMIZERS["adamw"](params[:3]), OPTIMIZERS["sgdm"](params[3:])]
    scope: dynoscope.Scope
    with watch(model, pair, folder / "rounds") as scope:
        train(model, pair, parts)
        loss_of(model, STEPS, parts[0]).backward()
        pair[0].step()
    return scope.step


def resumed(folder: Path) -> list[int]:
    steps = []
    for start in (None, None, 3):
        model, parts = SETUPS["fsdp"].build()
        optimizer = OPTIMIZERS["sgdm"](model.parameters())
        with watch(
            model, optimizer, folder / "resumed", resume=True, start_step=start
        ) as scope:
            train(model, [optimizer], parts, range(2))
        steps.append(scope.step)
    return steps


def resumed_replicas(folder: Path) -> list[int]:
    """DDP: where the training stands is found out by each process for itself."""
    model = DistributedDataParallel(Net())
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    steps = []
    for _ in range(2):
        with watch(model, optimizer, folder / "replicas", resume=True) as scope:
            steps.append(scope.step)
            train(model, [optimizer], [rank()], range(3))
        torch.distributed.barrier()
    return steps


def after_validation(folder: Path) -> None:
    """A forward pass leaves whole parameters in the model, which no optimizer has."""
    model = Net()
    fully_shard(model, ignored_params={model.temperature})
    optimizer = OPTIMIZERS["sgdm"](model.parameters())
    with torch.no_grad():
        loss_of(model, 0, 0)
    with watch(model, optimizer, folder / "validated"):
        train(model, [optimizer], [rank()], range(1))


def refusals(folder: Path) -> dict[str, str]:
    """What is said where something cannot be done."""
    model, parts = SETUPS["fsdp"].build()
    optimizer = OPTIMIZERS["sgdm"](model.parameters())
    said = {}

    def ask(name: str, work: Callable[[], object]) -> None:
        try:
            work()
        except dynoscope.DynoscopeError as error:
            said[name] = f"{type(error).__name__}: {error}"

    def enter(run: str = "refused", **options: Any) -> None:
        with watch(model, optimizer, folder / run, **options):
            train(model, [optimizer], parts, range(1))

    enter()
    ask("again", enter)
    ask("apart", lambda: enter("apart", every=1 + rank()))
    ask("one", lambda: enter("one", exclude="wide" if rank() else "no such layer"))
    ask(
        "unfound", lambda: enter("unfound", include="no such layer" if rank() else None)
    )
    alone = torch.distributed.new_group([0])
    ask("group", lambda: enter("group", process_group=alone))
    with watch(model, optimizer, folder / "demands") as scope:
        ask("gradient", lambda: scope.measure_full_gradient([1], loss_of))
        ask("invariance", lambda: scope.probe_scale_invariance(nn.Module.__call__))
        ask("channels", lambda: scope.count_dead_channels([1], nn.Module.__call__))
        ask("constraint", scope.measure_constraint)
    return said


def sharded_late(folder: Path) -> None:
    """The model is watched first and sharded then."""
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer, folder / "late", strict=False):
        fully_shard(model, ignored_params={model.temperature})
        optimizer.param_groups[0]["params"] = list(model.parameters())
        train(model, [optimizer], [rank()], range(2))


BROKEN = {
    "before": (Kernel, "before"),
    "after": (Kernel, "after"),
    "collect": (Reduction, "_collect"),
}


def break_method(cls: type, name: str) -> Callable[[], None]:
    """Have a method raise from its third call on, once; gives what mends it."""
    original, calls = getattr(cls, name), 0

    def broken(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise RuntimeError(f"injected into {name}")
        return original(*args, **kwargs)

    setattr(cls, name, broken)
    return lambda: setattr(cls, name, original)


def errors_of_ours(folder: Path) -> dict[str, bool]:
    """An internal error on one process: training goes on, the same."""
    same = {}
    for at, (cls, method) in BROKEN.items():
        for where in (0, 1):
            states = []
            for watched in (True, False):
                model, parts = SETUPS["fsdp"].build()
                optimizer = OPTIMIZERS["adamw"](model.parameters())
                mend = break_method(cls, method) if rank() == where else lambda: None
                if watched:
                    run = folder / f"broken {at} {where}"
                    with watch(model, optimizer, run, strict=False):
                        train(model, [optimizer], parts)
                else:
                    train(model, [optimizer], parts)
                mend()
                states.append(state_of(model, optimizer))
            same[f"{at} {where}"] = states[0] == states[1]
    return same


CASES = [
    as_single,
    replicas,
    zero_redundancy,
    each_by_itself,
    collectives,
    paced,
    two_optimizers,
    resumed,
    resumed_replicas,
    after_validation,
    refusals,
    sharded_late,
    errors_of_ours,
]


def run_cases(rank: int, world: int, folder: Path) -> None:
    """Write what this process finds to a file of its own."""
    join_group(rank, world, folder)
    cases = CASES if world == 2 else [as_single]
    found = {case.__name__: case(folder) for case in cases}
    torch.save(found, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def killed(deal: str, rank: int, world: int, folder: Path) -> None:
    """The last process is killed in the middle; what do the others say?"""
    join_group(rank, world, folder)
    model, parts = SETUPS["fsdp"].build()
    if deal == "ddp":
        model = DistributedDataParallel(Net())
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    with watch(model, optimizer, folder / "run", strict=False):
        train(model, [optimizer], parts, range(2))
        if rank == world - 1:
            os.kill(os.getpid(), signal.SIGKILL)
        train(model, [optimizer], parts, range(2, STEPS))
