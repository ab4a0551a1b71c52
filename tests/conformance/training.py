"""A training that says what its optimizer should have seen, for the suite to check."""

import abc
import contextlib
import dataclasses
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

import dynoscope
from tests.networks import Digits

__all__ = ["Clean", "Net", "Seen", "Training", "digits"]

Clean: TypeAlias = dict[str, Tensor]
"""Parameters, or gradients, by clean name, float64."""

digits = Digits(16)


class Net(nn.Module):
    """Convolution, BatchNorm, LayerNorm, and an embedding tied to the head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), nn.BatchNorm2d(4))
        self.project = nn.Linear(36, 12)
        self.norm = nn.LayerNorm(12)
        self.embedding = nn.Embedding(10, 12)
        self.head = nn.Linear(12, 10, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, images: Tensor, hints: Tensor) -> Tensor:
        hidden = self.project(torch.relu(self.stem(images)).flatten(1))
        scores: Tensor = self.head(self.norm(hidden + self.embedding(hints)))
        return scores


@dataclasses.dataclass
class Seen:
    """What there was when an optimizer stepped."""

    weights: Clean
    grads: Clean
    after: Clean = dataclasses.field(default_factory=dict)


class Training(abc.ABC):
    """A training loop; `models` and `optimizers` are what `watch` is given.

    Attributes:
        models: the model or models, in whatever shell the loop puts them.
        optimizers: the optimizer or optimizers.
        seen: what the optimizer should have seen at each of its steps.
        interrupt: called after every step; raises to end the loop.
    """

    models: Any
    optimizers: Any

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.interrupt: Callable[[], None] = lambda: None

    @abc.abstractmethod
    def step(self) -> None:
        """One iteration; calls `note` where `.grad` is what is to be used."""

    def run(self, steps: int) -> None:
        """The loop."""
        for _ in range(steps):
            self.step()
            self.interrupt()

    @property
    def named(self) -> Mapping[str, Tensor]:
        """Parameters by the names that their layers should have."""
        own: nn.Module = self.models
        return dict(own.named_parameters())

    def note(self, scale: float = 1.0, only: Sequence[str] | None = None) -> None:
        """Keep weights and gradients of now, the latter over `scale`."""
        self.close()
        named = {k: p for k, p in self.named.items() if only is None or k in only}
        grads = {k: p.grad for k, p in named.items() if p.grad is not None}
        self.seen.append(
            Seen(
                {name: _wide(p) for name, p in named.items()},
                {name: _wide(g) / scale for name, g in grads.items()},
            )
        )

    def close(self) -> None:
        """Keep the weights that the last step has led to, if that is not done."""
        if self.seen and not self.seen[-1].after:
            names = self.seen[-1].weights
            self.seen[-1].after = {n: _wide(self.named[n]) for n in names}

    def state(self) -> bytes:
        """Everything that training changes, to the last bit."""
        buffer = io.BytesIO()
        optimizers = _listed(self.optimizers)
        content = (
            {name: p.detach() for name, p in self.named.items()},
            [optimizer.state_dict() for optimizer in optimizers],
            torch.get_rng_state(),
        )
        torch.save(content, buffer)
        return buffer.getvalue()

    def optimizers_inside(self) -> list[torch.optim.Optimizer]:
        """The optimizers without what a framework puts around them."""
        return _listed(self.optimizers)

    def watch(
        self, run: Path, **options: Any
    ) -> contextlib.AbstractContextManager[Any]:
        """Watch it, as its users would."""
        return dynoscope.watch(self.models, self.optimizers, run=run, **options)

    def hooks(self) -> int:
        """How many hooks there are on its optimizers, models and parameters."""
        count = 0
        for optimizer in self.optimizers_inside():
            count += len(optimizer._optimizer_step_pre_hooks)
            count += len(optimizer._optimizer_step_post_hooks)
        for model in _listed(self.models):
            for module in model.modules():
                count += len(module._forward_hooks) + len(module._forward_pre_hooks)
                count += len(module._backward_hooks)
        return count


def loss_of(model: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Loss of a batch of digits, whose hints are right one time in ten."""
    images, labels = digits.draw()
    hints = torch.randint(10, labels.shape)
    return functional.cross_entropy(model(images, hints).float(), labels)


def _wide(x: Tensor) -> Tensor:
    x = x.detach().to_dense() if x.is_sparse else x.detach()
    return x.to(torch.complex128 if x.is_complex() else torch.float64).clone()


def _listed(one_or_more: Any) -> list[Any]:
    if isinstance(one_or_more, dict):
        return list(one_or_more.values())
    return one_or_more if isinstance(one_or_more, list) else [one_or_more]
