"""Which optimizers and parameters are being watched in this process."""

import gc
import os
from typing import Protocol

from dynoscope.errors import UnwatchableError
from dynoscope.hooks.subject import Watched

__all__ = ["hold", "let_go", "refuse_double"]


class Holder(Protocol):
    """Someone who watches."""

    def drop_hooks(self) -> None:
        """Remove the hooks, and leave the rest as it is."""


_held: dict[int, Holder] = {}
"""Who watches, by the id of each optimizer and parameter he holds on to."""


def hold(watched: Watched, holder: Holder) -> None:
    """Note that these optimizers and parameters are being watched."""
    optimizers = (moved.optimizer for moved in watched.optimizers)
    for thing in (*optimizers, *watched.parameters):
        _held[id(thing)] = holder


def let_go(holder: Holder) -> None:
    """Note that the holder watches nothing any more."""
    for key in [key for key, other in _held.items() if other is holder]:
        del _held[key]


def refuse_double(watched: Watched) -> None:
    """Make sure that nothing of this is being watched.

    Raises:
        UnwatchableError: something is.
    """
    if _conflict(watched):
        # A watch whose block nobody can leave any more, such as one in the traceback
        # of a notebook's last cell, ends when it is collected.
        gc.collect()
    if conflict := _conflict(watched):
        raise UnwatchableError(conflict)


def _conflict(watched: Watched) -> str:
    if any(id(moved.optimizer) in _held for moved in watched.optimizers):
        return (
            "this optimizer is being watched already; leave the first "
            "dynoscope.watch block before opening another"
        )
    layers = watched.subject.layers
    for parameter, layer in zip(watched.parameters, layers, strict=True):
        if id(parameter) in _held:
            return (
                f"{layer.name!r} is in two watched optimizers; its steps could "
                f"not be told apart. Pass exclude={layer.name!r} to one watch"
            )
    return ""


def _forget() -> None:
    """Watch nothing in a forked process: the run, and its writer, are the parent's."""
    for holder in {id(holder): holder for holder in _held.values()}.values():
        holder.drop_hooks()
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
