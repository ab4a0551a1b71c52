"""The checks, as every process of a distributed training makes them."""

import copy
import io
import math
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
import torch.distributed
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import dynoscope
from tests.hooks.ranks import OPTIMIZERS, SETUPS, Net, train
from tests.hooks.ranks_cases import rank, state_of, watch
from tests.spawning import join_group

__all__ = ["DEALT", "check_all"]


class Dealt(NamedTuple):
    """A way to train on several processes.

    Attributes:
        world: how many.
        parts: parts of the batch, of all of them together.
        build: the model, and the parts of this process.
    """

    world: int
    parts: int
    build: Callable[[], tuple[nn.Module, list[int]]]


def replicated() -> tuple[nn.Module, list[int]]:
    return DistributedDataParallel(Net()), [rank()]


def _setup(name: str) -> Dealt:
    setup = SETUPS[name]
    return Dealt(math.prod(setup.mesh), setup.parts, setup.build)


DEALT: Final = {
    "DDP": Dealt(2, 2, replicated),
    "FSDP2": _setup("fsdp"),
    "tensor parallel": _setup("tensor parallel"),
    "HSDP": _setup("hsdp"),
    "FSDP2 x tensor parallel": _setup("fsdp + tensor parallel"),
}


class Fresh:
    """A model dealt out, its optimizer, and the way to train them."""

    def __init__(self, dealt: Dealt) -> None:
        self.model, self.parts = dealt.build()
        self.optimizer = OPTIMIZERS["adamw"](self.model.parameters())

    def run(self, steps: int) -> None:
        train(self.model, [self.optimizer], self.parts, range(steps))

    def traces(self) -> tuple[int, int, int]:
        optimizer = self.optimizer
        return (
            len(optimizer._optimizer_step_pre_hooks),
            len(optimizer._optimizer_step_post_hooks),
            threading.active_count(),
        )


def bit_identical(dealt: Dealt, run: Path) -> str:
    states = []
    for watched in (True, False):
        fresh = Fresh(dealt)
        if watched:
            with watch(fresh.model, fresh.optimizer, run):
                fresh.run(4)
        else:
            fresh.run(4)
        states.append(state_of(fresh.model, fresh.optimizer))
    return "" if states[0] == states[1] else "the training differs"


def nothing_is_left(dealt: Dealt, run: Path) -> str:
    fresh = Fresh(dealt)
    fresh.run(1)  # the processes' own threads are there from now on
    before = fresh.traces()
    with watch(fresh.model, fresh.optimizer, run):
        fresh.run(2)
    after = fresh.traces()
    return "" if after == before else f"{before} became {after}"


def copies(dealt: Dealt, run: Path) -> str:
    fresh = Fresh(dealt)
    works: list[Callable[[], Any]] = [
        lambda: copy.deepcopy(fresh.model),
        lambda: copy.deepcopy(fresh.optimizer),
        lambda: pickle.loads(pickle.dumps(fresh.optimizer)),
        lambda: torch.save(fresh.model.state_dict(), io.BytesIO()),
        lambda: torch.save(fresh.optimizer.state_dict(), io.BytesIO()),
    ]

    def outcomes() -> list[str]:
        found = []
        for work in works:
            try:
                work()
                found.append("done")
            except Exception as error:
                found.append(type(error).__name__)
        return found

    fresh.run(1)
    before = outcomes()
    with watch(fresh.model, fresh.optimizer, run):
        fresh.run(1)
        during = outcomes()
        fresh.run(1)
    return "" if during == before else f"{before} became {during}"


def again(dealt: Dealt, run: Path) -> str:
    fresh = Fresh(dealt)
    fresh.run(1)
    before = fresh.traces()
    for _ in range(3):
        with watch(fresh.model, fresh.optimizer, run, overwrite=True):
            fresh.run(2)
        if fresh.traces() != before:
            return f"{before} became {fresh.traces()}"
        torch.distributed.barrier()
        if rank() == 0:
            rows = dynoscope.open_run(run).layers()
            if not rows["layer"].value_counts().eq(2).all():
                return "rows are missing, or there twice"
    return ""


def exceptions_pass(dealt: Dealt, run: Path) -> str:
    fresh, error = Fresh(dealt), ArithmeticError("the loss is not what it was")
    fresh.run(1)
    before = fresh.traces()
    try:
        with watch(fresh.model, fresh.optimizer, run):
            fresh.run(2)
            raise error
    except ArithmeticError as caught:
        if caught is not error:
            return "another error came out"
    if fresh.traces() != before:
        return f"{before} became {fresh.traces()}"
    if rank() == 0:
        recorded = dynoscope.open_run(run)
        if recorded.status != "failed" or recorded.last_step != 1:
            return f"{recorded.status} at step {recorded.last_step}"
    return ""


CHECKS: Final = (bit_identical, nothing_is_left, copies, again, exceptions_pass)


def check_all(rank: int, world: int, folder: Path) -> None:
    """Make every check in every setup for so many processes; save what was found."""
    join_group(rank, world, folder)
    found = {}
    for name, dealt in DEALT.items():
        if dealt.world == world:
            for check in CHECKS:
                run = folder / f"{name} {check.__name__}"
                found[name, check.__name__] = check(dealt, run)
    torch.save(found, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()
