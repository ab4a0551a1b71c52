"""What an optimizer keeps of some parameters, looked up where that has changed."""

import operator
from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch

from dynoscope.hooks.optimizers import Adapter, State

__all__ = ["States"]

_NOTHING: Final[State] = {}


class States:
    """States of some parameters.

    Args:
        optimizer: whose states.
        adapter: how to read it.
        parameters: some of its parameters.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        adapter: Adapter,
        parameters: Sequence[torch.Tensor],
    ) -> None:
        self._optimizer, self._adapter = optimizer, adapter
        self._parameters = parameters
        self._seen: list[Any] = []
        self._found: list[State] = [_NOTHING] * len(parameters)

    def now(self) -> Sequence[State]:
        """The states, in the parameters' order; empty where there is none (yet)."""
        state: Mapping[Any, State] = self._adapter.source(self._optimizer).state
        # To look a tensor up takes far longer than to see that nothing has changed.
        seen = self._seen
        if len(seen) != len(state) or not all(map(operator.is_, state.values(), seen)):
            self._seen = [*state.values()]
            # `state` makes an entry for whatever it is asked by index: use get.
            found = [state.get(parameter) for parameter in self._parameters]
            self._found = [_NOTHING if each is None else each for each in found]
        return self._found
