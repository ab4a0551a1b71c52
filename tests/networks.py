"""Small real networks and data that the tests train on."""

from collections.abc import Callable

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from dynoscope.optim import Lion

OPTIMIZERS: dict[str, Callable[[nn.Module], torch.optim.Optimizer]] = {
    "sgd": lambda m: torch.optim.SGD(m.parameters(), lr=0.05),
    "sgdm": lambda m: torch.optim.SGD(
        m.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3
    ),
    "nesterov": lambda m: torch.optim.SGD(
        m.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-3
    ),
    "dampened": lambda m: torch.optim.SGD(
        m.parameters(), lr=0.05, momentum=0.9, dampening=0.5
    ),
    "adam_l2": lambda m: torch.optim.Adam(m.parameters(), lr=3e-3, weight_decay=1e-3),
    "adamw": lambda m: torch.optim.AdamW(m.parameters(), lr=3e-3, weight_decay=0.1),
    "amsgrad": lambda m: torch.optim.AdamW(m.parameters(), lr=3e-3, amsgrad=True),
    "lion": lambda m: Lion(m.parameters(), lr=1e-3, weight_decay=0.3),
    "boxed": lambda m: Lion(m.parameters(), lr=1e-2, weight_decay=2.0),
}


class MixedNet(nn.Module):
    """One of each: conv, BatchNorm, linear, LayerNorm, embedding, tied weights."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()
        )
        self.depthwise = nn.Conv2d(8, 8, 1, groups=8)
        self.embedding = nn.Embedding(10, 24)
        self.project = nn.Linear(8 * 64, 24)
        self.norm = nn.LayerNorm(24)
        self.head = nn.Linear(24, 10, bias=False)
        self.head.weight = self.embedding.weight  # tied
        self.temperature = nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor, hints: Tensor) -> Tensor:
        pixels = self.depthwise(self.stem(images)).flatten(1)
        hidden = self.norm(self.project(pixels) + self.embedding(hints))
        scores: Tensor = self.head(hidden) * self.temperature
        return scores


class Digits:
    """Batches of scikit-learn's digits, in an order fixed by the global seed."""

    def __init__(self, batch: int = 32) -> None:
        pixels, labels = load_digits(return_X_y=True)
        self.images = torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 8, 8) / 16
        self.labels = torch.tensor(labels)
        self._batch = batch

    def draw(self) -> tuple[Tensor, Tensor]:
        chosen = torch.randint(len(self.images), (self._batch,))
        return self.images[chosen], self.labels[chosen]


def mixed_loss(model: nn.Module, data: Digits) -> Tensor:
    """A loss whose embedding sees hints that are right one time in ten."""
    images, labels = data.draw()
    hints = torch.randint(10, labels.shape)
    return functional.cross_entropy(model(images, hints), labels)


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    steps: int,
    each: Callable[[Tensor], None] = lambda loss: None,
) -> None:
    """Train; `each` is called with the loss after every step."""
    data = Digits()
    for _ in range(steps):
        loss = mixed_loss(model, data)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        each(loss)
