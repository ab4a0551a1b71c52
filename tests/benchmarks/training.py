"""A training under one arm, and what its run says was measured at which step."""

import contextlib
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

import dynoscope
from tests.benchmarks.arms import ARMS
from tests.benchmarks.tasks import TASKS

__all__ = ["Cost", "Recorded", "Training", "now"]


class Cost(NamedTuple):
    """Seconds; those of the CPU are of all threads, and of children that have ended."""

    wall: float
    cpu: float

    def __sub__(self, other: "Cost") -> "Cost":
        return Cost(self.wall - other.wall, self.cpu - other.cpu)


class Recorded(NamedTuple):
    """What a run has recorded of itself.

    Attributes:
        measured: the steps at which it measured.
        counted: those at which it filled histograms.
        costs: seconds that it says it took, by step; threads' where they were told.
    """

    measured: frozenset[int] = frozenset()
    counted: frozenset[int] = frozenset()
    costs: dict[int, float] = {}  # noqa: RUF012


class Training:
    """Trains for some steps at a time.

    Args:
        task: which network.
        arm: what watches.
        threads: of torch.
        small: whether batches are small throughout.
    """

    def __init__(self, task: str, arm: str, threads: int, *, small: bool) -> None:
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        self.task = TASKS[task]
        self.model = self.task.build()
        self.optimizer = self.task.optimizer(self.model)
        self._loss = self.task.small if small else self.task.loss
        self._outer, self._watching = contextlib.ExitStack(), contextlib.ExitStack()
        scratch = self._outer.enter_context(
            tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        )
        self._folder = Path(scratch)
        self._observe = self._watching.enter_context(
            ARMS[arm](self._folder, self.model, self.optimizer)
        )

    def warm_up(self, steps: int, tiny: int = 0) -> None:
        """Train for so many steps, `tiny` of them first on small batches."""
        for index in range(tiny + steps):
            self._step(self.task.small if index < tiny else self._loss)

    def turn(self, steps: int) -> Cost:
        """Train; what it cost."""
        start = now()
        for _ in range(steps):
            self._step(self._loss)
        return now() - start

    def close(self) -> Cost:
        """End the watching; what that cost."""
        start = now()
        self._watching.close()
        return now() - start

    def recorded(self) -> Recorded:
        """What the run says, once closed; the folder is gone after that."""
        with self._outer:
            folder = self._folder / "run"
            return read(folder) if folder.exists() else Recorded()

    def _step(self, loss_of: Callable[[nn.Module], torch.Tensor]) -> None:
        loss = loss_of(self.model)
        loss.backward()
        self._observe(self.model, loss)
        self.optimizer.step()
        self.optimizer.zero_grad()


def read(folder: Path) -> Recorded:
    """What a run of dynoscope says of itself."""
    run = dynoscope.open_run(folder)
    names = [f"dynoscope/{who}_seconds" for who in ("hook", "device", "background")]
    own = run.scalars(names).groupby("step")["value"].sum()
    return Recorded(
        frozenset(run.layers(["step"])["step"]),
        frozenset(run.histograms()["step"]),
        dict(zip(own.index.tolist(), own.tolist(), strict=True)),
    )


def now() -> Cost:
    """Time used so far."""
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    cpu = sum(usage.ru_utime + usage.ru_stime for usage in usages)
    return Cost(time.perf_counter(), cpu)
