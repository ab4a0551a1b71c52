"""A layer's equilibrium and the way there, and the same rotation by other means."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Final, Literal

import numpy as np
import pandas as pd

from dynoscope import theory
from dynoscope.calculator.schedules import Shape, lr_schedule
from dynoscope.errors import TheoryError

__all__ = ["Prediction", "predict"]

BETAS: Final[Mapping[str, tuple[float, float]]] = {
    "adam_l2": (0.9, 0.999),
    "adamw": (0.9, 0.999),
    "lion": (0.9, 0.99),
    "normgd": (0.9, 0.99),
    "ortsepnorm": (0.9, 0.99),
    "sepnorm": (0.9, 0.99),
}
"""Every optimizer's own default."""


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What a layer will do.

    Attributes:
        optimizer: its name, as `dynoscope.theory.equilibrium` takes it.
        shape: shape of the weight.
        settings: hyperparameters by name, lr being the highest.
        equilibrium: where the layer would settle at that lr; fields are numbers of
            shape ().
        trajectory: one row a step: `step`, `lr`, `weight_norm` before the step,
            `angular_update` in radians, and `pred_weight_norm` and
            `pred_angular_update`, the equilibrium at the lr of the step.
    """

    optimizer: str
    shape: tuple[int, ...]
    settings: Mapping[str, Any]
    equilibrium: theory.Equilibrium
    trajectory: pd.DataFrame

    @property
    def numel(self) -> int:
        """Number of weights."""
        return math.prod(self.shape)

    def to(
        self,
        optimizer: str | None = None,
        *,
        batch_factor: float = 1.0,
        keep: Literal["update_rms", "weight_norm"] = "weight_norm",
        **settings: Any,
    ) -> "Prediction":
        """Keep the rotation per sample with another optimizer, or another batch.

        Args:
            optimizer: the other one; None for the same.
            batch_factor: how many times larger the batch gets; as many times fewer
                steps then see as many samples, and the schedule shrinks with them.
            keep: what is to stay besides the rotation.
            settings: betas or momentum of the other one, where not its defaults.

        Returns:
            The prediction with the lr and the weight decay to use.

        Raises:
            TheoryError: there is no rotation to keep, or the other optimizer cannot
                have it.
        """
        other = self.optimizer if optimizer is None else optimizer
        kept = self.settings if other == self.optimizer else {}
        own = {
            name: kept[name] for name in ("betas", "momentum") if kept.get(name)
        } | settings
        if other in BETAS:
            own.setdefault("betas", BETAS[other])
        grad_sq = self.settings["effective_grad_sq"]
        found = theory.convert(
            self.equilibrium,
            other,
            numel=self.numel,
            keep=keep,
            batch_factor=batch_factor,
            effective_grad_sq=grad_sq,
            **own,
        )
        steps = max(round(self.settings["steps"] / batch_factor), 1)
        warmup = min(round(self.settings["warmup"] / batch_factor), steps)
        return predict(
            other,
            shape=self.shape,
            lr=float(found.lr),
            weight_decay=float(found.weight_decay),
            effective_grad_sq=None if grad_sq is None else grad_sq / batch_factor,
            start_weight_norm=self.settings["start_weight_norm"],
            steps=steps,
            warmup=warmup,
            schedule=self.settings["schedule"],
            **own,
        )


def predict(
    optimizer: str,
    *,
    shape: tuple[int, ...],
    lr: float,
    weight_decay: float,
    betas: tuple[float, float] | None = None,
    momentum: float | None = None,
    effective_grad_sq: float | None = None,
    start_weight_norm: float | None = None,
    steps: int = 10_000,
    warmup: int = 0,
    schedule: Shape = "constant",
) -> Prediction:
    """Predict a scale-invariant layer: where it settles, and its way there.

    >>> found = predict("adamw", shape=(64, 64), lr=3e-3, weight_decay=0.1)
    >>> print(f"{found.equilibrium.half_life:.0f} steps")
    1155 steps
    >>> lion = found.to("lion")
    >>> print(f"lr {lion.settings['lr']:.2g}, {lion.settings['weight_decay']:.2g}")
    lr 0.00069, 1

    Args:
        optimizer: as `dynoscope.theory.equilibrium` takes it.
        shape: shape of the weight, outputs first.
        lr: the highest learning rate.
        weight_decay: weight decay.
        betas: beta1 and beta2; each optimizer's usual ones if None.
        momentum: SGD's momentum; 0 if None.
        effective_grad_sq: E||g||^2 ||w||^2, which "sgdm" and "adam_l2" need: a run
            that was watched knows it (`grad_l2` and `weight_norm`).
        start_weight_norm: norm before the first step; None for that of torch's
            default initialization, sqrt(numel / (3 * fan_in)).
        steps: length of the training.
        warmup: steps of a linear warmup.
        schedule: "constant", "cosine" or "linear" after it.

    Returns:
        The prediction.

    Raises:
        TheoryError: an unknown optimizer, a value out of range, or one missing.
        ScheduleError: the schedule makes no sense.
    """
    if not shape or min(shape) < 1:
        raise TheoryError(f"shape must be positive numbers, got {shape}")
    numel = math.prod(shape)
    if start_weight_norm is None:
        fan_in = max(math.prod(shape[1:]), 1)
        start_weight_norm = math.sqrt(numel / (3 * fan_in))
    given: dict[str, Any] = {
        "numel": numel,
        "weight_decay": weight_decay,
        "betas": BETAS.get(optimizer) if betas is None else betas,
        "momentum": momentum,
        "effective_grad_sq": effective_grad_sq,
    }
    rates = lr_schedule(lr, steps, warmup=warmup, schedule=schedule)
    settled = theory.equilibrium(optimizer, lr=rates, **given)
    way = theory.trajectory(
        optimizer, lr=rates, start_weight_norm=start_weight_norm, **given
    )
    trajectory = pd.DataFrame(
        {
            "step": np.arange(steps),
            "lr": rates,
            "weight_norm": way.weight_norm,
            "angular_update": way.angular_update,
            "pred_weight_norm": settled.weight_norm,
            "pred_angular_update": settled.angular_update,
        }
    )
    settings = {
        **given,
        "lr": lr,
        "start_weight_norm": start_weight_norm,
        "steps": steps,
        "warmup": warmup,
        "schedule": schedule,
    }
    del settings["numel"]
    return Prediction(
        optimizer,
        tuple(shape),
        settings,
        theory.equilibrium(optimizer, lr=lr, **given),
        trajectory,
    )
