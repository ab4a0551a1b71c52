"""Rounds of several optimizers, taken apart into the steps of each."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dynoscope.measurement import FloatArray, Host, Measurement, Part, Subject
from dynoscope.metrics.shipping import stacked
from dynoscope.recorder.settings import Settings

__all__ = ["Observed", "Splitter"]


class Observed(NamedTuple):
    """Consecutive measured steps of one optimizer; see `Measurement`.

    Attributes:
        rounds: numbers of the rounds, shape (steps,).
        steps: numbers of the optimizer's own steps, shape (steps,).
        wall_times: seconds since the epoch, when each round ended.
        host: sums of its layers, with a first axis of steps; not to be written to.
        settings: hyperparameters of its parameter groups.
        has_grad: whether a layer had a gradient, shape (steps, layers).
        limits: 1 / weight_decay where that is decoupled, else inf, the same shape.
    """

    rounds: npt.NDArray[np.int64]
    steps: npt.NDArray[np.int64]
    wall_times: FloatArray
    host: Host
    settings: Settings
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

    def split(self, batch: Sequence[Measurement]) -> list[Observed | None]:
        """Per part, its measured steps in their order; waits for the numbers."""
        return [self._observed(index, batch) for index in range(len(self.parts))]

    def _observed(self, index: int, batch: Sequence[Measurement]) -> Observed | None:
        """The steps of a part, None if there are none."""
        part, (turn, optimizer) = self.parts[index], self._turns[index]
        mine = [
            measurement
            for measurement in batch
            if measurement.turn == turn and measurement.own_steps[optimizer] is not None
        ]
        if not mine:
            return None
        host = stacked([measurement.fetch for measurement in mine])
        has_grad = np.array([measurement.has_grad for measurement in mine])
        limits = np.array([measurement.limits for measurement in mine])
        if len(self.parts) > 1:
            host = Host(
                host.sums[..., part.layers],
                host.rows[..., self._rows[index]],
                host.channels[..., self._channels[index]],
            )
            has_grad, limits = has_grad[:, part.layers], limits[:, part.layers]
        return Observed(
            np.array([measurement.step for measurement in mine]),
            np.array([measurement.own_steps[optimizer] for measurement in mine]),
            np.array([measurement.wall_time for measurement in mine]),
            host,
            Settings([measurement.groups()[part.groups] for measurement in mine]),
            has_grad,
            limits,
        )


def _places(parts: Sequence[Part], widths: Sequence[int]) -> list[npt.NDArray[np.intp]]:
    """Per part, where its columns are when every layer has as many as its width."""
    ends = np.cumsum(widths, dtype=np.intp)
    runs = [
        np.arange(end - width, end) for end, width in zip(ends, widths, strict=True)
    ]
    nothing = np.empty(0, np.intp)
    return [np.concatenate([nothing, *(runs[i] for i in p.layers)]) for p in parts]
