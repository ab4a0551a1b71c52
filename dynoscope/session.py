"""`watch`: wire hooks to a recorder, and undo it."""

import contextlib
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from dynoscope import hooks
from dynoscope.errors import RunExistsError, UnwatchableError
from dynoscope.findings import Herald, Judge, OnFinding, Rule, Thresholds
from dynoscope.hooks import Watched, Watcher, find_watched
from dynoscope.measurement import Rows, ScalarEntry
from dynoscope.reader import Run, open_run
from dynoscope.recorder import Recorder
from dynoscope.schedule import Schedule, as_schedule
from dynoscope.schema import TABLES
from dynoscope.schema.folder import MANIFEST

__all__ = ["Scope", "watch"]


class Scope:
    """The running watch, as `with dynoscope.watch(...) as scope` gives it.

    Attributes:
        run: the run's folder.
    """

    def __init__(
        self, run: Path, watched: Watched, watcher: Watcher, recorder: Recorder
    ) -> None:
        self.run = run
        self._watched = watched
        self._watcher = watcher
        self._recorder = recorder
        self._first_step = watcher.step
        self._lags: dict[str, int] = {}

    @property
    def step(self) -> int:
        """Number of optimizer steps taken: the number of the next one, from 0."""
        return self._watcher.step

    def log(self, *, step: int | None = None, **scalars: float | torch.Tensor) -> None:
        """Record numbers; tensors of one element are taken without waiting.

        A number belongs to the update of its iteration, whether the loop logs
        before or after `optimizer.step()`: a name that is first logged before
        the first step is taken to be logged ahead of steps from then on, any
        other after them. `step` says it outright.

        Args:
            step: the optimizer step that the numbers belong to.
            **scalars: numbers by name.

        Raises:
            TypeError: a value is neither a number nor a tensor of one element.
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
            hooks.full_gradient_rows(self._watched, loader, loss_fn, batches, samples)
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
        return self._record(hooks.invariance_rows(self._watched, loss_fn))

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
            hooks.activity_rows(self._watched, loader, forward, batches, channel_dim)
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
        return self._record(hooks.constraint_rows(self._watched, number))

    def _record(self, rows: Rows) -> pd.DataFrame:
        when = {"step": self.step, "wall_time": time.time()}
        return self._recorder.record(Rows(rows.table, {**when, **rows.columns}))


@contextlib.contextmanager
def watch(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    run: str | os.PathLike[str] | None = None,
    every: int | Schedule = 1,
    include: str | Sequence[str] | None = None,
    exclude: str | Sequence[str] | None = None,
    neurons: bool = True,
    histograms: bool = False,
    config: Mapping[str, Any] | Any = None,
    resume: bool = False,
    overwrite: bool = False,
    strict: bool = False,
    quiet: bool = False,
    findings: bool = True,
    thresholds: Thresholds | None = None,
    rules: Mapping[str, Rule] | None = None,
    on_finding: OnFinding = None,
) -> Iterator[Scope]:
    """Measure how an optimizer moves a model's weights, for the length of a block.

    The training is not changed by it: weights, optimizer state and random
    numbers are bit for bit those of the same block without it. An error of
    dynoscope's own is reported once and ends the measuring, not the training.

    Args:
        model: the model that is trained.
        optimizer: the optimizer that is stepped.
        run: folder to write; None makes one under `runs/` by date and model.
        every: interval of measured steps, or a function from step to bool.
        include: regular expression(s); only layers whose name one of them finds.
        exclude: regular expression(s); no layer whose name one of them finds.
        neurons: whether norms and angles of single neurons are measured too.
        histograms: whether weights and gradients are sorted into bins too, at
            measured steps that grow apart: 20 for each power of ten.
        config: what you want to know of this run later: a mapping, a dataclass,
            or an `argparse.Namespace`.
        resume: continue the run in that folder, after its last recorded step.
        overwrite: replace the run in that folder.
        strict: raise dynoscope's own errors instead of going on without it.
        quiet: do not say what was found, nor at the end where the run is.
        findings: whether rules look for what is odd (`dynoscope.findings`).
        thresholds: from where on they speak up.
        rules: the rules to ask, by name; None for all that are registered.
        on_finding: called with each `Finding` after one of the next steps, or at the
            end of the block, on the training's thread; what it raises ends the
            training. "raise" raises a FindingError for one of severity `error`.

    Yields:
        A `Scope`, to log numbers.

    Raises:
        UnwatchableError: there is nothing to watch; the message says why.
        RunExistsError: the folder holds a run already, or something else.
        ScheduleError: `every` makes no sense.
        FindingError: a rule found an error, and on_finding is "raise".
    """
    schedule = as_schedule(every)
    watched = find_watched(
        model, optimizer, include=include, exclude=exclude, neurons=neurons
    )
    watcher = Watcher(watched, schedule, histograms=histograms)
    judge = Judge(watched.subject, thresholds, rules) if findings else None
    herald = Herald(judge, on_finding, quiet=quiet) if judge else None
    folder = Path(run) if run is not None else _fresh_folder(watched.subject.model)
    watcher.step = _prepare(folder, resume=resume, overwrite=overwrite)
    settings = {
        "config": {} if config is None else config,
        "every": every if isinstance(every, int) else repr(every),
    }
    recorder = Recorder(folder, watched.subject, settings, strict=strict, judge=herald)
    recorder.start()  # a folder that cannot be written is said here, as it is
    failure: BaseException | None = None
    try:
        watcher.attach(recorder, herald.deliver if herald else None)
        yield Scope(folder, watched, watcher, recorder)
    except BaseException as error:
        if not (isinstance(error, SystemExit) and not error.code):
            failure = error
        raise
    finally:
        watcher.detach()
        recorder.close(failure, watcher.skipped)
        if not quiet:
            _say_goodbye(folder, recorder, herald)
        # What raised in the block is not to be hidden by what raises here.
        if herald is not None:
            herald.deliver(only_say=failure is not None)


def _fetcher(name: str, value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        if value.numel() != 1:
            raise TypeError(
                f"scope.log({name}=...) takes one number, not a tensor of shape "
                f"{tuple(value.shape)}; log its mean, or its elements by name"
            )
        # A copy, since the loop may change it in place; on an accelerator the
        # writer's thread does the waiting.
        kept = value.detach().clone()
        return lambda: float(kept)
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(
            f"scope.log({name}=...) takes a number, not {type(value).__name__}"
        ) from None
    return lambda: number


def _fresh_folder(model: str) -> Path:
    stem = f"{time.strftime('%Y-%m-%d_%H%M%S')}-{model}"
    for suffix in ("", *(f"-{n}" for n in range(2, 1000))):
        folder = Path("runs") / f"{stem}{suffix}"
        if not folder.exists():
            return folder
    raise RunExistsError(f"no free name like {stem!r} is left in runs/; pass run=")


def _prepare(folder: Path, *, resume: bool, overwrite: bool) -> int:
    """Make the folder ready; give the number of the first step."""
    if resume and overwrite:
        raise UnwatchableError("resume=True and overwrite=True exclude each other")
    if not (folder / MANIFEST).exists():
        if folder.is_dir() and not any(folder.iterdir()):
            return 0
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            raise RunExistsError(
                f"{folder} exists and is not a dynoscope run; "
                "nothing in it was touched. Pass another run="
            ) from None
        return 0
    previous = open_run(folder)
    if not (resume or overwrite):
        raise RunExistsError(
            f"{folder} holds a run already ({previous.status}); pass resume=True to "
            "continue it, overwrite=True to replace it, or another run="
        )
    if previous.status == "running":
        raise RunExistsError(f"{folder} is being written by another process right now")
    if resume:
        return _next_step(previous)
    for table in TABLES:
        shutil.rmtree(folder / table, ignore_errors=True)
    (folder / MANIFEST).unlink()
    return 0


def _next_step(run: Run) -> int:
    last = run.last_step
    return 0 if last is None else last + 1


def _say_goodbye(folder: Path, recorder: Recorder, herald: Herald | None) -> None:
    progress = recorder.progress
    gaps = "".join(
        f", {progress[kind]} {kind}" for kind in ("skipped", "lost") if progress[kind]
    )
    count = herald.found if herald is not None else 0
    findings = f"\n  {count} findings: dynoscope findings {folder}" if count else ""
    print(
        f"dynoscope: {progress['measured']} steps measured{gaps}, in {folder}; "
        f"look with: dynoscope dash {folder.parent}{findings}"
    )
