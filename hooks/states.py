"""What an optimizer keeps of some parameters, looked up where that has changed."""

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch

from dynoscope.hooks.optimizers import Adapter, State, as_number

__all__ = ["States"]

_NOTHING: Final[State] = {}

_COUNTER: Final[Callable[[State], Any]] = operator.methodcaller("get", "step")

_SHARED: Final = (torch.float32, torch.float64, torch.int64, torch.int32)
"""Types of counters whose memory numpy reads."""


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
        self._counters: list[Any] = []
        self._counts: list[Callable[[], Any]] = []

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

    def counts(self) -> Sequence[Any]:
        """The steps that each state says were taken: numbers; None where none says so.

        Tensors that lie elsewhere than on the CPU are left as they are.
        """
        counters = [*map(_COUNTER, self.now())]
        if not self._counts or not all(map(operator.is_, counters, self._counters)):
            self._counters = counters
            self._counts = [*map(_reader, counters)]
        return [read() for read in self._counts]


def _reader(counter: Any) -> Callable[[], Any]:
    """What gives a number; numpy takes it out of the CPU's memory sooner than torch."""
    is_here = isinstance(counter, torch.Tensor) and counter.is_cpu
    if is_here and counter.dtype in _SHARED:
        number: Callable[[], Any] = counter.detach().numpy().item
        return number
    return lambda: as_number(counter)
