"""Modules and whole models, rolled up exactly from the rows of their layers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from dynoscope.measurement import FloatArray
from dynoscope.metrics.derive import (
    LAYER_METRICS,
    derive,
    sums_of,
)
from dynoscope.metrics.members import Members
from dynoscope.metrics.rolling import roll_up, total
from dynoscope.reader.turns import as_of_last_turns, turns_of
from dynoscope.schema import TABLES
from dynoscope.schema.levels import numbers_of

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "is_roll_up",
    "members_of",
    "needed_for",
    "roll_up_columns",
    "roll_up_frame",
    "roll_ups_columns",
    "roll_ups_of",
]

_ZEROED: Final = (
    "numel",
    "nonfinite",
    "weight_norm",
    "weight_max",
    "update_norm",
    "weight_update_cos",
    "angular_update",
    "unmoved_share",
)
"""What a layer that is not there has 0 of; what else it has is not known: NaN."""

_TURNING: Final = ("weight_norm", "update_norm", "weight_update_cos", "angular_update")
_NEEDED: Final[Mapping[str, Sequence[str]]] = {
    "grad_ratio": ("grad_l1", "grad_l2"),
    "grad_density": ("grad_l1", "grad_l2"),
    **dict.fromkeys((*_TURNING[1:], "update_ratio"), _TURNING),
    "weight_grad_cos": ("weight_grad_cos", "weight_norm", "grad_l2"),
    "momentum_grad_cos": ("momentum_grad_cos", "momentum_norm", "grad_l2"),
    "update_grad_cos": ("update_grad_cos", "grad_l2", *_TURNING),
    "weight_scaled_grad_cos": (
        *("weight_scaled_grad_cos", "weight_norm", "scaled_grad_norm"),
    ),
    "outside_share": ("outside_share", "box_share"),
    "effective_weight_decay": ("effective_weight_decay", "weight_norm"),
    "pred_angular_update": ("pred_angular_update", "pred_weight_norm"),
    "pred_effective_angular_update": (
        *("pred_effective_angular_update", "pred_effective_weight_norm"),
    ),
    "traj_angular_update": ("traj_angular_update", "traj_weight_norm"),
}
"""Columns of layers that go into one of a roll-up, where it is more than the same."""


def is_roll_up(name: str) -> bool:
    """Whether a layer's name stands for a module or the whole model.

    >>> [is_roll_up(name) for name in ("*", "features.*", "features.0.weight")]
    [True, True, False]
    """
    return name == "*" or name.endswith(".*")


def members_of(roll_up: str, layers: Sequence[str]) -> list[str]:
    """The layers that a roll-up takes together.

    >>> members_of("a.*", ["a.weight", "a.b.weight", "ab.weight"])
    ['a.weight', 'a.b.weight']
    """
    prefix = roll_up.removesuffix("*")
    return [layer for layer in layers if layer.startswith(prefix)]


def roll_ups_of(layers: Sequence[str]) -> list[str]:
    """Every roll-up there is: the whole model, then each module with layers.

    >>> roll_ups_of(["a.b.weight", "head"])
    ['*', 'a.*', 'a.b.*']
    """
    found = {"*": None}
    for layer in layers:
        path = layer.split(".")[:-1]
        for depth in range(1, len(path) + 1):
            found[".".join([*path[:depth], "*"])] = None
    return list(found)


def needed_for(metrics: Iterable[str]) -> list[str]:
    """The columns of layers from which those of a roll-up follow.

    >>> needed_for(["grad_ratio", "grad_l2"])
    ['nonfinite', 'grad_ratio', 'grad_l1', 'grad_l2']
    """
    found = ["nonfinite"]  # tells which layers have a row
    for metric in metrics:
        found += [metric, *_NEEDED.get(metric, ())]  # itself, of a module of one layer
    return list(dict.fromkeys(found))


def roll_up_frame(
    name: str, rows: pd.DataFrame, manifest: Mapping[str, Any]
) -> pd.DataFrame:
    """Rows of a roll-up, one per step, with all columns of `layers`.

    Learning rate, weight decay and half-life are NaN where the layers differ. Of layers
    that take turns, each counts as of its last turn, once all have had one.

    Args:
        name: the roll-up's name.
        rows: all columns of `layers` for all of its layers.
        manifest: of the run, which knows the turns.
    """
    if rows.empty:
        return rows
    layers = rows["layer"].unique()
    index = rows.set_index(["step", "layer"])
    wide = {
        column: index[column].unstack().reindex(columns=layers)
        for column in TABLES["layers"].names()
        if column not in ("step", "layer")
    }
    arrays = {key: frame.to_numpy(dtype=float) for key, frame in wide.items()}
    arrays = as_of_last_turns(turns_of(manifest, layers.tolist()), arrays)
    is_there = ~np.isnan(arrays["nonfinite"]).all(axis=1)
    arrays = {key: array[is_there] for key, array in arrays.items()}
    rolled = {
        "step": wide["numel"].index.to_numpy()[is_there],
        "wall_time": np.nanmax(arrays["wall_time"], axis=1),
        "layer": name,
        **roll_up_columns(arrays),
    }
    rolled["numel"] = rolled["numel"].astype(int)
    import pandas as pd

    return pd.DataFrame(rolled)[TABLES["layers"].names()]


def roll_up_columns(
    arrays: Mapping[str, FloatArray], metrics: Iterable[str] | None = None
) -> dict[str, FloatArray]:
    """Columns of a roll-up from those of its layers.

    Args:
        arrays: `numel`, settings, measured and predicted columns of `layers`,
            each of shape (steps, layers); those that are needed, if not all are wanted.
        metrics: the columns wanted; None for all.

    Returns:
        The same columns, each of shape (steps,).
    """
    if metrics is not None:
        unknown = np.full(arrays["nonfinite"].shape, np.nan)
        every = {name: arrays.get(name, unknown) for name in numbers_of("layers")}
        rolled = roll_up_columns({**every, "numel": arrays["numel"]})
        return {name: rolled[name] for name in metrics}
    count = arrays["numel"].shape[1]
    turned = {name: array.T for name, array in arrays.items()}
    rolled = roll_ups_columns(turned, Members([range(count)]))
    return {name: column[0] for name, column in rolled.items()}


def roll_ups_columns(
    arrays: Mapping[str, FloatArray], members: Members
) -> dict[str, FloatArray]:
    """Columns of several roll-ups from those of layers.

    A layer that has no row at a step, since its optimizer did not step in that round,
    adds nothing there; where none has, all is NaN. A module of one layer is that layer.

    Args:
        arrays: `numel`, settings, measured and predicted columns of `layers`,
            each of shape (layers, steps).
        members: which layers make each module.

    Returns:
        The same columns, each of shape (modules, steps).
    """
    absent = np.isnan(arrays["nonfinite"])
    given = arrays
    if absent.any():
        arrays = _without(absent, arrays)
    of_layers = sums_of({m: arrays[m] for m in LAYER_METRICS}, arrays["numel"])
    sums = roll_up(of_layers, members)
    common = {
        name: _common(arrays[name], absent, members)
        for name in ("lr", "weight_decay", "pred_half_life")
    }
    pred_update_sq = members.reduce(arrays["pred_update_rms"] ** 2)
    rolled = {
        "numel": sums.numel,
        **common,
        "kkt_gap": total(arrays["kkt_gap"], arrays["nonfinite"], members),
        "effective_weight_decay": _effective_weight_decay(arrays, members),
        **derive(sums),
        "pred_update_rms": np.sqrt(pred_update_sq),
        **_turning(arrays, "pred_", members),
        **_turning(arrays, "pred_effective_", members),
        **_turning(arrays, "traj_", members),
    }
    modules, layers = members.single
    gone = members.reduce(absent, np.logical_and)
    for name, column in rolled.items():
        column[modules] = given[name][layers]
        column[gone] = np.nan
    return rolled


def _without(
    absent: npt.NDArray[np.bool_], arrays: Mapping[str, FloatArray]
) -> dict[str, FloatArray]:
    """Columns in which layers without a row are nothing: no weights, no update."""
    present = {
        name: np.where(absent, 0.0 if name in _ZEROED else np.nan, column)
        for name, column in arrays.items()
    }
    for name in arrays:
        if name.startswith(("pred_", "traj_")):
            present[name] = np.where(absent, 0.0, arrays[name])
    return present


def _effective_weight_decay(
    arrays: Mapping[str, FloatArray], members: Members
) -> FloatArray:
    """How fast the squared norm of all layers decays: layers count by theirs."""
    weight_sq = arrays["weight_norm"] ** 2
    with np.errstate(invalid="ignore", divide="ignore"):
        decayed = arrays["effective_weight_decay"] * weight_sq
        decayed[weight_sq == 0] = 0.0
        decay: FloatArray = members.reduce(decayed) / members.reduce(weight_sq)
    return decay


def _turning(
    arrays: Mapping[str, FloatArray], prefix: str, members: Members
) -> dict[str, FloatArray]:
    """Norms add in squares; the angle is that of all layers turning at once."""
    of_layers = arrays[f"{prefix}weight_norm"] ** 2
    with np.errstate(invalid="ignore", divide="ignore"):
        turned_sq = of_layers * arrays[f"{prefix}angular_update"] ** 2
        weight_sq = members.reduce(of_layers)
        angle = np.sqrt(members.reduce(turned_sq) / weight_sq)
    return {
        f"{prefix}weight_norm": np.sqrt(weight_sq),
        f"{prefix}angular_update": angle,
    }


def _common(
    values: FloatArray, absent: npt.NDArray[np.bool_], members: Members
) -> FloatArray:
    """The value of the layers that are there where all agree, else NaN."""
    least, most = values, values
    if absent.any():
        least, most = (np.where(absent, end, values) for end in (np.inf, -np.inf))
    lowest, highest = (
        members.reduce(least, np.minimum),
        members.reduce(most, np.maximum),
    )
    return np.where(lowest == highest, highest, np.nan)
