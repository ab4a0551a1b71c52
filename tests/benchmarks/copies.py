"""One copy of all parameters, taken in a training: a unit of cost on any machine.

In the training and not in a loop of its own, where the copies' memory would be in the
caches as far as it fits: what watches a training finds other things there, too.
"""

import time
from collections.abc import Callable

import torch
from torch import nn

__all__ = ["Copier"]


class Copier:
    """Copies the parameters of a model when it is called, and takes the time.

    Args:
        model: whose parameters.
        clock: gives seconds.

    Attributes:
        seconds: that the copies took.
    """

    def __init__(
        self, model: nn.Module, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._source = [parameter.detach() for parameter in model.parameters()]
        self._target = [parameter.clone() for parameter in self._source]
        self._clock = clock
        self.seconds: list[float] = []

    def __call__(self) -> None:
        """Make a copy."""
        start = self._clock()
        torch._foreach_copy_(self._target, self._source)
        self.seconds.append(self._clock() - start)
