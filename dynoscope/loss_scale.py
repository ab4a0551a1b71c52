"""Gradient scalers: what one is at a step, and how often it has met an overflow."""

import math
from typing import Final, NamedTuple

import numpy as np

__all__ = ["ScalerState", "overflows"]

WHOLE: Final = 1e-3
"""How far from whole a number of backoffs may be, if the scale was not set by hand."""

LARGEST: Final = float(np.finfo(np.float32).max)


class ScalerState(NamedTuple):
    """A gradient scaler, such as torch's GradScaler, as a step has found it.

    After a step without overflow a scaler lengthens its streak by one, and multiplies
    its scale by `growth` where the streak has got to `interval`; after one with an
    overflow it multiplies by `backoff`. Either starts the streak anew.

    Attributes:
        key: tells one scaler from another; None if the scaler is not known.
        scale: what the loss was multiplied by; NaN if that is not known.
        streak: updates of the scale since it changed.
        growth, backoff, interval: see above.
        start: the scale before the optimizer's very first step; NaN if this is not it.
        overflowed: whether the step moves nothing for an overflow; None of an
            optimizer that is not even stepped then.
    """

    key: int | None = None
    scale: float = math.nan
    streak: int = 0
    growth: float = math.nan
    backoff: float = math.nan
    interval: int = 0
    start: float = math.nan
    overflowed: bool | None = None


def overflows(before: ScalerState, after: ScalerState, steps: int) -> int:
    """Updates of a scaler, between two of its states, that found an overflow.

    Exact from one step to the next, and wherever fewer steps lie between than make
    the scale grow; else the fewest that explain it: a growth and a backoff that cancel
    out are not seen. None where no number explains it, as of a scale set by hand.

    Args:
        before: the state at a step, before its own update.
        after: the state at a later one, or in the end.
        steps: steps of the optimizer in between, the first of the two included.
    """
    grows = before.growth > 1 > before.backoff > 0 and before.interval > 0
    if not grows or not (before.scale > 0 and after.scale > 0):
        return 0
    streak = steps - 1 if before.overflowed else before.streak + steps
    most = streak // before.interval
    if before.scale * before.growth > LARGEST:
        most = 0  # there it stays
    change = math.log(after.scale / before.scale)
    for growths in range(most if steps <= 1 else 0, most + 1):
        found = (change - growths * math.log(before.growth)) / math.log(before.backoff)
        if found > -WHOLE and abs(found - round(found)) < WHOLE:
            return round(found)
    return 0
