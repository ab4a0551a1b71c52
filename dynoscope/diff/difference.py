"""How far apart two numbers are: the definitions that every comparison uses.

A quantity that cannot be negative (a norm, an angle, a learning rate) is compared
by its ratio: what matters of 1e-4 and 2e-4 is the factor of 2. One that crosses
zero (a cosine) or is naturally zero (a share, a count) has no useful ratio and is
compared by its difference.
"""

from typing import Final, Literal, TypeAlias

import numpy as np

from dynoscope.measurement import FloatArray
from dynoscope.schema.registry import Metric

__all__ = ["CAP", "Kind", "distance", "kind_of", "limit_of", "relative"]

Kind: TypeAlias = Literal["ratio", "difference"]

CAP: Final = 5.0
"""Most that one metric adds to a ranking: a factor of 148. Without it a layer whose
update is 0 in one run, or a count of thousands, would outweigh everything else."""


def kind_of(metric: Metric) -> Kind:
    """How a metric is compared, read off its registry entry.

    By ratio: what is drawn on a logarithmic axis, settings, and what is named a
    ratio itself. By difference: the rest (cosines, shares, counts).
    """
    positive = metric.log or metric.role == "setting" or metric.name.endswith("_ratio")
    return "ratio" if positive else "difference"


def relative(kind: Kind, a: FloatArray, b: FloatArray) -> FloatArray:
    """Signed difference of b from a; positive where b is larger.

    Args:
        kind: `ratio` gives b / a - 1: dimensionless, -1 where only b is zero, inf
            where only a is zero, NaN where one is negative. `difference` gives
            b - a, in the metric's unit.
        a: any shape.
        b: same shape.

    Returns:
        Same shape. 0 where a equals b, both zero included; NaN where either is.

    >>> relative("ratio", np.array([2.0, 0.0, 0.0]), np.array([3.0, 0.0, 1.0])).tolist()
    [0.5, 0.0, inf]
    """
    if kind == "difference":
        return b - a
    with np.errstate(divide="ignore", invalid="ignore"):
        change = (b - a) / a
    change = np.where((a == 0) & (b == 0), 0.0, change)
    return np.where((a < 0) | (b < 0), np.nan, change)


def distance(kind: Kind, a: FloatArray, b: FloatArray) -> FloatArray:
    """How far a and b are apart, whichever is larger; at least 0.

    Args:
        kind: `ratio` gives abs(ln(b / a)): .69 for a factor of 2 either way, inf
            where only one is zero, NaN where one is negative. `difference` gives
            abs(b - a), in the metric's unit.
        a: any shape.
        b: same shape.

    Returns:
        Same shape. 0 where a equals b, both zero included; NaN where either is.

    >>> distance("ratio", np.array([1.0, 4.0]), np.array([4.0, 1.0])).round(3).tolist()
    [1.386, 1.386]
    """
    if kind == "difference":
        return np.abs(b - a)
    with np.errstate(divide="ignore", invalid="ignore"):
        # A difference of logarithms does not overflow where a quotient would.
        apart = np.abs(np.log(b) - np.log(a))
    return np.where(a == b, np.where(a < 0, np.nan, 0.0), apart)


def limit_of(kind: Kind, threshold: float) -> float:
    """The distance at which two numbers count as different.

    Args:
        kind: see `distance`.
        threshold: .1 means that the larger is over 10 % above the smaller
            (`ratio`), or that they are more than .1 apart (`difference`).
    """
    return float(np.log1p(threshold)) if kind == "ratio" else threshold
