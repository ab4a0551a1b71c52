"""`Scope`: what a watched block can log, and measure on demand."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from dynoscope import hooks
from dynoscope.blind import Blind
from dynoscope.errors import MeasurementError
from dynoscope.hooks import Watched, Watcher
from dynoscope.measurement import Rows, ScalarEntry
from dynoscope.metrics.sums import read_later
from dynoscope.recorder import Bystander, Recorder

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Scope"]


class Scope:
    """The running watch, as `with dynoscope.watch(...) as scope` gives it.

    Where several processes train one model, each has one, and one process writes.

    Attributes:
        run: the run's folder or URI; where another process has made up its name, the
            folder that this is in.
        writes: whether this process writes the run; what others log is left out.
    """

    def __init__(
        self,
        run: Path | str,
        watcher: Watcher | Blind,
        recorder: Recorder | Bystander | Blind,
    ) -> None:
        self.run = run
        self.writes = watcher.processes.writes
        self._watcher = watcher
        self._recorder = recorder
        self._first_step = watcher.taken
        self._lags: dict[str, int] = {}

    @property
    def step(self) -> int:
        """Number of optimizer steps taken: the number of the next one, from 0.

        Where several optimizers are watched, a step is a round in which each of them
        stepped once at most.
        """
        return self._watcher.taken

    def state_dict(self) -> dict[str, int]:
        """What a checkpoint should hold: `step`, to pass as `start_step` to `watch`."""
        return {"step": self.step}

    def log(self, *, step: int | None = None, **scalars: float | torch.Tensor) -> None:
        """Record numbers; tensors of one element are taken without waiting.

        A number belongs to the update of its iteration, whether the loop logs
        before or after `optimizer.step()`: a name that is first logged before
        the first step is taken to be logged ahead of steps from then on, any
        other after them. `step` says it outright.

        Gradients are measured as the optimizer receives them. How large they were
        before they were clipped, the loop knows:

            scope.log(grad_norm=clip_grad_norm_(model.parameters(), 1.0))

        Args:
            step: the optimizer step that the numbers belong to.
            **scalars: numbers by name.

        Raises:
            TypeError: a value is neither a number nor a real tensor of one element.
        """
        now = time.time()
        for name, value in scalars.items():
            fetch = _fetcher(name, value)
            lag = self._lags.setdefault(name, int(self.step > self._first_step))
            at = max(self.step - lag, 0) if step is None else step
            self._recorder.log(ScalarEntry(at, now, name, fetch))

    def measure_full_gradient(
        self,
        loader: Iterable[Any],
        loss_fn: hooks.BatchLoss,
        batches: int | None = None,
        *,
        samples: hooks.Samples | None = None,
    ) -> pd.DataFrame:
        """Measure loss and gradient over a data set, the parameters frozen.

        A logging epoch: norms, noise scale and KKT gap of the exact gradient, in
        float64, batches weighted by their samples. It does not change the
        training: `.grad`, buffers, random states, modes and the loader's shuffling
        are afterwards what they were. The model stays in the mode it is in; in
        training mode dropout drops, and BatchNorm normalizes by batch statistics.

        Args:
            loader: a DataLoader, or a list of batches.
            loss_fn: `loss_fn(model, batch)`, the mean loss over the batch; its model
                is the watched one, without the shells of DDP and torch.compile.
            batches: how many batches at most, None for all.
            samples: gives a batch's number of samples, None for the length of the
                first tensor in it.

        Returns:
            The new rows of the `full_gradients` table: one per layer that is
            trained, and `*` for all of them.

        Raises:
            MeasurementError: no batch, a loss that is not one number, or a loss
                that depends on no watched parameter; nothing is recorded.
        """
        return self._record(
            hooks.full_gradient_rows(self._whole, loader, loss_fn, batches, samples)
        )

    def probe_scale_invariance(self, loss_fn: hooks.ModelLoss) -> pd.DataFrame:
        """Find the layers whose scale the loss does not feel, by rescaling them.

        Theory's equilibria hold for these. The model is evaluated up to eight times
        per layer, and is afterwards what it was, as for `measure_full_gradient`.
        Probe in training mode: in evaluation mode a BatchNorm divides by what it
        has stored, and no scale goes unnoticed.

        Args:
            loss_fn: `loss_fn(model)`, the loss on the same data at every call.

        Returns:
            The new rows of the `invariance` table: for each layer `row`, `matrix`,
            `none` or `unseen`, and the changes of the loss that say so.

        Raises:
            MeasurementError: the loss is not one finite number.
        """
        return self._record(hooks.invariance_rows(self._whole, loss_fn))

    def count_dead_channels(
        self,
        loader: Iterable[Any],
        forward: hooks.Forward,
        batches: int | None = None,
        *,
        channel_dim: int | None = None,
    ) -> pd.DataFrame:
        """Count the channels of BatchNorm and ReLU modules that are never positive.

        The training is not changed, as for `measure_full_gradient`.

        Args:
            loader: a DataLoader, or a list of batches.
            forward: `forward(model, batch)` runs the model; a loss will do.
            batches: how many batches at most, None for all.
            channel_dim: dimension of the channels in what a ReLU gives; None is the
                last of three (samples, positions, channels), else the second.

        Returns:
            The new rows of the `activity` table: one per module.

        Raises:
            MeasurementError: no batch, or no module to look at.
        """
        return self._record(
            hooks.activity_rows(self._whole, loader, forward, batches, channel_dim)
        )

    def measure_constraint(
        self, loss: float | torch.Tensor | None = None
    ) -> pd.DataFrame:
        """Measure where Lion or LionK stands in the problem that it solves.

        Args:
            loss: the loss at these weights, best over the whole data set, for the
                Lyapunov function; None leaves it out.

        Returns:
            The new rows of the `constraint` table: one per layer (where K sees
            layers) and `*` for all of them.

        Raises:
            MeasurementError: the optimizer has no K, or one of your own that gives
                its gradient alone.
        """
        number = None if loss is None else _fetcher("loss", loss)()
        return self._record(hooks.constraint_rows(self._whole, number))

    @property
    def _whole(self) -> Watched:
        """What is watched, provided that all of it is here."""
        if self._watcher.processes.sharded:
            raise MeasurementError(
                "this needs the whole model in each process, and it is sharded; load a "
                "checkpoint of it into a model that is not, and watch that"
            )
        return self._watcher.watched

    def _record(self, rows: Rows) -> pd.DataFrame:
        when = {"step": self.step, "wall_time": time.time()}
        return self._recorder.record(Rows(rows.table, {**when, **rows.columns}))


def _fetcher(name: str, value: Any) -> Callable[[], float]:
    if isinstance(value, torch.Tensor):
        if value.numel() != 1:
            raise TypeError(
                f"scope.log({name}=...) takes one number, not a tensor of shape "
                f"{tuple(value.shape)}; log its mean, or its elements by name"
            )
        if value.is_complex():
            raise TypeError(
                f"scope.log({name}=...) takes a real number, not {value.dtype}; "
                "log its .real, .imag or .abs()"
            )
        return read_later(value)
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(
            f"scope.log({name}=...) takes a number, not {type(value).__name__}"
        ) from None
    return lambda: number
