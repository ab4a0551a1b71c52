"""Where Lion and Lion-K stand in the constrained problem that they solve."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch

from dynoscope.errors import MeasurementError
from dynoscope.hooks.states import States
from dynoscope.hooks.subject import Moved, Watched
from dynoscope.measurement import Rows
from dynoscope.theory import lyapunov

__all__ = ["constraint_rows"]

Function = Callable[[torch.Tensor], torch.Tensor]


class _K(NamedTuple):
    """A K, as far as it is measured; each function gives one number."""

    value: Function
    gauge: Function
    conjugate: Function


class _Point(NamedTuple):
    """Weight and momentum of a layer, float64; the momentum tracks -grad f."""

    weight: torch.Tensor
    momentum: torch.Tensor
    weight_decay: float


def constraint_rows(watched: Watched, loss: float | None) -> Rows:
    """Rows of the `constraint` table; nothing is changed.

    Args:
        watched: whose optimizer is Lion or LionK.
        loss: f(w), for the Lyapunov function; None leaves it out.

    Raises:
        MeasurementError: the optimizer has no K, or a K that gives its gradient
            alone.
    """
    if len(watched.optimizers) > 1:
        raise MeasurementError(
            "several optimizers are watched, each with a problem of its own to solve; "
            "watch the one of which the constraint is to be measured by itself"
        )
    optimizer = watched.optimizers[0].optimizer
    k = _k_of(watched.optimizers[0])
    points = [_point(watched, index) for index in range(len(watched.parameters))]
    whole = getattr(optimizer, "per", "tensor") == "model"
    rows = [] if whole else [_measure(k, point) for point in points]
    joint = _Point(
        torch.cat([point.weight.flatten() for point in points]),
        torch.cat([point.momentum.flatten() for point in points]),
        _shared([point.weight_decay for point in points]),
    )
    rows.append(_measure(k, joint) if whole else _together(rows))
    names = [] if whole else [layer.name for layer in watched.subject.layers]
    columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    height = np.full(len(rows), np.nan)
    if loss is not None:
        height[-1] = _lyapunov(optimizer, loss, rows[-1], joint.weight_decay)
    return Rows(
        "constraint",
        {
            "layer": np.array([*names, "*"]),
            **columns,
            "loss": np.nan if loss is None else loss,
            "lyapunov": height,
        },
    )


def _k_of(moved: Moved) -> _K:
    optimizer, theory = moved.optimizer, moved.adapter.theory
    named = {base.__name__ for base in type(optimizer).__mro__}
    kinds = {theory(optimizer, group)[0] for group in optimizer.param_groups}
    if kinds == {"lion"} and not {"LionK", "Rotational"} & named:
        return _K(_l1, _largest, _outside_of_box)
    k: Any = getattr(optimizer, "k", None) if "LionK" in named else None
    if k is None:
        raise MeasurementError(
            f"{type(optimizer).__name__} solves no constrained problem that is known; "
            "Lion and LionK do"
        )
    missing = [name for name in _K._fields if not callable(getattr(k, name, None))]
    if missing:
        raise MeasurementError(
            f"{k!r} has no {' and no '.join(missing)}: derive it from "
            "dynoscope.optim.ConvexFunction to have its constraint measured"
        )
    return _K(k.value, k.gauge, k.conjugate)


def _l1(x: torch.Tensor) -> torch.Tensor:
    return x.abs().sum()


def _largest(x: torch.Tensor) -> torch.Tensor:
    return x.abs().amax() if x.numel() else x.new_zeros(())


def _outside_of_box(y: torch.Tensor) -> torch.Tensor:
    rounding = 1e-6  # of weights in float32
    return torch.where(_largest(y) <= 1 + rounding, 0.0, torch.inf)


def _point(watched: Watched, index: int) -> _Point:
    parameter = watched.parameters[index]
    moved = watched.optimizers[0]
    states = States(moved.optimizer, moved.adapter, [parameter]).now()
    (momentum,) = moved.adapter.momenta(states)
    weight = parameter.detach().double()
    group = watched.groups[watched.subject.layers[index].group]
    return _Point(
        weight,
        torch.zeros_like(weight) if momentum is None else -momentum.detach().double(),
        float(group["weight_decay"]),
    )


def _measure(k: _K, point: _Point) -> dict[str, float]:
    scaled = point.weight_decay * point.weight
    return {
        "numel": point.weight.numel(),
        "weight_decay": point.weight_decay,
        "constraint_norm": float(k.gauge(scaled)),
        "conjugate": float(k.conjugate(scaled)),
        "momentum_k": float(k.value(point.momentum)),
        "momentum_weight": float((point.momentum * point.weight).sum()),
    }


def _together(rows: list[dict[str, float]]) -> dict[str, float]:
    """All layers, of which each has the K to itself: a sum of functions."""
    total = {name: sum(row[name] for row in rows) for name in rows[0]}
    total["weight_decay"] = _shared([row["weight_decay"] for row in rows])
    total["constraint_norm"] = max(row["constraint_norm"] for row in rows)
    return total


def _shared(values: list[float]) -> float:
    """The value of all, NaN if they differ."""
    return values[0] if len(set(values)) == 1 else float("nan")


def _lyapunov(
    optimizer: torch.optim.Optimizer,
    loss: float,
    whole: dict[str, float],
    weight_decay: float,
) -> float:
    """H of the whole model; NaN without a weight decay, lr and betas in common."""
    groups = optimizer.param_groups
    lr = _shared([float(group["lr"]) for group in groups])
    betas = [_shared([float(g["betas"][i]) for g in groups]) for i in (0, 1)]
    if not weight_decay > 0:
        return float("nan")
    eta, decay = np.array(lr), np.array(weight_decay)
    return float(
        lyapunov.value(
            np.array(loss),
            np.array(whole["conjugate"]),
            np.array(whole["momentum_k"]),
            np.array(whole["momentum_weight"]),
            lyapunov.implicit_lr(eta, decay),
            decay,
            (np.array(betas[0]), np.array(betas[1])),
        )
    )
