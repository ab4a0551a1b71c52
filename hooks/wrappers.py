"""Optimizers around optimizers: which of them really steps, and what the rest do."""

import math
from collections.abc import Iterator
from typing import Any, Final

import torch

from dynoscope.errors import UnwatchableError
from dynoscope.hooks.optimizers import Group

__all__ = [
    "imposed_rotation",
    "inner_of",
    "is_rotational",
    "meddlers",
    "resolve",
    "turns",
]

INNER: Final = (
    "optimizer",
    "base_optimizer",
    "_base_optimizer",
    "_optimizer",
    "inner",
    "base",
    "optim",
)
"""Names under which wrappers keep the optimizer that they wrap."""

SHELLS: Final = frozenset(
    {"AcceleratedOptimizer", "LightningOptimizer", "_FabricOptimizer"}
)
"""Wrappers that step the optimizer inside, and do nothing else to the weights."""


def resolve(optimizer: Any) -> torch.optim.Optimizer:
    """The optimizer to hook: itself, or the one inside that its step comes down to.

    An optimizer runs its hooks only if its `__init__` went through torch's. Wrappers
    often leave that out, and a hook on them would be taken and never run. A wrapper
    that can be stepped in two parts (`first_step`, `second_step`: SAM and its kin)
    may never be stepped as a whole; the step that counts is that of the optimizer
    inside, at the gradient that the first part has brought about.

    Raises:
        UnwatchableError: it is no optimizer, or no step of it runs hooks.
    """
    *_, last = _chain(optimizer)
    if not _runs_hooks(last):
        raise UnwatchableError(_why_not(optimizer))
    hooked: torch.optim.Optimizer = last
    return hooked


def meddlers(optimizer: Any) -> list[str]:
    """Class names of wrappers that do more than step what `resolve` gives."""
    *outside, _ = _chain(optimizer)
    return [type(outer).__name__ for outer in outside if not _is_shell(outer)]


def inner_of(optimizer: Any) -> Any:
    """The optimizer inside a wrapper, or None: it moves some of the same weights."""
    moved = _moved(optimizer)
    for name in INNER:
        inner = getattr(optimizer, name, None)
        if inner is not None and inner is not optimizer and moved & _moved(inner):
            return inner
    return None


def _chain(optimizer: Any) -> Iterator[Any]:
    """From what the user has to what is hooked."""
    yield optimizer
    while _is_passed_through(optimizer):
        optimizer = inner_of(optimizer)
        if optimizer is None:
            return
        yield optimizer


def _is_passed_through(optimizer: Any) -> bool:
    by_parts = hasattr(optimizer, "second_step")
    return by_parts or not _runs_hooks(optimizer) or _is_shell(optimizer)


def _moved(optimizer: Any) -> set[int]:
    """Parameters of an optimizer, by id; none if it is not one."""
    if not callable(getattr(optimizer, "step", None)):
        return set()
    groups = getattr(optimizer, "param_groups", ())
    return {id(p) for group in groups for p in group["params"]}


def _runs_hooks(optimizer: Any) -> bool:
    """Whether torch has armed the step: its own `__init__` does so, once a class."""
    return (
        isinstance(optimizer, torch.optim.Optimizer)
        and bool(getattr(type(optimizer).step, "hooked", False))
        and hasattr(optimizer, "_optimizer_step_post_hooks")
    )


def _is_shell(optimizer: Any) -> bool:
    return any(base.__name__ in SHELLS for base in type(optimizer).__mro__)


def _why_not(optimizer: Any) -> str:
    name = type(optimizer).__name__
    if not isinstance(optimizer, torch.optim.Optimizer):
        return f"{name} is not a torch.optim.Optimizer: watch(model, optimizer)"
    return (
        f"{name} runs no step hooks, so its steps cannot be seen: its __init__ does "
        "not call super().__init__(params, defaults). Call it there, or pass the "
        "optimizer that it steps"
    )


def turns(optimizer: torch.optim.Optimizer) -> bool:
    """Whether it is a `dynoscope.optim.Rotational`, known by name and parts."""
    named = any(base.__name__ == "Rotational" for base in type(optimizer).__mro__)
    return named and isinstance(
        getattr(optimizer, "inner", None), torch.optim.Optimizer
    )


def is_rotational(
    optimizer: torch.optim.Optimizer, parameter: torch.Tensor, group: Group
) -> bool:
    """Whether the optimizer is rotational, and turns this parameter of the group."""
    if not turns(optimizer):
        return False
    chosen: bool = getattr(optimizer, "is_rotational")(parameter, group)  # noqa: B009
    return chosen


def imposed_rotation(optimizer: torch.optim.Optimizer, group: Group) -> float:
    """The angle that a rotational optimizer turns by; NaN if there is no single one."""
    if not turns(optimizer) or getattr(optimizer, "factor", None) is not None:
        return math.nan
    angle: float = getattr(optimizer, "rotation")(group)  # noqa: B009
    return angle
