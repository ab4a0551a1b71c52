"""Small real runs to compare."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

import dynoscope
from dynoscope.optim import Lion


class Net(nn.Module):
    def __init__(self, head: str = "head") -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU()
        )
        self.head_name = head
        setattr(self, head, nn.Linear(4, 3))

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.features(x).mean((2, 3))
        scores: Tensor = getattr(self, self.head_name)(pooled)
        return scores


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.1)


def lion(model: nn.Module) -> torch.optim.Optimizer:
    return Lion(model.parameters(), lr=1e-3, weight_decay=0.3)


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scope: dynoscope.Scope,
    steps: int,
    nan_from: int | None = None,
) -> None:
    generator = torch.Generator().manual_seed(1)
    for step in range(steps):
        x = torch.randn(16, 1, 6, 6, generator=generator)
        y = torch.randint(0, 3, (16,), generator=generator)
        loss = functional.cross_entropy(model(x), y)
        loss.backward()
        if step == nan_from:
            first = next(model.parameters())
            first.grad = torch.full_like(first, float("nan"))
        optimizer.step()
        optimizer.zero_grad()
        scope.log(loss=loss, balance=(-1) ** step * 0.5)


def record(
    folder: Path,
    make: Callable[[nn.Module], torch.optim.Optimizer] = adamw,
    steps: int = 30,
    *,
    head: str = "head",
    nan_from: int | None = None,
    **options: Any,
) -> Path:
    torch.manual_seed(0)
    model = Net(head)
    optimizer = make(model)
    options = {"every": 1, "strict": True, "quiet": True, **options}
    with dynoscope.watch(model, optimizer, run=folder, **options) as scope:
        train(model, optimizer, scope, steps, nan_from)
    return folder
