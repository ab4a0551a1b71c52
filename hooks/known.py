"""What tells one class of optimizers from another, and words for what theory lacks."""

import dataclasses
from collections.abc import Callable, Iterable

import torch

from dynoscope.hooks.optimizers import Adapter, Theory

__all__ = ["Known", "always", "no_theory", "refuse"]


def _any(optimizer: torch.optim.Optimizer) -> bool:
    return True


@dataclasses.dataclass(frozen=True)
class Known:
    """An adapter, and what an optimizer of that class name must look like for it.

    One name may stand for several update rules. Keys of groups are there from the
    start; those of states only once a step has been taken.

    Attributes:
        adapter: how to read it.
        keys: keys that every parameter group has.
        foreign: keys that no parameter group has.
        state: keys that every parameter's state has, as soon as it has any.
        foreign_state: keys that no parameter's state has.
        applies: what else must hold.
    """

    adapter: Adapter
    keys: frozenset[str] = frozenset()
    foreign: frozenset[str] = frozenset()
    state: frozenset[str] = frozenset()
    foreign_state: frozenset[str] = frozenset()
    applies: Callable[[torch.optim.Optimizer], bool] = _any

    def misfit(self, optimizer: torch.optim.Optimizer) -> str:
        """Why the optimizer is not this one, as far as can be seen by now; or ""."""
        for group in optimizer.param_groups:
            if why := _misfit("group", group, self.keys, self.foreign):
                return why
        state = _first_state(optimizer)
        if state and (why := _misfit("state", state, self.state, self.foreign_state)):
            return why
        return "" if self.applies(optimizer) else "it is of another kind"


def _misfit(
    what: str, keys: Iterable[str], needed: frozenset[str], foreign: frozenset[str]
) -> str:
    found = set(keys)
    for verb, wrong in (("lacks", needed - found), ("has", foreign & found)):
        if wrong:
            return f"its {what} {verb} {', '.join(sorted(wrong))}"
    return ""


def _first_state(optimizer: torch.optim.Optimizer) -> Iterable[str]:
    """Keys of the first parameter's state that has any."""
    parameters = (p for group in optimizer.param_groups for p in group["params"])
    states = (optimizer.state.get(parameter) for parameter in parameters)
    return next((state.keys() for state in states if state), ())


def always(kind: str) -> Theory:
    """The same theory for every group."""
    return lambda optimizer, group: (kind, "")


def refuse(reason: str) -> Theory:
    """No theory, and why."""
    return lambda optimizer, group: (None, reason)


def no_theory(name: str, because: str = "") -> Theory:
    """No theory for what is called `name`, and why."""
    return refuse(f"no theory is known for {name}{because and f': {because}'}")
