"""A training with everything in it that a measurement might disturb."""

import io
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from tests.networks import Digits


class NoisyDigits(Dataset[tuple[Tensor, Tensor]]):
    """Digits with augmentation from all random states that people draw from."""

    def __init__(self, count: int = 96) -> None:
        data = Digits()
        self.images, self.labels = data.images[:count], data.labels[:count]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        brightness = random.random() + float(np.random.rand()) + float(torch.rand(()))
        return self.images[index] * brightness, self.labels[index]


class DropNet(nn.Module):
    """BatchNorm and dropout, an LSTM, a buffer that is replaced at every call."""

    running: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 3, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.lstm = nn.LSTM(6, 8, batch_first=True)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(8, 10)
        self.register_buffer("running", torch.zeros(()))

    def forward(self, images: Tensor) -> Tensor:
        pixels = torch.relu(self.norm(self.conv(images)))
        self.running = self.running + pixels.detach().mean()
        states = self.lstm(pixels.flatten(2).transpose(1, 2))[0]
        scores: Tensor = self.head(self.drop(states[:, -1]))
        return scores


def batch_loss(model: nn.Module, batch: Any) -> Tensor:
    images, labels = batch
    return functional.cross_entropy(model(images), labels)


def fresh(
    dtype: torch.dtype = torch.float32,
) -> tuple[DropNet, torch.optim.Optimizer]:
    torch.manual_seed(5)
    model = DropNet().to(dtype)
    return model, torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.1)


def everything(model: nn.Module, optimizer: torch.optim.Optimizer) -> bytes:
    """All that a training goes on from, to the last bit."""
    buffer = io.BytesIO()
    content = (
        model.state_dict(),
        {name: parameter.grad for name, parameter in model.named_parameters()},
        [module.training for module in model.modules()],
        optimizer.state_dict(),
        torch.get_rng_state(),
        random.getstate(),
        np.random.get_state(legacy=True),
        torch.is_autocast_cache_enabled(),
    )
    torch.save(content, buffer)
    return buffer.getvalue()


def train_with(
    measure: Callable[[str, nn.Module, DataLoader[Any]], None],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loader: DataLoader[Any],
    epochs: int = 2,
) -> list[float]:
    """Train; `measure` is called at every place of a loop, and told which."""
    losses = []
    torch.manual_seed(11)
    random.seed(11)
    np.random.seed(11)
    measure("before", model, loader)
    for _ in range(epochs):
        for batch in loader:
            loss = batch_loss(model, batch)
            measure("forward", model, loader)
            loss.backward()
            measure("backward", model, loader)
            optimizer.step()
            measure("step", model, loader)
            optimizer.zero_grad()
            losses.append(loss.item())
    measure("after", model, loader)
    return losses
