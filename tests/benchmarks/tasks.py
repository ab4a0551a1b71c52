"""The trainings that overhead is measured on."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tests.benchmarks.models import Gpt, conv_loss, conv_net, gpt_loss

__all__ = ["TASKS", "Task"]


class Task(NamedTuple):
    """A network to train.

    Attributes:
        build: makes it.
        loss: of a random batch.
        small: of a smaller one, to get somewhere sooner.
        words: what it is, in the README.
    """

    build: Callable[[], nn.Module]
    loss: Callable[[nn.Module], Tensor]
    small: Callable[[nn.Module], Tensor]
    words: str

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """AdamW."""
        return torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)


TASKS = {
    "gpt": Task(
        Gpt,
        gpt_loss,
        lambda model: gpt_loss(model, batch=1, context=16),
        "6 layers of width 384, 78 tensors, batches of 8 x 128 tokens",
    ),
    "conv": Task(
        conv_net,
        conv_loss,
        lambda model: conv_loss(model, batch=2, side=8),
        "32 to 128 channels, 38 tensors, batches of 8 images of 32 x 32",
    ),
}
