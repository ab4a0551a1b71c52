"""How many steps optimizers say that they have taken."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch

__all__ = ["steps_taken"]


def steps_taken(optimizers: Iterable[torch.optim.Optimizer]) -> int | None:
    """The largest count of steps in the states of some optimizers, or in their groups.

    Reading a count may wait for its device: not for the path of a step. A step that
    does nothing may not be counted, as an overflow under GradScaler.

    Returns:
        The count; 0 before the first step, None if they have stepped without counting.
    """
    optimizers = list(optimizers)
    if not any(optimizer.state for optimizer in optimizers):
        return 0
    found = [
        entry.get("step", entry.get("k"))  # schedule-free optimizers count in `k`
        for optimizer in optimizers
        for entry in (*optimizer.state.values(), *optimizer.param_groups)
        if isinstance(entry, Mapping)
    ]
    return max((int(count) for count in found if _is_number(count)), default=None)


def _is_number(count: Any) -> bool:
    if isinstance(count, torch.Tensor):
        return count.numel() == 1
    return isinstance(count, int | float)
