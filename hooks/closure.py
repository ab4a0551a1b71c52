"""Steps that are given a closure: gradients come into being inside the step."""

import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import torch

__all__ = ["Arguments", "notifying"]

Arguments: TypeAlias = tuple[tuple[Any, ...], dict[str, Any]]
"""What a step is called with: positional arguments, itself first, and others."""


def notifying(arguments: Arguments, notify: Callable[[bool], None]) -> Arguments | None:
    """The same arguments, but their closure says when it is evaluated.

    After the first time gradients are there, while the optimizer has moved nothing: all
    of torch's evaluate the closure first. Some evaluate it often, elsewhere.

    Args:
        arguments: of an optimizer's step, as its hooks are given them.
        notify: called inside the step with False, after the first evaluation; and with
            True before the second, which may overwrite the gradients. The closure's
            value, and what it raises, go through to the optimizer.

    Returns:
        What to call the step with instead; None if there is no closure.
    """
    (optimizer, *rest), kwargs = arguments
    for at, argument in enumerate(rest):
        if callable(argument):
            rest[at] = _notifying(argument, notify)
            return (optimizer, *rest), kwargs
    if callable(closure := kwargs.get("closure")):
        return arguments[0], {**kwargs, "closure": _notifying(closure, notify)}
    return None


def _notifying(
    closure: Callable[..., Any], notify: Callable[[bool], None]
) -> Callable[..., Any]:
    notify = torch.compiler.disable(notify)
    calls = 0

    @functools.wraps(closure)
    def evaluate(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            notify(True)
        value = closure(*args, **kwargs)
        if calls == 1:
            notify(False)
        return value

    return evaluate
