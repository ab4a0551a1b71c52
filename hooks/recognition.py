"""Which adapter reads an optimizer: known ones, those around others, and your own.

An optimizer is recognised by its class name, the keys of its groups and the keys
of its state together, so that no optimizer package has to be imported. An unknown
one is measured all the same; only predictions are absent, with the reason stated.
"""

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch

from dynoscope.errors import UnwatchableError
from dynoscope.hooks.adapters import OURS, TORCH
from dynoscope.hooks.foreign import FOREIGN
from dynoscope.hooks.known import Known, always, no_theory, refuse
from dynoscope.hooks.optimizers import Adapter, Group, Theory
from dynoscope.hooks.wrappers import inner_of, meddlers, turns
from dynoscope.theory.equilibrium import OPTIMIZERS

__all__ = ["adapter_for", "register_optimizer"]

GroupTheory = Callable[[Mapping[str, Any]], tuple[str | None, str]]
"""From a parameter group, the kind of equilibrium; or None and the reason."""

_registered: dict[str | type, Known] = {}


def register_optimizer(
    optimizer: str | type[torch.optim.Optimizer],
    *,
    momentum: str | None = None,
    second_moment: str | None = None,
    theory: str | GroupTheory | None = None,
    keys: Iterable[str] = (),
) -> None:
    """Teach dynoscope an optimizer: where its momentum is, which theory applies.

    Every optimizer is measured; this adds what its class alone can tell. It holds
    for subclasses too, unless they replace `step`, and goes before what dynoscope
    knows by itself. Registering a class again replaces what was said of it.

    >>> import dynoscope
    >>> dynoscope.register_optimizer("MyLion", momentum="exp_avg", theory="lion")

    Args:
        optimizer: the class, or its name where the class is not at hand.
        momentum: key of the momentum in the optimizer's state of a parameter; it has
            the parameter's shape.
        second_moment: likewise of the running mean of squared gradients, with
            `betas[1]` and `eps` in the groups. It is corrected for its start at 0, as
            Adam's is, if steps are counted: `step` in the state or the group.
        theory: "adamw", "adam_l2", "sgdm", "lion", "sepnorm", "ortsepnorm" or
            "normgd": the optimizer whose update rule this is, with `lr`,
            `weight_decay` and `betas` (or `momentum`) in the groups. Or a function
            from a group to one of these and "", or to None and the reason.
        keys: keys that every parameter group has; another optimizer of that name is
            not taken for this one.

    Raises:
        UnwatchableError: no name, no optimizer class, or an unknown theory.
    """
    name = optimizer if isinstance(optimizer, str) else _class_name(optimizer)
    if not name:
        raise UnwatchableError(
            "register_optimizer('') names no class; pass the class, or its name"
        )
    adapter = Adapter(
        _taught(name, theory),
        momentum or "",
        (second_moment,) if second_moment else (),
    )
    state = frozenset(key for key in (momentum, second_moment) if key)
    _registered[optimizer] = Known(adapter, frozenset(keys), state=state)


def _class_name(cls: Any) -> str:
    if isinstance(cls, type) and issubclass(cls, torch.optim.Optimizer):
        return cls.__name__
    raise UnwatchableError(
        f"register_optimizer takes a class of optimizers or its name, not {cls!r}"
    )


def _taught(name: str, theory: str | GroupTheory | None) -> Theory:
    if theory is None:
        return refuse(f"{name} was registered without a theory")
    if isinstance(theory, str):
        return always(_checked(theory))
    ask = theory

    def asked(optimizer: torch.optim.Optimizer, group: Group) -> tuple[str | None, str]:
        answer = ask(group)
        if not (isinstance(answer, tuple) and len(answer) == 2):
            raise UnwatchableError(
                f"the theory registered for {name} gave {answer!r}; it must give "
                "a kind and '', or None and the reason"
            )
        kind, reason = answer
        return (kind if kind is None else _checked(kind)), reason

    return asked


def _checked(kind: str) -> str:
    if kind not in OPTIMIZERS:
        known = ", ".join(f"'{name}'" for name in OPTIMIZERS)
        raise UnwatchableError(f"no theory is called {kind!r}; known are {known}")
    return kind


def adapter_for(optimizer: torch.optim.Optimizer, given: Any = None) -> Adapter:
    """The adapter of an optimizer's class; a measuring-only one if unknown.

    Args:
        optimizer: the optimizer that is hooked.
        given: what the user has, if `optimizer` was found inside of it.
    """
    adapter = _adapter(optimizer)
    around = meddlers(given) if given is not None else []
    for outer in reversed(around):
        adapter = _inside(outer, adapter, optimizer)
    return adapter


def _adapter(optimizer: torch.optim.Optimizer) -> Adapter:
    if turns(optimizer):
        return _of_rotational(getattr(optimizer, "inner"))  # noqa: B009
    cls = type(optimizer)
    for base in cls.__mro__:
        found = next((k for k in _candidates(base) if not k.misfit(optimizer)), None)
        if found is None:
            continue
        # torch wraps a class's step when it is first instantiated.
        if _own_step(cls) is not _own_step(base):
            return Adapter(
                refuse(f"{cls.__name__} replaces the step of {base.__name__}")
            )
        return dataclasses.replace(found.adapter, misfit=found.misfit)
    if cls.__name__ == "ZeroRedundancyOptimizer":
        return _of_zero(getattr(optimizer, "optim"))  # noqa: B009
    inner = inner_of(optimizer)
    if inner is not None:
        return _around(cls.__name__, inner)
    # Of several that go by this name, the one whose groups fit says what does not.
    misfits = [known.misfit(optimizer) for known in _candidates(cls)]
    return Adapter(no_theory(cls.__name__, max(misfits, default="")))


def _candidates(base: type) -> Iterator[Known]:
    for key in (base, base.__name__):
        if key in _registered:
            yield _registered[key]
    for table in (OURS, TORCH, FOREIGN):
        yield from table.get(base.__name__, ())


def _own_step(cls: type) -> Callable[..., Any]:
    step: Callable[..., Any] = getattr(cls, "step")  # noqa: B009 (any class)
    original: Callable[..., Any] = inspect.unwrap(step)
    return original


def _name(adapter: Adapter, optimizer: torch.optim.Optimizer) -> str:
    return adapter.name or type(optimizer).__name__


def _of_rotational(inner: torch.optim.Optimizer) -> Adapter:
    """The adapter of a rotational optimizer: its state and groups are the inner's."""
    adapter = _adapter(inner)
    return dataclasses.replace(
        adapter,
        theory=lambda optimizer, group: adapter.theory(inner, group),
        name=f"Rotational({_name(adapter, inner)})",
        misfit=lambda optimizer: adapter.misfit(inner),
    )


def _inside(outer: str, adapter: Adapter, optimizer: torch.optim.Optimizer) -> Adapter:
    """Read the optimizer, of whose theory a wrapper leaves nothing."""
    name = _name(adapter, optimizer)
    return dataclasses.replace(
        adapter,
        theory=refuse(f"no theory covers what {outer} adds to the steps of {name}"),
        name=f"{outer}({name})",
    )


def _around(outer: str, inner: torch.optim.Optimizer) -> Adapter:
    """Hook the wrapper, read the state of the optimizer inside."""
    adapter = _adapter(inner)
    return dataclasses.replace(
        _inside(outer, adapter, inner),
        source=lambda optimizer: adapter.source(inner),
        misfit=lambda optimizer: adapter.misfit(inner),
    )


def _of_zero(inner: torch.optim.Optimizer) -> Adapter:
    """The same steps, of which each process takes, and has the state of, a part."""
    adapter = _adapter(inner)
    return dataclasses.replace(
        adapter,
        theory=lambda optimizer, group: adapter.theory(inner, group),
        momentum_key="",
        second_moment_keys=(),
        unread="ZeroRedundancyOptimizer has a part of the state in each process",
        name=f"ZeroRedundancyOptimizer({_name(adapter, inner)})",
        misfit=lambda optimizer: adapter.misfit(inner),
    )
