"""What an optimizer is, and where it keeps its momentum and hyperparameters.

An optimizer is recognised by its class name together with the keys of its
groups, so that no optimizer package has to be imported. An unknown one is
measured all the same; only predictions are absent, with the reason stated.
"""

import dataclasses
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import numpy as np
import torch

from dynoscope.measurement import GroupState, OptimizerInfo
from dynoscope.metrics.sums import SecondMoment

__all__ = [
    "Adapter",
    "adapter_for",
    "box_limit",
    "capture",
    "imposed_rotation",
    "is_rotational",
]

Group: TypeAlias = Mapping[str, Any]
Theory: TypeAlias = Callable[[torch.optim.Optimizer, Group], tuple[str | None, str]]
"""Of an optimizer's group, which theory applies; else None and the reason."""


@dataclasses.dataclass(frozen=True)
class Adapter:
    """How to read one class of optimizers.

    Attributes:
        momentum_key: the momentum's key in the optimizer's state, "" if none.
        keys: keys that every parameter group of this class has.
        theory: which theory applies to a group.
        second_moment_keys: keys of the second moment in the optimizer's state; the
            first that is there is what the optimizer divides by.
        name: a name that says more than the class; "" for the class's own.
    """

    momentum_key: str
    keys: frozenset[str]
    theory: Theory
    second_moment_keys: tuple[str, ...] = ()
    name: str = ""

    def describe(self, optimizer: torch.optim.Optimizer) -> OptimizerInfo:
        """What a run's manifest says of the optimizer."""
        theories = [self.theory(optimizer, group) for group in optimizer.param_groups]
        return OptimizerInfo(
            name=self.name or type(optimizer).__name__,
            kinds=tuple(kind for kind, _ in theories),
            reasons=tuple(reason for _, reason in theories),
            has_momentum=bool(self.momentum_key),
            hyperparameters=tuple(
                {key: value for key, value in group.items() if key != "params"}
                for group in optimizer.param_groups
            ),
            has_second_moment=bool(self.second_moment_keys),
        )

    def momentum(
        self, optimizer: torch.optim.Optimizer, parameter: torch.Tensor
    ) -> torch.Tensor | None:
        """The parameter's momentum; None where there is none (yet)."""
        # `state` makes an entry for whatever it is asked by index: use get.
        found = optimizer.state.get(parameter, {}).get(self.momentum_key)
        return found if isinstance(found, torch.Tensor) else None

    def second_moment(
        self, optimizer: torch.optim.Optimizer, parameter: torch.Tensor, group: int
    ) -> SecondMoment | None:
        """What the step has just divided the parameter's momentum by, if anything."""
        state = optimizer.state.get(parameter, {})
        v = next((state[k] for k in self.second_moment_keys if k in state), None)
        if v is None:
            return None
        settings, count = optimizer.param_groups[group], state["step"]
        # Read a number where that is free; stay on an accelerator where it is not.
        beta2, count = _cheap(settings["betas"][1]), _cheap(count)
        return SecondMoment(v, (1 - beta2**count) ** 0.5, settings["eps"])


def _cheap(number: float | torch.Tensor) -> float | torch.Tensor:
    if isinstance(number, torch.Tensor) and number.device.type == "cpu":
        return float(number)
    return number


def is_rotational(
    optimizer: torch.optim.Optimizer, parameter: torch.Tensor, group: Group
) -> bool:
    """Whether the optimizer is rotational, and turns this parameter of the group."""
    if not _wraps(optimizer):
        return False
    turns: bool = getattr(optimizer, "is_rotational")(parameter, group)  # noqa: B009
    return turns


def imposed_rotation(optimizer: torch.optim.Optimizer, group: Group) -> float:
    """The angle that a rotational optimizer turns by; NaN if there is no single one."""
    if not _wraps(optimizer) or getattr(optimizer, "factor", None) is not None:
        return math.nan
    angle: float = getattr(optimizer, "rotation")(group)  # noqa: B009
    return angle


def _wraps(optimizer: torch.optim.Optimizer) -> bool:
    """Whether it is a `dynoscope.optim.Rotational`, known by name and parts."""
    named = any(base.__name__ == "Rotational" for base in type(optimizer).__mro__)
    return named and isinstance(
        getattr(optimizer, "inner", None), torch.optim.Optimizer
    )


def _of_inner(inner: torch.optim.Optimizer) -> Adapter:
    """The adapter of a rotational optimizer: its state and groups are the inner's."""
    adapter = adapter_for(inner)
    return dataclasses.replace(
        adapter,
        theory=lambda optimizer, group: adapter.theory(inner, group),
        name=f"Rotational({adapter.name or type(inner).__name__})",
    )


def capture(group: Group, rotation: float = math.nan) -> Callable[[], GroupState]:
    """Keep a group's hyperparameters of now; read them out later.

    A tensor learning rate is changed in place by schedulers, so it is copied;
    reading the copy may wait for its device, so that is left to the caller of
    the returned function, on the writer's thread.
    """
    beta1, beta2 = group.get("betas", (np.nan, np.nan))[:2]
    values = {
        "lr": group.get("lr", np.nan),
        "weight_decay": group.get("weight_decay", 0.0),
        "beta1": beta1,
        "beta2": beta2,
        "momentum": group.get("momentum", np.nan),
        "dampening": group.get("dampening", 0.0),
    }
    kept = {
        key: value.detach().clone() if isinstance(value, torch.Tensor) else value
        for key, value in values.items()
    }
    nesterov = bool(group.get("nesterov", False))
    return lambda: GroupState(
        **{key: float(value) for key, value in kept.items()},
        nesterov=nesterov,
        rotation=rotation,
    )


def box_limit(group: Group) -> float:
    """1 / weight_decay; infinite without, or if reading it would mean waiting."""
    decay = group.get("weight_decay", 0.0)
    if isinstance(decay, torch.Tensor) or not decay > 0:
        return math.inf
    return float(1 / decay)


def adapter_for(optimizer: torch.optim.Optimizer) -> Adapter:
    """The adapter of an optimizer's class; a measuring-only one if unknown."""
    if _wraps(optimizer):
        return _of_inner(getattr(optimizer, "inner"))  # noqa: B009
    cls = type(optimizer)
    for base in cls.__mro__:
        adapter = _ADAPTERS.get(base.__name__)
        if adapter is None or not adapter.keys <= optimizer.param_groups[0].keys():
            continue
        # torch wraps a class's step when it is first instantiated.
        if _own_step(cls) is not _own_step(base):
            return _measuring_only(
                f"{cls.__name__} replaces the step of {base.__name__}"
            )
        return adapter
    return _measuring_only(f"no theory is known for {cls.__name__}")


def _own_step(cls: type) -> Callable[..., Any]:
    step: Callable[..., Any] = getattr(cls, "step")  # noqa: B009 (any class)
    original: Callable[..., Any] = inspect.unwrap(step)
    return original


def _measuring_only(reason: str) -> Adapter:
    return Adapter("", frozenset(), lambda optimizer, group: (None, reason))


def _always(kind: str) -> Theory:
    return lambda optimizer, group: (kind, "")


def _adam(optimizer: torch.optim.Optimizer, group: Group) -> tuple[str | None, str]:
    if group["amsgrad"]:
        return None, "no theory covers the running maximum of amsgrad"
    decoupled = group.get("decoupled_weight_decay", False)
    return ("adamw" if decoupled else "adam_l2"), ""


def _adamw(optimizer: torch.optim.Optimizer, group: Group) -> tuple[str | None, str]:
    return _adam(optimizer, {"decoupled_weight_decay": True, **group})


def _lionk(optimizer: torch.optim.Optimizer, group: Group) -> tuple[str | None, str]:
    k = getattr(optimizer, "k", None)
    if type(k).__name__ == "L1":
        return "lion", ""
    return None, f"no theory is known for LionK with {k!r}"


def _blockwise(kind: str) -> Theory:
    def theory(
        optimizer: torch.optim.Optimizer, group: Group
    ) -> tuple[str | None, str]:
        if group["per"] == "group" and len(group["params"]) > 1:
            return None, (
                'per="group" shares one step among many layers; what each of them '
                "gets of it is not predicted"
            )
        return kind, ""

    return theory


_ADAM_KEYS = frozenset({"lr", "betas", "eps", "weight_decay", "amsgrad"})
_LION_KEYS = frozenset({"lr", "betas", "weight_decay"})
_SECOND_MOMENTS = ("max_exp_avg_sq", "exp_avg_sq")  # the maximum with amsgrad
_ADAPTERS: Final[Mapping[str, Adapter]] = {
    "SGD": Adapter(
        "momentum_buffer",
        frozenset({"lr", "momentum", "dampening", "nesterov", "weight_decay"}),
        _always("sgdm"),
    ),
    "Adam": Adapter("exp_avg", _ADAM_KEYS, _adam, _SECOND_MOMENTS),
    "AdamW": Adapter("exp_avg", _ADAM_KEYS, _adamw, _SECOND_MOMENTS),
    "Lion": Adapter("exp_avg", _LION_KEYS, _always("lion")),
    "LionK": Adapter("exp_avg", _LION_KEYS, _lionk),
    "NormGD": Adapter("exp_avg", _LION_KEYS, _always("normgd")),
    "OrtSepNorm": Adapter("exp_avg", _LION_KEYS | {"per"}, _blockwise("ortsepnorm")),
    "SepNorm": Adapter("exp_avg", _LION_KEYS | {"per"}, _blockwise("sepnorm")),
}
