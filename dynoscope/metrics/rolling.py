"""Layers' sums to those of modules and whole models."""

import dataclasses

import numpy as np

from dynoscope.measurement import FloatArray
from dynoscope.metrics.derive import LayerSums
from dynoscope.metrics.members import Members
from dynoscope.metrics.turning import combine

__all__ = ["roll_up", "total"]


def roll_up(s: LayerSums, members: Members) -> LayerSums:
    """Layers, along the first axis, taken together as modules.

    A layer that has no gradient, or no momentum, at a step has NaN there
    although nothing is wrong with it; it adds nothing. A NaN that was measured
    (`nonfinite` is not 0) stays.

    Args:
        s: sums of shape (layers, ...).
        members: which layers make each module.

    Returns:
        Sums of shape (modules, ...).
    """
    totals = {
        field.name: total(
            getattr(s, field.name),
            s.nonfinite,
            members,
            np.maximum if field.name == "weight_max" else np.add,
        )
        for field in dataclasses.fields(s)
    }
    totals["turn_sq"] = combine(s.turning, members).turn_sq
    return LayerSums(**totals)


def total(
    column: FloatArray,
    nonfinite: FloatArray,
    members: Members,
    add: np.ufunc = np.add,
) -> FloatArray:
    """Layers, along the first axis, taken together in one column; see `roll_up`."""
    together: FloatArray = members.reduce(column, add)
    if not np.isnan(together).any():
        return together  # then there is no NaN among the layers either
    nothing = (nonfinite == 0) & np.isnan(column)
    together = members.reduce(np.where(nothing, 0.0, column), add)
    together[members.reduce(nothing, np.logical_and)] = np.nan
    return together
