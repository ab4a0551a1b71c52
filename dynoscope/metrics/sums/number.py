"""A tensor's one number, kept as it is now and read later."""

import collections
from collections.abc import Callable

from torch import Tensor

from dynoscope.metrics.sums.pack import start_copy

__all__ = ["read_later"]


def read_later(x: Tensor) -> Callable[[], float]:
    """Keep a number that the training may change in place; nothing waits for a device.

    Args:
        x: a real tensor of one element.

    Returns:
        A function that gives the number; it may wait, and be called on any thread.
    """
    kept = x.detach().reshape(())
    if kept.device.type != "cuda":
        copy = kept.clone()
        return lambda: float(copy)
    # Another thread that read it would wait for a stream of its own, not for the
    # one that is still to compute it. NumPy, which is copied to, has no bfloat16.
    wait = start_copy(kept.double(), collections.deque())
    return lambda: float(wait())
