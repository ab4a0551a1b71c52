"""Read an optimizer: its momentum, its second moment and its hyperparameters."""

import dataclasses
import math
import numbers
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
import torch

from dynoscope.measurement import GroupState, OptimizerInfo
from dynoscope.metrics.sums import SecondMoment, read_later

__all__ = [
    "Adapter",
    "Group",
    "State",
    "Theory",
    "as_number",
    "box_limit",
    "capture",
]

_GRADIENT: Final[Callable[[Any], torch.Tensor | None]] = operator.attrgetter("grad")

Group: TypeAlias = Mapping[str, Any]
State: TypeAlias = Mapping[str, Any]
"""What an optimizer keeps of a parameter from step to step."""
Theory: TypeAlias = Callable[[torch.optim.Optimizer, Group], tuple[str | None, str]]
"""Of an optimizer's group, which theory applies; else None and the reason."""
Settings: TypeAlias = Callable[[torch.optim.Optimizer, Group], Group]
"""An optimizer's group, with hyperparameters that mean what theory means by them."""


def _as_given(optimizer: torch.optim.Optimizer, group: Group) -> Group:
    return group


def _unscaled(group: Group, parameter: torch.Tensor) -> float:
    return 1.0


def _fits(optimizer: torch.optim.Optimizer) -> str:
    return ""


def _itself(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    return optimizer


@dataclasses.dataclass(frozen=True)
class Adapter:
    """How to read one class of optimizers.

    Attributes:
        theory: which theory applies to a group.
        momentum_key: the momentum's key in the optimizer's state, "" if none.
        second_moment_keys: keys of the second moment in the optimizer's state; the
            first that is there is what the optimizer divides by.
        bias_corrected: whether it is corrected for its start at 0, as Adam's is.
        settings: a group's hyperparameters as theory reads them.
        lr_factor: what a parameter's learning rate is, over that of its group.
        unread: why no momentum, or no second moment, is read; "" where all is.
        name: a name that says more than the class; "" for the class's own.
        source: the optimizer that has the state.
        spares_gradients: whether a step leaves `.grad` as it was.
        misfit: why the optimizer, looked at again, is another than was thought; or "".
    """

    theory: Theory
    momentum_key: str = ""
    second_moment_keys: tuple[str, ...] = ()
    bias_corrected: bool = True
    settings: Settings = _as_given
    lr_factor: Callable[[Group, torch.Tensor], float] = _unscaled
    unread: str = ""
    name: str = ""
    source: Callable[[torch.optim.Optimizer], torch.optim.Optimizer] = _itself
    spares_gradients: bool = False
    misfit: Callable[[torch.optim.Optimizer], str] = _fits

    def describe(self, optimizer: torch.optim.Optimizer) -> OptimizerInfo:
        """What a run's manifest says of the optimizer."""
        theories = [self.theory(optimizer, group) for group in optimizer.param_groups]
        return OptimizerInfo(
            name=self.name or type(optimizer).__name__,
            kinds=tuple(kind for kind, _ in theories),
            reasons=tuple(reason for _, reason in theories),
            has_momentum=bool(self.momentum_key),
            hyperparameters=tuple(
                {key: _plain(value) for key, value in group.items() if key != "params"}
                for group in optimizer.param_groups
            ),
            has_second_moment=bool(self.second_moment_keys),
            unread=self.unread,
        )

    def gradients(
        self, parameters: Sequence[torch.Tensor]
    ) -> list[torch.Tensor | None]:
        """Their gradients of now, which a step in between does not change."""
        grads = [
            g if g is None or not g.is_sparse else g.detach().to_dense()
            for g in map(_GRADIENT, parameters)
        ]
        if self.spares_gradients:
            return grads
        return [g if g is None else g.detach().clone() for g in grads]

    def momenta(self, states: Sequence[State]) -> list[torch.Tensor | None]:
        """The momenta in these states; None where there is none (yet)."""
        found = map(operator.methodcaller("get", self.momentum_key), states)
        return [m if isinstance(m, torch.Tensor) else None for m in found]

    def second_moments(
        self,
        optimizer: torch.optim.Optimizer,
        states: Sequence[State],
        groups: Sequence[int],
        counts: Callable[[], Sequence[Any]],
    ) -> list[SecondMoment | None]:
        """What the step has just divided the momenta by, if anything.

        Args:
            optimizer: whose step it was.
            states: its states of some parameters.
            groups: index of the group that each of them is in.
            counts: gives the steps that they say were taken; see `States.counts`.
        """
        if not self.second_moment_keys:
            return [None] * len(states)
        squares: list[Any] = [None] * len(states)
        for key in reversed(self.second_moment_keys):
            pairs = zip(states, squares, strict=True)
            squares = [state.get(key, v) for state, v in pairs]
        taken = counts() if self.bias_corrected else [_UNBIASED] * len(states)
        # Counts of one step are alike, as a rule; tensors on accelerators differ.
        keys: list[tuple[int, Any]] = [*zip(groups, taken, strict=True)]
        scalings: dict[tuple[int, Any], tuple[float | torch.Tensor, float]] = {}
        used = {k for k, v in zip(keys, squares, strict=True) if v is not None}
        for group, count in used:
            settings = self.settings(optimizer, optimizer.param_groups[group])
            scaling = _correction(settings, count), settings.get("eps", 0.0)
            scalings[group, count] = scaling
        return [
            v if v is None else SecondMoment(v, *scalings[key])
            for key, v in zip(keys, squares, strict=True)
        ]


_UNBIASED: Final = object()


def _correction(settings: Group, count: Any) -> float | torch.Tensor:
    """Root of Adam's bias correction; steps are counted per tensor or per group."""
    counts = (count, settings.get("step"), settings.get("k"))
    count = as_number(next((count for count in counts if count is not None), _UNBIASED))
    if count is _UNBIASED:
        return 1.0
    correction: float | torch.Tensor = (
        1 - as_number(settings["betas"][1]) ** count
    ) ** 0.5
    return correction


def as_number(number: Any) -> Any:
    """Out of its tensor, unless that would mean waiting."""
    if isinstance(number, torch.Tensor) and number.is_cpu:
        return number.item()
    return number


def _plain(value: Any) -> Any:
    """A hyperparameter without the tensor that holds it, and that will change."""
    if isinstance(value, torch.Tensor):
        return float(value) if value.numel() == 1 else str(value)
    if isinstance(value, tuple | list):
        return [_plain(entry) for entry in value]
    return value


def capture(group: Group, rotation: float = math.nan) -> Callable[[], GroupState]:
    """Keep a group's hyperparameters of now; read them out later.

    A tensor learning rate is changed in place by schedulers, so it is copied;
    the returned function, which the writer's thread calls, waits for the copy.

    Args:
        group: as `Adapter.settings` gives it; what it lacks, or has None for, is NaN.
        rotation: the angle that the optimizer imposes, in radians.
    """
    beta1, beta2 = (*(group.get("betas") or ()), np.nan, np.nan)[:2]
    kept = (  # in the order of the fields
        _kept(group.get("lr")),
        _kept(group.get("weight_decay", 0.0)),
        _kept(beta1),
        _kept(beta2),
        _kept(group.get("momentum")),
        _kept(group.get("dampening", 0.0)),
        bool(group.get("nesterov", False)),
        rotation,
        bool(group.get("maximize", False)),
    )
    return lambda: GroupState._make(map(_read, kept))


def _kept(value: Any) -> float | Callable[[], float]:
    if type(value) is float:
        return value
    if value is None:
        return math.nan
    if isinstance(value, torch.Tensor):
        return read_later(value)
    return float(value) if isinstance(value, numbers.Real) else math.nan


def _read(number: float | Callable[[], float]) -> float:
    return number() if callable(number) else number


def box_limit(group: Group) -> float:
    """1 / weight_decay; infinite without, or if reading it would mean waiting."""
    decay = as_number(group.get("weight_decay", 0.0))
    if isinstance(decay, torch.Tensor) or not decay > 0:
        return math.inf
    return float(1 / decay)
