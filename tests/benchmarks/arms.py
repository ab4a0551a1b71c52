"""What a training is watched with: nothing, dynoscope in all its settings, others."""

import contextlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

import torch
from torch import nn

import dynoscope

__all__ = [
    "ARMS",
    "INTERVALS",
    "QUANTITIES",
    "Arm",
    "Observe",
    "available",
    "each",
    "name",
]

Observe: TypeAlias = Callable[[nn.Module, torch.Tensor], None]
"""Called between backward and step, with the loss."""

Arm: TypeAlias = Callable[
    [Path, nn.Module, torch.optim.Optimizer], contextlib.AbstractContextManager[Observe]
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


@contextlib.contextmanager
def bare(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer
) -> Iterator[Observe]:
    """No tool."""
    yield lambda model, loss: None


def watch(interval: int | None, options: Mapping[str, Any]) -> Arm:
    """Dynoscope; the interval None is its default."""
    spacing: dict[str, Any] = {} if interval is None else {"every": each(interval)}

    @contextlib.contextmanager
    def arm(
        folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer
    ) -> Iterator[Observe]:
        watching = dynoscope.watch(
            model, optimizer, run=folder / "run", quiet=True, **spacing, **options
        )
        with watching as scope:
            yield lambda model, loss: scope.log(loss=loss)

    return arm


def each(interval: int) -> Callable[[int], bool]:
    """The first step, where buffers are made, and one in so many after it."""
    return lambda step: step == 0 or step % interval == interval // 4


@contextlib.contextmanager
def wandb_watch(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer
) -> Iterator[Observe]:
    """wandb.watch of gradients and parameters at every step, offline."""
    import wandb

    settings = wandb.Settings(silent=True, console="off", x_disable_stats=True)
    run = wandb.init(mode="offline", dir=folder, settings=settings)
    run.watch(model, log="all", log_freq=1)
    try:
        yield lambda model, loss: run.log({"loss": loss.item()})
    finally:
        run.unwatch(model)
        run.finish()
        wandb.teardown()  # its own process, whose time counts when it has ended


@contextlib.contextmanager
def tensorboard(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer
) -> Iterator[Observe]:
    """Histograms of every weight and gradient at every step."""
    from torch.utils.tensorboard import SummaryWriter

    writer, step = SummaryWriter(folder), 0

    def observe(model: nn.Module, loss: torch.Tensor) -> None:
        nonlocal step
        writer.add_scalar("loss", loss, step)
        for name, parameter in model.named_parameters():
            writer.add_histogram(name, parameter, step)
            writer.add_histogram(f"{name}.grad", parameter.grad, step)
        step += 1

    try:
        yield observe
    finally:
        writer.close()


def name(quantity: str, interval: str) -> str:
    """Of an arm of dynoscope."""
    return f"{quantity}, {interval}"


ARMS: Final[Mapping[str, Arm]] = {
    "bare": bare,
    "bare again": bare,
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
