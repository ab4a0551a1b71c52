"""Rows of the `normalization` table: momentum tracing, layer by layer."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dynoscope.measurement import FloatArray, Subject
from dynoscope.metrics.normalization import COMPANIONS, COUNTS, MomentumTracer
from dynoscope.recorder.alike import alike
from dynoscope.recorder.settings import Settings
from dynoscope.theory import DECOUPLED

__all__ = ["ChannelRows"]

EVERY: Final = 128
"""Measured steps for which it is kept once how long each channel has been silent; at
first more often, so that a young run that crashes can be resumed as well."""


class ChannelRows:
    """Follows the channels of all normalization layers of a run.

    Args:
        subject: what is watched.

    Attributes:
        silence: of the steps that came last, by their place, those at which it was
            kept how long each channel has been silent; see `silent`.
    """

    def __init__(self, subject: Subject) -> None:
        layers = subject.normalization
        self._names = pa.array([c.name for c in layers], pa.string())
        self._sizes = np.array([c.channels for c in layers], np.intp)
        self._alike = alike([c.channels for c in layers])
        self._starts = np.cumsum([0, *self._sizes[:-1]], dtype=np.intp)
        groups = [subject.layers[c.layer].group for c in layers]
        self._group = np.repeat(np.array(groups, np.intp), self._sizes)
        if len(set(groups)) == 1:
            self._group = self._group[:1]  # stands for all
        kinds = subject.optimizer.kinds
        self._decoupled = np.array([kind in DECOUPLED for kind in kinds])
        self._tracer = MomentumTracer(int(self._sizes.sum()))
        self._measured = 0
        self.silence: dict[int, list[npt.NDArray[np.int64]]] = {}

    @property
    def silent(self) -> list[npt.NDArray[np.int64]]:
        """Per layer, how long each channel has been silent; -1 if it always was."""
        return self._of_layers(self._tracer.silent)

    def restore(self, step: int, silent: Mapping[str, npt.NDArray[np.int64]]) -> None:
        """Go on after a step, from what `silent` was then, by layer.

        What happened since to channels is taken to have gone on as it was.
        """
        never = [np.full(size, -1) for size in self._sizes]
        names = self._names.to_pylist()
        of_layer = map(silent.get, names, never)
        self._tracer.restore(step, np.concatenate(list(of_layer)))

    def columns(
        self,
        steps: npt.NDArray[np.int64],
        channels: FloatArray,
        settings: Settings,
    ) -> dict[str, Any]:
        """Columns of the table for consecutive measured steps.

        Args:
            steps: their numbers.
            channels: shape (steps, len(CHANNEL_QUANTITIES), channels), float64.
            settings: of each parameter group.
        """
        gradient, weight, update = channels.transpose(1, 0, 2)
        # Each is of shape (steps, channels), or (steps, 1) if they are of one group.
        beta = np.where(
            np.isnan(settings["beta2"]), settings["momentum"], settings["beta2"]
        )
        lr, weight_decay, beta = (
            given[:, self._group]
            for given in (settings["lr"], settings["weight_decay"], beta)
        )
        decay = np.where(self._decoupled[self._group], lr * weight_decay, 0.0)
        masks, silent = self._tracer.update(
            steps, gradient, weight, update, lr=lr, decay=decay, beta=beta
        )
        self.silence = {
            t: self._of_layers(silent[t])
            for t in range(len(steps))
            if _is_kept(self._measured + t + 1)
        }
        self._measured += len(steps)
        return {
            "step": np.repeat(steps, len(self._sizes)),
            "layer": pa.concat_arrays([self._names] * len(steps)),
            "channels": np.tile(self._sizes, len(steps)),
            **{name: self._count(masks[name]) for name in COUNTS},
            **self._companions(weight, update + decay * weight),
        }

    def _of_layers(
        self, channels: npt.NDArray[np.int64]
    ) -> list[npt.NDArray[np.int64]]:
        return np.split(channels, self._starts[1:])

    def _count(self, mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
        return np.add.reduceat(mask, self._starts, axis=-1, dtype=np.int32)

    def _companions(
        self, weight: FloatArray, beyond_decay: FloatArray
    ) -> dict[str, FloatArray]:
        shape = (len(weight), len(self._sizes))
        columns = {name: np.empty(shape) for name in COMPANIONS}
        for group in self._alike:
            units = group.units(weight), group.units(beyond_decay)
            for name, companion in COMPANIONS.items():
                columns[name][:, group.members] = companion(*units)
        return columns


def _is_kept(measured: int) -> bool:
    """Whether this measured step's silence is: see `EVERY`."""
    is_early = measured < EVERY and measured.bit_count() == 1
    return is_early or measured % EVERY == 0
