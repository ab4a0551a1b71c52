"""Short real trainings whose findings are known."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

import dynoscope
from dynoscope.findings import Finding, Thresholds, examine

Step = Callable[[int, Tensor], Tensor]
"""Number of a step and its loss, to the loss that is trained on."""


def normalized(width: int = 64, activation: type[nn.Module] = nn.ReLU) -> nn.Module:
    """A small network with BatchNorm after each hidden layer."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(16, width, bias=False), nn.BatchNorm1d(width), activation(),
        nn.Linear(width, width, bias=False), nn.BatchNorm1d(width), activation(),
        nn.Linear(width, 4),
    )  # fmt: skip


def batches(steps: int, noise: float = 0.5) -> Iterable[tuple[Tensor, Tensor]]:
    """Noisy points around the corners of a cube, to tell which of four it is."""
    source = torch.Generator().manual_seed(1)
    centers = torch.randn(4, 16, generator=source)
    for _ in range(steps):
        labels = torch.randint(4, (32,), generator=source)
        spread = noise * torch.randn(32, 16, generator=source)
        yield centers[labels] + spread, labels


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    steps: int,
    folder: Path,
    said: list[Finding],
    *,
    loss_of: Step = lambda step, loss: loss,
    noise: float = 0.5,
    **options: Any,
) -> None:
    """Train, watched, and collect what is found meanwhile."""
    dtype = next(model.parameters()).dtype
    options = {"every": 1, "quiet": True, "on_finding": said.append, **options}
    with dynoscope.watch(model, optimizer, run=folder, **options):
        for step, (points, labels) in enumerate(batches(steps, noise)):
            scores = model(points.to(dtype)).float()
            loss_of(step, functional.cross_entropy(scores, labels)).backward()
            optimizer.step()
            optimizer.zero_grad()


def findings(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    steps: int,
    folder: Path,
    *,
    thresholds: Thresholds | None = None,
    **options: Any,
) -> list[Finding]:
    """Train; what was found live, which is what the recorded run shows."""
    said: list[Finding] = []
    train(model, optimizer, steps, folder, said, thresholds=thresholds, **options)
    run = dynoscope.open_run(folder)
    assert run.problems == []
    assert run.findings()["message"].tolist() == [finding.message for finding in said]
    assert examine(run, thresholds) == said
    return said


def of_rule(found: Iterable[Finding], name: str) -> dict[str, Finding]:
    """Findings of one rule, by layer."""
    return {finding.layer: finding for finding in found if finding.rule == name}
