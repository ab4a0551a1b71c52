"""The angle by which an optimizer's weights turn per step in the long run."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, Final

from torch.optim import Optimizer

from dynoscope import theory

__all__ = ["angle", "is_free_of_weight", "turns_like"]

Group = Mapping[str, Any]


def turns_like(optimizer: Optimizer, group: Group) -> str | None:
    """The theory whose angle a group's directions should turn by; None if unknown.

    Adam with L2 turns by AdamW's angle: its own depends on the gradient's size, and
    that imbalance between layers is what a rotational variant is to remove.
    """
    for base in type(optimizer).__mro__:
        if base.__name__ in _KINDS:
            return _KINDS[base.__name__](group)
    return None


def is_free_of_weight(optimizer: Optimizer, group: Group) -> bool:
    """Whether the update, but for its decay, is known not to depend on the weight.

    Then it is the whole step where the weight is 0, and loses no digits; else it is
    the difference of the weights.
    """
    kind = turns_like(optimizer, group)
    if kind == "adamw":
        by_name = type(optimizer).__name__ == "AdamW"
        return bool(group.get("decoupled_weight_decay", by_name))
    return kind is not None and kind != "ortsepnorm"


def angle(kind: str, group: Group) -> float:
    """The equilibrium angle eta_r of a group's hyperparameters, in radians.

    Raises:
        TheoryError: a hyperparameter is out of range.
    """
    return _angle(
        kind,
        float(group["lr"]),
        float(group["weight_decay"]),
        tuple(float(beta) for beta in group["betas"]) if "betas" in group else None,
        float(group.get("momentum", 0.0)),
        float(group.get("dampening", 0.0)),
        bool(group.get("nesterov", False)),
    )


@functools.lru_cache(maxsize=1024)
def _angle(
    kind: str,
    lr: float,
    weight_decay: float,
    betas: tuple[float, float] | None,
    momentum: float,
    dampening: float,
    nesterov: bool,
) -> float:
    found = theory.equilibrium(
        kind,
        numel=1,
        lr=lr,
        weight_decay=weight_decay,
        betas=betas,
        momentum=momentum,
        dampening=dampening,
        nesterov=nesterov,
        effective_grad_sq=1.0,  # no angle depends on it, nor on numel
    )
    return float(found.angular_update)


def _adam(group: Group) -> str | None:
    return None if group["amsgrad"] else "adamw"


_KINDS: Final[Mapping[str, Callable[[Group], str | None]]] = {
    "Adam": _adam,
    "AdamW": _adam,
    "Lion": lambda group: "lion",
    "OrtSepNorm": lambda group: "ortsepnorm",
    "SGD": lambda group: "sgdm",
    "SepNorm": lambda group: "sepnorm",
}
