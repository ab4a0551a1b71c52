"""Steps that a gradient scaler has called off, and the scale it was at."""

import collections
import math
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from dynoscope.loss_scale import ScalerState, overflows
from dynoscope.measurement import Measurement, Subject

__all__ = ["LOSS_SCALE", "Scalers", "Sifted"]

LOSS_SCALE: Final = "dynoscope/loss_scale"
"""By what name the scale is recorded; of further scalers, with a number."""


class Sifted(NamedTuple):
    """Measurements without the steps that were called off.

    Attributes:
        kept: measurements that have a step.
        overflowed: steps that are known by now to have been called off, and were not
            before.
        scales: rows of the `scalars` table.
    """

    kept: list[Measurement]
    overflowed: int
    scales: list[tuple[int, float, str, float]]


class Scalers:
    """Follows gradient scalers along a run, on the writer's thread.

    A step that moves nothing since its gradients overflowed is no rotation by 0. A
    fused optimizer's is taken out; an ordinary one is not even stepped, but its scaler
    shows that it was not.
    """

    def __init__(self) -> None:
        self._known: dict[int | None, _Scaler] = {}
        self._called_off: collections.Counter[int] = collections.Counter()

    def sift(self, batch: Sequence[Measurement]) -> Sifted:
        """Go through consecutive measurements; may wait for their scalers' numbers."""
        before = self._overflowed
        kept, scales = [], []
        for measurement in batch:
            if any(measurement.scalers):
                states = [read and read() for read in measurement.scalers]
                scales += self._follow(measurement, states)
                measurement = self._without_overflow(measurement, states)
            if any(own_step is not None for own_step in measurement.own_steps):
                kept.append(measurement)
        return Sifted(kept, self._overflowed - before, scales)

    @property
    def _overflowed(self) -> int:
        return sum(scaler.overflowed for scaler in self._known.values())

    def _follow(
        self, measurement: Measurement, states: Sequence[ScalerState | None]
    ) -> list[tuple[int, float, str, float]]:
        """Count overflows; give a row for each scaler that had a step."""
        step, rows = measurement.step, []
        present = [state for state in states if state is not None]
        # Optimizers that share a scaler find it in one state: the first speaks for all.
        for state in {state.key: state for state in reversed(present)}.values():
            called_off = any(s.overflowed for s in present if s.key == state.key)
            name = LOSS_SCALE + (f"/{len(self._known)}" if self._known else "")
            scaler = self._known.setdefault(state.key, _Scaler(name))
            scaler.follow(step, state._replace(overflowed=called_off))
            stepped = any(own_step is not None for own_step in measurement.own_steps)
            if stepped and not math.isnan(state.scale):
                rows.append((step, measurement.wall_time, scaler.name, state.scale))
        return rows

    def _without_overflow(
        self, measurement: Measurement, states: Sequence[ScalerState | None]
    ) -> Measurement:
        """The measurement, its steps counted without those that were called off."""
        off = {k for k, s in enumerate(states) if s is not None and s.overflowed}
        own_steps = tuple(
            None if own is None or part in off else own - self._called_off[part]
            for part, own in enumerate(measurement.own_steps)
        )
        self._called_off.update(off)
        counts = measurement.histograms
        if off and counts is not None:
            counts = _without(counts, measurement.subject, off)
        return measurement._replace(own_steps=own_steps, histograms=counts)


class _Scaler:
    """One scaler along a run.

    Attributes:
        name: of its row.
        overflowed: updates that found an overflow.
    """

    def __init__(self, name: str) -> None:
        self.name, self.overflowed = name, 0
        self._last: tuple[int, ScalerState] | None = None

    def follow(self, step: int, state: ScalerState) -> None:
        """Count what has happened up to this state, and at its own step if told."""
        if self._last is not None:
            at, last = self._last
            # What the last step told of itself is counted.
            found = overflows(last, state, step - at)
            self.overflowed += max(found - bool(last.overflowed), 0)
        elif not math.isnan(state.start) and not state.streak:
            self.overflowed += overflows(state._replace(scale=state.start), state, 0)
        self.overflowed += bool(state.overflowed)
        self._last = step, state


def _without(
    counts: Callable[[], npt.NDArray[np.int64]], subject: Subject, off: set[int]
) -> Callable[[], npt.NDArray[np.int64]]:
    """Histograms, but none of optimizers that did not step."""
    parts = list(subject.parts())

    def read() -> npt.NDArray[np.int64]:
        rest = counts().copy()
        for part in off:
            rest[:, parts[part].layers] = 0
        return rest

    return read
