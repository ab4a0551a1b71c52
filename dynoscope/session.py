"""`watch`: wire hooks to a recorder, and undo it."""

import contextlib
import functools
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from dynoscope.blind import unwatched
from dynoscope.ending import Ending
from dynoscope.errors import DynoscopeError, RunExistsError, UnwatchableError
from dynoscope.findings import Herald, Judge, OnFinding, Rule, Thresholds
from dynoscope.hooks import (
    Models,
    Optimizers,
    Watcher,
    find_watched,
    own_count,
    processes_of,
)
from dynoscope.reader import Run, open_run
from dynoscope.recorder import Bystander, Past, Recorder
from dynoscope.resume import checked_start, first_step, go_on
from dynoscope.schedule import Schedule, as_schedule
from dynoscope.schema import TABLES
from dynoscope.schema.folder import BRANCHES, MANIFEST
from dynoscope.scope import Scope

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["watch"]

_Stand: TypeAlias = tuple[int, Sequence[int]]
"""Number of the next step, and of each optimizer's own (none: as many)."""


@contextlib.contextmanager
def watch(
    model: Models,
    optimizer: Optimizers,
    *,
    run: str | os.PathLike[str] | None = None,
    every: int | Schedule = 1,
    include: str | Sequence[str] | None = None,
    exclude: str | Sequence[str] | None = None,
    neurons: bool = True,
    histograms: bool = False,
    config: Mapping[str, Any] | Any = None,
    resume: bool = False,
    start_step: int | None = None,
    overwrite: bool = False,
    strict: bool = False,
    quiet: bool = False,
    findings: bool = True,
    thresholds: Thresholds | None = None,
    rules: Mapping[str, Rule] | None = None,
    on_finding: OnFinding = None,
    process_group: "ProcessGroup | None" = None,
) -> Iterator[Scope]:
    """Measure how an optimizer moves a model's weights, for the length of a block.

    The training is not changed by it: weights, optimizer state and random
    numbers are bit for bit those of the same block without it. An error of
    dynoscope's own is reported once and ends the measuring, not the training.

    Gradients are those that the optimizer receives: accumulated and clipped, what a
    GradScaler multiplied them by undone; with a closure, those of its first evaluation
    in the step. Steps that the scaler calls off, since gradients overflowed, are
    counted as `overflowed` in the run's progress and not measured. Between measured
    steps so far apart that the scale can have grown it may be more than are counted.
    Its scale is logged as `dynoscope/loss_scale`. Steps that a CUDA graph replays run
    no hooks, and are not seen; the run says so.

    Where several processes train the model, all of them open the block, and the first
    one writes. Replicas (DDP) exchange nothing for it. Of a model that is sharded
    (`fully_shard`, tensor parallelism) each measures its shards; at measured steps,
    which then depend on nothing but the step, the sums are completed by two
    collectives.

    Args:
        model: the model that is trained; several in a sequence or a mapping, whose
            indices or keys their layers' names begin with.
        optimizer: the optimizer that is stepped, or several. Steps are then counted
            in rounds, in which each optimizer steps once at most.
        run: folder to write; None makes one under `runs/` by date and model.
        every: interval of measured steps, or a function from step to bool.
        include: regular expression(s); only layers whose name one of them finds.
        exclude: regular expression(s); no layer whose name one of them finds.
        neurons: whether norms and angles of single neurons are measured too.
        histograms: whether weights and gradients are sorted into bins too, at
            measured steps that grow apart: 20 for each power of ten.
        config: what you want to know of this run later: a mapping, a dataclass,
            or an `argparse.Namespace`.
        resume: continue the run in that folder, from where the training stands; what
            the run holds of later steps moves into a branch, `run.branches`. Where
            there is no run yet, a new one begins.
        start_step: number of the next optimizer step, which `scope.step` was when the
            checkpoint was saved. None asks the optimizer for its own count; one that
            keeps none, as SGD and Lion, goes on after the last recorded step.
        overwrite: replace the run in that folder.
        strict: raise dynoscope's own errors instead of going on without it.
        quiet: do not say what was found, nor at the end where the run is.
        findings: whether rules look for what is odd (`dynoscope.findings`).
        thresholds: from where on they speak up.
        rules: the rules to ask, by name; None for all that are registered.
        on_finding: called with each `Finding` after one of the next steps, or at the
            end of the block, on the training's thread; what it raises ends the
            training. "raise" raises a FindingError for one of severity `error`. It is
            the writing process that finds.
        process_group: the processes that train this model; None for all.

    Yields:
        A `Scope`, to log numbers.

    Raises:
        UnwatchableError: there is nothing to watch; the message says why.
        RunExistsError: the folder holds a run already, or one of another model that
            cannot be resumed, or something else; processes that share a model all
            raise it.
        ScheduleError: `every` makes no sense.
        FindingError: a rule found an error, and on_finding is "raise".
    """
    schedule, start_step = as_schedule(every), checked_start(start_step)
    find = functools.partial(
        find_watched,
        model,
        optimizer,
        include=include,
        exclude=exclude,
        neurons=neurons,
    )
    settings = {
        "config": {} if config is None else config,
        "every": every if isinstance(every, int) else repr(every),
    }

    def begin() -> contextlib.AbstractContextManager[Scope]:
        processes = processes_of(model, process_group)
        watcher = processes.agree(
            lambda: Watcher(find, schedule, histograms=histograms, processes=processes),
            lambda made: (
                made.watched.subject.layers,
                every if isinstance(every, int) else "a schedule",
                histograms,
            ),
        )
        if not processes.writes:
            return _beside(watcher, run, start_step, resume=resume, strict=strict)
        herald = None
        if findings:
            judge = Judge(watcher.watched.subject, thresholds, rules)
            herald = Herald(judge, on_finding, quiet=quiet, strict=strict)
        prepare = functools.partial(
            _prepared, run, watcher, start_step, resume=resume, overwrite=overwrite
        )
        start = functools.partial(_started, watcher, settings, herald, strict)
        return _writing(watcher, prepare, start, herald, quiet=quiet)

    with contextlib.ExitStack() as stack:
        try:
            scope = stack.enter_context(begin())
        except Exception as error:
            if strict or isinstance(error, DynoscopeError | OSError):
                raise
            blind = stack.enter_context(unwatched(optimizer, error))
            scope = Scope(Path(run or "runs"), blind, blind)
        yield scope


@contextlib.contextmanager
def _writing(
    watcher: Watcher,
    prepare: Callable[[], tuple[Path, Past | None, _Stand]],
    start: Callable[[Path, Past | None, int], Recorder],
    herald: Herald | None,
    *,
    quiet: bool,
) -> Iterator[Scope]:
    """Watch and write; `prepare` gives the folder, and where the training stands."""

    def begin() -> tuple[Path, _Stand, Recorder]:
        folder, past, stand = prepare()
        return folder, stand, start(folder, past, stand[0])

    folder, stand, recorder = watcher.processes.lead(begin, lambda begun: begun[:2])
    watcher.start_at(*stand)
    with Ending(folder, watcher, recorder, herald, quiet=quiet):
        watcher.attach(recorder, herald.deliver if herald else None)
        yield Scope(folder, watcher, recorder)


def _started(
    watcher: Watcher,
    settings: dict[str, Any],
    herald: Herald | None,
    strict: bool,
    folder: Path,
    past: Past | None,
    step: int,
) -> Recorder:
    """A recorder at work."""
    subject = watcher.watched.subject
    recorder = Recorder(
        folder, subject, settings, strict=strict, judge=herald, past=past
    )
    if herald is not None and past is not None:
        herald.know(past.said)
    recorder.mark(step, own_count(watcher.watched))
    recorder.start()  # a folder that cannot be written is said here, as it is
    return recorder


@contextlib.contextmanager
def _beside(
    watcher: Watcher,
    run: str | os.PathLike[str] | None,
    start_step: int | None,
    *,
    resume: bool,
    strict: bool,
) -> Iterator[Scope]:
    """Watch on a process that does not write: what its sums need, and the count."""
    processes = watcher.processes
    if processes.sharded:
        folder, stand = processes.follow()
    else:
        folder, stand = Path("runs" if run is None else run), (start_step or 0, ())
        if resume and (folder / MANIFEST).exists():
            left, taken = open_run(folder), own_count(watcher.watched)
            # It is the same before and after the writing process has gone on with it.
            start = first_step(
                left.manifest, left.last_step, start_step=start_step, taken=taken
            )
            stand = start.step, ()
    watcher.start_at(*stand)
    bystander = Bystander(processes.rank, strict=strict)
    try:
        watcher.attach(bystander)
        yield Scope(folder, watcher, bystander)
    finally:
        watcher.detach()


def _prepared(
    run: str | os.PathLike[str] | None,
    watcher: Watcher,
    start_step: int | None,
    *,
    resume: bool,
    overwrite: bool,
) -> tuple[Path, Past | None, _Stand]:
    """The run's folder, ready to be written, what it holds, and the first step."""
    subject = watcher.watched.subject
    folder = Path(run) if run is not None else _fresh_folder(subject.model)
    left = _prepare(folder, resume=resume, overwrite=overwrite)
    if left is None:
        return folder, None, (start_step or 0, ())
    taken = own_count(watcher.watched)
    past = go_on(left, subject, start_step=start_step, taken=taken)
    return folder, past, (past.step, past.own_steps)


def _fresh_folder(model: str) -> Path:
    stem = f"{time.strftime('%Y-%m-%d_%H%M%S')}-{model}"
    for suffix in ("", *(f"-{n}" for n in range(2, 1000))):
        folder = Path("runs") / f"{stem}{suffix}"
        if not folder.exists():
            return folder
    raise RunExistsError(f"no free name like {stem!r} is left in runs/; pass run=")


def _prepare(folder: Path, *, resume: bool, overwrite: bool) -> Run | None:
    """Make the folder ready; give the run to go on with, if one is resumed."""
    if resume and overwrite:
        raise UnwatchableError("resume=True and overwrite=True exclude each other")
    if not (folder / MANIFEST).exists():
        if folder.is_dir() and not any(folder.iterdir()):
            return None
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            raise RunExistsError(
                f"{folder} exists and is not a dynoscope run; "
                "nothing in it was touched. Pass another run="
            ) from None
        return None
    previous = open_run(folder)
    if not (resume or overwrite):
        raise RunExistsError(
            f"{folder} holds a run already ({previous.status}); pass resume=True to "
            "continue it, overwrite=True to replace it, or another run="
        )
    if previous.status == "running":
        raise RunExistsError(f"{folder} is being written by another process right now")
    if resume:
        return previous
    for part in (*TABLES, BRANCHES):
        shutil.rmtree(folder / part, ignore_errors=True)
    (folder / MANIFEST).unlink()
    return None
