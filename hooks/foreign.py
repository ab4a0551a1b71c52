"""How to read the optimizers that other packages bring."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import torch

from dynoscope.hooks.adapters import LION_KEYS
from dynoscope.hooks.known import Known, no_theory, refuse
from dynoscope.hooks.optimizers import Adapter, Group, Theory

__all__ = ["FOREIGN"]

_VARIANTS: Final = ("caution", "cautious", "use_gc", "adanorm")
"""Options of Lions that make something else of it."""


def _lion(optimizer: torch.optim.Optimizer, group: Group) -> tuple[str | None, str]:
    option = next((name for name in _VARIANTS if group.get(name)), None)
    if option is not None:
        return None, f"no theory covers Lion with {option}=True"
    if not group.get("weight_decouple", True):
        return None, "weight_decouple=False decays inside Lion's sign: no theory"
    if group.get("fixed_decay"):
        return None, "fixed_decay=True decays apart from the learning rate: no theory"
    return "lion", ""


def _lion_settings(optimizer: torch.optim.Optimizer, group: Group) -> Group:
    """With the weight decay that, times the learning rate, a step shrinks by."""
    decay, options = group["weight_decay"], vars(optimizer)
    if options.get("decoupled_wd"):  # lion-pytorch
        decay = decay / options["_init_lr"]
    elif group.get("corrected_weight_decay"):  # timm
        top = group.get("max_lr_snapshot", optimizer.defaults["lr"])
        decay = decay * group["lr"] / top
    # pytorch_optimizer says it once for all groups.
    maximize = group.get("maximize", options.get("maximize", False))
    return {**group, "weight_decay": decay, "maximize": maximize}


_LION: Final = Known(
    Adapter(_lion, "exp_avg", settings=_lion_settings),
    LION_KEYS,
    foreign=frozenset({"eps", "momentum"}),
    state=frozenset({"exp_avg"}),
    foreign_state=frozenset({"exp_avg_sq"}),
)

_AVERAGING: Final = (
    "no theory covers schedule-free averaging; the weights are those that gradients "
    "are taken at (train mode), and what eval() and train() do to them is no step"
)
_NO_MOMENTUM: Final = "a schedule-free optimizer's momentum is in its average, not read"


def _schedule_free(*second_moment: str) -> Known:
    adapter = Adapter(
        refuse(_AVERAGING), second_moment_keys=second_moment, unread=_NO_MOMENTUM
    )
    return Known(adapter, frozenset({"train_mode", "weight_sum", "k"}))


def _is_quantized(optimizer: Any) -> bool:
    """Whether bitsandbytes keeps a parameter's state in less than 32 bits."""
    return any(
        optimizer.get_config(g, index, group)["optim_bits"] != 32
        for g, group in enumerate(optimizer.param_groups)
        for index in range(len(group["params"]))
    )


def _unclipped(kind: str) -> Theory:
    def theory(optimizer: Any, group: Group) -> tuple[str | None, str]:
        if optimizer.args.max_unorm > 0:
            return None, "no theory covers the limit that max_unorm sets to a step"
        return kind, ""

    return theory


def _momentum_settings(optimizer: torch.optim.Optimizer, group: Group) -> Group:
    # Its dampening and Nesterov options do nothing.
    return {**group, "betas": (), "momentum": group["betas"][0]}


def _is_called(name: str) -> Callable[[Any], bool]:
    return lambda optimizer: getattr(optimizer, "optimizer_name", None) == name


def _bitsandbytes(name: str, *states: str, adapter: Adapter) -> Known:
    return Known(adapter, state=frozenset(states), applies=_is_called(name))


_QUANTIZED: Final = Known(
    Adapter(
        refuse("no theory covers what rounding to 8 bits does to the state"),
        unread="an 8-bit state is not read",
    ),
    applies=_is_quantized,
)
_ONE_STATE: Final = (
    _QUANTIZED,
    _bitsandbytes("lion", "state1", adapter=Adapter(_unclipped("lion"), "state1")),
    _bitsandbytes(
        "momentum",
        "state1",
        adapter=Adapter(_unclipped("sgdm"), "state1", settings=_momentum_settings),
    ),
    _bitsandbytes(
        "rmsprop",
        "state1",
        adapter=Adapter(
            no_theory("RMSprop"), second_moment_keys=("state1",), bias_corrected=False
        ),
    ),
)
_TWO_STATES: Final = (
    _QUANTIZED,
    _bitsandbytes(
        "adam",
        "state1",
        "state2",
        adapter=Adapter(_unclipped("adamw"), "state1", ("state2",)),
    ),
    _bitsandbytes(
        "lamb",
        "state1",
        "state2",
        adapter=Adapter(
            no_theory("LAMB", "it scales its steps to the weights"),
            "state1",
            ("state2",),
        ),
    ),
)

FOREIGN: Final[Mapping[str, tuple[Known, ...]]] = {
    "AdamWScheduleFree": (_schedule_free("exp_avg_sq"),),
    "Lion": (_LION,),
    "Optimizer1State": _ONE_STATE,
    "Optimizer2State": _TWO_STATES,
    "RAdamScheduleFree": (_schedule_free(),),
    "SGDScheduleFree": (_schedule_free(),),
    "Tiger": (
        Known(
            Adapter(no_theory("Tiger", "it has one coefficient beta"), "exp_avg"),
            frozenset({"lr", "beta", "weight_decay"}),
            state=frozenset({"exp_avg"}),
        ),
    ),
}
