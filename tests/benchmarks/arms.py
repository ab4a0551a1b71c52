"""What a training is watched with: nothing, dynoscope in all its settings, others."""

import contextlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

import torch
from torch import nn

import dynoscope
from tests.benchmarks.spacing import OwnBudget, Spaced, Switched

__all__ = [
    "ARMS",
    "INTERVALS",
    "QUANTITIES",
    "RAREST",
    "Arm",
    "Observer",
    "available",
    "name",
    "spaced",
]


class Observer(Protocol):
    """What watches a training; it starts switched on."""

    def observe(self, model: nn.Module, loss: torch.Tensor) -> None:
        """Called between backward and step, while on."""
        ...

    def switch(self, *, on: bool) -> None:
        """Called between steps, whether or not that changes anything."""
        ...


Arm: TypeAlias = Callable[
    [Path, nn.Module, torch.optim.Optimizer],
    contextlib.AbstractContextManager[Observer],
]
"""Opened around a training, with a folder to write to."""

QUANTITIES: Final[Mapping[str, Mapping[str, Any]]] = {
    "layers": {"neurons": False},
    "+ neurons": {},
    "+ histograms": {"histograms": True},
}
"""What is measured; each has what those before it have."""

INTERVALS: Final[Mapping[str, int | None]] = {
    "every step": 1,
    "every 10": 10,
    "every 100": 100,
    "default": None,
}
"""How often."""


RAREST: Final = 10
"""Steps between measurements at most, in what is played of an arm: what is rarer, by
what it is called, counts for less; else a benchmark would hardly see it."""


class Nothing:
    """No tool."""

    def observe(self, model: nn.Module, loss: torch.Tensor) -> None:
        """See nothing."""

    def switch(self, *, on: bool) -> None:
        """Change nothing: on by off is the noise."""


@contextlib.contextmanager
def bare(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer
) -> Iterator[Observer]:
    """No tool."""
    yield Nothing()


class Dynoscope:
    """Its hooks stay while it is off, and are told that no step is due."""

    def __init__(self, scope: dynoscope.Scope, schedule: Switched) -> None:
        self._scope, self._schedule = scope, schedule

    def observe(self, model: nn.Module, loss: torch.Tensor) -> None:
        """Log the loss; the hooks see the rest."""
        self._scope.log(loss=loss)

    def switch(self, *, on: bool) -> None:
        """Measure nothing while off."""
        self._schedule.switch(on=on)


def watch(interval: int | None, options: Mapping[str, Any]) -> Arm:
    """Dynoscope; the interval None is its default."""

    @contextlib.contextmanager
    def arm(
        folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer
    ) -> Iterator[Observer]:
        schedule = OwnBudget() if interval is None else spaced(interval)
        watching = dynoscope.watch(
            *(model, optimizer),
            run=folder / "run", every=schedule, quiet=True, **options,
        )  # fmt: skip
        with watching as scope:
            yield Dynoscope(scope, schedule)

    return arm


def spaced(interval: int) -> Spaced:
    """What is played of an interval."""
    return Spaced(min(interval, RAREST))


class Wandb:
    """wandb.watch of gradients and parameters at every step."""

    def __init__(self, run: Any, model: nn.Module) -> None:
        self._run, self._model = run, model
        self._on = False
        self.switch(on=True)

    def observe(self, model: nn.Module, loss: torch.Tensor) -> None:
        """Log the loss; its hooks see the rest."""
        self._run.log({"loss": loss.item()})

    def switch(self, *, on: bool) -> None:
        """Without its hooks while off."""
        if on and not self._on:  # idx: the same names each time
            self._run.watch(self._model, log="all", log_freq=1, idx=0)
        elif self._on and not on:
            self._run.unwatch(self._model)
        self._on = on


@contextlib.contextmanager
def wandb_watch(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer
) -> Iterator[Observer]:
    """wandb.watch, offline."""
    import wandb

    settings = wandb.Settings(silent=True, console="off", x_disable_stats=True)
    run = wandb.init(mode="offline", dir=folder, settings=settings)
    observer = Wandb(run, model)
    try:
        yield observer
    finally:
        observer.switch(on=False)
        run.finish()
        wandb.teardown()  # its own process, whose time counts when it has ended


class TensorBoard(Nothing):
    """Histograms of every weight and gradient at every step."""

    def __init__(self, writer: Any) -> None:
        self._writer, self._step = writer, 0

    def observe(self, model: nn.Module, loss: torch.Tensor) -> None:
        """Write them."""
        self._writer.add_scalar("loss", loss, self._step)
        for name, parameter in model.named_parameters():
            self._writer.add_histogram(name, parameter, self._step)
            self._writer.add_histogram(f"{name}.grad", parameter.grad, self._step)
        self._step += 1


@contextlib.contextmanager
def tensorboard(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer
) -> Iterator[Observer]:
    """TensorBoard's own writer."""
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(folder)
    try:
        yield TensorBoard(writer)
    finally:
        writer.close()


def name(quantity: str, interval: str) -> str:
    """Of an arm of dynoscope."""
    return f"{quantity}, {interval}"


ARMS: Final[Mapping[str, Arm]] = {
    "bare": bare,
    **{
        name(quantity, interval): watch(steps, options)
        for quantity, options in QUANTITIES.items()
        for interval, steps in INTERVALS.items()
    },
    "wandb.watch": wandb_watch,
    "TensorBoard": tensorboard,
}

NEEDS: Final = {"wandb.watch": "wandb", "TensorBoard": "tensorboard"}


def available(arm: str) -> bool:
    """Whether the package that it needs is installed."""
    return arm not in NEEDS or importlib.util.find_spec(NEEDS[arm]) is not None
