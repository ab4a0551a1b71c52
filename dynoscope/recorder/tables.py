"""Measured steps of one optimizer to the rows of each table."""

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dynoscope.measurement import FloatArray, Rows, Subject
from dynoscope.metrics.box import kkt_gap
from dynoscope.metrics.derive import LayerSums, derive
from dynoscope.metrics.neurons import NEURON_METRICS, summarize
from dynoscope.recorder.alike import alike
from dynoscope.recorder.imposed import Imposed
from dynoscope.recorder.manifest import plain
from dynoscope.recorder.normalization import ChannelRows
from dynoscope.recorder.past import last_silence, steps_in
from dynoscope.recorder.predictions import Predictor
from dynoscope.recorder.rounds import Observed
from dynoscope.recorder.sections import Sections
from dynoscope.recorder.sensitivity import Sensitivity
from dynoscope.recorder.settings import Settings
from dynoscope.recorder.trajectories import Trajectories
from dynoscope.schema import TABLES
from dynoscope.schema.arrow import arrow_schema
from dynoscope.theory import DECOUPLED

__all__ = ["PartTables", "arrays", "finding_columns", "row_batch", "scalar_columns"]

Columns = Mapping[str, Any]

_OF_GRADIENT = ("grad_sq", "grad_abs", "weight_grad", "momentum_grad", "grad_update")
_OF_SECOND_MOMENT = ("scaled_grad_sq", "weight_scaled_grad")
_OF_MOMENTUM = ("momentum_sq", "momentum_grad")
_PREDICTED = (*TABLES["layers"].names("predicted"), "effective_weight_decay")


class PartTables:
    """Rows of one optimizer's layers; keeps what predictions need from step to step.

    Args:
        subject: what it moves.
        first_group: where its parameter groups begin among those of all optimizers.
        sections: runs what makes sections of the rows.
    """

    def __init__(self, subject: Subject, first_group: int, sections: Sections) -> None:
        self._sections = sections
        self._subject, self._first_group = subject, first_group
        self._numel = np.array([layer.numel for layer in subject.layers])
        self._group = np.array([layer.group for layer in subject.layers])
        self._lr_factor = np.array([layer.lr_factor for layer in subject.layers])
        decoupled = [kind in DECOUPLED for kind in subject.optimizer.kinds]
        self._decoupled = np.array(decoupled)[self._group]
        self._names = pa.array([layer.name for layer in subject.layers])
        self._predictor = Predictor(subject)
        self._sensitivity = Sensitivity(subject)
        self._trajectories = Trajectories(subject)
        self._imposed = Imposed(subject)
        self._with_rows = [layer for layer in subject.layers if layer.rows]
        self._row_names = pa.array([layer.name for layer in self._with_rows])
        self._row_lengths = np.array([la.numel // la.rows for la in self._with_rows])
        self._row_groups = alike([layer.rows for layer in self._with_rows])
        self._channels = ChannelRows(subject)
        self._unkept: int | None = None  # last step, if its silence is not recorded

    @property
    def problems(self) -> list[str]:
        """What could not be predicted, and why."""
        return [*self._predictor.problems, *self._trajectories.problems]

    def follow(self, tables: Mapping[str, pa.Table]) -> None:
        """Let predictions follow steps that a run holds; see `TableBuilder.follow`."""
        recorded = steps_in(tables, self._subject, self._first_group)
        if len(recorded.steps):
            _, steps, settings, sums = recorded
            self._predicted(steps, settings, sums, self._downhill(settings, sums))
        silence = last_silence(tables, self._subject, recorded)
        if silence is not None:
            self._channels.restore(*silence)

    def finish(self) -> dict[str, list[pa.Array]]:
        """Rows that can be built only now that there are no more steps."""
        if self._unkept is None:
            return {}
        last = self._silence({self._unkept: self._channels.silent})
        return {"silence": arrays("silence", last)}

    def build(self, seen: Observed) -> dict[str, list[pa.Array]]:
        """Rows of every table for consecutive measured steps, in their order."""
        tables = {
            "layers": arrays("layers", self._layers(seen)),
            "groups": arrays("groups", self._groups(seen)),
        }
        if self._with_rows:
            tables |= self._sections.attempt(
                "neurons", lambda: {"neurons": arrays("neurons", self._neurons(seen))}
            )
        if self._subject.normalization:
            tables |= self._sections.attempt(
                "normalization", lambda: self._normalization(seen)
            )
        return tables

    def _layers(self, seen: Observed) -> Columns:
        settings, boxed = seen.settings, np.isfinite(seen.limits) * self._numel
        # A copy: what does not exist is taken out.
        named = LayerSums.of(self._numel, seen.host.sums.copy(), boxed)
        for name in (*_OF_GRADIENT, *_OF_SECOND_MOMENT):
            getattr(named, name)[~seen.has_grad] = np.nan
        if not self._subject.optimizer.has_second_moment:
            for name in _OF_SECOND_MOMENT:
                getattr(named, name)[:] = np.nan
        has_momentum = self._has_momentum(settings)
        for name in _OF_MOMENTUM:
            getattr(named, name)[~has_momentum] = np.nan
        decay = settings["weight_decay"][:, self._group]
        box_decay = np.where(self._decoupled, decay, np.nan)
        downhill = self._downhill(settings, named)
        steps, layers = boxed.shape
        return {
            "step": np.repeat(seen.rounds, layers),
            "wall_time": np.repeat(seen.wall_times, layers),
            "layer": pa.concat_arrays([self._names] * steps),
            "numel": np.tile(self._numel, steps),
            "lr": settings["lr"][:, self._group] * self._lr_factor,
            "weight_decay": decay,
            **derive(named),
            "kkt_gap": kkt_gap(downhill, box_decay),
            **self._predicted(seen.steps, settings, named, downhill),
        }

    def _predicted(
        self,
        steps: npt.NDArray[np.int64],
        settings: Settings,
        sums: LayerSums,
        downhill: LayerSums,
    ) -> dict[str, FloatArray]:
        predicted = {name: np.full(sums.weight_sq.shape, np.nan) for name in _PREDICTED}
        effective_grad_sq = sums.grad_sq * sums.weight_sq
        sections: dict[str, Callable[[], dict[str, FloatArray]]] = {
            "predictions": lambda: self._predictor.predict(settings, effective_grad_sq),
            "effective weight decay": lambda: self._sensitivity.columns(
                settings, downhill
            ),
            "trajectories": lambda: self._trajectories.predict(steps, settings, sums),
        }
        for section, work in sections.items():
            predicted |= self._sections.attempt(section, work)
        return self._imposed.columns(settings, np.sqrt(sums.weight_sq), predicted)

    def _downhill(self, settings: Settings, sums: LayerSums) -> LayerSums:
        """The sums for the gradient of what is minimised, also where it is -loss."""
        sign = 1.0 - 2.0 * settings["maximize"][:, self._group]
        return dataclasses.replace(
            sums,
            weight_grad=sign * sums.weight_grad,
            weight_scaled_grad=sign * sums.weight_scaled_grad,
        )

    def _has_momentum(self, settings: Settings) -> npt.NDArray[np.bool_]:
        """Where a momentum exists: not in an unknown optimizer, nor in plain SGD."""
        known = self._subject.optimizer.has_momentum
        coefficient = settings["momentum"][:, self._group]
        mask: npt.NDArray[np.bool_] = np.logical_and(coefficient != 0, known)
        return mask

    def _neurons(self, seen: Observed) -> Columns:
        rows, steps = seen.host.rows, len(seen.rounds)
        shape = (steps, len(self._with_rows))
        columns = {name: np.empty(shape) for name in NEURON_METRICS}
        for group in self._row_groups:
            units = np.moveaxis(group.units(rows), 1, -2)
            found = summarize(units, self._row_lengths[group.members, np.newaxis])
            for name, column in columns.items():
                column[:, group.members] = found[name]
        return {
            "step": np.repeat(seen.rounds, len(self._with_rows)),
            "layer": pa.concat_arrays([self._row_names] * steps),
            **columns,
        }

    def _normalization(self, seen: Observed) -> dict[str, list[pa.Array]]:
        rounds, channels = seen.rounds, seen.host.channels
        columns = {
            **self._channels.columns(seen.steps, channels, seen.settings),
            "step": np.repeat(rounds, len(self._subject.normalization)),
        }
        tables = {"normalization": arrays("normalization", columns)}
        kept = {int(rounds[at]): s for at, s in self._channels.silence.items()}
        if kept:
            tables["silence"] = arrays("silence", self._silence(kept))
        last = int(rounds[-1])
        self._unkept = None if last in kept else last
        return tables

    def _silence(
        self, of_step: Mapping[int, Sequence[npt.NDArray[np.int64]]]
    ) -> Columns:
        names = [norm.name for norm in self._subject.normalization]
        return {
            "step": np.repeat(list(of_step), len(names)),
            "layer": names * len(of_step),
            "silent": [silent for layers in of_step.values() for silent in layers],
        }

    def _groups(self, seen: Observed) -> Columns:
        names = TABLES["groups"].names("setting")
        columns = {name: seen.settings[name] for name in names}
        steps, count = columns["lr"].shape
        return {
            "step": np.repeat(seen.rounds, count),
            "group": np.tile(self._first_group + np.arange(count), steps),
            "own_step": np.repeat(seen.steps, count),
            **columns,
        }


def scalar_columns(rows: Sequence[tuple[int, float, str, float]]) -> list[pa.Array]:
    """Rows (step, wall_time, name, value) of the `scalars` table."""
    names = TABLES["scalars"].names()
    columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    return arrays("scalars", columns)


def row_batch(rows: Rows) -> pa.RecordBatch:
    """Rows that were measured on demand, as they are written."""
    values = np.broadcast_arrays(*rows.columns.values())
    columns = dict(zip(rows.columns, values, strict=True))
    schema = arrow_schema(rows.table)
    return pa.record_batch(arrays(rows.table, columns), schema=schema)


def finding_columns(rows: Sequence[Mapping[str, Any]]) -> list[pa.Array]:
    """Rows of the `findings` table; evidence is a mapping from names to numbers."""
    columns = {name: [row[name] for row in rows] for name in TABLES["findings"].names()}
    columns["evidence"] = [json.dumps(plain(each)) for each in columns["evidence"]]
    return arrays("findings", columns)


def arrays(table: str, columns: Columns) -> list[pa.Array]:
    """A table's columns as it is written."""
    # Too large for float32 becomes infinite there, which is what it means.
    with np.errstate(over="ignore"):
        return [_array(columns[name], *types) for name, types in _types(table).items()]


@functools.cache
def _types(table: str) -> Mapping[str, tuple[pa.DataType, Any]]:
    """Per column, its Arrow type, and numpy's type where it is of numbers."""
    fields = list(arrow_schema(table))
    kinds = pa.types.is_integer, pa.types.is_floating
    numeric = [field for field in fields if any(kind(field.type) for kind in kinds)]
    numbers = {field.name: field.type.to_pandas_dtype() for field in numeric}
    return {field.name: (field.type, numbers.get(field.name)) for field in fields}


def _array(values: Any, dtype: pa.DataType, numbers: Any) -> pa.Array:
    if isinstance(values, pa.Array):
        return values
    if not isinstance(values, np.ndarray):
        return pa.array(values, dtype)
    flat = values.reshape(-1)
    if numbers is None:
        return pa.array(flat, dtype)
    # What `pa.array` would do, in half the time.
    data = pa.py_buffer(flat.astype(numbers))
    return pa.Array.from_buffers(dtype, len(flat), [None, data])
