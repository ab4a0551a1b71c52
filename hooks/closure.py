"""Steps that are given a closure: gradients come into being inside the step."""

import functools
from collections.abc import Callable
from typing import Any, TypeAlias

__all__ = ["Arguments", "notify_first"]

Arguments: TypeAlias = tuple[tuple[Any, ...], dict[str, Any]]
"""What a step is called with: positional arguments, itself first, and others."""


def notify_first(
    arguments: Arguments, evaluated: Callable[[], None]
) -> Arguments | None:
    """The same arguments, but their closure says when it has run for the first time.

    By then gradients are there, while the optimizer has moved nothing: all of torch's
    evaluate the closure first. Some evaluate it often, of which later ones say nothing.

    Args:
        arguments: of an optimizer's step, as its hooks are given them.
        evaluated: called inside the step. The closure's value, and what it raises,
            go through to the optimizer.

    Returns:
        What to call the step with instead; None if there is no closure.
    """
    (optimizer, *rest), kwargs = arguments
    for at, argument in enumerate(rest):
        if callable(argument):
            rest[at] = _notifying(argument, evaluated)
            return (optimizer, *rest), kwargs
    if callable(closure := kwargs.get("closure")):
        return arguments[0], {**kwargs, "closure": _notifying(closure, evaluated)}
    return None


def _notifying(
    closure: Callable[..., Any], evaluated: Callable[[], None]
) -> Callable[..., Any]:
    waiting = True

    @functools.wraps(closure)
    def evaluate(*args: Any, **kwargs: Any) -> Any:
        nonlocal waiting
        value = closure(*args, **kwargs)
        if waiting:
            waiting = False
            evaluated()
        return value

    return evaluate
