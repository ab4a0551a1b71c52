"""How to read the optimizers of torch, and those of `dynoscope.optim`."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Final

import torch

from dynoscope.hooks.known import Known, always, no_theory
from dynoscope.hooks.optimizers import Adapter, Group, Theory

__all__ = ["ADAM_KEYS", "LION_KEYS", "OURS", "TORCH"]


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


def _muon_settings(optimizer: torch.optim.Optimizer, group: Group) -> Group:
    # An average of gradients, where SGD's momentum is a sum.
    return {**group, "dampening": group["momentum"]}


def _muon_factor(group: Group, parameter: torch.Tensor) -> float:
    rows, columns = parameter.shape[:2]
    if group["adjust_lr_fn"] == "match_rms_adamw":
        return 0.2 * math.sqrt(max(rows, columns))
    return math.sqrt(max(1.0, rows / columns))


def _is_centered(optimizer: torch.optim.Optimizer) -> bool:
    return any(group["centered"] for group in optimizer.param_groups)


def _torch(
    theory: Theory,
    keys: frozenset[str] = frozenset(),
    state: frozenset[str] = frozenset(),
    momentum: str = "",
    second_moment: tuple[str, ...] = (),
    unread: str = "",
) -> Known:
    adapter = Adapter(
        theory, momentum, second_moment, unread=unread, spares_gradients=True
    )
    return Known(adapter, keys, state=state)


ADAM_KEYS: Final = frozenset({"lr", "betas", "eps", "weight_decay", "amsgrad"})
LION_KEYS: Final = frozenset({"lr", "betas", "weight_decay"})
_ADAM_STATE: Final = frozenset({"step", "exp_avg", "exp_avg_sq"})
_SECOND_MOMENTS: Final = ("max_exp_avg_sq", "exp_avg_sq")  # the maximum with amsgrad
_MUON: Final = Adapter(
    no_theory("Muon", "its steps are matrices without a size of their own"),
    "momentum_buffer",
    settings=_muon_settings,
    lr_factor=_muon_factor,
    spares_gradients=True,
)
_RMSPROP: Final = no_theory("RMSprop")
_RMSPROP_KEYS: Final = frozenset({"eps", "alpha", "centered"})
_RMSPROP_UNREAD: Final = "RMSprop's momentum is one of scaled gradients, not read"

TORCH: Final[Mapping[str, tuple[Known, ...]]] = {
    "ASGD": (
        _torch(
            no_theory("ASGD", "its learning rate follows a formula of its own"),
            frozenset({"lambd", "t0"}),
        ),
    ),
    "Adadelta": (
        _torch(
            no_theory("Adadelta", "the size of its steps feeds on itself"),
            frozenset({"rho"}),
        ),
    ),
    "Adafactor": (
        _torch(
            no_theory(
                "Adafactor", "it clips its steps, and scales them to the weights"
            ),
            unread="Adafactor's second moment is kept as rows and columns, not read",
        ),
    ),
    "Adagrad": (
        _torch(
            no_theory("Adagrad", "its steps only ever shrink"),
            frozenset({"initial_accumulator_value"}),
        ),
    ),
    "Adam": (_torch(_adam, ADAM_KEYS, _ADAM_STATE, "exp_avg", _SECOND_MOMENTS),),
    "AdamW": (_torch(_adamw, ADAM_KEYS, _ADAM_STATE, "exp_avg", _SECOND_MOMENTS),),
    "Adamax": (
        _torch(
            no_theory("Adamax"),
            LION_KEYS | {"differentiable"},
            frozenset({"exp_avg", "exp_inf"}),
            "exp_avg",
            unread="Adamax divides by a largest gradient, not by a second moment",
        ),
    ),
    "LBFGS": (
        _torch(
            no_theory("LBFGS", "its steps follow the curvature"),
            frozenset({"history_size"}),
        ),
    ),
    "Muon": (
        Known(
            _MUON,
            frozenset({"lr", "weight_decay", "momentum", "adjust_lr_fn"}),
            state=frozenset({"momentum_buffer"}),
        ),
    ),
    "NAdam": (
        _torch(
            no_theory("NAdam", "it looks ahead along the momentum"),
            LION_KEYS | {"momentum_decay"},
            _ADAM_STATE | {"mu_product"},
            "exp_avg",
            ("exp_avg_sq",),
        ),
    ),
    "RAdam": (
        _torch(
            no_theory("RAdam", "its first steps are rectified"),
            LION_KEYS | {"eps", "differentiable"},
            _ADAM_STATE,
            "exp_avg",
            unread="RAdam does not divide by its second moment from the start",
        ),
    ),
    "RMSprop": (
        Known(
            Adapter(_RMSPROP, unread=_RMSPROP_UNREAD, spares_gradients=True),
            _RMSPROP_KEYS,
            applies=_is_centered,
        ),
        Known(
            Adapter(
                _RMSPROP,
                second_moment_keys=("square_avg",),
                bias_corrected=False,
                unread=_RMSPROP_UNREAD,
                spares_gradients=True,
            ),
            _RMSPROP_KEYS,
            state=frozenset({"square_avg"}),
        ),
    ),
    "Rprop": (
        _torch(
            no_theory("Rprop", "each weight has a step size of its own"),
            frozenset({"etas"}),
        ),
    ),
    "SGD": (
        _torch(
            always("sgdm"),
            frozenset({"lr", "momentum", "dampening", "nesterov", "weight_decay"}),
            momentum="momentum_buffer",
        ),
    ),
}


def _ours(theory: Theory, *keys: str) -> tuple[Known, ...]:
    return (_torch(theory, LION_KEYS | {*keys}, frozenset({"exp_avg"}), "exp_avg"),)


_LION_OPTIONS: Final = frozenset({"caution", "weight_decouple", "eps"})

OURS: Final[Mapping[str, tuple[Known, ...]]] = {
    "Lion": tuple(
        dataclasses.replace(known, foreign=_LION_OPTIONS)
        for known in _ours(always("lion"), "maximize", "foreach")
    ),
    "LionK": _ours(_lionk),
    "NormGD": _ours(always("normgd")),
    "OrtSepNorm": _ours(_blockwise("ortsepnorm"), "per"),
    "SepNorm": _ours(_blockwise("sepnorm"), "per"),
}
