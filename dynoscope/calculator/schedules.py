"""Learning rates over a training: warmup, then the usual decays."""

from typing import Literal, TypeAlias, get_args

import numpy as np

from dynoscope.errors import ScheduleError
from dynoscope.theory.hyperparameters import Array

__all__ = ["SCHEDULES", "Shape", "lr_schedule"]

Shape: TypeAlias = Literal["constant", "cosine", "linear"]
SCHEDULES: tuple[Shape, ...] = get_args(Shape)


def lr_schedule(
    lr: float, steps: int, *, warmup: int = 0, schedule: Shape = "constant"
) -> Array:
    """The learning rate of every step.

    Args:
        lr: the highest, which the warmup ends at.
        steps: number of steps, at least 1.
        warmup: steps of a linear rise, the first of them at lr / warmup.
        schedule: what follows: "constant", or down to 0, where the step after the
            last one would be, along a "cosine" or a "linear" line.

    Returns:
        Learning rates, shape (steps,), float64.

    Raises:
        ScheduleError: a number of steps or the name makes no sense.
    """
    if steps < 1 or not 0 <= warmup <= steps:
        raise ScheduleError(
            f"a schedule needs steps >= 1 and a warmup between 0 and steps, got steps "
            f"{steps} and warmup {warmup}"
        )
    if schedule not in SCHEDULES:
        known = ", ".join(f"'{name}'" for name in SCHEDULES)
        raise ScheduleError(f"schedule is {schedule!r}; it can be {known}")
    step = np.arange(steps)
    rise = np.minimum((step + 1) / max(warmup, 1), 1.0)
    done = np.maximum(step - warmup, 0) / max(steps - warmup, 1)
    fall = {
        "constant": np.ones(steps),
        "cosine": (1 + np.cos(np.pi * done)) / 2,
        "linear": 1 - done,
    }[schedule]
    return np.asarray(lr * rise * fall, dtype=np.float64)
