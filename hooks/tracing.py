"""What torch.compile is not to see: it would trace into hooks as into the step."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch

__all__ = ["untraced", "untraced_within"]

_F = TypeVar("_F", bound=Callable[..., Any])


def untraced(function: _F) -> _F:
    """Keep a function from being traced; what it calls has to be kept from it as well.

    It takes a quarter of the time that `untraced_within` takes, which is most of what
    a step costs that is not measured.
    """
    found: _F = torch.compiler.disable(function, recursive=False)
    return found


def untraced_within(function: _F) -> _F:
    """Keep a function, and all that it calls, from being traced."""
    found: _F = torch.compiler.disable(function)
    return found
