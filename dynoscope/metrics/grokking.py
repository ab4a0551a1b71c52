"""The grokking gap: how much later a model generalises than it memorises."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dynoscope.measurement import FloatArray

__all__ = ["GrokkingGap", "first_reached", "grokking_gap"]

Steps = npt.NDArray[np.int64]


class GrokkingGap(NamedTuple):
    """When training and validation got there; NaN for one that did not (yet).

    Attributes:
        train: step at which the training score first reached the threshold.
        validation: step at which the validation score did.
        gap: steps from the one to the other; negative where validation was first.
    """

    train: float
    validation: float
    gap: float


def first_reached(
    steps: Steps, values: FloatArray, threshold: float, *, falling: bool = False
) -> float:
    """The first step whose value is at the threshold or beyond it.

    Args:
        steps: steps in ascending order, shape (n,), int64.
        values: the score at each, shape (n,), float64; NaN reaches nothing.
        threshold: the value to reach, in the score's unit.
        falling: whether a smaller value is the better one, as of a loss.

    Returns:
        The step, NaN if none is.
    """
    there = values <= threshold if falling else values >= threshold
    return float(steps[there.argmax()]) if there.any() else float("nan")


def grokking_gap(
    train: tuple[Steps, FloatArray],
    validation: tuple[Steps, FloatArray],
    threshold: float,
    *,
    falling: bool = False,
) -> GrokkingGap:
    """Steps between the training and the validation score reaching a threshold.

    Args:
        train: steps, ascending, and the training score at each, both of shape (n,).
        validation: steps and the validation score at each, both of shape (m,).
        threshold: the value to reach; 1 for an accuracy is the published choice.
        falling: whether a smaller value is the better one, as of a loss.

    Returns:
        Both steps and the gap, in steps.

    Source: "Sep Norm: Generalization of Lion and Normalised Gradient Methods",
    figure 1: the gap is wide where some layers are trained too slowly.

    >>> steps = np.arange(4)
    >>> train, validation = np.array([0.5, 1, 1, 1]), np.array([0, 0, 0.5, 1])
    >>> grokking_gap((steps, train), (steps, validation), threshold=1)
    GrokkingGap(train=1.0, validation=3.0, gap=2.0)
    """
    first, second = (
        first_reached(*series, threshold, falling=falling)
        for series in (train, validation)
    )
    return GrokkingGap(first, second, second - first)
