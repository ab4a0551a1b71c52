"""Rounds of several optimizers, taken apart into the steps of each."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dynoscope.measurement import (
    FloatArray,
    GroupState,
    Host,
    Measurement,
    Part,
    Subject,
)

__all__ = ["Observed", "Splitter"]


class Observed(NamedTuple):
    """A measured step of one optimizer; see `Measurement`.

    Attributes:
        step: number of the round.
        own_step: number of the optimizer's own step.
        wall_time: seconds since the epoch, when the round ended.
        host: sums of its layers.
        groups: hyperparameters of its parameter groups.
        has_grad: per layer, whether it had a gradient.
        limits: per layer, 1 / weight_decay where that is decoupled, else inf.
    """

    step: int
    own_step: int
    wall_time: float
    host: Host
    groups: tuple[GroupState, ...]
    has_grad: npt.NDArray[np.bool_]
    limits: FloatArray


class Splitter:
    """Takes rounds apart.

    Args:
        subject: what is watched.

    Attributes:
        parts: what each optimizer moves; where layers take turns, in each of them.
    """

    def __init__(self, subject: Subject) -> None:
        found = [
            (turn, optimizer, part)
            for turn in sorted({layer.turn for layer in subject.layers})
            for optimizer, part in enumerate(subject.parts(turn))
            if part.layers.size
        ]
        self._turns = [(turn, optimizer) for turn, optimizer, _ in found]
        self.parts = tuple(part for _, _, part in found)
        self._rows = _places(self.parts, [la.rows for la in subject.layers])
        self._channels = _places(
            [p._replace(layers=p.normalization) for p in self.parts],
            [norm.channels for norm in subject.normalization],
        )

    def split(self, batch: Sequence[Measurement]) -> list[list[Observed]]:
        """Per part, its measured steps in their order; waits for the numbers."""
        found: list[list[Observed]] = [[] for _ in self.parts]
        for measurement in batch:
            host, groups = measurement.fetch(), measurement.groups()
            for index, (turn, optimizer) in enumerate(self._turns):
                own_step = measurement.own_steps[optimizer]
                if own_step is not None and measurement.turn == turn:
                    found[index].append(
                        self._observed(index, own_step, measurement, host, groups)
                    )
        return found

    def _observed(
        self,
        index: int,
        own_step: int,
        measurement: Measurement,
        host: Host,
        groups: tuple[GroupState, ...],
    ) -> Observed:
        part = self.parts[index]
        if len(self.parts) > 1:
            host = Host(
                host.sums[:, part.layers],
                host.rows[:, self._rows[index]],
                host.channels[:, self._channels[index]],
            )
        return Observed(
            measurement.step,
            own_step,
            measurement.wall_time,
            host,
            groups[part.groups],
            measurement.has_grad[part.layers],
            measurement.limits[part.layers],
        )


def _places(parts: Sequence[Part], widths: Sequence[int]) -> list[npt.NDArray[np.intp]]:
    """Per part, where its columns are when every layer has as many as its width."""
    ends = np.cumsum(widths, dtype=np.intp)
    runs = [
        np.arange(end - width, end) for end, width in zip(ends, widths, strict=True)
    ]
    nothing = np.empty(0, np.intp)
    return [np.concatenate([nothing, *(runs[i] for i in p.layers)]) for p in parts]
