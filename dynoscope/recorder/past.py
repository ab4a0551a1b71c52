"""What a run held when a training resumed it, and the sums behind its rows."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dynoscope.measurement import FloatArray, GroupState, Subject
from dynoscope.metrics.derive import LAYER_METRICS, LayerSums, sums_of
from dynoscope.recorder.settings import Settings
from dynoscope.schema import TABLES
from dynoscope.schema.pivot import pivot

__all__ = ["Past", "RecordedSteps", "last_silence", "steps_in"]


@dataclasses.dataclass(frozen=True)
class Past:
    """A run that is gone on with.

    Attributes:
        manifest: its manifest, as it was left.
        step: number of the first new step.
        own_steps: per optimizer, the number of its own first new step.
        branch: name of the branch that holds what was superseded, if anything was.
        measured: measured steps that are left.
        last_step: the newest of them, None if there is none.
        changes: steps at which what is watched became other than before.
        notes: what the user should know.
        said: rule and layer of each finding that is left.
        rows: gives what predictions and rules have to follow: rows of `layers`,
            `groups`, `normalization` and `silence`, consecutive steps at a time.
    """

    manifest: Mapping[str, Any]
    step: int
    own_steps: tuple[int, ...]
    branch: str | None
    measured: int
    last_step: int | None
    changes: Sequence[int]
    notes: Sequence[str]
    said: Sequence[tuple[str, str]]
    rows: Iterator[Mapping[str, pa.Table]]


class RecordedSteps(NamedTuple):
    """Measured steps of one optimizer, as its rows give them back.

    Attributes:
        steps: numbers of the rounds, shape (steps,).
        own_steps: numbers of the optimizer's own steps, shape (steps,).
        settings: of its parameter groups.
        sums: of its layers, shape (steps, layers), rounded to float32 here and there.
    """

    steps: npt.NDArray[np.int64]
    own_steps: npt.NDArray[np.int64]
    settings: Settings
    sums: LayerSums


def steps_in(
    tables: Mapping[str, pa.Table], subject: Subject, first_group: int
) -> RecordedSteps:
    """The steps of one optimizer in rows of `layers` and `groups`.

    Args:
        tables: rows of the same steps.
        subject: what the optimizer moves.
        first_group: where its parameter groups begin among those of all optimizers.
    """
    names = [layer.name for layer in subject.layers]
    layers = pivot(tables["layers"], "layer", names)
    numbers = range(first_group, first_group + len(subject.optimizer.kinds))
    groups = pivot(tables["groups"], "group", list(numbers))
    # A damaged file may have taken the rows of one table and not of the other.
    steps = np.intersect1d(layers["step"], groups["step"])
    layers = {n: c[np.isin(layers["step"], steps)] for n, c in layers.items()}
    groups = {n: c[np.isin(groups["step"], steps)] for n, c in groups.items()}
    numel: FloatArray = np.array([layer.numel for layer in subject.layers], float)
    metrics = {name: layers[name] for name in LAYER_METRICS}
    return RecordedSteps(
        steps.astype(np.int64),
        groups["own_step"][:, 0].astype(np.int64),
        Settings(_states(groups)),
        sums_of(metrics, np.broadcast_to(numel, (len(steps), len(numel)))),
    )


def last_silence(
    tables: Mapping[str, pa.Table], subject: Subject, recorded: RecordedSteps
) -> tuple[int, dict[str, npt.NDArray[np.int64]]] | None:
    """How long channels were silent, when it was recorded last.

    Returns:
        The number of the optimizer's own step, and `silent` of each normalization
        layer; None if these rows do not say.
    """
    own_step = dict(zip(recorded.steps.tolist(), recorded.own_steps, strict=True))
    names = {norm.name for norm in subject.normalization}
    found: dict[int, dict[str, npt.NDArray[np.int64]]] = {}
    for row in tables["silence"].to_pylist():
        if row["layer"] in names and row["step"] in own_step:
            of_step = found.setdefault(row["step"], {})
            of_step[row["layer"]] = np.array(row["silent"], np.int64)
    if not found:
        return None
    last = max(found)
    return int(own_step[last]), found[last]


def _states(groups: Mapping[str, np.ndarray]) -> list[tuple[GroupState, ...]]:
    names = TABLES["groups"].names("setting")
    settings = np.stack([groups[name] for name in names], axis=-1)
    return [
        tuple(_state(dict(zip(names, values, strict=True))) for values in of_step)
        for of_step in settings.tolist()
    ]


def _state(settings: dict[str, float]) -> GroupState:
    # NaN where the run is older than the column: it knew of no such thing.
    extra = {name: settings.pop(name) for name in ("dampening", "nesterov", "maximize")}
    dampening, nesterov, maximize = np.nan_to_num(list(extra.values()))
    return GroupState(
        **settings,
        dampening=float(dampening),
        nesterov=bool(nesterov),
        maximize=bool(maximize),
    )
